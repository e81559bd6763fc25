"""A process that decodes and answers for a server: one job after the other from standard input, results to output.

    python -m darkroom.engines.worker BUNDLE THREADS FINGERPRINT

Jobs and results are pickled; both ends are ours. A picture that makes a library hang or crash ends this process and
no other: `pool` starts it anew.
"""

import gc
import io
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from darkroom.engines.decoding import Bounds, Content, Decoded, decode_picture
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.errors import DarkroomError, EngineError

Job = tuple[str, tuple[Any, ...]]
"""The name of an engine's method, and its arguments."""

LENGTH_BYTES = 8

HUNG = 124
"""Exit code of a process whose decoder did not end in time, where the system has no alarm for that."""

GRACE = 0.5
"""Seconds after which a decoder that does not stop by itself is ended with its process."""


class WorkerEngine(OnnxRuntimeEngine):
    """Decodes in its own thread, and dies of what takes too long."""

    def read(self, contents: Sequence[Content], bounds: Bounds) -> list[Decoded]:
        """Pixels (H, W, 3) of each picture file, or what is wrong with it."""
        decoded = []
        for content in contents:
            with _alarm(bounds.max_seconds):
                decoded.append(decode_picture(content, self.bundle.preprocessing, bounds))
        return decoded


def main(arguments: Sequence[str]) -> None:
    """Open the bundle, say so or what is wrong with it, then work until there are no more jobs."""
    folder, threads, fingerprint = arguments
    jobs, results = _channels()
    for number in (signal.SIGINT, signal.SIGTERM):  # the server's to heed: it wants its last answers
        signal.signal(number, signal.SIG_IGN)
    try:
        engine = WorkerEngine.open(Path(folder), threads=int(threads))
        if engine.bundle.fingerprint != fingerprint:
            raise EngineError(f"{folder} is not the bundle with which the server was started: start it again")
    except DarkroomError as error:
        put(results, error)
        return
    gc.freeze()  # what is there now stays, and looking through it takes longer than several answers
    put(results, None)
    work(engine, jobs, results)


def work(engine: OnnxRuntimeEngine, jobs: BinaryIO, results: BinaryIO) -> None:
    """Do jobs until their source ends."""
    while True:
        try:
            method, arguments = take(jobs)
        except EOFError:
            return
        put(results, _outcome(engine, method, arguments))


def put(stream: BinaryIO, content: Any) -> None:
    """Write one object, its length before it."""
    data = pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(len(data).to_bytes(LENGTH_BYTES, "little"))
    stream.write(data)
    stream.flush()


def take(stream: BinaryIO) -> Any:
    """Read one object, of a length that is known, so that a small one takes one call of the system.

    Raises `EOFError` where there is none, or only a part of one.
    """
    length = int.from_bytes(_exactly(stream, LENGTH_BYTES), "little")
    return pickle.loads(_exactly(stream, length))  # noqa: S301  (from one process of ours to another)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the other process has ended")
    return data


def _outcome(engine: OnnxRuntimeEngine, method: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    """Whether it went well, and the result, or the error."""
    try:
        return True, getattr(engine, method)(*arguments)
    except DarkroomError as error:
        return False, error
    except Exception as error:  # the server answers what it answers to its own mistakes
        traceback.print_exc()
        return False, RuntimeError(f"{type(error).__name__} in a worker process: {error}")


@contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """End this process unless the block ends in time."""
    if seconds is None:
        yield
    elif hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds + GRACE)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    else:  # a library that holds the interpreter's lock holds this up, too
        timer = threading.Timer(seconds + GRACE, os._exit, (HUNG,))
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _channels() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output, to which from now on nobody else can write."""
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), line_buffering=True)
    return sys.stdin.buffer, results


if __name__ == "__main__":
    main(sys.argv[1:])
