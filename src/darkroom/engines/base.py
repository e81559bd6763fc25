"""What every engine is: pixels in, probabilities out, and a proof on opening that it answers as the network did."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from darkroom.bundle import BundleInfo, Golden
from darkroom.engines.decoding import Bounds, Content, Decoded, decode_pictures
from darkroom.errors import EngineError, ImageError

PIXELS_A_CALL = 2**20
"""Pixels handed to the back end at once: activations, and so memory, grow with them."""

MOST_ROWS = 256


class Answers(NamedTuple):
    """What a model says of N pictures: `logits` and `probabilities`, both float32 (N, K); of one, both (K,)."""

    logits: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]


Seen = Answers | ImageError
"""What became of one picture file: the answers, each (K,), or what is wrong with it."""


class Engine(ABC):
    """A back end that answers for one bundle; safe to share between threads. Subclasses give `run` and `close`."""

    def __init__(self, bundle: BundleInfo) -> None:
        self.bundle = bundle

    @abstractmethod
    def run(self, pixels: npt.NDArray[np.uint8]) -> Answers:
        """Answer for one batch (N, H, W, 3) of 1 to `rows` pictures, whose form has been checked."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the model; closing twice is allowed."""

    def watched(self) -> Mapping[str, tuple[str, Callable[[], float]]]:
        """Numbers worth watching: what each is, and how it is read."""
        return {}

    @property
    def rows(self) -> int:
        """Pictures handed to the back end at once."""
        contract = self.bundle.preprocessing
        return max(1, min(MOST_ROWS, PIXELS_A_CALL // (contract.width * contract.height)))

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities (N, K) of `pixels` (N, H, W, 3), N from 0 to any size; raises `EngineError`."""
        return self.answer(pixels).probabilities

    def logits(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits (N, K), untempered, of `pixels` (N, H, W, 3); raises `EngineError`."""
        return self.answer(pixels).logits

    def answer(self, pixels: npt.NDArray[np.uint8]) -> Answers:
        """Logits and probabilities together, computed in bounded batches; raises `EngineError`."""
        self._check_pixels(pixels)
        empty = np.zeros((0, len(self.bundle.classes)), np.float32)
        parts = [self._checked_run(pixels[start : start + self.rows]) for start in range(0, len(pixels), self.rows)]
        logits, probabilities = zip(Answers(empty, empty), *parts, strict=True)
        return Answers(np.concatenate(logits), np.concatenate(probabilities))

    def read(self, contents: Sequence[Content], bounds: Bounds) -> list[Decoded]:
        """Pixels (H, W, 3) of each picture file, or what is wrong with it."""
        return decode_pictures(contents, self.bundle.preprocessing, bounds)

    def look(self, contents: Sequence[Content], bounds: Bounds) -> list[Seen]:
        """Answers for each picture file, or what is wrong with it; raises `EngineError`."""
        decoded = self.read(contents, bounds)
        readable = [it for it in decoded if not isinstance(it, ImageError)]
        answered: Iterator[Answers] = map(Answers, *self.answer(np.stack(readable))) if readable else iter(())
        return [it if isinstance(it, ImageError) else next(answered) for it in decoded]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_pixels(self, pixels: npt.NDArray[Any]) -> None:
        contract = self.bundle.preprocessing
        expected = (contract.height, contract.width, 3)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != expected:
            got = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
            raise EngineError(f"the model takes uint8 pixels of shape (N, {expected[0]}, {expected[1]}, 3), not {got}")

    def _checked_run(self, pixels: npt.NDArray[np.uint8]) -> Answers:
        answers = self.run(pixels)
        expected = (len(pixels), len(self.bundle.classes))
        for name, values in answers._asdict().items():
            if values.shape != expected or not np.isfinite(values).all():
                raise EngineError(f"the model's {name} are not {expected} finite numbers: make the bundle anew")
        return answers


def check_golden(engine: Engine, golden: Golden) -> None:
    """Raise `EngineError` unless `engine` answers the golden pictures as the exported network did."""
    # Where the two best classes are more than twice the tolerance apart, this also holds the chosen class.
    difference = float(np.abs(engine.predict(golden.pixels) - golden.probabilities).max())
    tolerance = engine.bundle.golden_tolerance
    if difference > tolerance:
        raise EngineError(
            f"the engine answers the golden pictures differently than the exported network (by {difference:.3g} in "
            f"probability, {tolerance:g} allowed): refusing to predict; export the run again on this machine"
        )
