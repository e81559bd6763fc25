"""Training in several processes, started by torchrun on this machine: the same result, and clean ends."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom import workflow
from darkroom.config import DataConfig, TrainConfig
from darkroom.errors import UsageError
from darkroom.progress import console, say, track
from darkroom.runs import Run
from darkroom.training import machine
from darkroom.training.distributed import Team, use_own_gpu
from darkroom.training.launch import NAMES, Place, hush_followers, place
from darkroom.training.train import make_batches
from training import draw_folder

HERE = Path(__file__).parent
TIMED = {"elapsed", "seconds", "images_per_second"}
ARITHMETIC = {"precision": "fp32", "memory_format": "contiguous", "threads": 1}
# Muon, an average, and dropout, whose random numbers differ between processes; 3 epochs of 5 steps.
OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 16, "width": 0.25, "dropout": 0.3, **ARITHMETIC}


@dataclass
class Ended:
    """What a torchrun left behind."""

    code: int
    out: str
    told: str

    @property
    def lines(self) -> list[str]:
        """What darkroom itself reported, without the report of torchrun."""
        return [line for line in self.told.splitlines() if line.startswith("darkroom: ")]


def torchrun(*words: str, cwd: Path = HERE, processes: int = 2, **environment: str) -> Ended:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*launcher, *words],
        cwd=cwd,
        # More processes than GPUs are refused; these tests are about processors.
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@dataclass
class Case:
    """A data set, and a training of two processes that nothing disturbed."""

    folder: Path
    """Of which each process has a part of its own."""

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def cache(self) -> Path:
        """The leader's."""
        return self.folder / "0" / "cache"

    @property
    def whole(self) -> Run:
        return self.run("whole")

    def run(self, name: str) -> Run:
        """A run in the leader's part."""
        return Run(self.folder / "0" / name)

    def train(self, name: str, *more: str, restarts: int = 0, **environment: str) -> Ended:
        options = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
        where = [f"--out={name}", "--cache=cache"]
        environment["APART"] = str(self.folder)
        words = ("several.py", "train", str(self.data), *where, *options, *more)
        return torchrun(f"--max-restarts={restarts}", *words, **environment)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    made = Case(tmp_path_factory.mktemp("several"))
    draw_folder(made.data, each=41)
    ended = made.train("whole")
    assert ended.code == 0, ended.told
    return made


def final(run: Run) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run.checkpoint, weights_only=True)
    return content


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    """Names of what is not the same to the bit in two checkpoints, times aside."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return [found for key in one.keys() - TIMED for found in differences(one[key], other[key], f"{name}.{key}")]
    if isinstance(one, list):
        assert len(one) == len(other)
        pairs = enumerate(zip(one, other, strict=True))
        return [found for place, pair in pairs for found in differences(*pair, f"{name}.{place}")]
    same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    return [] if same else [name]


def test_the_comparison_of_checkpoints_sees_a_bit(case: Case) -> None:
    one, other = final(case.whole), final(case.whole)
    assert differences(one, other) == []
    assert {"network", "average", "optimiser", "random", "history", "best", "plan", "counters"} <= one.keys()
    other["random"][1]["cpu"][3] ^= 1
    next(iter(other["optimiser"]["state"].values()))["momentum_buffer"].view(torch.int32).view(-1)[0] ^= 1
    assert len(differences(one, other)) == 2


def test_followers_need_no_disk_of_the_leader(case: Case) -> None:
    assert [path.name for path in (case.folder / "1").iterdir()] == ["cache"]


def test_processes_draw_their_own_random_numbers(case: Case) -> None:
    leader, follower = final(case.whole)["random"]
    assert not torch.equal(leader["cpu"], follower["cpu"])


def untimed(run: Run) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in TIMED} for row in run.read_history()]


def assert_lost(ended: Ended) -> None:
    assert len(ended.lines) == 1, ended.told
    assert "another process of this training was lost (" in ended.lines[0]
    assert "--resume" in ended.lines[0]


def assert_same_as_undisturbed(case: Case, run: Run) -> None:
    assert differences(final(case.whole), final(run)) == []
    assert run.weights.read_bytes() == case.whole.weights.read_bytes()
    assert untimed(run) == untimed(case.whole)


@pytest.mark.slow
def test_a_lost_leader_and_all_started_again_by_torchrun(case: Case) -> None:
    """Killed before anything was kept, so that all is computed a second time."""
    ended = case.train("again", "--resume", restarts=1, SIGNAL=f"{int(signal.SIGKILL)} 0 1")
    assert ended.code == 0, ended.told
    assert_lost(ended)
    assert "holds nothing to resume" in ended.told
    assert_same_as_undisturbed(case, case.run("again"))


@pytest.mark.slow
def test_killed_resumed_stopped_and_resumed_to_the_same_bits(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    run = case.run("run")
    killed = case.train("run", SIGNAL=f"{int(signal.SIGKILL)} 1 9")  # in the middle of the second epoch
    assert killed.code != 0
    assert_lost(killed)
    kept = final(run)["counters"]
    assert (kept["epoch"], kept["step"]) == (2, 2)
    assert not run.weights.exists()

    stopped = case.train("run", "--resume", SIGNAL=f"{int(signal.SIGTERM)} 1 2")  # one is asked to stop, and all do
    assert "Going on from epoch 2, step 3" in stopped.told
    assert stopped.code != 0
    assert len(stopped.lines) == 1, stopped.told
    assert re.search(
        r"stopped after 10 of 15 steps; all is saved; go on with: torchrun … -m darkroom train .* --resume",
        stopped.lines[0],
    )
    assert final(run)["plan"]["done"] == 10
    shutil.copytree(run.folder, case.folder / "alone")

    resumed = case.train("run", "--resume")
    assert resumed.code == 0, resumed.told
    assert_same_as_undisturbed(case, run)
    assert_one_can_go_on(case, Run(case.folder / "alone"))
    assert "begun by 2 processes and is continued by 1" in " ".join(capsys.readouterr().err.split())


def assert_one_can_go_on(case: Case, run: Run) -> None:
    """With what two began; dropout then draws other numbers."""
    threads = torch.get_num_threads()
    config = TrainConfig(**OPTIONS)
    workflow.train(str(case.data), run, data_config=DataConfig(cache=case.cache), config=config, resume=True)
    torch.set_num_threads(threads)
    assert run.trained
    assert final(run)["plan"]["done"] == 15
    before, after = untimed(case.whole), untimed(run)
    assert after[0] == before[0]
    assert after[1]["train_loss"] == before[1]["train_loss"]  # summed by two, validated by one
    assert after[2]["train_loss"] != before[2]["train_loss"]


@pytest.mark.slow
def test_a_refit_killed_and_resumed_to_the_same_bits(case: Case) -> None:
    ended = case.train("refitted", "--refit")
    assert ended.code == 0, ended.told
    run, other = case.run("refitted"), case.run("killed")
    assert run.refitted
    assert case.run("whole").weights.read_bytes() != run.weights.read_bytes()
    assert [path.name for path in (case.folder / "1").iterdir()] == ["cache"]

    killed = case.train("killed", "--refit", SIGNAL=f"{int(signal.SIGKILL)} 1 22")  # the first training has 15 + 3
    assert killed.code != 0
    assert_lost(killed)
    assert other.trained
    assert not other.finished
    assert final(Run(other.refit))["plan"]["done"] == 3
    resumed = case.train("killed", "--refit", "--resume")
    assert resumed.code == 0, resumed.told
    assert other.weights.read_bytes() == run.weights.read_bytes()
    assert other.read_metrics()["validation"] == run.read_metrics()["validation"]


def relative_distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    first, second = (torch.cat([value.double().view(-1) for value in state.values()]) for state in (one, other))
    return float((first - second).norm() / first.norm())


@pytest.mark.slow
def test_the_same_as_one_process_and_shown_once(case: Case, tmp_path: Path) -> None:
    """A step on a batch of which two have unequal shares; more steps would amplify the rounding, as anything does."""
    options = {"epochs": 1, "batch_size": 1000, "width": 0.25, "optimiser": "sgd", "ema_decay": 0, **ARITHMETIC}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    ended = torchrun("-m", "darkroom", "train", str(case.data), f"--cache={case.cache}", *words, cwd=tmp_path)
    assert ended.code == 0, ended.told
    two = Run(tmp_path / "runs" / "data")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["data"]
    assert ended.out.splitlines() == ["runs/data", ended.out.splitlines()[1]]
    for line in ("data: 123 pictures", "Network: ", "Training: 1.0 epochs of 1 step", "epoch   1/1 ", "Trained in"):
        assert len(re.findall(f"^{re.escape(line)}", ended.told, re.MULTILINE)) == 1, ended.told

    one, threads = Run(tmp_path / "one"), torch.get_num_threads()
    config = TrainConfig(**options)  # type: ignore[arg-type]
    workflow.train(str(case.data), one, data_config=DataConfig(cache=case.cache), config=config)
    torch.set_num_threads(threads)
    alone, together = final(one), final(two)
    counts = two.read_config()["data"]["counts"]["train"]
    assert sum(counts.values()) % 2 == 1, "shares are to be unequal"
    momenta = [
        {str(key): value["momentum_buffer"] for key, value in state["optimiser"]["state"].items()}
        for state in (alone, together)
    ]
    assert 0 < relative_distance(*momenta) < 1e-3
    assert relative_distance(alone["network"], together["network"]) < 1e-4
    for name in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
        assert alone["history"][0][name] == pytest.approx(together["history"][0][name], rel=1e-3), name


def test_an_error_of_the_leader_is_told_once(tmp_path: Path) -> None:
    ended = torchrun("-m", "darkroom", "train", str(tmp_path / "nowhere"), f"--cache={tmp_path}", cwd=tmp_path)
    assert ended.code != 0
    assert len(ended.lines) == 1, ended.told
    assert "nowhere" in ended.lines[0]
    assert "lost" not in ended.lines[0]
    assert not (tmp_path / "runs").exists()


def test_normalisation_is_that_of_the_whole_batch() -> None:
    ended = torchrun("several.py", "normalise", processes=3)
    assert ended.code == 0, ended.told
    found = json.loads(ended.out)
    assert len(found) == 1 + 9 + 6
    assert max(found) < 1e-5


@pytest.mark.slow
def test_a_process_that_falls_silent_is_given_up() -> None:
    ended = torchrun("several.py", "hang")
    assert ended.code != 0
    seconds, message = json.loads(ended.out)
    assert 1.5 < seconds < 60
    assert "another process of this training was lost (" in message
    assert "\n" not in message


def launched(monkeypatch: pytest.MonkeyPatch, *values: int) -> None:
    for name, value in zip(NAMES, values, strict=True):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")


def test_the_place_among_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place() == Place(0, 1, 0, 1)
    launched(monkeypatch, 5, 8, 1, 4)
    assert place() == Place(rank=5, size=8, local_rank=1, local_size=4)
    assert not place().leads
    monkeypatch.delenv("MASTER_ADDR")  # some environments set WORLD_SIZE and mean something else
    assert place() == Place()


def test_only_the_leader_is_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "quiet", False)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    for rank in (0, 1):
        launched(monkeypatch, rank, 2, rank, 2)
        hush_followers()
        print(f"result {rank}")
        say(f"message {rank}")
        assert list(track([7], total=1, what="Reading")) == [7]
    assert capsys.readouterr() == ("result 0\n", "message 0\n")
    sys.stdout.close()


def test_what_one_process_does_is_refused_in_several(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    launched(monkeypatch, 0, 2, 0, 2)
    run, config = Run(tmp_path / "run"), DataConfig(cache=tmp_path)
    for command in (
        lambda: workflow.run_all("digits", run, data_config=config, config=TrainConfig()),
        lambda: workflow.evaluate(run, split="test", data_config=config),
        lambda: workflow.export(run, data_config=config),
        lambda: workflow.examine("digits", config),
    ):
        with pytest.raises(UsageError, match=r"is the work of one process: leave torchrun to `train`"):
            command()


def test_processes_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(machine, "available_cores", lambda: 7)
    launched(monkeypatch, 4, 6, 0, 2)
    try:
        assert machine.use_threads(None) == 3
        assert machine.use_threads(5) == 5
    finally:
        torch.set_num_threads(before)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    use_own_gpu(Place(rank=5, size=8, local_rank=1, local_size=2))
    assert chosen == [1]
    with pytest.raises(UsageError, match="--nproc-per-node is 3, but this machine has 2 GPUs"):
        use_own_gpu(Place(rank=0, size=3, local_rank=0, local_size=3))


def test_too_small_a_batch_for_so_many_processes_is_refused(case: Case) -> None:
    from darkroom.data.dataset import reopen
    from darkroom.training.recipes import Settings

    dataset = reopen(case.whole, DataConfig(cache=case.cache))
    settings = Settings.from_json(case.whole.read_config()["training"]["settings"])
    assert make_batches(dataset, settings, seed=0, team=Team(Place(3, 17))).process == 3
    with pytest.raises(UsageError, match=r"batches of 17 pictures .* 18 processes .* --batch-size"):
        make_batches(dataset, settings, seed=0, team=Team(Place(0, 18)))
