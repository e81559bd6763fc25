"""From files or uploads to named answers, one for each picture, in order; a broken picture never stops the others."""

import glob
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from natsort import natsorted

from darkroom.engines.base import Engine
from darkroom.errors import ImageError, UsageError
from darkroom.preprocess import MAX_PIXELS, Preprocessing, load
from darkroom.provenance import available_cores

_SUFFIXES = """
    jpg jpeg jpe jfif mpo png apng gif webp bmp dib tif tiff ppm pgm pbm pnm jp2 j2k jpx avif heic heif hif
"""
PICTURE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
"""What counts as a picture when a whole folder is given; a file named by itself is always tried."""

HOUSEKEEPING = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})

# One for the whole process: a decoded photo may take hundreds of megabytes, however many requests arrive at once.
_decoding = threading.BoundedSemaphore(available_cores())

Source = tuple[str, Path | bytes]


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture: `probabilities` (class, probability), best first; `sure` from the threshold on."""

    name: str
    label: str
    confidence: float
    sure: bool
    probabilities: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Failure:
    """Why one picture got no answer, in a line."""

    name: str
    error: str


def predict_pictures(
    engine: Engine, sources: Iterable[Source], *, max_pixels: int = MAX_PIXELS, top: int | None = None
) -> list[Prediction | Failure]:
    """Answers for `sources` (name, file or its bytes) in order, each with its `top` classes (all when not given)."""
    return list(stream_predictions(engine, sources, max_pixels=max_pixels, top=top))


def stream_predictions(
    engine: Engine, sources: Iterable[Source], *, max_pixels: int = MAX_PIXELS, top: int | None = None
) -> Iterator[Prediction | Failure]:
    """As `predict_pictures`, one after the other in bounded memory."""
    workers = available_cores()
    remaining = iter(sources)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        while chunk := list(islice(remaining, max(engine.rows, workers))):
            decoded = list(pool.map(lambda source: _decode(source[1], engine.bundle.preprocessing, max_pixels), chunk))
            yield from _answers(engine, [name for name, _ in chunk], decoded, top=top)


def expand(patterns: Sequence[str]) -> list[Path]:
    """Files that `patterns` (files, folders, globs) name, each once, those of a folder or glob in natural order.

    Folders are searched through and through for pictures; hidden and housekeeping files are left out.
    Raises `UsageError` for a pattern that names nothing.
    """
    return list(dict.fromkeys(path for pattern in patterns for path in _expand_one(pattern)))


def _expand_one(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        return _pictures_in(path)
    if path.exists():
        return [path]
    if not glob.has_magic(pattern):
        raise UsageError(f"there is no file or folder {pattern}: check its name")
    matches = [Path(match) for match in natsorted(glob.glob(str(path), recursive=True))]
    found = [file for match in matches for file in (_pictures_in(match, empty=True) if match.is_dir() else [match])]
    if not found:
        raise UsageError(f"nothing matches {pattern}: check the pattern and the folder you are in")
    return found


def _pictures_in(folder: Path, *, empty: bool = False) -> list[Path]:
    found = [path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES and _is_shown(path, folder)]
    if not found and not empty:
        raise UsageError(f"there are no pictures in the folder {folder}: name their files to have them tried anyway")
    return natsorted((path for path in found if path.is_file()), key=lambda path: path.as_posix())


def _is_shown(path: Path, folder: Path) -> bool:
    return not any(part.startswith(".") or part in HOUSEKEEPING for part in path.relative_to(folder).parts)


def _decode(content: Path | bytes, preprocessing: Preprocessing, max_pixels: int) -> npt.NDArray[np.uint8] | ImageError:
    try:
        with _decoding:
            return load(content, preprocessing, max_pixels=max_pixels)
    except ImageError as error:
        return error


def _answers(
    engine: Engine,
    names: Sequence[str],
    decoded: Sequence[npt.NDArray[np.uint8] | ImageError],
    *,
    top: int | None,
) -> Iterator[Prediction | Failure]:
    readable = [pixels for pixels in decoded if not isinstance(pixels, ImageError)]
    answered = iter(engine.predict(np.stack(readable)) if readable else ())
    for name, pixels in zip(names, decoded, strict=True):
        if isinstance(pixels, ImageError):
            yield Failure(name, str(pixels))
        else:
            yield _prediction(engine, name, next(answered), top=top)


def _prediction(engine: Engine, name: str, probabilities: npt.NDArray[np.float32], *, top: int | None) -> Prediction:
    ranking = np.argsort(-probabilities, kind="stable")[:top]
    ranked = tuple((engine.bundle.classes[place], float(probabilities[place])) for place in ranking)
    label, confidence = ranked[0]
    return Prediction(name, label, confidence, confidence >= engine.bundle.threshold, ranked)
