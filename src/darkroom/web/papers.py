"""What the page shows beside the answers: the model's card, and pictures to try."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from darkroom.bundle import CARD_FILE
from darkroom.errors import ImageError, UsageError
from darkroom.preprocess import opened

MOST_SAMPLES = 12
LARGEST_SAMPLE = 2_000_000
"""Bytes; larger files are passed over."""

MEDIA_TYPES = {
    "AVIF": "image/avif",
    "BMP": "image/bmp",
    "GIF": "image/gif",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # of phones that take several at once
    "PNG": "image/png",
    "WEBP": "image/webp",
}
"""What browsers show; others are passed over."""


@dataclass(frozen=True)
class Sample:
    """A picture to try."""

    content: bytes
    media_type: str


@dataclass(frozen=True)
class Papers:
    """Markdown of the model's card, None where the bundle has none, and pictures to try."""

    card: str | None = None
    samples: tuple[Sample, ...] = ()

    @classmethod
    def of(cls, bundle: Path, samples: Path | None = None) -> "Papers":
        """The card of the bundle, which has been opened and so verified, and the pictures of a folder."""
        card = bundle / CARD_FILE
        text = card.read_text(encoding="utf-8") if card.is_file() else None
        return cls(text, read_samples(samples) if samples is not None else ())


def read_samples(folder: Path) -> tuple[Sample, ...]:
    """Up to twelve pictures of a folder that browsers can show, in the order of their names."""
    if not folder.is_dir():
        raise UsageError(f"--samples {folder} is no folder: give one with pictures")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and path.stat().st_size <= LARGEST_SAMPLE)
    found = (sample for path in paths if (sample := _sample(path.read_bytes())) is not None)
    return tuple(islice(found, MOST_SAMPLES))


def _sample(content: bytes) -> Sample | None:
    try:
        with opened(content) as image:
            media_type = MEDIA_TYPES.get(image.format or "")
    except ImageError:
        return None
    return None if media_type is None else Sample(content, media_type)
