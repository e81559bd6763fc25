"""Worker processes behind one engine: what a picture does to a decoder, it does to none but its own process.

Each holds a session of its own, made in it, and does one job at a time. Where jobs are small, the next one lies ready
in its pipe meanwhile, so that no core waits for the server's threads. A process that dies is started again, and what
it was asked is asked anew of another, so that nothing is lost with it.
"""

import logging
import os
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

CLOSED = "the engine is closed: open it again"

PATIENCE = 30.0
"""Seconds that a job waits for a free process."""

LINE = 2
"""Jobs that a process has at most: the one that it does, and the next."""

SMALL = 30_000
"""Bytes of a job that is put behind another one, and of those behind which it is put: it fits into a pipe, so that
writing it waits for nobody, and others are not worth the risk that they take long."""

SHORT = 0.05
"""Behind a job that takes longer than so many seconds none is put."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between attempts to start a process; they double."""

START_SECONDS = 120.0
"""After so long a process that is not ready is taken for one that never will be."""

ALARM = -signal.SIGALRM if hasattr(signal, "SIGALRM") else HUNG
"""The exit code of a process whose decoder did not end in time."""

MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**23)}
"""Bytes from which glibc asks the system for a block of its own, and how much it keeps: else it raises the former with
each large picture, whose holes in the heap then stay."""

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
        self._open: list[_Worker] = []  # may have another job
        self._waiting: deque[tuple[queue.SimpleQueue[_Turn | None], bool]] = deque()  # and whether the job is small
        self._lost: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True for each process to start; False ends that
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._closed = False
        self._restarts = 0
        self._restarters = [
            threading.Thread(target=self._restart_lost, name="restart", daemon=True) for _ in range(workers)
        ]
        for thread in self._restarters:
            thread.start()

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
                engine._add(worker)
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
            self._open.clear()
            while self._waiting:
                self._waiting.popleft()[0].put(None)
            for worker in workers:
                worker.end()
                worker.open_gates()
        for _ in self._restarters:
            self._lost.put(False)

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
            turns = self._take(len(pending), is_small=_is_small(jobs[pending[0][0]]))
            team = [(turn, *pending.popleft()) for turn in turns]
            for place, attempt, outcome in self._round(team, jobs):
                if outcome is None:
                    pending.append((place, attempt))
                else:
                    outcomes[place] = outcome
        for is_good, value in outcomes.values():
            if not is_good:
                raise type(value)(*value.args)  # a new one, whose traceback does not hold itself, and so the jobs
        return [outcomes[place][1] for place in range(len(jobs))]

    def _round(
        self, team: "Sequence[tuple[_Turn, int, int]]", jobs: Sequence[Job]
    ) -> list[tuple[int, int, tuple[bool, Any] | None]]:
        """Place, next attempt and outcome of the jobs that a team does."""
        unsettled = [turn for turn, _, _ in team]
        done = []
        try:
            for turn, place, _ in team:
                turn.is_small = _is_small(jobs[place])
                turn.may_be_followed = turn.is_small and len(team) == 1  # of a team, one is read after the other
                turn.has_arrived = turn.worker.send(jobs[place])
                if turn.has_arrived:
                    self._told(turn.worker)
            for turn, place, attempt in team:
                done.append((place, *self._outcome(turn, jobs[place], attempt)))
                unsettled.remove(turn)
        except BaseException:  # memory ran out, for one: what such a process may still say is for nobody any more
            for turn in unsettled:
                self._replace(turn.worker)
            raise
        return done

    def _take(self, most: int, *, is_small: bool) -> "list[_Turn]":
        """Between one and so many turns, the first of them for a job that is small or not.

        Who waits for longest is served first. Several are of processes that have nothing else to do: who waited behind
        others' jobs while others wait behind theirs might wait for ever.
        """
        with self._lock:
            if self._closed:
                raise EngineError(CLOSED)
            team = [] if self._waiting else self._chosen(most, is_small=is_small)
            if team:
                return team
            place: queue.SimpleQueue[_Turn | None] = queue.SimpleQueue()
            self._waiting.append((place, is_small))
        turn = self._awaited(place, is_small)
        if turn is None:
            raise EngineError(CLOSED)
        return [turn]

    def _awaited(self, place: "queue.SimpleQueue[_Turn | None]", is_small: bool) -> "_Turn | None":
        """The turn that is handed over at a place in the queue; None where the engine is closed instead."""
        with suppress(queue.Empty):
            return place.get(timeout=PATIENCE)
        with self._lock, suppress(ValueError):
            self._waiting.remove((place, is_small))
        with suppress(queue.Empty):  # handed over just then
            return place.get_nowait()
        raise EngineError(f"no worker process has been free for {PATIENCE:g} s")

    def _chosen(self, most: int, *, is_small: bool) -> "list[_Turn]":
        """Turns of processes that have no job, or else one behind another job; to be called under the lock."""
        chosen = [worker for worker in self._open if not worker.line][:most]
        if not chosen and is_small:
            chosen = [worker for worker in self._open if worker.is_soon_done()][:1]
        for worker in chosen:
            self._open.remove(worker)
        return [worker.join() for worker in chosen]

    def _offer(self, worker: "_Worker") -> None:
        """Let a process have another job, where it has room; to be called under the lock."""
        if len(worker.line) == LINE or worker.is_told_now or worker not in self._workers:
            return
        if worker in self._open:
            self._open.remove(worker)
        if self._waiting and (not worker.line or (self._waiting[0][1] and worker.is_soon_done())):
            place, _ = self._waiting.popleft()
            place.put(worker.join())
        else:
            self._open.append(worker)

    def _add(self, worker: "_Worker") -> None:
        """Let a process that is ready have jobs."""
        with self._lock:
            self._offer(worker)

    def _told(self, worker: "_Worker") -> None:
        """Let a process to which a job was written have the next."""
        with self._lock:
            worker.is_told_now = False
            self._offer(worker)

    def _finish(self, turn: "_Turn") -> None:
        """Let the next one have a process that has answered."""
        with self._lock:
            if turn.worker in self._workers:
                turn.worker.leave()
                self._offer(turn.worker)

    def _outcome(self, turn: "_Turn", job: Job, attempt: int) -> tuple[int, tuple[bool, Any] | None]:
        """The next attempt, and what has come of this one; None where another process is to try."""
        worker = turn.worker
        turn.gate.acquire()
        if worker not in self._workers:  # another thread has ended it, which did not mean this job
            return attempt, None
        outcome = worker.receive() if turn.has_arrived else None
        if outcome is not None:
            self._finish(turn)
            return attempt, outcome
        if worker not in self._workers:  # as above
            return attempt, None
        code, bounds = self._replace(worker), job[1][-1]
        if not turn.has_arrived and turn.is_small:  # it had died before; of a large job it may have died in reading
            return attempt, None
        if code == ALARM and isinstance(bounds, Bounds) and bounds.max_seconds is not None:
            return attempt, (True, too_slow(bounds.max_seconds))
        if attempt < ATTEMPTS:
            return attempt + 1, None
        return attempt, (True, ImageError(f"has ended the process that worked on it, {ATTEMPTS} times in a row"))

    def _start(self) -> "_Worker":
        worker = _Worker(self._command)
        with self._lock:
            if not self._closed:
                self._workers.add(worker)
                return worker
        worker.end()
        raise EngineError(CLOSED)

    def _replace(self, worker: "_Worker") -> int:
        """Let another process take the place of one that died, or that is to; returns its exit code."""
        with self._lock:  # before it ends: who else waits for it must not take that for the work of their job
            if worker in self._open:
                self._open.remove(worker)
            is_known = worker in self._workers  # neither replaced already nor closed
            self._workers.discard(worker)
            self._restarts += is_known
            worker.open_gates()
        if is_known:
            self._lost.put(True)
        code = worker.end()
        if is_known:
            log.warning("a worker process ended with exit code %d and is started again", code)
        return code

    def _restart_lost(self) -> None:
        """Start processes in the place of those that died, until the engine is closed.

        In threads that are there from the beginning: a system that is short of something may start none later.
        """
        while self._lost.get():
            self._restart()

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
                self._add(worker)
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


class _Turn:
    """The place of a job in the line of a process."""

    def __init__(self, worker: "_Worker") -> None:
        self.worker = worker
        self.is_small = self.may_be_followed = False
        """Whether the job is small, and whether another one may be put behind it; known from when it is written."""
        self.gate = threading.Lock()
        """Open to the first of the line, who reads what the process answers."""
        self.has_arrived = False
        """Whether the job was written while the process was there."""


class _Worker:
    """One process, and the pipes to it: one thread at a time writes to it, and one reads.

    Its line is changed under the engine's lock.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.line: deque[_Turn] = deque()
        self.is_told_now = False
        """Whether the last of the line may not have written its job yet: who comes next must wait with theirs."""
        self.begun = 0.0
        """When the first of the line became that; `time.monotonic`."""
        self._process = subprocess.Popen(  # noqa: S603  (ours)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**MALLOC, **os.environ}
        )
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

    def is_soon_done(self) -> bool:
        """Whether the job that it has is likely to be."""
        return self.line[0].may_be_followed and time.monotonic() - self.begun < SHORT

    def join(self) -> _Turn:
        """A turn at the end of the line, whose owner is to write the job next."""
        turn = _Turn(self)
        if self.line:
            turn.gate.acquire()
        else:
            self.begun = time.monotonic()
        self.line.append(turn)
        self.is_told_now = True
        return turn

    def leave(self) -> None:
        """Let the first of the line go."""
        self.line.popleft()
        if self.line:
            self.begun = time.monotonic()
            self.line[0].gate.release()

    def open_gates(self) -> None:
        """Let all of the line see that the process has ended."""
        for turn in self.line:
            with suppress(RuntimeError):  # open already
                turn.gate.release()

    def send(self, job: Job) -> bool:
        """Write a job; False where the process has died."""
        try:
            put(self._jobs, job)
        except (OSError, ValueError):  # the latter where it was ended meanwhile
            return False
        return True

    def receive(self) -> tuple[bool, Any] | None:
        """Whether the job went well and what came of it; None where the process has died."""
        try:
            outcome: tuple[bool, Any] = take(self._results)
        except LOST:
            return None
        return outcome

    def end(self) -> int:
        """Kill it, unless it is dead, and close the pipes; returns the exit code."""
        self._process.kill()
        code = self._process.wait()
        for pipe in (self._jobs, self._results):
            with suppress(OSError, ValueError):  # what was not written any more, or another thread that does the same
                pipe.close()
        return code


def _is_small(job: Job) -> bool:
    """Whether little is written of a job; files that the process reads by itself may be of any size."""
    data = job[1][0]
    if isinstance(data, np.ndarray):
        return data.nbytes <= SMALL
    return sum(len(content) if isinstance(content, bytes) else SMALL + 1 for content in data) <= SMALL


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
