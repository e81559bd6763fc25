"""One look at every picture: what it is, whether it can be decoded, and a thumbnail to find its copies by."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom.data.pictures import Picture
from darkroom.data.workers import decoding_pool
from darkroom.errors import ImageError
from darkroom.preprocess import Preprocessing, opened, orientation, rendered, resized
from darkroom.progress import track

Thumbnail = bytes

SIDE = 8
"""Width and height of a thumbnail."""

_THUMBNAIL = Preprocessing(width=SIDE, height=SIDE, resize="stretch", interpolation="box", version=1)
_DRAFT = 32 * SIDE  # JPEGs are decoded no smaller than this: 12 megapixels in 10 ms, thumbnails within 0.2 grey levels
_FEW_PICTURES, _FEW_BYTES = 512, 16_000_000  # up to here starting other processes takes longer than it saves
_CHUNK = 64


@dataclass(frozen=True)
class Inspection:
    """What one file holds; width and height in pixels are those of the upright picture, 0 where unknown."""

    sha256: str
    """Empty where not even the bytes can be read."""
    bytes: int
    width: int
    height: int
    mode: str
    """Pillow's name of the stored pixels' form, such as RGB, L, P or CMYK."""
    format: str
    frames: int
    orientation: int
    """EXIF orientation, 1 to 8; 1 where the file says nothing."""
    thumbnail: Thumbnail | None
    """8×8×3 uint8 of the upright picture; none for an unreadable one."""
    error: str | None
    """Why the picture cannot be decoded."""
    transparent: bool = False
    """Whether the file carries an alpha channel or a transparent colour."""


def inspect_pictures(pictures: Sequence[Picture]) -> list[Inspection]:
    """Inspect every picture with all cores, in the given order; an unreadable one gets its `error` set.

    Raises:
        DataError: a process died while decoding, most often for lack of memory.
    """
    paths = [picture.path for picture in pictures]
    found = map(inspect_file, paths) if _are_few(paths) else _in_processes(paths)
    return list(track(found, total=len(paths), what="Looking at every picture", unit="pictures"))


def inspect_file(path: Path) -> Inspection:
    """Read and decode one file completely; whatever is wrong with it becomes its `error`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = f"cannot be read ({os.strerror(error.errno or 0)})"
        return Inspection("", 0, 0, 0, "", "", 0, 1, thumbnail=None, error=reason)
    facts: dict[str, Any] = {"width": 0, "height": 0, "mode": "", "format": "", "frames": 0, "orientation": 1}
    thumbnail, fault = None, None
    try:
        with opened(content) as image:
            facts |= _header(image)
            thumbnail = _thumbnail(image)
            facts["frames"] = _frames(image)
    except ImageError as error:
        fault = str(error)
    digest = hashlib.sha256(content).hexdigest()
    return Inspection(sha256=digest, bytes=len(content), **facts, thumbnail=thumbnail, error=fault)


def _header(image: Image.Image) -> dict[str, Any]:
    turn = orientation(image)
    width, height = image.size if turn < 5 else image.size[::-1]  # orientations 5 to 8 lie on their side
    return {
        "width": width,
        "height": height,
        "mode": image.mode,
        "format": image.format or "",
        "orientation": turn,
        "transparent": image.has_transparency_data,
    }


def _thumbnail(image: Image.Image) -> bytes:
    """Decode the whole picture; of large JPEGs every byte is read, but only a smaller picture is computed."""
    if image.format == "JPEG":
        image.draft(None, (_DRAFT, _DRAFT))
    return resized(rendered(image), _THUMBNAIL).tobytes()


def _frames(image: Image.Image) -> int:
    try:
        return getattr(image, "n_frames", 1)
    except Exception:  # later frames are damaged, of which only the first is ever used
        return 1


def _are_few(paths: Sequence[Path]) -> bool:
    return len(paths) <= _FEW_PICTURES and sum(map(_size, paths)) <= _FEW_BYTES


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _in_processes(paths: Sequence[Path]) -> Iterator[Inspection]:
    with decoding_pool(most=len(paths) // _CHUNK + 1) as pool:
        yield from pool.map(inspect_file, paths, chunksize=_CHUNK)
