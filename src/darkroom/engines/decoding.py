"""From picture files to pixels, several at a time, in bounded time and memory."""

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from darkroom.errors import EngineError, ImageError
from darkroom.preprocess import MAX_PIXELS, Preprocessing, load, too_slow
from darkroom.provenance import available_cores

Content = Path | bytes
Decoded = npt.NDArray[np.uint8] | ImageError


class Bounds(NamedTuple):
    """What decoding one picture may take: width × height, and seconds (None: as long as it likes)."""

    max_pixels: int = MAX_PIXELS
    max_seconds: float | None = None


USUAL_BOUNDS = Bounds()


def decode_picture(content: Content, preprocessing: Preprocessing, bounds: Bounds) -> Decoded:
    """Pixels (H, W, 3) of a picture, or what is wrong with it."""
    try:
        return load(content, preprocessing, max_pixels=bounds.max_pixels, max_seconds=bounds.max_seconds)
    except ImageError as error:
        return ImageError(str(error))  # whose traceback holds what was decoded, in a circle that is long not collected


def decode_pictures(contents: Sequence[Content], preprocessing: Preprocessing, bounds: Bounds) -> list[Decoded]:
    """Pixels (H, W, 3) of each picture, or what is wrong with it.

    What goes on inside of a library cannot be stopped, and is not waited for when its time is over.
    Raises `EngineError` where others' pictures leave no room for so long.
    """
    decoded: dict[int, Decoded] = {}
    under_way: dict[Future[Decoded], _Job] = {}
    for place, content in enumerate(contents):
        if len(under_way) == available_cores():  # no more at once, so that others' pictures have their turn between
            _collect(under_way, decoded)
        job = _Job(place, content, preprocessing, bounds)
        under_way[_decoders().submit(job.run)] = job
    while under_way:
        _collect(under_way, decoded)
    return [decoded[place] for place in range(len(contents))]


@cache
def _decoders() -> ThreadPoolExecutor:
    """One for the process: a decoded photo may take hundreds of megabytes, however many requests arrive at once."""
    return ThreadPoolExecutor(available_cores(), thread_name_prefix="decode")


class _Job:
    """One picture, which first waits for a thread, and then has its seconds."""

    def __init__(self, place: int, content: Content, preprocessing: Preprocessing, bounds: Bounds) -> None:
        self.place = place
        self._content = content
        self._preprocessing = preprocessing
        self._bounds = bounds
        self._submitted = time.monotonic()
        self._begun: float | None = None

    def run(self) -> Decoded:
        """Pixels, or what is wrong with the picture."""
        self._begun = time.monotonic()
        return decode_picture(self._content, self._preprocessing, self._bounds)

    def left(self) -> float | None:
        """Seconds until it is given up; None where it has no bound."""
        seconds = self._bounds.max_seconds
        begun = self._submitted if self._begun is None else self._begun
        return None if seconds is None else max(0.0, begun + seconds - time.monotonic())

    def give_up(self) -> ImageError:
        """What to tell of it; raises `EngineError` where it has had no thread yet."""
        if self._begun is None:
            raise EngineError("others' pictures have kept all decoders busy for too long")
        return too_slow(self._bounds.max_seconds or 0.0)


def _collect(under_way: dict[Future[Decoded], _Job], decoded: dict[int, Decoded]) -> None:
    """Wait for at least one picture to be decoded or given up."""
    bounds = [left for job in under_way.values() if (left := job.left()) is not None]
    done, _ = wait(under_way, min(bounds, default=None), FIRST_COMPLETED)
    for future in done:
        decoded[under_way.pop(future).place] = future.result()
    for future in [future for future, job in under_way.items() if job.left() == 0]:
        future.cancel()
        job = under_way.pop(future)
        decoded[job.place] = job.give_up()
