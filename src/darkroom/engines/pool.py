"""Worker processes behind one engine: what a picture does to a decoder, it does to none but its own process.

Each holds a session of its own, made in it, and does one job at a time. The next one lies ready in its pipe meanwhile,
so that no core waits for the server's threads. A process that dies is started again, and what it was asked is asked
anew of another, so that nothing is lost with it.
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

LINE = 2
"""Jobs that a process has at most: the one that it does, and the next."""

SHORT = 0.05
"""Behind a job that takes longer than so many seconds none is put."""

STUCK = 1.0
"""Seconds after which a job that was put behind another one in time is given to another process instead."""

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
        self._open: list[_Worker] = []  # may have another job
        self._waiting: deque[queue.SimpleQueue[_Turn]] = deque()
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
            for worker in workers:
                worker.end()
                while self._waiting:  # who sees that it has ended, and then that all has
                    self._waiting.popleft().put(worker.join())
                worker.open_gates()

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
            team = [(turn, *pending.popleft()) for turn in self._take(len(pending))]
            for place, attempt, outcome in self._round(team, jobs):
                if outcome is None:
                    pending.append((place, attempt))
                else:
                    outcomes[place] = outcome
        for is_good, value in outcomes.values():
            if not is_good:
                raise value
        return [outcomes[place][1] for place in range(len(jobs))]

    def _round(
        self, team: "Sequence[tuple[_Turn, int, int]]", jobs: Sequence[Job]
    ) -> list[tuple[int, int, tuple[bool, Any] | None]]:
        """Place, next attempt and outcome of the jobs that a team does."""
        unsettled = [turn for turn, _, _ in team]
        done = []
        try:
            for turn, place, _ in team:
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

    def _take(self, most: int) -> "list[_Turn]":
        """Between one and so many turns; who waits for longest is served first.

        Several are of processes that have nothing else to do: who waited behind others' jobs while others wait behind
        theirs might wait for ever.
        """
        with self._lock:
            if self._closed:
                raise EngineError("the engine is closed: open it again")
            team = [] if self._waiting else self._chosen(most)
            if team:
                return team
            place: queue.SimpleQueue[_Turn] = queue.SimpleQueue()
            self._waiting.append(place)
        with suppress(queue.Empty):
            return [place.get(timeout=PATIENCE)]
        with self._lock, suppress(ValueError):
            self._waiting.remove(place)
        with suppress(queue.Empty):  # handed over just then
            return [place.get_nowait()]
        raise EngineError(f"no worker process has been free for {PATIENCE:g} s")

    def _chosen(self, most: int) -> "list[_Turn]":
        """Turns of processes that have no job, or else one behind a short job; to be called under the lock."""
        chosen = [worker for worker in self._open if not worker.line][:most]
        if not chosen:
            soon = time.monotonic() - SHORT
            chosen = [worker for worker in self._open if worker.begun > soon][:1]
        for worker in chosen:
            self._open.remove(worker)
        return [worker.join() for worker in chosen]

    def _offer(self, worker: "_Worker") -> None:
        """Let a process have another job, where it has room; to be called under the lock."""
        if len(worker.line) == LINE or worker.is_told_now or worker not in self._workers:
            return
        if worker in self._open:
            self._open.remove(worker)
        if self._waiting:
            self._waiting.popleft().put(worker.join())
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
            turn.worker.leave()
            self._offer(turn.worker)

    def _outcome(self, turn: "_Turn", job: Job, attempt: int) -> tuple[int, tuple[bool, Any] | None]:
        """The next attempt, and what has come of this one; None where another process is to try."""
        worker = turn.worker
        if not self._comes(turn):
            return attempt, None
        outcome = worker.receive()
        if outcome is not None:
            self._finish(turn)
            return attempt, outcome
        was_ours = worker in self._workers and not worker.stale  # else another thread or job has ended it
        code, bounds = self._replace(worker), job[1][-1]
        if not was_ours:
            return attempt, None
        if code == ALARM and isinstance(bounds, Bounds) and bounds.max_seconds is not None:
            return attempt, (True, too_slow(bounds.max_seconds))
        if attempt < ATTEMPTS:
            return attempt + 1, None
        return attempt, (True, ImageError(f"has ended the process that worked on it, {ATTEMPTS} times in a row"))

    def _comes(self, turn: "_Turn") -> bool:
        """Wait until a turn comes; False where its process will not do the job, which is not the job's fault."""
        turn.gate.acquire(timeout=STUCK)
        with self._lock:
            if turn.worker not in self._workers:
                return False
            is_first = turn.worker.line[0] is turn
            turn.is_given_up = not is_first
        if is_first and not turn.has_arrived:  # the process died while it had nothing to do
            self._replace(turn.worker)
        return is_first and turn.has_arrived

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
            if worker in self._open:
                self._open.remove(worker)
            is_known = worker in self._workers  # neither replaced already nor closed
            self._workers.discard(worker)
            self._restarts += is_known
            worker.open_gates()
        if is_known:
            log.warning("a worker process ended with exit code %d and is started again", code)
            threading.Thread(target=self._restart, name="restart", daemon=True).start()
        return code

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
        self.gate = threading.Lock()
        """Open to the first of the line, who reads what the process answers."""
        self.has_arrived = False
        self.is_given_up = False


class _Worker:
    """One process, and the pipes to it: one thread at a time writes to it, and one reads.

    Its line is changed under the engine's lock.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.line: deque[_Turn] = deque()
        self.is_told_now = False
        """Whether the last of the line may not have written its job yet: who comes next must wait with theirs."""
        self.stale = 0
        """Answers to come that nobody waits for any more, before those of the line."""
        self.begun = 0.0
        """When the first of the line became that; `time.monotonic`."""
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

    def join(self) -> _Turn:
        """A turn at the end of the line, which its owner is to write next."""
        turn = _Turn(self)
        if self.line:
            turn.gate.acquire()
        else:
            self.begun = time.monotonic()
        self.line.append(turn)
        self.is_told_now = True
        return turn

    def leave(self) -> None:
        """Let the first of the line go, and who has given up behind it."""
        self.line.popleft()
        while self.line and self.line[0].is_given_up:
            self.line.popleft()
            self.stale += 1
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
            while self.stale:
                take(self._results)
                self.stale -= 1
            outcome: tuple[bool, Any] = take(self._results)
        except LOST:
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
