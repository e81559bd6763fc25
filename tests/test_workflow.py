"""What each command does, as functions: refusals before anything is touched, and the whole chain."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from darkroom import workflow
from darkroom.bundle import Bundle
from darkroom.comparison.folder import Ablation, Comparison, Study
from darkroom.config import DataConfig, ExportConfig, TrainConfig
from darkroom.data.dataset import reopen
from darkroom.data.storage import locked
from darkroom.errors import BundleError, DataError, ModelError, RunError, UsageError
from darkroom.runs import Run
from darkroom.summary import run_lines
from darkroom.workflow import bundle_of, claim, free_folder, free_run
from finished import CLASSES, Finished, draw_blobs

CONFIG = {"data": {}, "training": {}, "network": {}}
QUICK = TrainConfig(epochs=1, threads=1, width=0.5, precision="fp32", memory_format="contiguous")


@pytest.fixture
def copied(finished_run: Finished, tmp_path: Path) -> Finished:
    """A run to change."""
    return finished_run.copy(tmp_path / "run")


def begun(folder: Path) -> Run:
    """A folder that holds the beginning of a run."""
    run = Run(folder)
    run.write_config(CONFIG)
    return run


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_run_folder_holds_what_the_design_says(finished_run: Finished) -> None:
    names = {path.name for path in finished_run.run.folder.iterdir()}
    assert names == {
        "config.json",
        "network.txt",
        "manifest.csv",
        "history.csv",
        "checkpoint.pt",
        "model.safetensors",
        "predictions.npz",
        "metrics.json",
        "figures",
        "samples",
        "bundle",
        "tensorboard",
    }
    names = {path.name for path in finished_run.run.bundle.iterdir()}
    assert names == {"model.onnx", "bundle.json", "golden.npz", "model-card.md"}
    assert set(finished_run.run.read_config()["seconds"]) == {"data and training", "evaluation", "export"}


def test_a_run_ends_with_its_report(copied: Finished) -> None:
    assert not copied.run.report.exists()
    workflow.run_all(str(copied.data), copied.run, data_config=copied.config, config=TrainConfig(), resume=True)
    assert copied.run.report.read_bytes().startswith(b"%PDF-")
    assert all(path.is_file() for path in copied.run.reported)


@pytest.mark.slow
def test_without_the_extra_a_line_says_how_to_get_the_report(
    copied: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workflow, "OF_REPORTS", ("json", "no_such_module"))
    workflow.run_all(str(copied.data), copied.run, data_config=copied.config, config=TrainConfig(), resume=True)
    said = capsys.readouterr()
    (line,) = [line for line in (said.out + said.err).splitlines() if "darkroom[report]" in line]
    assert f"darkroom report {copied.run.folder}" in line
    assert not copied.run.report.exists()


def test_config_says_how_it_was_made(finished_run: Finished) -> None:
    content = finished_run.run.read_config()
    assert content["seed"] == 0
    assert content["data"]["classes"] == list(CLASSES)
    assert {"torch", "numpy", "pillow", "darkroom", "python"} <= set(content["versions"])
    assert content["hardware"]["cores"] >= 1
    assert content["training"]["requested"]["epochs"] == 4
    assert content["training"]["settings"]["epochs"] == 4


def test_manifest_has_its_columns(finished_run: Finished) -> None:
    with finished_run.run.manifest.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["id", "path", "label", "split", "sha256", "width", "height", "duplicate_group"]
    assert {row["split"] for row in rows} == {"train", "validation", "test"}


def test_tensorboard_logs_hold_the_history(finished_run: Finished) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert list(finished_run.run.tensorboard.glob("events.out.tfevents.*"))
    logged = EventAccumulator(str(finished_run.run.tensorboard)).Reload()
    history = finished_run.run.read_history()
    for name in history[0].keys() - {"epoch"}:
        values = [event.value for event in logged.Scalars(name)]
        assert values == pytest.approx([row[name] for row in history], rel=1e-5), name
        assert [event.step for event in logged.Scalars(name)] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_finished_run_is_not_trained_or_tested_again(copied: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(copied.run.folder)
    workflow.run_all(str(copied.data), copied.run, data_config=copied.config, config=TrainConfig(), resume=True)
    after = contents(copied.run.folder)
    for name in ("model.safetensors", "manifest.csv", "metrics.json", "history.csv"):
        assert after[name] == before[name], name
    old, new = (json.loads(files["config.json"]) for files in (before, after))
    assert {**new, "seconds": old["seconds"]} == old, "only the time of the stages went on"
    assert copied.run.read_metrics()["test_openings"] == 1
    assert "is trained already" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_was_stopped_before_its_test_opens_it_once(copied: Finished) -> None:
    metrics = copied.run.read_metrics()
    copied.run.write_metrics({name: value for name, value in metrics.items() if name != "test"} | {"test_openings": 0})
    workflow.run_all(str(copied.data), copied.run, data_config=copied.config, config=TrainConfig(), resume=True)
    assert copied.run.read_metrics() == metrics


def test_weights_that_are_lost_come_back_from_the_checkpoint(copied: Finished) -> None:
    weights = copied.run.weights.read_bytes()
    copied.run.weights.unlink()
    workflow.train(str(copied.data), copied.run, data_config=copied.config, config=TrainConfig(), resume=True)
    assert copied.run.weights.read_bytes() == weights


def test_who_lacks_tensorflow_learns_it_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ModuleNotFoundError, match="TensorFlow is missing"):
        workflow.export(Run(tmp_path / "none"), config=ExportConfig(format="saved-model"))


@pytest.mark.slow
def test_export_evaluates_validation_where_that_is_missing_and_opens_no_test(copied: Finished) -> None:
    for path in (copied.run.metrics, copied.run.predictions):
        path.unlink()
    folder = workflow.export(copied.run, data_config=copied.config)
    metrics = copied.run.read_metrics()
    assert metrics["test_openings"] == 0
    assert "test" not in metrics
    assert set(Bundle.open(folder).info.metrics) == {"validation"}


def test_claim_refuses_contradictions_and_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--resume and --overwrite contradict"):
        claim(Run(tmp_path), resume=True, overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file: give a folder"):
        claim(Run(tmp_path / "file"), resume=False, overwrite=False)
    claim(Run(tmp_path / "new"), resume=False, overwrite=False)
    assert not (tmp_path / "new").exists()


def test_claim_keeps_a_run_unless_told_otherwise(tmp_path: Path) -> None:
    run = begun(tmp_path)
    with pytest.raises(RunError, match="already holds a run: --resume it, --overwrite it"):
        claim(run, resume=False, overwrite=False)
    claim(run, resume=True, overwrite=False)
    claim(run, resume=False, overwrite=True)
    assert run.config.exists(), "only replaced when the new one can begin"


@pytest.mark.parametrize(("resume", "overwrite"), [(False, False), (True, False), (False, True)])
def test_claim_never_takes_folders_that_are_not_of_a_run(tmp_path: Path, resume: bool, overwrite: bool) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "mine.svg").write_text("mine")
    with pytest.raises(UsageError, match="holds no run, but files that one would replace: give another --out"):
        claim(Run(tmp_path), resume=resume, overwrite=overwrite)


def test_overwriting_with_data_that_cannot_be_read_costs_nothing(copied: Finished, tmp_path: Path) -> None:
    before = contents(copied.run.folder)
    with pytest.raises(DataError):
        workflow.train(str(tmp_path / "nowhere"), copied.run, data_config=copied.config, config=QUICK, overwrite=True)
    assert contents(copied.run.folder) == before


def test_overwriting_leaves_nothing_of_the_old_run(copied: Finished) -> None:
    (copied.run.folder / "notes.txt").write_text("mine")
    workflow.train(str(copied.data), copied.run, data_config=copied.config, config=QUICK, overwrite=True)
    assert copied.run.read_config()["training"]["result"]["epochs"] == 1
    assert not copied.run.metrics.exists()
    assert not copied.run.bundle.exists()
    assert (copied.run.folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("values", [{"learning_rate": 0.5}, {"epochs": 9}, {"width": 1.5}])
def test_resuming_with_other_settings_is_refused(copied: Finished, values: dict[str, float]) -> None:
    before = contents(copied.run.folder)
    with pytest.raises(UsageError, match="leave it out to resume"):
        workflow.train(
            str(copied.data),
            copied.run,
            data_config=copied.config,
            config=TrainConfig(**values),  # type: ignore[arg-type]
            resume=True,
        )
    assert contents(copied.run.folder) == before


@pytest.mark.slow
def test_a_part_of_the_pictures_is_trained_on_told_and_kept(tmp_path: Path) -> None:
    draw_blobs(tmp_path / "blobs", pictures=60)
    data, run, storage = str(tmp_path / "blobs"), Run(tmp_path / "run"), DataConfig(cache=tmp_path / "cache")
    half = DataConfig(cache=storage.cache, train_fraction=0.5)
    workflow.run_all(data, run, data_config=half, config=QUICK)
    content = run.read_config()
    assert content["data"]["requested"]["train_fraction"] == 0.5
    assert content["data"]["counts"] == {
        "train": dict.fromkeys(CLASSES, 21),
        "validation": dict.fromkeys(CLASSES, 9),
        "test": dict.fromkeys(CLASSES, 9),
        "unused": dict.fromkeys(CLASSES, 21),
    }
    assert any("3 classes, 63 train, 27 validation, 27 test, 63 unused" in line for line in run_lines(run))
    card = (run.bundle / "model-card.md").read_text(encoding="utf-8")
    assert "63 training pictures were left aside" in card
    assert "--train-fraction 0.5" in card
    assert len(reopen(run, storage).manifest.indices("train")) == 63, "whatever is asked for later"
    workflow.train(data, run, data_config=storage, config=TrainConfig(), resume=True)
    with pytest.raises(UsageError, match=r"--train-fraction is 0\.25 but the run was started with 0\.5"):
        workflow.train(data, run, data_config=DataConfig(cache=storage.cache, train_fraction=0.25), resume=True)


def test_resuming_on_other_data_is_refused(copied: Finished) -> None:
    with pytest.raises(UsageError, match=r"was started on .*, not digits"):
        workflow.train("digits", copied.run, data_config=copied.config, config=TrainConfig(), resume=True)


def test_another_model_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="timm knows no network resnet51"):
        workflow.train("nowhere", Run(tmp_path / "run"), data_config=DataConfig(), config=TrainConfig(model="resnet51"))
    assert list(tmp_path.iterdir()) == []


def test_bundle_of_a_run_and_of_itself(finished_run: Finished, tmp_path: Path) -> None:
    assert bundle_of(finished_run.run.folder) == finished_run.run.bundle
    assert bundle_of(finished_run.run.bundle) == finished_run.run.bundle
    with pytest.raises(BundleError, match="has no bundle yet: make it with `darkroom export"):
        bundle_of(begun(tmp_path / "begun").folder)
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BundleError, match="neither a run nor a bundle"):
            bundle_of(place)


def test_bundle_of_a_comparison_is_that_of_its_choice(tmp_path: Path) -> None:
    compared = Comparison(tmp_path / "compared")
    compared.keep({"requested": {}})
    with pytest.raises(RunError, match=r"comparison\.json is missing: go on with `darkroom compare … --resume`"):
        bundle_of(compared.folder)
    compared.content.write_text('{"choice": {"chosen": "one-frozen"}}')
    run = begun(compared.runs / "one-frozen")
    with pytest.raises(BundleError, match=f"has no bundle yet: make it with `darkroom export {run.folder}`"):
        bundle_of(compared.folder)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("digits", "digits"),
        ("/data/pets.zip", "pets"),
        ("pets.tar.xz", "pets"),
        ("my pets.tar", "my-pets"),
        ("../labels.csv", "labels"),
        ("/data/pets/", "pets"),
        ("..", "run"),
        (".", "run"),
        ("猫", "猫"),
    ],
)
def test_a_run_is_named_after_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert free_run(data).folder == Path("runs") / name


def test_comparisons_of_an_archive_are_named_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert free_folder("/data/pets.zip", "-compared") == Path("runs") / "pets-compared"


def test_a_taken_name_is_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in ("digits", "digits-2", "digits-3"):
        run = free_run("digits")
        assert run.folder.name == expected
        begun(run.folder)


@pytest.mark.parametrize("kind", [Comparison, Ablation])
def test_a_study_is_named_after_its_data_and_numbered(
    kind: Callable[[Path], Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert free_folder("/data/pets.zip", "-compared") == Path("runs") / "pets-compared"
    for expected in ("pets-compared", "pets-compared-2"):
        place = kind(free_folder("pets.tar.gz", "-compared"))
        assert place.folder.name == expected
        place.keep({"requested": {}})  # all that one holds which was interrupted early
    (tmp_path / "runs" / "pets-compared-3" / "runs").mkdir(parents=True)
    assert free_folder("pets", "-compared").name == "pets-compared-4"


def test_claim_knows_what_a_folder_holds(tmp_path: Path) -> None:
    place = Ablation(tmp_path)
    claim(place, resume=False, overwrite=False)
    place.runs.mkdir()
    for options in ({"resume": False, "overwrite": False}, {"resume": False, "overwrite": True}):
        with pytest.raises(UsageError, match="holds no ablation, but files that one would replace"):
            claim(place, **options)
    place.keep({"requested": {}})
    with pytest.raises(RunError, match="already holds an ablation: --resume it, --overwrite it"):
        claim(place, resume=False, overwrite=False)
    claim(place, resume=True, overwrite=False)
    (tmp_path / "notes.txt").write_text("mine")
    place.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("kind", [Comparison, Ablation])
def test_a_report_is_cleared_with_its_comparison(kind: Callable[[Path], Study], tmp_path: Path) -> None:
    place = kind(tmp_path)
    place.keep({"requested": {}})
    reported = {"insights.json", "report.json", "report.pdf", "slides.pptx"}
    for name in reported:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("mine")
    place.clear()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ({"notes.txt"} if kind is Comparison else {"notes.txt", *reported}), "of an ablation there is none"
    place.clear()


def test_examine_reports_and_writes_nothing_beside_the_pictures(tmp_path: Path) -> None:
    draw_blobs(tmp_path / "blobs", pictures=12)
    before = contents(tmp_path)
    report = workflow.examine(str(tmp_path / "blobs"), DataConfig(cache=tmp_path / "cache"))
    assert contents(tmp_path) == before
    assert "broken.png" in json.dumps(report.to_json())


def test_examine_goes_on_where_the_data_cannot_be_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_blobs(tmp_path / "blobs", pictures=12)
    for path in (tmp_path / "blobs" / CLASSES[0]).glob("*.png"):
        path.write_bytes(b"broken")
    report = workflow.examine(str(tmp_path / "blobs"), DataConfig(cache=tmp_path / "cache"))
    assert "cannot be split as it is" in capsys.readouterr().err
    assert list(report.lines())


def test_evaluating_after_the_data_is_gone_is_said_in_a_line(copied: Finished, tmp_path: Path) -> None:
    moved = tmp_path / "blobs"
    shutil.copytree(copied.data, moved)
    content = copied.run.read_config()
    content["data"] |= {"root": str(moved), "argument": str(moved)}
    copied.run.write_config(content)
    shutil.rmtree(moved)
    for call in (
        lambda: workflow.evaluate(copied.run, split="test", data_config=copied.config),
        lambda: workflow.export(copied.run, data_config=copied.config),
    ):
        with pytest.raises(RunError, match="no longer at") as caught:
            call()
        assert "\n" not in str(caught.value)
    assert copied.run.read_metrics()["test_openings"] == 1


def test_two_processes_never_work_on_one_run(copied: Finished, tmp_path: Path) -> None:
    with locked(copied.run.lock):
        for work in (
            lambda: workflow.evaluate(copied.run, split="test", data_config=copied.config),
            lambda: workflow.export(copied.run, data_config=copied.config),
            lambda: workflow.train("x", copied.run, data_config=copied.config, config=QUICK, overwrite=True),
        ):
            with pytest.raises(RunError, match="another darkroom is at work on"):
                work()
    assert copied.run.read_metrics()["test_openings"] == 1


def test_what_failed_before_it_began_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        workflow.train(str(tmp_path / "nowhere"), Run(tmp_path / "run"), data_config=DataConfig(), config=QUICK)
    assert list(tmp_path.iterdir()) == []


def test_stages_of_a_resumed_run_add_up(copied: Finished) -> None:
    before = copied.run.read_config()["seconds"]
    copied.run.add_seconds({"export": 2.0, "more": 1.0})
    after = copied.run.read_config()["seconds"]
    assert after == {**before, "export": before["export"] + 2.0, "more": 1.0}
