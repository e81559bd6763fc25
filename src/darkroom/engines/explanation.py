"""Where in a picture a class is seen: how much its log-odds fall where a square of the picture is hidden.

Occlusion sensitivity (Zeiler and Fergus 2014): it asks for answers only, and so explains every network behind every
engine. A square is two cells wide and steps by one, so that each cell is hidden by up to four of them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from darkroom.engines.base import Engine
from darkroom.engines.decoding import USUAL_BOUNDS, Bounds
from darkroom.errors import ImageError, UsageError
from darkroom.preprocess import Box, opened, upright_size, used_box

CELLS = 8
"""Cells along each side of the map, where the picture has as many pixels (judgement: 50 answers a picture)."""


@dataclass(frozen=True)
class Explanation:
    """How much each part of what the network saw speaks for `label`: `weights` (h, w) from 0 to 1.

    `box` says where in the upright picture that lies: left, top, right, bottom in fractions of its sides.
    """

    name: str
    label: str
    weights: npt.NDArray[np.float32]
    box: Box


def explain(
    engine: Engine,
    name: str,
    content: bytes,
    *,
    label: str | None = None,
    bounds: Bounds = USUAL_BOUNDS,
) -> Explanation:
    """The map of one picture for `label`, or for its best class.

    Raises:
        EngineError: the engine does not answer.
        ImageError: the picture cannot be decoded.
        UsageError: there is no such class.
    """
    classes = engine.bundle.classes
    if label is not None and label not in classes:
        raise UsageError(f"the model knows no class {label!r}: give one of its {len(classes)} classes")
    [pixels] = engine.read([content], bounds)
    if isinstance(pixels, ImageError):
        raise ImageError(str(pixels))  # the traceback of `pixels` itself would hold this frame, and so the file
    hidden = squares(pixels.shape[0], pixels.shape[1])  # (S, h, w) cells
    logits = engine.logits(np.concatenate([pixels[None], _hide(pixels, hidden)]))
    place = int(logits[0].argmax()) if label is None else classes.index(label)
    odds = _log_odds(logits, place)
    with opened(content, max_pixels=bounds.max_pixels) as image:  # its header, of a picture that was decoded
        box = used_box(upright_size(image), engine.bundle.preprocessing)
    return Explanation(name, classes[place], _scaled(_spread(odds[0] - odds[1:], hidden)), box)


def squares(height: int, width: int) -> npt.NDArray[np.bool_]:
    """Which cells each square hides: (S, h, w)."""
    rows, columns = min(CELLS, height), min(CELLS, width)
    starts = [(row, column) for row in range(max(1, rows - 1)) for column in range(max(1, columns - 1))]
    hidden = np.zeros((len(starts), rows, columns), np.bool_)
    for square, (row, column) in zip(hidden, starts, strict=True):
        square[row : row + 2, column : column + 2] = True
    return hidden


def _hide(pixels: npt.NDArray[np.uint8], hidden: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Copies (S, H, W, 3) of a picture (H, W, 3), each with the mean colour where a square lies."""
    height, width = pixels.shape[:2]
    rows, columns = np.arange(height) * hidden.shape[1] // height, np.arange(width) * hidden.shape[2] // width
    masks = hidden[:, rows[:, None], columns[None, :], None]  # (S, H, W, 1)
    return np.where(masks, pixels.mean(axis=(0, 1)).astype(np.uint8), pixels)


def _log_odds(logits: npt.NDArray[np.float32], place: int) -> npt.NDArray[np.float64]:
    """Of one class (N,): unlike its probability, they still move where the network is certain."""
    others = np.delete(logits.astype(np.float64), place, axis=1)
    return np.asarray(logits[:, place] - np.logaddexp.reduce(others, axis=1))


def _spread(falls: npt.NDArray[np.float64], hidden: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The mean fall (h, w) of the squares that hide each cell."""
    return np.asarray(np.einsum("s,shw->hw", falls, hidden) / hidden.sum(axis=0))


def _scaled(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """What speaks for the class, the most of it being 1; what speaks against it is 0."""
    positive = np.maximum(weights, 0)
    highest = float(positive.max())
    return np.asarray(positive / highest if highest > 0 else positive, np.float32)
