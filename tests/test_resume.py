"""Exact resume: whenever a training is cut off, going on leads to the same bits as never having been cut off.

Every step of tiny trainings is tried in one process; a few real processes are killed at moments drawn at random.
"""

import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom import workflow
from darkroom.config import DataConfig, Optimiser, Schedule, TrainConfig
from darkroom.errors import DarkroomError, RunError
from darkroom.files import sha256_of
from darkroom.runs import Run
from darkroom.training.machine import Arithmetic
from darkroom.training.state import State, restore, save
from training import Hoarder, Training, draw_folder, same_weights, training

OPTIMISERS: tuple[Optimiser, ...] = ("sgd", "adamw", "muon")
SCHEDULES: tuple[Schedule, ...] = ("one-cycle", "cosine", "plateau")
TIMED = {"seconds", "images_per_second", "elapsed"}


def untimed(state: State) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in TIMED} for row in state.history]


def assert_resumes_everywhere(made: Training, folder: Path) -> None:
    """Save at every step and after every epoch, and go on from each of those."""
    keeper = Hoarder(folder)
    whole = made.fit(made.state(), keeper, checkpoint_seconds=0.0)
    assert keeper.saves == made.plan.total_steps + made.plan.epochs
    for path in keeper.paths:
        state = made.state()
        torch.manual_seed(987654)  # nothing may depend on what the new process happens to have drawn
        restore(state, path)
        made.fit(state)
        assert same_weights(state.network.state_dict(), whole.network.state_dict()), path
        assert same_weights(state.best.weights, whole.best.weights), path
        assert (state.best.epoch, state.waited) == (whole.best.epoch, whole.waited)
        assert untimed(state) == untimed(whole)
        assert state.learning_rate == whole.learning_rate
        if whole.average is not None and state.average is not None:
            assert same_weights(state.average.state_dict(), whole.average.state_dict())


EVERYTHING: dict[str, Any] = {
    "flip": True,
    "translate": 1,
    "cutout": 2,
    "crop_scale": 0.6,
    "resize_from": 0.5,
    "colour_jitter": 0.2,
    "mixup": 0.4,
    "cutmix": 0.4,
}


@pytest.mark.parametrize(("optimiser", "schedule"), [*product(OPTIMISERS, SCHEDULES)])
@pytest.mark.parametrize(("ema_decay", "dropout"), [*product((0.0, 0.9), (0.0, 0.3))])
def test_every_step_of_every_kind(
    tmp_path: Path, optimiser: Optimiser, schedule: Schedule, ema_decay: float, dropout: float
) -> None:
    options = {"optimiser": optimiser, "schedule": schedule, "ema_decay": ema_decay, "dropout": dropout}
    assert_resumes_everywhere(training(epochs=2, **options, **EVERYTHING), tmp_path)


def test_every_step_with_accumulation_and_other_arithmetic(tmp_path: Path) -> None:
    made = training(epochs=2, accumulate=3, dropout=0.2, ema_decay=0.9)
    made.arithmetic = Arithmetic(bf16=True, channels_last=True)
    assert_resumes_everywhere(made, tmp_path)


@pytest.mark.slow
def test_every_step_on_two_threads(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        made = training(epochs=2, ema_decay=0.9)
        made.arithmetic = Arithmetic(bf16=True, channels_last=True)
        assert_resumes_everywhere(made, tmp_path)
    finally:
        torch.set_num_threads(threads)


def test_randomness_differs_between_seeds() -> None:
    """Otherwise equal hashes would prove nothing."""
    one, other = training(dropout=0.5), training(dropout=0.5)
    other.seed = 1
    assert not same_weights(one.fit(one.state()).best.weights, other.fit(other.state()).best.weights)


def checkpoint(folder: Path) -> tuple[Training, Path]:
    made = training(ema_decay=0.9)
    state = made.fit(made.state())
    path = folder / "checkpoint.pt"
    save(state, path)
    return made, path


def assert_refused(made: Training, path: Path, *, match: str = "cannot be read") -> None:
    with pytest.raises(RunError, match=match) as caught:
        restore(made.state(), path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert "--overwrite" in text or "--resume" in text


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, part: float) -> None:
    made, path = checkpoint(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    assert_refused(made, path)


def test_a_changed_byte_anywhere_in_the_weights_is_refused(tmp_path: Path) -> None:
    made, path = checkpoint(tmp_path)
    content = path.read_bytes()
    whole = torch.load(path, weights_only=True)["network"]["head.weight"].numpy().tobytes()
    place = content.find(whole)  # inside a tensor, where torch.load checks nothing
    assert place > 0
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert_refused(made, path, match="checksum")


def test_something_else_in_its_place_is_refused(tmp_path: Path) -> None:
    made, path = checkpoint(tmp_path)
    path.write_text("not a checkpoint\n" * 100)
    assert_refused(made, path)
    torch.save({"network": {}}, path)
    assert_refused(made, path)
    torch.save([1, 2, 3], path)
    assert_refused(made, path)
    path.unlink()
    assert_refused(made, path, match="is missing")


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    made, path = checkpoint(tmp_path)
    target = tmp_path / "owned"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(target),)

    torch.save({"network": Evil()}, path)
    assert_refused(made, path)
    assert not target.exists()


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    _, path = checkpoint(tmp_path)
    assert_refused(training(ema_decay=0.9, width=0.5), path)


def test_a_failed_save_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, path = checkpoint(tmp_path)
    before = path.read_bytes()
    state = made.state()
    state.history = [{"epoch": lambda: 1}]  # type: ignore[dict-item]
    with pytest.raises(Exception, match="pickle"):
        save(state, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


SAVING_FOREVER = """
import sys
from pathlib import Path
from training import training
from darkroom.training.state import save
made = training(ema_decay=0.9, width=2.0)
state = made.fit(made.state())
print("ready", flush=True)
while True:
    save(state, Path(sys.argv[1]))
    print("saved", flush=True)
"""


def test_a_process_killed_while_it_saves_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    command = [sys.executable, "-c", SAVING_FOREVER, str(path)]
    with subprocess.Popen(
        command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout is not None
        while child.stdout.readline() != b"saved\n":
            assert child.poll() is None
        time.sleep(moment(0.0, 0.3))
        child.kill()
    made = training(ema_decay=0.9, width=2.0)
    state = made.state()
    restore(state, path)
    assert state.finished
    assert len(state.history) == 2


# Real processes.

SEED = random.SystemRandom().randrange(10**6)
MOMENTS = random.Random(SEED)  # noqa: S311 - moments need not be secret
EPOCHS = 40


def moment(low: float, high: float) -> float:
    """Seconds drawn at random; shown, with the seed, when a test fails."""
    seconds = MOMENTS.uniform(low, high)
    print(f"seed {SEED}: after {seconds:.3f} s")
    return seconds


class Case:
    """A data set, options, and the weights of a training that nothing disturbed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = draw_folder(folder / "data", each=30)
        self.cache = folder / "cache"
        self.reference = Run(folder / "reference")
        self.train_here(self.reference)
        self.digest = sha256_of(self.reference.weights)

    def configs(self) -> tuple[DataConfig, TrainConfig]:
        # Arithmetic that is measured may differ between runs; here it is given.
        config = TrainConfig(
            epochs=EPOCHS,
            patience=EPOCHS,
            threads=1,
            width=0.25,
            dropout=0.2,
            precision="fp32",
            memory_format="contiguous",
        )
        return DataConfig(cache=self.cache), config

    def train_here(self, run: Run, *, resume: bool = False) -> None:
        data_config, config = self.configs()
        workflow.train(str(self.data), run, data_config=data_config, config=config, resume=resume)

    def start(self, run: Run) -> "subprocess.Popen[str]":
        options = f"--epochs {EPOCHS} --patience {EPOCHS} --threads 1 --width 0.25 --dropout 0.2"
        arithmetic = "--precision fp32 --memory-format contiguous"
        where = ("--out", str(run.folder), "--cache", str(self.cache))
        return darkroom("train", str(self.data), *where, *options.split(), *arithmetic.split())

    def check(self, run: Run) -> None:
        """The run ended with the same bits, and its history holds each epoch once."""
        assert sha256_of(run.weights) == self.digest
        history = run.read_history()
        assert [row["epoch"] for row in history] == list(range(1, EPOCHS + 1))
        losses = [row["train_loss"] for row in history]
        assert losses == [row["train_loss"] for row in self.reference.read_history()]
        result, plan = (run.read_config()["training"][part] for part in ("result", "plan"))
        assert result["steps"] == result["planned_steps"] == EPOCHS * plan["steps_an_epoch"]


def darkroom(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "darkroom", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    threads = torch.get_num_threads()
    yield Case(tmp_path_factory.mktemp("resume"))
    torch.set_num_threads(threads)


def wait_for(process: "subprocess.Popen[str]", text: str) -> None:
    """Read the process's messages until one holds `text`."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"the process ended without saying {text!r}")


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_killed_at_any_moment_before_the_first_checkpoint(case: Case, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    process = case.start(run)
    time.sleep(moment(0.5, 6.0))
    kill(process)
    case.train_here(run, resume=True)
    case.check(run)


@pytest.mark.slow
def test_stopped_by_ctrl_c_killed_and_resumed(case: Case, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    process = case.start(run)
    wait_for(process, "epoch   1/")
    time.sleep(moment(0.0, 0.15))
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    command = re.search(r"go on with: (darkroom .*)", told)
    assert command is not None
    assert "all is saved" in told
    assert "Traceback" not in told
    assert run.checkpoint.exists()
    assert not run.weights.exists()

    words = shlex.split(command.group(1))[1:]
    resumed = darkroom(*words)
    wait_for(resumed, "Going on from epoch")
    time.sleep(moment(0.0, 0.5))
    kill(resumed)

    last = darkroom(*words)
    out, told = last.communicate(timeout=60)
    assert last.returncode == 0, told
    assert str(run.folder) in out
    case.check(run)


def copied(case: Case, folder: Path) -> Run:
    shutil.copytree(case.reference.folder, folder)
    return Run(folder)


@pytest.mark.parametrize("weights_written", [False, True])
def test_killed_after_the_last_checkpoint(case: Case, tmp_path: Path, weights_written: bool) -> None:
    run = copied(case, tmp_path / "run")
    content = run.read_config()
    del content["training"]["result"]
    run.write_config(content)
    if not weights_written:
        run.weights.unlink()
    case.train_here(run, resume=True)
    case.check(run)


@pytest.mark.slow
def test_killed_between_history_and_checkpoint(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "run")

    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("darkroom.training.state.save", broken)
    with pytest.raises(KeyboardInterrupt):
        case.train_here(run)
    monkeypatch.undo()
    assert not run.checkpoint.exists()
    case.train_here(run, resume=True)
    case.check(run)


def test_a_finished_run_stays_as_it_is(case: Case, tmp_path: Path) -> None:
    run = copied(case, tmp_path / "run")
    case.train_here(run, resume=True)
    case.check(run)
    assert run.history.read_bytes() == case.reference.history.read_bytes()


def refused(case: Case, run: Run, data: str | None = None, **options: Any) -> str:
    """The one line with which a resume is refused; nothing in the folder changes."""
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    data_options = {name: options.pop(name) for name in ("seed", "image_size") if name in options}
    flags = {name: options.pop(name) for name in ("resume", "overwrite") if name in options} or {"resume": True}
    with pytest.raises(DarkroomError) as caught:
        workflow.train(
            data or str(case.data),
            run,
            data_config=DataConfig(cache=case.cache, **data_options),
            config=TrainConfig(**options),
            **flags,
        )
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"epochs": EPOCHS + 1}, "--epochs"),
        ({"minutes": 2.0}, "--minutes"),
        ({"optimiser": "adamw"}, "--optimiser"),
        ({"width": 0.5}, "--width"),
        ({"seed": 3}, "--seed"),
        ({"image_size": 32}, "--image-size"),
        ({"ema_decay": 0.5}, "--ema-decay"),
    ],
)
def test_contradicting_options_are_refused(case: Case, options: dict[str, Any], named: str) -> None:
    assert f"{named} is" in refused(case, case.reference, **options)


def test_other_data_is_refused(case: Case) -> None:
    assert "was started on" in refused(case, case.reference, data="digits")


def test_a_taken_folder_is_refused(case: Case) -> None:
    text = refused(case, case.reference, resume=False)
    assert "--resume" in text
    assert "--overwrite" in text
    assert "contradict" in refused(case, case.reference, resume=True, overwrite=True)


def test_data_that_cannot_be_read_do_not_cost_the_run_that_would_be_overwritten(case: Case) -> None:
    refused(case, case.reference, data=str(case.folder / "nowhere"), overwrite=True)
    case.check(case.reference)


def test_a_damaged_checkpoint_of_a_run_is_one_clear_line(case: Case, tmp_path: Path) -> None:
    run = copied(case, tmp_path / "run")
    run.weights.unlink()  # not trained to its end
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:-500])
    with pytest.raises(RunError, match=r"checkpoint\.pt cannot be read .* --overwrite") as caught:
        case.train_here(run, resume=True)
    assert "\n" not in str(caught.value)


def test_options_that_agree_may_be_repeated(case: Case, tmp_path: Path) -> None:
    run = copied(case, tmp_path / "run")
    workflow.train(
        str(case.data), run, data_config=DataConfig(cache=case.cache), config=TrainConfig(epochs=EPOCHS), resume=True
    )
    case.check(run)


def test_minutes_are_kept_on_a_real_clock_too(case: Case, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    workflow.train(
        str(case.data),
        run,
        data_config=DataConfig(cache=case.cache),
        config=TrainConfig(minutes=0.05, threads=1, width=0.25, patience=100_000),
    )
    training_part = run.read_config()["training"]
    result = training_part["result"]
    assert training_part["plan"]["budget"] == 3.0
    assert 1.5 <= result["seconds"] <= 6.0  # loose, since others may be using this machine
    assert result["steps"] == result["planned_steps"]
    assert result["epochs"] == len(run.read_history()) > 1
    assert run.read_history()[-1]["learning_rate"] < 0.01  # the schedule came to its end
