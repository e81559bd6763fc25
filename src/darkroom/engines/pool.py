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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from darkroom.bundle import Bundle, BundleInfo
from darkroom.engines.base import Answers, Engine, Seen
from darkroom.engines.decoding import Bounds, Content, Decoded
from darkroom.engines.worker import HUNG, Job, put, take
from darkroom.errors import EngineError, ImageError
from darkroom.preprocess import too_slow
from darkroom.provenance import available_cores

ATTEMPTS = 3
"""Processes that may die of one job before it is given up."""

PATIENCE = 30.0
"""Seconds that a job waits for a free process."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between attempts to start a process; they double."""

START_SECONDS = 120.0
"""After so long a process that is not ready is taken for one that never will be."""

ALARM = -signal.SIGALRM if hasattr(signal, "SIGALRM") else HUNG
"""The exit code of a process whose decoder did not end in time."""

LOST = (EOFError, OSError, ValueError, pickle.UnpicklingError)
"""What reading from a process raises that has died, or was ended by another thread."""

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
        self._free: deque[_Worker] = deque()
        self._waiting: deque[queue.SimpleQueue[_Worker]] = deque()
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
                engine._prove(worker)
                engine._give(worker)
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
                while self._waiting:  # who sees that it has ended, and then that all has
                    self._waiting.popleft().put(worker)

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
            for place, attempt, outcome in self._round(team, jobs):
                if outcome is None:
                    pending.append((place, attempt + 1))
                else:
                    outcomes[place] = outcome
        for is_good, value in outcomes.values():
            if not is_good:
                raise value
        return [outcomes[place][1] for place in range(len(jobs))]

    def _round(
        self, team: "Sequence[tuple[_Worker, int, int]]", jobs: Sequence[Job]
    ) -> list[tuple[int, int, tuple[bool, Any] | None]]:
        """Place, attempt and outcome of the jobs that a team does."""
        unsettled = [worker for worker, _, _ in team]
        done = []
        try:
            for worker, place, _ in team:
                worker.send(jobs[place])
            for worker, place, attempt in team:
                done.append((place, attempt, self._outcome(worker, jobs[place], attempt)))
                unsettled.remove(worker)
        except BaseException:  # memory ran out, for one: what such a process may still say is for nobody any more
            for worker in unsettled:
                self._replace(worker)
            raise
        return done

    def _take(self, most: int) -> "list[_Worker]":
        """Between one and so many processes that are free; who waits for longest is served first."""
        with self._lock:
            if self._closed:
                raise EngineError("the engine is closed: open it again")
            team = [] if self._waiting else self._alive(most)
            if team:
                return team
            place: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
            self._waiting.append(place)
        with suppress(queue.Empty):
            return [place.get(timeout=PATIENCE)]
        with self._lock, suppress(ValueError):
            self._waiting.remove(place)
        with suppress(queue.Empty):  # handed over just then
            return [place.get_nowait()]
        raise EngineError(f"no worker process has been free for {PATIENCE:g} s")

    def _alive(self, most: int) -> "list[_Worker]":
        """Up to so many of the free processes, without those that have died; to be called under the lock."""
        team: list[_Worker] = []
        while self._free and len(team) < most:
            worker = self._free.popleft()
            if worker.has_ended:
                self._forget(worker)
            else:
                team.append(worker)
        return team

    def _give(self, worker: "_Worker") -> None:
        """Hand a process to who waits, or let it wait."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().put(worker)
            else:
                self._free.append(worker)

    def _outcome(self, worker: "_Worker", job: Job, attempt: int) -> tuple[bool, Any] | None:
        """What comes of a job that was sent to a process; None where that has died and another one is to try."""
        outcome = worker.receive()
        if outcome is not None:
            self._give(worker)
            return outcome
        code, bounds = self._replace(worker), job[1][-1]
        if code == ALARM and isinstance(bounds, Bounds) and bounds.max_seconds is not None:
            return True, too_slow(bounds.max_seconds)
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
        """Let another process take the place of one that died, or that is to; returns its exit code."""
        code = worker.end()
        with self._lock:
            self._forget(worker)
        return code

    def _forget(self, worker: "_Worker") -> None:
        """The same of one that has died; to be called under the lock."""
        code = worker.end()
        if self._closed or worker not in self._workers:
            return
        self._workers.discard(worker)
        self._restarts += 1
        log.warning("a worker process ended with exit code %d and is started again", code)
        threading.Thread(target=self._restart, name="restart", daemon=True).start()

    def _restart(self) -> None:
        """Start a process, however often it takes."""
        pause = FIRST_PAUSE
        while not self._closed:
            try:
                worker = self._start()
                self._prove(worker)
            except Exception as error:  # whatever it is: without this thread, the process would be missing for ever
                if not self._closed:
                    log.error("a worker process cannot be started: %s", error)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._give(worker)
                return

    def _prove(self, worker: "_Worker") -> None:
        """Wait until it is ready; raises what it raised, and knows it no longer then."""
        try:
            worker.await_ready()
        except BaseException:
            worker.end()
            with self._lock:
                self._workers.discard(worker)
            raise


class _Worker:
    """One process, and the pipes to it; used by one thread at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603  (ours)
        self._jobs = cast(BinaryIO, self._process.stdin)
        self._results = cast(BinaryIO, self._process.stdout)

    def await_ready(self) -> None:
        """Wait until it has proved the bundle; raises what it raised, or `EngineError` where it died."""
        try:
            with _ended_after(self._process, START_SECONDS):
                trouble = take(self._results)
        except LOST as error:
            raise EngineError(f"a worker process ended before it was ready, with exit code {self.end()}") from error
        if trouble is not None:
            raise trouble

    def send(self, job: Job) -> None:
        """Hand it a job; that it has died shows when the result is asked for."""
        with suppress(OSError, ValueError):  # the latter where it was ended meanwhile
            put(self._jobs, job)

    def receive(self) -> tuple[bool, Any] | None:
        """Whether the job went well and what came of it; None where the process has died."""
        try:
            outcome: tuple[bool, Any] = take(self._results)
        except LOST:
            return None
        return outcome

    @property
    def has_ended(self) -> bool:
        """Whether it has died."""
        return self._process.poll() is not None

    def end(self) -> int:
        """Kill it, unless it is dead, and close the pipes; returns the exit code."""
        self._process.kill()
        code = self._process.wait()
        for pipe in (self._jobs, self._results):
            with suppress(OSError):  # what was not written any more
                pipe.close()
        return code


@contextmanager
def _ended_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    """Kill a process unless the block ends in time."""
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
