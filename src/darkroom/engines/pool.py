"""Worker processes behind one engine: what a picture does to a decoder, it does to none but its own process.

Each holds a session of its own, made in it, and does one job at a time. A process that dies is started again, and
what it was asked is asked anew of another, so that nothing is lost with it.
"""

import logging
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from darkroom.bundle import Bundle, BundleInfo
from darkroom.engines.base import Answers, Engine, Seen
from darkroom.engines.decoding import Bounds, Content, Decoded
from darkroom.engines.worker import Job, put, take
from darkroom.errors import DarkroomError, EngineError, ImageError
from darkroom.preprocess import too_slow
from darkroom.provenance import available_cores

ATTEMPTS = 3
"""Processes that may die of one job before it is given up."""

PATIENCE = 30.0
"""Seconds that a job waits for a free process."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between attempts to start a process; they double."""

ALARM = -getattr(signal, "SIGALRM", 0)
"""The exit code of a process whose decoder did not end in time."""

log = logging.getLogger(__name__)


class PooledEngine(Engine):
    """An engine whose pictures are decoded and answered in worker processes."""

    def __init__(self, bundle: BundleInfo, folder: Path, workers: int) -> None:
        super().__init__(bundle)
        threads = max(1, available_cores() // workers)
        self._command = [
            *(sys.executable, "-P", "-m", "darkroom.engines.worker"),
            *(str(folder.resolve()), str(threads), bundle.fingerprint),
        ]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._closed = False
        self._restarts = 0

    @classmethod
    def open(cls, folder: Path, workers: int) -> "PooledEngine":
        """Start so many processes, each of which proves the bundle in `folder`.

        Raises `BundleError` or `EngineError`, as the engine that they hold does.
        """
        engine = cls(Bundle.open(folder).info, folder, workers)
        try:
            started = [engine._start() for _ in range(workers)]  # side by side
            for worker in started:
                worker.await_ready()
                engine._idle.put(worker)
        except BaseException:
            engine.close()
            raise
        return engine

    def run(self, pixels: npt.NDArray[np.uint8]) -> Answers:
        """Answer for one batch (N, H, W, 3)."""
        [answers] = self._results([("run", (pixels,))])
        if isinstance(answers, ImageError):
            raise EngineError(str(answers))
        return Answers(*answers)

    def read(self, contents: Sequence[Content], bounds: Bounds) -> list[Decoded]:
        """Pixels (H, W, 3) of each picture file, or what is wrong with it."""
        return self._for_each("read", contents, bounds)

    def look(self, contents: Sequence[Content], bounds: Bounds) -> list[Seen]:
        """Answers for each picture file, or what is wrong with it; raises `EngineError`."""
        return self._for_each("look", contents, bounds)

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            self._closed = True
            workers, self._workers = self._workers, set()
        for worker in workers:
            worker.end()

    def watched(self) -> Mapping[str, tuple[str, Callable[[], float]]]:
        """Numbers worth watching: what each is, and how it is read."""
        return {
            "workers": ("Worker processes that are there.", lambda: len(self._workers)),
            "worker_restarts": ("Worker processes that died and were started again.", lambda: self._restarts),
        }

    def _for_each(self, method: str, contents: Sequence[Content], bounds: Bounds) -> list[Any]:
        """The results of a method that takes a list, one job a picture."""
        results = self._results([(method, ([content], bounds)) for content in contents])
        return [result if isinstance(result, ImageError) else result[0] for result in results]

    def _results(self, jobs: Sequence[Job]) -> list[Any]:
        """Results in the order of the jobs; an `ImageError` where a job has ended the processes that did it."""
        outcomes: dict[int, tuple[bool, Any]] = {}
        pending = deque((place, 1) for place in range(len(jobs)))  # and the attempt that comes next
        while pending:  # in rounds, between which others have their turn
            team = [(worker, *pending.popleft()) for worker in self._take(len(pending))]
            for worker, place, _ in team:
                worker.send(jobs[place])
            for worker, place, attempt in team:
                outcome = self._outcome(worker, jobs[place], attempt)
                if outcome is None:
                    pending.append((place, attempt + 1))
                else:
                    outcomes[place] = outcome
        for is_good, value in outcomes.values():
            if not is_good:
                raise value
        return [outcomes[place][1] for place in range(len(jobs))]

    def _take(self, most: int) -> "list[_Worker]":
        """Between one and so many processes that are free."""
        try:
            team = [self._idle.get(timeout=PATIENCE)]
        except queue.Empty as error:
            raise EngineError(f"no worker process has been free for {PATIENCE:g} s") from error
        with suppress(queue.Empty):
            while len(team) < most:
                team.append(self._idle.get_nowait())
        return team

    def _outcome(self, worker: "_Worker", job: Job, attempt: int) -> tuple[bool, Any] | None:
        """What comes of a job that was sent to a process; None where that has died and another one is to try."""
        outcome = worker.receive()
        if outcome is not None:
            self._idle.put(worker)
            return outcome
        if self._replace(worker) == ALARM:
            return True, too_slow(job[1][-1].max_seconds)
        if attempt < ATTEMPTS:
            return None
        return True, ImageError(f"has ended the process that worked on it, {ATTEMPTS} times in a row")

    def _start(self) -> "_Worker":
        worker = _Worker(self._command)
        with self._lock:
            if not self._closed:
                self._workers.add(worker)
                return worker
        worker.end()
        raise EngineError("the engine is closed: open it again")

    def _replace(self, worker: "_Worker") -> int:
        """Let another process take the place of one that died; returns its exit code."""
        code = worker.end()
        with self._lock:
            known = worker in self._workers
            self._workers.discard(worker)
            if not known or self._closed:
                return code
            self._restarts += 1
        log.warning("a worker process ended with exit code %d and is started again", code)
        threading.Thread(target=self._restart, name="restart", daemon=True).start()
        return code

    def _restart(self) -> None:
        """Start a process, however often it takes."""
        pause = FIRST_PAUSE
        while not self._closed:
            worker = None
            try:
                worker = self._start()
                worker.await_ready()
            except (DarkroomError, OSError) as error:
                log.error("a worker process cannot be started: %s", error)
                if worker is not None:
                    worker.end()
                    with self._lock:
                        self._workers.discard(worker)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._idle.put(worker)
                return


class _Worker:
    """One process, and the pipes to it; used by one thread at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603  (ours)
        self._jobs = cast(BinaryIO, self._process.stdin)
        self._results = cast(BinaryIO, self._process.stdout)

    def await_ready(self) -> None:
        """Wait until it has proved the bundle; raises what it raised, or `EngineError` where it died."""
        try:
            trouble = take(self._results)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise EngineError(f"a worker process ended before it was ready, with exit code {self.end()}") from error
        if trouble is not None:
            raise trouble

    def send(self, job: Job) -> None:
        """Hand it a job; that it has died shows when the result is asked for."""
        with suppress(OSError):
            put(self._jobs, job)

    def receive(self) -> tuple[bool, Any] | None:
        """Whether the job went well and what came of it; None where the process has died."""
        try:
            outcome: tuple[bool, Any] = take(self._results)
        except (EOFError, OSError, pickle.UnpicklingError):
            return None
        return outcome

    def end(self) -> int:
        """Kill it, unless it is dead, and close the pipes; returns the exit code."""
        self._process.kill()
        code = self._process.wait()
        for pipe in (self._jobs, self._results):
            with suppress(OSError):  # what was not written any more
                pipe.close()
        return code
