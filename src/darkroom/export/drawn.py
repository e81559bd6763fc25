"""Pictures that a program draws, for the golden pictures of bundles that go to other people.

Between them they take most steps of the preprocessing contract: several formats and modes, transparency, EXIF
orientation, and sizes that have to be scaled and cut.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageDraw

from darkroom.preprocess import Preprocessing


@dataclass(frozen=True)
class _Kind:
    format: str
    mode: str = "RGB"
    scale: tuple[float, float] = (1, 1)  # width and height, as multiples of the contract's
    orientation: int = 1  # EXIF


KINDS = (
    _Kind("PNG"),
    _Kind("BMP"),
    _Kind("JPEG"),
    _Kind("PNG", scale=(2, 1.5)),
    _Kind("JPEG", scale=(1.25, 3), orientation=6),
    _Kind("WEBP", scale=(3, 2)),
    _Kind("PNG", mode="RGBA", scale=(1.5, 1.5)),
    _Kind("PNG", mode="L", scale=(1.5, 2)),
    _Kind("GIF", mode="P"),
    _Kind("PNG", scale=(0.75, 0.5)),
)


def drawn_pictures(preprocessing: Preprocessing) -> tuple[bytes, ...]:
    """Ten small picture files to be prepared by `preprocessing`; the same ones at each call."""
    return tuple(_encode(_draw(place, kind, preprocessing), kind) for place, kind in enumerate(KINDS))


def _draw(place: int, kind: _Kind, preprocessing: Preprocessing) -> Image.Image:
    """A disc on a soft field of colours."""
    generator = np.random.default_rng(place)
    width = max(1, round(kind.scale[0] * preprocessing.width))
    height = max(1, round(kind.scale[1] * preprocessing.height))
    field = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    picture = field.resize((width, height), Image.Resampling.BICUBIC)
    left, top = generator.uniform(0, 0.5, 2)
    disc = (left * width, top * height, (left + 0.5) * width, (top + 0.5) * height)
    ImageDraw.Draw(picture).ellipse(disc, fill=tuple(generator.integers(0, 256, 3).tolist()))
    if kind.mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize((width, height)))
    return picture.convert(kind.mode)


def _encode(picture: Image.Image, kind: _Kind) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = kind.orientation
    stream = io.BytesIO()
    picture.save(stream, kind.format, **({"exif": exif} if kind.orientation != 1 else {}))
    return stream.getvalue()
