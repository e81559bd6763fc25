"""The benchmarks measure what they say: who gets which pictures, which way a ratio points, what is written."""

import argparse
import json
import os
import shutil
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from darkroom.config import DataConfig
from darkroom.data.dataset import DataSet, prepare
from darkroom.errors import UsageError
from darkroom.runs import Run
from finished import Finished
from training import draw_folder

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import bench  # noqa: E402
import compiling  # noqa: E402
import inference  # noqa: E402
import main_job  # noqa: E402
import measuring  # noqa: E402
import textbook  # noqa: E402
import throughput  # noqa: E402
import training_to_target  # noqa: E402

FAKE_KERAS = """#!{python}
import json, sys
import numpy
if sys.argv[1] != "-c":
    arrays = numpy.load(sys.argv[2])
    seen = {{name: len(arrays[name + "_labels"]) for name in ("train", "validation", "test")}}
    result = {{"seconds": 1000.0, "test_accuracy": 0.0, "validation_accuracy": 0.5, "seen": seen,
              "shape": arrays["train_pixels"].shape, "seed": sys.argv[sys.argv.index("--seed") + 1],
              "curve": [[400.0, 0.4], [800.0, 0.6], [1000.0, 0.5]], "versions": {{"tensorflow": "fake"}}}}
    json.dump(result, open(sys.argv[sys.argv.index("--out") + 1], "w"))
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `processor_only` changes is put back afterwards."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("drawn") / "stripes", size=20)


@pytest.fixture(scope="module")
def dataset(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return prepare(str(pictures), DataConfig(cache=tmp_path_factory.mktemp("cache")))


@pytest.fixture
def fake_keras(tmp_path: Path) -> Path:
    python = tmp_path / "fake-python"
    python.write_text(FAKE_KERAS.format(python=sys.executable))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return python


def read(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_text())
    return content


class TestMeasuring:
    def test_a_ratio_above_one_means_that_ours_is_better(self) -> None:
        faster = measuring.ratio("time", peer="p", ours=[2, 4], theirs=[10, 10], unit="s", less_is_better=True)
        assert faster["ratio"]["mean"] == pytest.approx((5 + 2.5) / 2)
        more = measuring.ratio("speed", peer="p", ours=[30, 30], theirs=[10, 15], unit="pictures/s")
        assert more["ratio"] == {"mean": 2.5, "deviation": pytest.approx(0.7071, abs=1e-4), "low": 2, "high": 3}
        assert more["n"] == 2

    def test_a_peer_that_has_learnt_nothing_breaks_nothing(self) -> None:
        assert measuring.ratio("accuracy", peer="p", ours=[50.0], theirs=[0.0], unit="%")["ratio"]["mean"] > 1e6

    def test_each_round_begins_with_another_one(self) -> None:
        assert [measuring.rotated("abc", number)[0] for number in range(4)] == ["a", "b", "c", "a"]
        assert sorted(measuring.rotated("abc", 2)) == ["a", "b", "c"]

    def test_the_command_names_no_folder_of_this_machine(self) -> None:
        words = ["/some/where/pets.zip", "--keep", "/else/where", "--rounds", "3"]
        assert measuring.command_line("/x/inference.py", words) == (
            "python benchmarks/inference.py pets.zip --keep where --rounds 3"
        )

    def test_results_say_where_they_come_from(self, tmp_path: Path) -> None:
        content = {"n": 3, "versions": {"tensorflow": "2"}}
        measuring.write_results(tmp_path / "r.json", script="s.py", arguments=["d"], content=content)
        written = read(tmp_path, "r.json")
        assert written.keys() >= {"command", "commit", "created", "hardware", "platform", "load_before", "n"}
        assert written["versions"]["tensorflow"] == "2"
        assert "torch" in written["versions"]

    def test_options_are_those_of_darkroom_train(self) -> None:
        data, train = measuring.darkroom_options("d", ["--recipe", "photo", "--no-flip", "--image-size", "48"])
        assert (train.recipe, train.flip, data.image_size) == ("photo", False, 48)
        with pytest.raises(UsageError, match="--recipes"):
            measuring.darkroom_options("d", ["--recipes", "photo"])
        with pytest.raises(UsageError, match="--seed is the benchmark's own"):
            measuring.darkroom_options("d", ["--seed=4"])

    def test_errors_are_one_line(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        for script, words in ((throughput, ["/no/such/data"]), (inference, ["/no/such/run"])):
            monkeypatch.setattr(sys, "argv", [str(script.__file__), *words])
            with pytest.raises(SystemExit, match="2"):
                measuring.launch(script.main)
            told = capsys.readouterr().err
            assert len(told.splitlines()) == 1
            assert words[0] in told

    def test_a_process_that_fails_is_told_of(self) -> None:
        with pytest.raises(measuring.DarkroomError, match="the peer ended with exit code 3"):
            measuring.run_process([sys.executable, "-c", "raise SystemExit(3)"], "the peer")


class TestTrainingToTarget:
    def test_peers_get_the_pixels_of_darkrooms_split(self, dataset: DataSet, tmp_path: Path) -> None:
        training_to_target.write_arrays(tmp_path / "arrays.npz", dataset)
        arrays = np.load(tmp_path / "arrays.npz")
        for split in ("train", "validation", "test"):
            ids = dataset.manifest.indices(split)
            assert np.array_equal(arrays[f"{split}_pixels"], dataset.pixels[ids])
            assert np.array_equal(arrays[f"{split}_labels"], dataset.manifest.labels()[ids])
        assert sum(len(arrays[f"{split}_labels"]) for split in ("train", "validation", "test")) == 120

    def test_time_at_the_target_is_that_of_the_first_epoch_there(self) -> None:
        curve = [(10.0, 0.4), (20.0, 0.6), (30.0, 0.5)]
        assert training_to_target.first_reached(curve, 0.5) == 20.0
        assert training_to_target.first_reached(curve, 0.7) is None

    @pytest.mark.parametrize(("accuracy", "reached"), [(0.6, True), (0.61, True), (0.59, False)])
    def test_the_target_is_the_test_accuracy_of_the_same_round(self, accuracy: float, reached: bool) -> None:
        ours: dict[str, Any] = {"test_accuracy": accuracy, "curve": [(3.0, 0.5), (6.0, 0.7)]}
        keras = {"test_accuracy": 0.6, "validation_accuracy": 0.65, "curve": [(100.0, 0.65)]}
        training_to_target.compare_with_target(ours, keras)
        assert ours["reached"] is reached
        assert (ours["first_at_target_seconds"], keras["first_at_target_seconds"]) == (6.0, 100.0)

    @pytest.mark.slow
    def test_against_a_peer(self, pictures: Path, fake_keras: Path, tmp_path: Path) -> None:
        options = f"--peers keras --keras-python {fake_keras} --rounds 1 --budgets 0.02 --width 0.25 --threads 1"
        folders = f"--results {tmp_path} --keep {tmp_path}/keep --cache {tmp_path}/cache"
        training_to_target.main([str(pictures), *options.split(), *folders.split()])
        written = read(tmp_path, "training-to-target-stripes.json")
        (row,) = written["rounds"]
        keras, ours = row["contestants"]["keras"], row["contestants"]["ours-to-target"]
        assert keras["seen"] == {"train": 84, "validation": 18, "test": 18}
        assert keras["shape"] == [84, 20, 20, 3]
        assert keras["first_at_target_seconds"] == 800.0
        assert ours["reached"] is True
        assert ours["process_seconds"] > ours["seconds"] > 0
        first, whole, early = written["ratios"]
        assert first["ratio"]["mean"] == pytest.approx(1000 / ours["seconds"])
        assert whole["ratio"]["mean"] == pytest.approx(keras["process_seconds"] / ours["process_seconds"])
        assert early["ratio"]["mean"] == pytest.approx(800 / ours["seconds"])
        assert "reached in 1 of 1 rounds" in first["what"]
        assert written["versions"]["tensorflow"] == "fake"
        assert "`seconds` are those of training" in written["what_counts"]
        config = Run(tmp_path / "keep" / "ours-to-target-0").read_config()
        assert config["training"]["requested"]["minutes"] == 0.02
        assert config["data"]["counts"]["train"] == {f"class{label}": 28 for label in range(3)}
        assert bench.trained_run(tmp_path / "keep").name == "ours-to-target-0"

    def test_accuracies_stand_side_by_side_in_per_cent(self) -> None:
        rows = {name: [{"test_accuracy": value}] for name, value in {"ours": 0.9, "textbook-cut": 0.45}.items()}
        cut, compressed = training_to_target.ratios_of(rows | {"textbook-compressed": rows["ours"]}, minutes=7)
        assert (cut["ours"]["mean"], cut["theirs"]["mean"], cut["ratio"]["mean"]) == (90, 45, 2)
        assert compressed["ratio"]["mean"] == 1

    @pytest.mark.parametrize("words", ["--image-size 12", "--epochs 3", "--recipe none"])
    def test_options_are_refused_before_anything_is_measured(self, words: str, tmp_path: Path) -> None:
        nowhere = f"--keras-python {tmp_path}/none --keep {tmp_path}/keep"
        with pytest.raises(UsageError, match=words.split()[0][2:].replace("-", ".")):
            training_to_target.main(["digits", *nowhere.split(), *words.split()])

    @pytest.mark.parametrize("content", [None, "#!/bin/sh\necho no module >&2; exit 1\n"])
    def test_a_missing_environment_says_how_to_make_it(self, content: str | None, tmp_path: Path) -> None:
        python = tmp_path / "python"
        if content:
            python.write_text(content)
            python.chmod(0o700)
        with pytest.raises(UsageError, match=r"make benchmarks/\.venv-keras") as caught:
            training_to_target.require_tensorflow(python)
        assert "\n" not in str(caught.value)
        assert "no module" in str(caught.value) or content is None


@dataclass
class FakeContest:
    """Ours reaches as many per cent as it gets tenths of minutes; the CNN reaches `target`."""

    budgets: list[float]
    folder: Path
    target: float = 0.55
    trained: list[float] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    @property
    def options(self) -> argparse.Namespace:
        return argparse.Namespace(budgets=self.budgets)

    def with_seed(self, seed: int) -> "FakeContest":
        self.seeds.append(seed)
        return self

    def keras(self) -> dict[str, Any]:
        return {"validation_accuracy": self.target}

    def train_ours(self, name: str, minutes: float) -> tuple[Run, float]:
        self.trained.append(minutes)
        run = Run(self.folder / str(minutes))
        result = {"result": {"best_validation_accuracy": minutes / 10}}
        run.write_config({"data": {}, "network": {}, "training": result})
        return run, 1.0


class TestPilot:
    def test_takes_the_smallest_budget_that_wins_by_a_margin(self, tmp_path: Path) -> None:
        contest = FakeContest([7, 5.5, 6, 5], tmp_path)
        pilot = training_to_target.run_pilot(contest)
        assert pilot["minutes"] == 6
        assert contest.trained == [5, 5.5, 6]
        assert contest.seeds == [training_to_target.PILOT_SEED]

    def test_says_what_was_reached_where_no_budget_suffices(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"reached 4\.0% .* 0\.4 minutes.* 55\.0%") as caught:
            training_to_target.run_pilot(FakeContest([0.2, 0.4], tmp_path))
        assert "give longer --budgets" in str(caught.value)

    def test_a_single_budget_needs_none(self, tmp_path: Path) -> None:
        contest = FakeContest([3], tmp_path)
        assert training_to_target.run_pilot(contest) == {"minutes": 3}
        assert not contest.trained


class TestTextbook:
    def test_views_are_crops_and_mirrors(self) -> None:
        torch.manual_seed(0)
        row = torch.arange(1, 13).float()
        views = textbook.crop_and_flip(row.expand(200, 3, 12, 12))
        rows = {tuple(view[0, 6].tolist()) for view in views}
        padded = torch.nn.functional.pad(row, (4, 4))
        crops = [padded[left : left + 12] for left in range(9)]
        assert rows == {tuple(crop.tolist()) for crop in crops} | {tuple(crop.flip(0).tolist()) for crop in crops}

    def test_the_schedule_ends_at_zero(self) -> None:
        assert textbook.cosine(0) == textbook.RATE
        assert textbook.cosine(0.5) == pytest.approx(textbook.RATE / 2)
        assert textbook.cosine(1) == pytest.approx(0)

    def test_the_network_is_resnet_18(self) -> None:
        network = textbook.resnet18(10)
        assert sum(parameter.numel() for parameter in network.parameters()) == 11_173_962
        assert sum(isinstance(layer, torch.nn.Conv2d) for layer in network.modules()) == 17 + 3
        assert network[:-3](torch.zeros(1, 3, 32, 32)).shape == (1, 512, 4, 4)

    @pytest.mark.parametrize("schedule", ["cut", "compressed"])
    def test_trains_for_its_minutes(self, schedule: str, tmp_path: Path) -> None:
        random = np.random.default_rng(0)
        arrays = {f"{split}_pixels": random.integers(0, 256, (20, 8, 8, 3), np.uint8) for split in ("train", "test")}
        arrays |= {f"{split}_labels": np.arange(20) % 2 for split in ("train", "test")}
        np.savez(tmp_path / "arrays.npz", classes=np.array(["a", "b"]), **arrays)
        out = tmp_path / "result.json"
        options = f"{tmp_path / 'arrays.npz'} --out {out} --minutes 0.005 --schedule {schedule}"
        textbook.main(options.split())
        result = json.loads(out.read_text())
        assert result["steps"] >= 1
        assert result["seconds"] >= 0.3
        assert 0 <= result["test_accuracy"] <= 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("default")
def test_compiling(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # which the script changes
    options = "--rounds 2 --seconds 0.1 --width 0.25 --threads 1 --epochs 1"
    compiling.main([str(pictures), *options.split(), "--results", str(tmp_path), "--cache", str(tmp_path / "cache")])
    written = read(tmp_path, "compiling-stripes.json")
    assert written["n"] == len(written["rounds"]) == 2
    assert written["compile_seconds"]["anew"] > written["compile_seconds"]["from its cache"] > 0
    (row,) = written["ratios"]
    assert row["ratio"]["mean"] > 0


@pytest.mark.slow
def test_throughput(pictures: Path, tmp_path: Path) -> None:
    options = "--rounds 1 --pictures 50 --seconds 0.1 --width 0.25 --threads 1"
    throughput.main([str(pictures), *options.split(), "--results", str(tmp_path), "--cache", str(tmp_path / "cache")])
    written = read(tmp_path, "throughput-stripes.json")
    stages = {"decode", "write cache", "read cache", "augment", "step"}
    assert written["summary"].keys() == stages | {f"{stage}, peer" for stage in throughput.PEERS}
    for stage, numbers in written["summary"].items():
        assert numbers["pictures_a_second"]["mean"] > 0, stage
        assert "page_faults_a_picture" in numbers or throughput.resource is None
    for row in written["ratios"]:
        theirs = written["summary"][f"{row['what']}, peer"]["pictures_a_second"]["mean"]
        assert row["theirs"]["mean"] == theirs


def test_all_pictures_are_decoded(dataset: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "BLOCK", 50)  # more than one block of so few pictures
    assert throughput.decode(dataset.manifest, dataset.preprocessing) == len(dataset.manifest.rows)
    assert throughput.decode_with_loader(dataset.manifest, dataset.preprocessing) == len(dataset.manifest.rows)


class TestInference:
    def test_of_a_run(self, finished_run: Finished, tmp_path: Path) -> None:
        options = "--rounds 2 --batches 1 5 --seconds 0.01 --threads 1 --title blobs --only onnx"
        folders = f"--cache {finished_run.config.cache} --results {tmp_path}"
        inference.main([str(finished_run.run.folder), *options.split(), *folders.split()])
        written = read(tmp_path, "inference-blobs.json")
        assert f"{inference.INT8}, batch 5" in written["summary"]
        assert written["n"] == 2
        right = written["validation_accuracy"]
        reported = finished_run.run.read_metrics()["validation"]
        assert right["pictures"] == reported["n"]
        assert right[inference.SERVED] == pytest.approx(reported["accuracy"]["value"])
        rows = {(row["what"], row["peer"]): row for row in written["ratios"]}
        row = rows[f"{inference.INT8}, batch 5", inference.SERVED]
        ours = written["summary"][f"{inference.INT8}, batch 5"]["pictures_a_second"]["mean"]
        assert row["ours"]["mean"] == pytest.approx(ours)

    @pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-6), (True, 0.02)])
    def test_pytorch_answers_with_probabilities(self, bf16: bool, tolerance: float) -> None:
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        pixels = np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3)
        flat = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            answers = inference.eager(inference.Deployed(network, 1.0), bf16=bf16)(pixels)
            assert np.allclose(answers, network(flat).softmax(1).numpy(), atol=tolerance)

    def test_an_engine_that_cannot_be_made_is_named(self) -> None:
        def broken() -> inference.Answer:
            raise RuntimeError("no compiler\nfound")

        makers = {"works": lambda: lambda pixels: pixels, "broken": broken}
        engines, left_out = inference.usable(makers, {1: np.zeros((1, 2, 2, 3), np.uint8)})
        assert list(engines) == ["works"]
        assert left_out == {"broken": "no compiler found"}


class TestMainJob:
    @pytest.mark.slow
    def test_measures_a_run(self, pictures: Path, tmp_path: Path) -> None:
        options = f"--seeds 5 --epochs 1 --width 0.25 --threads 1 --results {tmp_path} --keep {tmp_path}/keep"
        main_job.main([str(pictures), *options.split()])
        written = read(tmp_path, "main-job-stripes.json")
        (row,) = written["runs"]
        assert row["seed"] == 5
        assert row["epochs"] == 1
        assert row["total_seconds"] > row["train_seconds"] > 0
        assert row["bundle_test_accuracy"] == pytest.approx(row["test_accuracy"])
        assert written["summary"]["prepare_seconds"]["mean"] == row["prepare_seconds"]

    def test_a_curve_has_a_mean_a_budget(self) -> None:
        rows = [
            {"seed": seed, "minutes": minutes, "test_accuracy": minutes / 10 + seed}
            for seed in (0, 1)
            for minutes in (2.0, 5.0)
        ]
        curve = main_job.by_budget(rows, ["2", "5"])
        assert {minutes: point["test_accuracy"]["mean"] for minutes, point in curve.items()} == {"2": 0.7, "5": 1.0}
        assert "seed" not in curve["2"]
