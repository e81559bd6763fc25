"""Worker processes: they answer as the engine does that they hold, and what dies in them is lost to nobody."""

import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bundles
from darkroom.bundle import INFO_FILE, BundleInfo
from darkroom.config import ServeConfig
from darkroom.engines import pool as pools
from darkroom.engines import worker as workers
from darkroom.engines.choice import open_engine
from darkroom.engines.decoding import Bounds
from darkroom.engines.explanation import explain
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.engines.pool import PooledEngine
from darkroom.engines.prediction import Failure, Prediction, predict_pictures
from darkroom.errors import BundleError, EngineError, ImageError
from serving import RED, post_picture, serving

PICTURES = bundles.mixed_pictures()

needs_signals = pytest.mark.skipif(os.name != "posix", reason="ends processes by signals")

DEADLY = """
import os, sys
from darkroom.engines.worker import put, take
put(sys.stdout.buffer, None)
take(sys.stdin.buffer)
os.kill(os.getpid(), {signal})
"""
"""A worker that is ready, and dies of its first job."""


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[PooledEngine]:
    """Two processes, which tests leave as they are."""
    with PooledEngine.open(folder, 2) as engine:
        yield engine


@pytest.fixture
def pooled(folder: Path) -> Iterator[PooledEngine]:
    """Two processes to kill."""
    with PooledEngine.open(folder, 2) as engine:
        yield engine


def processes(engine: PooledEngine) -> list[subprocess.Popen[bytes]]:
    """The processes that there are now."""
    return [worker._process for worker in list(engine._workers)]


def await_workers(engine: PooledEngine, number: int) -> None:
    """Until so many wait for jobs."""
    end = time.monotonic() + 30
    while len([one for one in list(engine._open) if not one.line]) < number:
        assert time.monotonic() < end
        time.sleep(0.02)


def taken(results: io.BytesIO) -> Any:
    """The next of the objects that a worker put there."""
    return workers.take(results)


def with_program(folder: Path, program: str) -> PooledEngine:
    """An engine of one process, which runs that program instead."""
    engine = PooledEngine(BundleInfo.read(folder / INFO_FILE), folder, 1)
    engine._command = [sys.executable, "-c", program]
    worker = engine._start()
    worker.await_ready()
    engine._add(worker)
    return engine


def test_it_answers_as_the_engine_does_that_it_holds(shared: PooledEngine, engine: OnnxRuntimeEngine) -> None:
    here, there = predict_pictures(engine, PICTURES), predict_pictures(shared, PICTURES)
    assert [answer.name for answer in there] == [name for name, _ in PICTURES]
    for ours, theirs in zip(here, there, strict=True):
        assert type(ours) is type(theirs)
        if isinstance(ours, Prediction) and isinstance(theirs, Prediction):
            assert dict(theirs.probabilities) == pytest.approx(dict(ours.probabilities), abs=1e-5)
        else:
            assert ours == theirs
    pixels = np.random.default_rng(0).integers(0, 256, (300, 16, 24, 3), np.uint8)
    np.testing.assert_allclose(shared.logits(pixels), engine.logits(pixels), atol=1e-5)
    assert predict_pictures(shared, []) == []


def test_pixels_and_explanations_come_from_them_too(shared: PooledEngine, engine: OnnxRuntimeEngine) -> None:
    pixels, broken = shared.read([RED, b"broken"], Bounds())
    np.testing.assert_array_equal(pixels, engine.read([RED], Bounds())[0])
    assert isinstance(broken, ImageError)
    np.testing.assert_allclose(explain(shared, "x", RED).weights, explain(engine, "x", RED).weights, atol=1e-5)
    with pytest.raises(ImageError, match="not a picture"):
        explain(shared, "x", b"broken")


def test_bounds_reach_them(shared: PooledEngine) -> None:
    [refused] = predict_pictures(shared, [("x", RED)], bounds=Bounds(max_pixels=10))
    assert isinstance(refused, Failure)
    assert "too many pixels" in refused.error


def test_many_ask_at_once(shared: PooledEngine, engine: OnnxRuntimeEngine) -> None:
    expected = [type(answer) for answer in predict_pictures(engine, PICTURES)]
    with ThreadPoolExecutor(8) as threads:
        for answers in threads.map(lambda _: predict_pictures(shared, PICTURES), range(16)):
            assert [type(answer) for answer in answers] == expected


def test_what_is_wrong_with_a_call_is_told_as_by_the_engine(shared: PooledEngine) -> None:
    with pytest.raises(EngineError, match="uint8 pixels"):
        shared.predict(np.zeros((1, 2, 2, 3), np.uint8))
    with pytest.raises(RuntimeError, match="AttributeError in a worker process"):
        shared._results([("fly", ([],))])
    assert len(predict_pictures(shared, [("x", RED)])) == 1, "it lives on"


@needs_signals
def test_processes_that_died_while_they_waited_are_not_noticed(
    pooled: PooledEngine, caplog: pytest.LogCaptureFixture
) -> None:
    before = processes(pooled)
    for process in before:
        process.kill()
        process.wait()
    [answer] = predict_pictures(pooled, [("x", RED)])
    assert isinstance(answer, Prediction)
    predict_pictures(pooled, PICTURES)
    await_workers(pooled, 2)
    assert not {process.pid for process in before} & {process.pid for process in processes(pooled)}
    assert pooled.watched()["worker_restarts"][1]() == 2
    assert pooled.watched()["workers"][1]() == 2
    assert "exit code -9" in caplog.text


@needs_signals
def test_what_a_killed_process_was_asked_is_asked_of_another(pooled: PooledEngine) -> None:
    for process in processes(pooled):
        os.kill(process.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as thread:
        answers = thread.submit(predict_pictures, pooled, [(str(place), RED) for place in range(4)])
        time.sleep(0.3)
        assert not answers.done()
        stopped = processes(pooled)
        stopped[0].kill()
        os.kill(stopped[1].pid, signal.SIGCONT)
        assert [answer.label for answer in answers.result(30)] == ["red"] * 4  # type: ignore[union-attr]


@needs_signals
def test_a_picture_that_ends_every_process_is_given_up(folder: Path) -> None:
    with with_program(folder, DEADLY.format(signal=int(signal.SIGSEGV))) as engine:
        [answer] = predict_pictures(engine, [("x", RED)])
        assert answer == Failure("x", "has ended the process that worked on it, 3 times in a row")
        with pytest.raises(EngineError, match="3 times in a row"):
            engine.predict(np.zeros((1, 16, 24, 3), np.uint8))


@needs_signals
def test_a_decoder_that_hangs_is_ended_and_the_picture_not_tried_again(folder: Path) -> None:
    with with_program(folder, DEADLY.format(signal=int(signal.SIGALRM))) as engine:
        [answer] = predict_pictures(engine, [("x", RED)], bounds=Bounds(max_seconds=3))
        assert answer == Failure("x", "takes longer than 3 s to decode")
        await_workers(engine, 1)
        assert engine.watched()["worker_restarts"][1]() == 1


@needs_signals
def test_the_alarm_ends_a_process_inside_of_a_library() -> None:
    program = (
        "import time; from darkroom.engines import worker; worker.GRACE = 0\n"
        "with worker._alarm(60): pass\n"
        "with worker._alarm(None): pass\n"
        "with worker._alarm(0.2): time.sleep(60)"
    )
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], timeout=50, check=False)
    assert done.returncode == -signal.SIGALRM
    assert time.monotonic() - begun < 40


def test_a_bundle_that_was_exchanged_is_not_served_by_new_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pools, "PATIENCE", 2.0)
    monkeypatch.setattr(pools, "FIRST_PAUSE", 0.05)
    bundles.make_bundle(tmp_path / "bundle")
    with PooledEngine.open(tmp_path / "bundle", 2) as engine:
        bundles.make_bundle(tmp_path / "bundle", name="others")
        one, other = processes(engine)
        one.kill()
        assert len(predict_pictures(engine, PICTURES)) == len(PICTURES), "the other one has the old bundle open"
        other.kill()
        with pytest.raises(EngineError, match="no worker process has been free"):
            predict_pictures(engine, [("x", RED)])
        end = time.monotonic() + 60
        while "is not the bundle with which the server was started" not in caplog.text:
            assert time.monotonic() < end
            time.sleep(0.05)
        bundles.make_bundle(tmp_path / "bundle")
        await_workers(engine, 1)
        assert len(predict_pictures(engine, [("x", RED)])) == 1, "it came back"


def test_a_damaged_bundle_is_told_of_at_once(tmp_path: Path) -> None:
    bundles.make_bundle(tmp_path / "bundle")
    model = tmp_path / "bundle" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"model\.onnx"):
        PooledEngine.open(tmp_path / "bundle", 2)
    with pytest.raises(BundleError):
        PooledEngine.open(tmp_path / "nowhere", 2)


def test_a_process_that_does_not_start_is_told_of(folder: Path) -> None:
    with pytest.raises(EngineError, match="ended before it was ready, with exit code"):
        with_program(folder, "raise SystemExit(3)")


def test_after_closing_nothing_is_left(folder: Path) -> None:
    engine = PooledEngine.open(folder, 2)
    ended = processes(engine)
    engine.close()
    engine.close()
    assert all(process.poll() is not None for process in ended)
    with pytest.raises(EngineError, match="closed"):
        engine._start()


@needs_signals
def test_they_heed_no_signal_but_the_end_of_the_server(folder: Path) -> None:
    program = (
        "from pathlib import Path; from darkroom.engines.pool import PooledEngine\n"
        f"engine = PooledEngine.open(Path({str(folder)!r}), 1)\n"
        "print(*(worker._process.pid for worker in engine._workers), flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, text=True) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
        time.sleep(0.2)
        os.kill(pid, 0)
        server.kill()
        end = time.monotonic() + 20
        while Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text():
            assert time.monotonic() < end, "it outlives the server"
            time.sleep(0.05)


@needs_signals
def test_a_server_loses_no_request_while_its_processes_are_killed(folder: Path) -> None:
    with PooledEngine.open(folder, 2) as engine, serving(engine, max_queue=1000) as server:
        done = threading.Event()

        def kill() -> None:
            while not done.wait(0.5):
                processes(engine)[0].kill()
                await_workers(engine, 1)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            end = time.monotonic() + 6
            with ThreadPoolExecutor(6) as threads:
                asked = threads.map(lambda _: post_picture(server) if time.monotonic() < end else None, range(20_000))
                answers = [answer for answer in asked if answer is not None]
        finally:
            done.set()
            killer.join()
        assert engine.watched()["worker_restarts"][1]() >= 2
        assert {response.status for response, _ in answers} == {200}
        assert {content["predictions"][0].get("label") for _, content in answers} == {"red"}
        response, content = post_picture(server, b"broken")
        assert response.status == 200
        assert content["predictions"][0]["error"]["status"] == 422


def test_settings_say_how_many(folder: Path) -> None:
    with open_engine(folder, ServeConfig(workers=1)) as engine:
        assert isinstance(engine, PooledEngine)
        assert len(processes(engine)) == 1
    with open_engine(folder, ServeConfig(workers=0)) as engine:
        assert isinstance(engine, OnnxRuntimeEngine)


def test_a_worker_works_until_there_are_no_more_jobs(folder: Path) -> None:
    """As the processes do, in this one."""
    jobs, results = io.BytesIO(), io.BytesIO()
    workers.put(jobs, ("look", ([RED, b"broken"], Bounds(max_seconds=20))))
    workers.put(jobs, ("run", (np.zeros((1, 2, 2, 3), np.uint8),)))
    workers.put(jobs, ("fly", ()))
    jobs.seek(0)
    with workers.WorkerEngine.open(folder, threads=1) as engine:
        assert isinstance(engine, workers.WorkerEngine)
        workers.work(engine, jobs, results)
    results.seek(0)
    good, [seen, broken] = taken(results)
    assert good
    assert bundles.CLASSES[int(seen.probabilities.argmax())] == "red"
    assert isinstance(broken, ImageError)
    for kind in (EngineError, RuntimeError):
        good, error = taken(results)
        assert (good, type(error)) == (False, kind)


def test_a_worker_tells_what_is_wrong_with_its_bundle(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for where, fingerprint, kind in ((folder, "another", EngineError), (folder / "no", "", BundleError)):
        results = io.BytesIO()
        monkeypatch.setattr(workers, "_channels", lambda results=results: (io.BytesIO(), results))
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        workers.main([str(where), "1", fingerprint])
        results.seek(0)
        assert isinstance(taken(results), kind)
    assert caplog.records == [record for record in caplog.records if record.levelno < logging.ERROR]


def test_a_single_picture_need_not_wait_for_all_of_a_large_request(folder: Path) -> None:
    """Whoever waits for longest is served first: a thread that gives its process back does not get it again at once."""
    slow = bundles.encoded((230, 20, 20), size=(3000, 2000))
    with PooledEngine.open(folder, 1) as engine, ThreadPoolExecutor(1) as thread:
        large = thread.submit(predict_pictures, engine, [(str(place), slow) for place in range(20)])
        time.sleep(0.1)
        predict_pictures(engine, [("x", RED)])
        assert not large.done()
        assert len(large.result(60)) == 20


@needs_signals
def test_processes_that_died_unasked_are_nobodys_fault(folder: Path) -> None:
    with PooledEngine.open(folder, 4) as engine:
        for process in processes(engine)[:3]:
            process.kill()
            process.wait()
        answers = predict_pictures(engine, [(str(place), RED) for place in range(4)])
        assert [type(answer) for answer in answers] == [Prediction] * 4


def test_an_error_between_asking_and_answering_costs_no_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PooledEngine.open(folder, 2) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(pools, "put", lambda *_: (_ for _ in ()).throw(MemoryError))
            with pytest.raises(MemoryError):
                predict_pictures(engine, PICTURES)
        await_workers(engine, 2)
        assert len(predict_pictures(engine, PICTURES)) == len(PICTURES)


PICKY = """
import os, sys
from darkroom.engines.worker import put, take
put(sys.stdout.buffer, None)
while True:
    method, ([content], bounds) = take(sys.stdin.buffer)
    if content == b"deadly":
        os.kill(os.getpid(), 9)
    put(sys.stdout.buffer, (True, [content]))
"""
"""A worker that gives back what it gets, and dies of one thing."""

NO_BOUNDS = Bounds()


def lines(engine: PooledEngine) -> list[int]:
    """How many jobs each process has."""
    return sorted(len(worker.line) for worker in list(engine._workers))


def await_that(condition: Callable[[], bool]) -> None:
    """Until it holds."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@needs_signals
def test_a_job_lies_ready_while_another_one_is_done(pooled: PooledEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "SHORT", 60)
    for process in processes(pooled):
        os.kill(process.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(predict_pictures, pooled, [picture]) for picture in PICTURES[:6]]
        await_that(lambda: len(pooled._waiting) == 2)
        assert lines(pooled) == [2, 2]
        for process in processes(pooled):
            os.kill(process.pid, signal.SIGCONT)
        answers = [future.result(30)[0] for future in asked]
    assert answers == predict_pictures(pooled, PICTURES[:6]), "to each its own"
    assert lines(pooled) == [0, 0]
    assert pooled.watched()["worker_restarts"][1]() == 0


@needs_signals
def test_behind_a_job_that_takes_long_none_is_put(pooled: PooledEngine) -> None:
    for process in processes(pooled):
        os.kill(process.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(predict_pictures, pooled, [("x", RED)]) for _ in range(2)]
        await_that(lambda: lines(pooled) == [1, 1])
        time.sleep(2 * pools.SHORT)
        asked.append(threads.submit(predict_pictures, pooled, [("x", RED)]))
        await_that(lambda: len(pooled._waiting) == 1)
        assert lines(pooled) == [1, 1]
        os.kill(processes(pooled)[0].pid, signal.SIGCONT)
        assert len(asked[2].result(30)) == 1, "the first process that is free does it"
        os.kill(processes(pooled)[1].pid, signal.SIGCONT)


@needs_signals
@pytest.mark.parametrize("large_comes_first", [True, False])
def test_large_jobs_neither_go_behind_others_nor_have_others_behind_them(
    pooled: PooledEngine, monkeypatch: pytest.MonkeyPatch, large_comes_first: bool
) -> None:
    monkeypatch.setattr(pools, "SHORT", 60)
    large = bundles.encoded((230, 20, 20), size=(900, 600), kind="BMP")
    assert len(large) > pools.SMALL
    for process in processes(pooled):
        os.kill(process.pid, signal.SIGSTOP)
    first, second = (large, RED) if large_comes_first else (RED, large)
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(predict_pictures, pooled, [("x", first)]) for _ in range(2)]
        await_that(lambda: lines(pooled) == [1, 1])
        asked += [threads.submit(predict_pictures, pooled, [("x", second)]) for _ in range(2)]
        await_that(lambda: len(pooled._waiting) == 2)
        assert lines(pooled) == [1, 1]
        for process in processes(pooled):
            os.kill(process.pid, signal.SIGCONT)
        assert [future.result(30)[0].label for future in asked] == ["red"] * 4  # type: ignore[union-attr]


@needs_signals
def test_who_has_a_job_in_a_line_is_told_when_the_engine_closes(
    pooled: PooledEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "SHORT", 60)
    for process in processes(pooled):
        os.kill(process.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(predict_pictures, pooled, [("x", RED)]) for _ in range(6)]
        await_that(lambda: lines(pooled) == [2, 2] and len(pooled._waiting) == 2)
        pooled.close()
        for future in asked:
            with pytest.raises(EngineError, match="closed"):
                future.result(30)


@needs_signals
def test_an_error_of_who_comes_next_is_held_against_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "SHORT", 60)
    monkeypatch.setattr(pools, "ATTEMPTS", 1)

    def write(stream: Any, job: Any) -> None:
        if job[1][0] == [b"unspeakable"]:
            raise MemoryError
        workers.put(stream, job)

    with with_program(folder, PICKY) as engine, ThreadPoolExecutor(2) as threads:
        monkeypatch.setattr(pools, "put", write)
        [process] = processes(engine)
        os.kill(process.pid, signal.SIGSTOP)
        first = threads.submit(engine.look, [b"first"], NO_BOUNDS)
        await_that(lambda: lines(engine) == [1])
        with pytest.raises(MemoryError):
            threads.submit(engine.look, [b"unspeakable"], NO_BOUNDS).result(30)
        assert first.result(30) == [b"first"]


@needs_signals
def test_what_ends_a_process_is_held_against_nobody_who_waits_behind_it(folder: Path) -> None:
    with with_program(folder, PICKY) as engine, ThreadPoolExecutor(5) as threads:
        for _ in range(3):
            deadly = threads.submit(engine.look, [b"deadly"], NO_BOUNDS)
            others = [threads.submit(engine.look, [bytes([place])], NO_BOUNDS) for place in range(4)]
            assert [future.result(60) for future in others] == [[bytes([place])] for place in range(4)]
            [error] = deadly.result(60)
            assert str(error) == "has ended the process that worked on it, 3 times in a row"


@needs_signals
def test_large_jobs_and_results_that_cross_do_not_block_each_other(folder: Path) -> None:
    """Each is larger than a pipe, so that whoever writes waits until somebody reads."""
    with PooledEngine.open(folder, 2) as engine:
        engine._command = [sys.executable, "-c", PICKY]
        for process in processes(engine):
            process.kill()
        contents = [bytes([place]) * 300_000 for place in range(12)]
        with ThreadPoolExecutor(8) as threads:
            asked = [threads.submit(engine.look, contents, NO_BOUNDS) for _ in range(8)]
            assert all(future.result(120) == contents for future in asked)


GREEDY = """
import os, sys
from darkroom.engines.worker import put
put(sys.stdout.buffer, None)
sys.stdin.buffer.read(1000)
os._exit(9)
"""
"""A worker that dies while it reads a job."""


def test_a_job_that_ends_processes_by_being_read_is_given_up(folder: Path) -> None:
    with with_program(folder, GREEDY) as engine:
        [error] = engine.look([bytes(10_000_000)], NO_BOUNDS)
        assert str(error) == "has ended the process that worked on it, 3 times in a row"


@needs_signals
def test_behind_the_pictures_of_a_request_of_several_none_is_put(
    pooled: PooledEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read one after the other, so that a slow one would hold up who waits behind a quick one."""
    monkeypatch.setattr(pools, "SHORT", 60)
    with ThreadPoolExecutor(2) as threads:
        for process in processes(pooled):
            os.kill(process.pid, signal.SIGSTOP)
        team = threads.submit(predict_pictures, pooled, [("a", RED), ("b", RED)])
        await_that(lambda: lines(pooled) == [1, 1])
        single = threads.submit(predict_pictures, pooled, [("x", RED)])
        await_that(lambda: len(pooled._waiting) == 1)
        assert lines(pooled) == [1, 1]
        for process in processes(pooled):
            os.kill(process.pid, signal.SIGCONT)
        assert len(team.result(30)) == 2
        assert len(single.result(30)) == 1


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at processes by /proc")
def test_processes_have_a_fixed_bound_from_which_blocks_are_given_back(shared: PooledEngine) -> None:
    for process in processes(shared):
        environment = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
        assert {f"{name}={value}" for name, value in pools.MALLOC.items()} <= {*environment}
