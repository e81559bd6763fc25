"""What a source hands on: labelled picture files in an order that is the same on every machine."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from natsort import natsort_keygen
from PIL import Image

_natural: Any = natsort_keygen()


@dataclass(frozen=True)
class Picture:
    """A labelled file: `name` is its posix path relative to the root, `split` the one it was given in, if any."""

    name: str
    path: Path
    label: str
    split: str | None


@dataclass(frozen=True)
class Source:
    """All pictures of a data set in natural order of name; `ignored` says what was left out and why."""

    name: str
    root: Path
    pictures: tuple[Picture, ...]
    classes: tuple[str, ...]
    ignored: tuple[str, ...]


def natural_key(name: str) -> tuple[Any, str]:
    """Sort key under which 2 comes before 10, folder by folder; names that differ never tie (01 and 1)."""
    return tuple(_natural(part) for part in name.split("/")), name


def natural_order(names: Iterable[str]) -> list[str]:
    """Names sorted by `natural_key`."""
    return sorted(names, key=natural_key)


def bitmap(pixels: npt.NDArray[np.uint8]) -> bytes:
    """An uncompressed BMP file of `pixels` (H, W) or (H, W, 3): the same bytes on every machine, unlike PNG."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "BMP")
    return stream.getvalue()
