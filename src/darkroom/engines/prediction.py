"""From files or uploads to named answers, one for each picture, in order; a broken picture never stops the others."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from natsort import natsorted

from darkroom.bundle import BundleInfo
from darkroom.engines.base import Answers, Engine, Seen
from darkroom.engines.decoding import USUAL_BOUNDS, Bounds, Content
from darkroom.engines.novelty import Novelty, novelties
from darkroom.errors import ImageError, UsageError
from darkroom.provenance import available_cores

_SUFFIXES = """
    jpg jpeg jpe jfif mpo png apng gif webp bmp dib tif tiff ppm pgm pbm pnm jp2 j2k jpx avif heic heif hif
"""
PICTURE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
"""What counts as a picture when a whole folder is given; a file named by itself is always tried."""

HOUSEKEEPING = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})

Source = tuple[str, Content]


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture: `probabilities` (class, probability), best first; `sure` from the threshold on.

    `novelty` says how unlike the pictures of training it is, where the bundle knows of a threshold for that.
    """

    name: str
    label: str
    confidence: float
    sure: bool
    probabilities: tuple[tuple[str, float], ...]
    novelty: Novelty | None = None


@dataclass(frozen=True)
class Failure:
    """Why one picture got no answer, in a line."""

    name: str
    error: str


Answer = Prediction | Failure


def predict_pictures(
    engine: Engine,
    sources: Iterable[Source],
    *,
    bounds: Bounds = USUAL_BOUNDS,
    top: int | None = None,
) -> list[Answer]:
    """Answers for `sources` (name, file or its bytes) in order, each with its `top` classes (all when not given)."""
    return list(stream_predictions(engine, sources, bounds=bounds, top=top))


def stream_predictions(
    engine: Engine,
    sources: Iterable[Source],
    *,
    bounds: Bounds = USUAL_BOUNDS,
    top: int | None = None,
) -> Iterator[Answer]:
    """As `predict_pictures`, one after the other in bounded memory."""
    remaining = iter(sources)
    while chunk := list(islice(remaining, max(engine.rows, available_cores()))):
        names, contents = zip(*chunk, strict=True)
        yield from _named(engine.bundle, names, engine.look(contents, bounds), top=top)


def name_answers(
    info: BundleInfo, names: Sequence[str], answers: Answers, *, top: int | None = None
) -> list[Prediction]:
    """What was answered to pictures of these names, in the words of the bundle."""
    novel = novelties(info, answers.logits)
    rows = zip(names, answers.probabilities, novel, strict=True)
    return [_prediction(info, name, values, novelty=novelty, top=top) for name, values, novelty in rows]


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


def _named(info: BundleInfo, names: Sequence[str], seen: Sequence[Seen], *, top: int | None) -> Iterator[Answer]:
    readable = [(name, it) for name, it in zip(names, seen, strict=True) if not isinstance(it, ImageError)]
    answered: Iterator[Prediction] = iter(())
    if readable:
        known, answers = zip(*readable, strict=True)
        answered = iter(name_answers(info, known, Answers(*map(np.stack, zip(*answers, strict=True))), top=top))
    for name, it in zip(names, seen, strict=True):
        yield Failure(name, str(it)) if isinstance(it, ImageError) else next(answered)


def _prediction(
    info: BundleInfo,
    name: str,
    probabilities: npt.NDArray[np.float32],
    *,
    novelty: Novelty | None,
    top: int | None,
) -> Prediction:
    ranking = np.argsort(-probabilities, kind="stable")[:top]
    ranked = tuple((info.classes[place], float(probabilities[place])) for place in ranking)
    label, confidence = ranked[0]
    return Prediction(name, label, confidence, confidence >= info.threshold, ranked, novelty)
