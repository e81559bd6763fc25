"""Where in a picture a class is seen, from the activation maps that a bundle's graph may have as an output."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from darkroom.engines.base import Engine
from darkroom.errors import UsageError
from darkroom.preprocess import MAX_PIXELS, load


@dataclass(frozen=True)
class Explanation:
    """How much each part of what the network saw speaks for `label`: `weights` (h, w) from 0 to 1."""

    name: str
    label: str
    weights: npt.NDArray[np.float32]


def explain(
    engine: Engine,
    name: str,
    content: bytes,
    *,
    label: str | None = None,
    max_pixels: int = MAX_PIXELS,
    max_seconds: float | None = None,
) -> Explanation:
    """The map of one picture for `label`, or for its best class.

    Raises:
        EngineError: the model gives no maps.
        ImageError: the picture cannot be decoded.
        UsageError: there is no such class.
    """
    classes = engine.bundle.classes
    if label is not None and label not in classes:
        raise UsageError(f"the model knows no class {label!r}: give one of its {len(classes)} classes")
    pixels = load(content, engine.bundle.preprocessing, max_pixels=max_pixels, max_seconds=max_seconds)[None]
    maps = engine.maps(pixels)[0]  # (K, h, w)
    place = int(engine.predict(pixels)[0].argmax()) if label is None else classes.index(label)
    return Explanation(name, classes[place], _scaled(maps[place]))


def _scaled(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What speaks for the class, the most of it being 1; what speaks against it is 0."""
    positive = np.maximum(weights, 0)
    highest = float(positive.max())
    return np.asarray(positive / highest if highest > 0 else positive, np.float32)
