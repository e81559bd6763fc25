"""`darkroom compare` from data to choice, on drawn pictures and tiny networks.

Nothing here depends on the clock: speeds are given, and trainings take an epoch.
"""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backbone_folders import write_backbone
from darkroom import workflow
from darkroom.cli import main
from darkroom.compare import compare, granted
from darkroom.comparison import measure
from darkroom.comparison.folder import Comparison
from darkroom.comparison.plan import LEAST_SECONDS, Speed
from darkroom.comparison.words import lines, paragraph, table
from darkroom.config import CompareConfig, DataConfig, TrainConfig
from darkroom.data import dataset as dataset_module
from darkroom.data.dataset import DataSet, prepare, suitable_size
from darkroom.errors import (
    DataError,
    ExportError,
    ModelError,
    RunError,
    TrainingError,
    TrainingStoppedError,
    UsageError,
)
from darkroom.figures.comparison import pareto
from darkroom.runs import Predictions, Run
from darkroom.training.candidates import candidate
from darkroom.training.recipes import complete
from darkroom.verify import verify
from finished import draw_blobs

JOULES = 2500.0
opened: list[int] = []
"""Widths of the pixel caches that the comparison of `compared` has opened."""


def speed(name: str, *_: object) -> Speed:
    return Speed(name, 1e-4, 1e-4, 1e-4, "fp32", "contiguous", 1)


def quicken(patch: pytest.MonkeyPatch) -> None:
    """Give what is measured, and an epoch to each training."""
    patch.setattr(measure, "speed_of", speed)
    patch.setattr(measure, "SERVING_SECONDS", 0.05)
    patch.setattr(measure, "joules_since", lambda before: JOULES)
    patch.setattr("darkroom.compare.granted", lambda seconds: {"epochs": 1})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blobs") / "blobs"
    draw_blobs(folder, pictures=40)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("weights")
    return ("cnn", write_backbone(folder / "one"), write_backbone(folder / "two", "test_efficientnet"))


@pytest.fixture(scope="module")
def compared(data: Path, models: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("comparison")
    place = Comparison(folder / "out")
    original = dataset_module.pixels

    def counting(manifest: Any, preprocessing: Any, cache: Path) -> Any:
        opened.append(preprocessing.width)
        return original(manifest, preprocessing, cache)

    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        patch.setattr(dataset_module, "pixels", counting)
        compare(
            str(data),
            place.folder,
            data_config=DataConfig(cache=folder / "cache"),
            config=CompareConfig(models=models, finetune=1),
        )
    return place


@pytest.fixture
def copied(compared: Comparison, tmp_path: Path) -> Comparison:
    """A comparison to change."""
    shutil.copytree(compared.folder, tmp_path / "copy")
    return Comparison(tmp_path / "copy")


@pytest.fixture
def storage(compared: Comparison) -> DataConfig:
    return DataConfig(cache=compared.folder.parent / "cache")


def rows_of(place: Comparison) -> list[dict]:
    return json.loads(place.content.read_text())["candidates"]


def never(*arguments: object, **options: object) -> None:
    raise AssertionError("done again")


@pytest.mark.slow
def test_all_of_it_can_be_verified(compared: Comparison, tmp_path: Path) -> None:
    checks = list(verify(compared.folder, DataConfig(cache=tmp_path)))
    assert [check for check in checks if not check.passed] == []
    assert sum(check.name.startswith("comparison") for check in checks) == 3 + len(compared.read()["candidates"])


def test_every_candidate_is_there_with_all_its_numbers(compared: Comparison) -> None:
    rows = rows_of(compared)
    names = [row["name"] for row in rows]
    assert names[:3] == ["one-frozen", "two-frozen", "cnn"]
    assert names[3].endswith("-fine-tuned")
    for row in rows:
        assert row["reason"]
        assert row["parameters"] > 0
        assert row["multiply_adds"] > 0
        assert row["serving"]["milliseconds"] > 0
        assert row["serving"]["bytes"] == (compared.run(row["name"]).bundle / "model.onnx").stat().st_size
        assert row["train_joules"] == JOULES
        accuracy = row["validation"]["accuracy"]
        assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert sum(row["chosen"] for row in rows) == 1


def test_all_saw_the_same_split(compared: Comparison) -> None:
    manifests = {(compared.run(row["name"]).folder / "manifest.csv").read_bytes() for row in rows_of(compared)}
    assert len(manifests) == 1


def test_the_pictures_are_opened_once_a_network(compared: Comparison) -> None:
    assert opened == [12, 64, 64]


def test_what_was_measured_of_a_network_holds_for_its_trainings(compared: Comparison) -> None:
    content = json.loads(compared.content.read_text())
    for row in content["candidates"]:
        if row["network"] != "cnn":
            requested = compared.run(row["name"]).read_config()["training"]["requested"]
            assert {name: requested[name] for name in ("precision", "memory_format", "threads")} == {
                "precision": "fp32",
                "memory_format": "contiguous",
                "threads": 1,
            }


def test_the_plans_are_kept(compared: Comparison) -> None:
    plans = json.loads(compared.content.read_text())["plans"]
    assert [stage["name"] for stage in plans["frozen"]["stages"]] == ["one", "two"]
    assert [stage["what"] for stage in plans["trainings"]["stages"]] == ["from scratch", "fine-tuned"]


def test_the_test_split_is_opened_for_the_chosen_one_and_ours_only(compared: Comparison) -> None:
    rows = rows_of(compared)
    for row in rows:
        counted = compared.run(row["name"]).read_metrics()["test_openings"]
        assert counted == row["test_openings"] == (1 if row["chosen"] or row["name"] == "cnn" else 0)
        assert ("test" in row) == bool(counted)
    assert sum(row["test_openings"] for row in rows) == len({"cnn", *(row["name"] for row in rows if row["chosen"])})


def test_fine_tuning_goes_to_the_best_frozen_network(compared: Comparison) -> None:
    rows = {row["name"]: row for row in rows_of(compared)}
    frozen = [row for row in rows.values() if row["how"] == "frozen"]
    (tuned,) = [row for row in rows.values() if row["how"] == "fine-tuned"]
    best = max(
        frozen, key=lambda row: (row["validation"]["accuracy"]["value"], -row["validation"]["log_loss"]["value"])
    )
    assert tuned["network"] == best["network"]


def test_it_is_told_in_words_and_numbers(compared: Comparison) -> None:
    text = compared.text.read_text()
    content = json.loads(compared.content.read_text())
    chosen = content["choice"]["chosen"]
    assert f"* {chosen}" in text
    assert f"{chosen} was chosen: " in text
    assert "The rule: " in text
    assert "Limits: " in text
    assert "test pictures, opened once after the choice" in text
    for row in content["candidates"]:
        assert row["reason"] in text
    for suffix in (".png", ".svg"):
        assert compared.figure.with_suffix(suffix).stat().st_size > 5000


def test_the_choice_can_be_served(compared: Comparison) -> None:
    assert workflow.bundle_of(compared.folder) == compared.chosen.bundle


def test_two_folders_of_one_name_are_refused(data: Path, tmp_path: Path) -> None:
    twins = tuple(write_backbone(tmp_path / place / "tiny") for place in ("a", "b"))
    with pytest.raises(UsageError, match="has the name of another network"):
        compare(str(data), tmp_path / "out", data_config=DataConfig(), config=CompareConfig(models=twins))


def test_two_names_of_one_folder_are_refused(data: Path, tmp_path: Path) -> None:
    """Their runs would lie in one folder, and the second would be taken for the first."""
    twins = (write_backbone(tmp_path / "a" / "tiny one"), write_backbone(tmp_path / "b" / "Tiny-one"))
    with pytest.raises(UsageError, match="has the name of another network"):
        compare(str(data), tmp_path / "out", data_config=DataConfig(), config=CompareConfig(models=twins))


def test_a_folder_may_not_be_called_as_our_network_is(data: Path, tmp_path: Path) -> None:
    given = write_backbone(tmp_path / "cnn")
    with pytest.raises(UsageError, match="is called 'cnn', as our own network is: give the folder another name"):
        candidate(given)


def test_a_comparison_is_not_overwritten_unasked(compared: Comparison, data: Path) -> None:
    before = compared.content.read_bytes()
    ours = CompareConfig(models=("cnn",))
    with pytest.raises(RunError, match="already holds a comparison"):
        compare(str(data), compared.folder, data_config=DataConfig(), config=ours)
    with pytest.raises(UsageError, match="contradict"):
        compare(str(data), compared.folder, data_config=DataConfig(), config=ours, resume=True, overwrite=True)
    with pytest.raises(DataError):
        compare(str(data / "nowhere"), compared.folder, data_config=DataConfig(), config=ours, overwrite=True)
    assert compared.content.read_bytes() == before


def test_runs_that_are_no_comparisons_are_never_deleted(data: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(UsageError, match="holds no comparison, but files that one would replace"):
            compare(str(data), tmp_path, data_config=DataConfig(), config=CompareConfig(models=("cnn",)), **options)
    assert (tmp_path / "runs" / "mine").exists()


def test_an_unknown_network_costs_nothing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="did you mean"):
        compare(str(data), tmp_path / "out", data_config=DataConfig(), config=CompareConfig(models=("cnn", "resnet51")))
    assert not (tmp_path / "out").exists()


def test_missing_weights_are_told_before_anything_is_decoded(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(found: object) -> None:
        raise ModelError("the weights of resnet18 are not on this machine")

    monkeypatch.setattr("darkroom.models.backbones.require_weights", missing)
    monkeypatch.setattr(dataset_module, "prepare", never)
    with pytest.raises(ModelError, match="not on this machine"):
        compare(str(data), tmp_path / "out", data_config=DataConfig(), config=CompareConfig(models=("cnn", "resnet18")))


def test_what_is_resumed_is_neither_trained_nor_measured_nor_opened_again(
    compared: Comparison, data: Path, storage: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "train", never)
    monkeypatch.setattr(workflow, "evaluate", never)
    monkeypatch.setattr(workflow, "export", never)
    monkeypatch.setattr(measure, "speed_of", never)
    monkeypatch.setattr(measure, "serving_of", never)
    before = json.loads(compared.content.read_text())
    after = compare(str(data), compared.folder, data_config=storage, config=CompareConfig(), resume=True)
    assert rows_of(compared) == before["candidates"]
    assert json.loads(json.dumps(after["plans"])) == before["plans"]
    assert list(after["requested"]["models"]) == before["requested"]["models"], "the options are those it began with"
    assert after["seconds"] > before["seconds"], "the budget is that of both parts"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"config": CompareConfig(minutes=3)}, "--minutes is 3, but"),
        ({"config": CompareConfig(prefer="size")}, "--prefer is size, but"),
        ({"config": CompareConfig(models=("cnn",))}, "--models is cnn, but"),
        ({"data_config": DataConfig(seed=7)}, "--seed is 7, but"),
        ({"data_config": DataConfig(image_size=32)}, "--image-size is 32, but"),
        ({"data": "digits"}, "was begun on"),
    ],
)
def test_resuming_with_anything_else_is_refused(
    compared: Comparison, data: Path, options: dict[str, Any], words: str
) -> None:
    before = compared.content.read_bytes()
    given = {"data": str(data), "data_config": DataConfig(), "config": CompareConfig(), **options}
    with pytest.raises(UsageError, match=words):
        compare(folder=compared.folder, resume=True, **given)
    assert compared.content.read_bytes() == before


def test_resuming_with_other_pictures_is_refused(copied: Comparison, data: Path, storage: DataConfig) -> None:
    copied.keep(copied.kept() | {"fingerprint": "of others"})
    with pytest.raises(RunError, match="holds other pictures than when"):
        compare(str(data), copied.folder, data_config=storage, config=CompareConfig(), resume=True)


def test_the_test_split_is_not_opened_for_a_second_choice(
    copied: Comparison, data: Path, storage: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "evaluate", never)
    copied.keep(copied.kept() | {"chosen": "another"})
    with pytest.raises(RunError, match="has opened the test split for another"):
        compare(str(data), copied.folder, data_config=storage, config=CompareConfig(), resume=True)


def test_candidates_measured_on_other_pictures_are_not_compared(
    copied: Comparison, data: Path, storage: DataConfig
) -> None:
    run = copied.run("cnn")
    said = run.read_predictions("validation")
    run.write_predictions("validation", Predictions(said.ids[::-1], said.labels, said.logits))
    with pytest.raises(RunError, match="were evaluated on other pictures"):
        compare(str(data), copied.folder, data_config=storage, config=CompareConfig(), resume=True)


def unfinished(run: Run) -> None:
    content = run.read_config()
    del content["training"]["result"]
    run.write_config(content)


def test_an_interrupted_candidate_goes_on_from_its_checkpoint(
    copied: Comparison, data: Path, storage: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(copied.run("cnn"))
    calls: list[tuple[str, Any, Any, Any]] = []
    original = workflow.train

    def watched(data: str, run: Run, **options: Any) -> None:
        calls.append((run.folder.name, options["resume"], options["overwrite"], options["config"].epochs))
        original(data, run, **options)

    monkeypatch.setattr(workflow, "train", watched)
    compare(str(data), copied.folder, data_config=storage, config=CompareConfig(), resume=True)
    assert calls == [("cnn", True, False, 1)]
    (row,) = [row for row in rows_of(copied) if row["name"] == "cnn"]
    assert row["train_joules"] is None, "nobody has counted those before the interruption"


@pytest.mark.parametrize("kind", [TrainingError, RuntimeError, MemoryError])
def test_a_candidate_that_fails_is_left_out_and_told(
    copied: Comparison, data: Path, storage: DataConfig, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    rows = rows_of(copied)
    best = json.loads(copied.content.read_text())["choice"]["best"]
    failing = next(row["name"] for row in rows if not row["chosen"] and row["name"] != best)
    unfinished(copied.run(failing))
    copied.keep({name: value for name, value in copied.kept().items() if name != "chosen"})

    def failed(*arguments: object, **options: object) -> None:
        raise kind("the loss is\nnot finite")

    monkeypatch.setattr(workflow, "train", failed)
    content = compare(str(data), copied.folder, data_config=storage, config=CompareConfig(), resume=True)
    assert [row["name"] for row in content["candidates"]] == [row["name"] for row in rows if row["name"] != failing]
    assert content["left_out"][-1] == f"left out: {failing}, which failed: the loss is not finite"
    assert content["left_out"][-1] in copied.text.read_text()


def test_a_bundle_that_cannot_tell_of_test_stops_nothing(
    copied: Comparison, data: Path, storage: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = json.loads(copied.content.read_text())["choice"]["chosen"]
    silent = SimpleNamespace(metrics={})
    monkeypatch.setattr("darkroom.compare.BundleInfo", SimpleNamespace(read=lambda path: silent))

    def failed(*arguments: object, **options: object) -> None:
        raise ExportError("they differ")

    monkeypatch.setattr(workflow, "export", failed)
    content = compare(str(data), copied.folder, data_config=storage, config=CompareConfig(), resume=True)
    assert f"the bundle of {chosen} does not tell of test: they differ" in content["left_out"]


def test_one_process_at_a_time(copied: Comparison, data: Path, storage: DataConfig) -> None:
    with workflow.held(copied), pytest.raises(RunError, match="another darkroom is at work"):
        compare(str(data), copied.folder, data_config=storage, config=CompareConfig(), resume=True)
    assert not copied.lock.exists()


def test_the_time_of_an_interrupted_training_is_not_forgotten(
    copied: Comparison, data: Path, storage: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, ahead = copied.kept()["seconds"], [0.0]
    clock = time.perf_counter

    def stopped(*arguments: object, **options: object) -> None:
        ahead[0] = 1000.0
        raise TrainingStoppedError("stopped")

    unfinished(copied.run("cnn"))
    monkeypatch.setattr(workflow, "train", stopped)
    monkeypatch.setattr("darkroom.compare.time.perf_counter", lambda: clock() + ahead[0])
    with pytest.raises(TrainingStoppedError):
        compare(str(data), copied.folder, data_config=storage, config=CompareConfig(), resume=True)
    assert copied.kept()["seconds"] >= before + 1000


def test_a_stop_is_no_failure(
    copied: Comparison, data: Path, storage: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: object, **options: object) -> None:
        raise TrainingStoppedError("stopped")

    unfinished(copied.run("cnn"))
    monkeypatch.setattr(workflow, "train", stopped)
    with pytest.raises(TrainingStoppedError):
        compare(str(data), copied.folder, data_config=storage, config=CompareConfig(), resume=True)


def test_where_all_fail_nothing_is_chosen_and_nothing_decoded_in_vain(
    data: Path, models: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(*arguments: object, **options: object) -> None:
        raise TrainingError("the loss is not finite")

    monkeypatch.setattr(workflow, "train", failed)
    config = CompareConfig(models=models[1:2])
    with pytest.raises(RunError, match=r"no candidate could be compared: left out: one-frozen, which failed: the loss"):
        compare(str(data), tmp_path / "out", data_config=DataConfig(cache=tmp_path / "cache"), config=config)
    assert len(list((tmp_path / "cache" / "pixels").glob("*.npy"))) == 1, "at the size of the only network"


def test_a_training_that_was_promised_takes_place() -> None:
    assert granted(600.0) == {"minutes": 10.0}
    assert granted(-5.0) == {"minutes": LEAST_SECONDS / 60}


@pytest.fixture
def theirs(data: Path, models: tuple[str, ...], storage: DataConfig) -> DataSet:
    return prepare(str(data), storage, candidate(models[1]).preprocessing)


def test_a_network_is_measured_on_few_pictures(
    theirs: DataSet, models: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(measure, "SECONDS", 0.01)
    entrant, config = candidate(models[1]), TrainConfig(model=models[1])
    settings = complete(config, image_size=64, pictures=80, own_size=suitable_size(theirs.manifest))
    architecture, normalisation = entrant.architecture(theirs, settings), entrant.normalisation(theirs)
    network = entrant.new(theirs, architecture, seed=0, normalisation=normalisation)
    seen: list[int] = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    found = measure.speed_of("one", network, theirs, settings)
    assert max(seen) <= measure.PICTURES + 1
    assert all(value > 0 for value in (found.forward, found.answer, found.step))
    TrainConfig(model=models[1], **found.options)
    assert found.precision != "auto"
    assert found.memory_format != "auto"
    assert found.threads is not None


def zone(folder: Path, name: str, used: int, *, most: int = 1_000_000) -> None:
    folder.mkdir(exist_ok=True)
    for file, value in (("name", name), ("energy_uj", used), ("max_energy_range_uj", most)):
        (folder / file).write_text(f"{value}\n")


def test_energy_is_that_of_all_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(measure, "POWERCAP", tmp_path)
    assert measure.joules_since(measure.energy_counters()) is None, "nothing is told here"
    zone(tmp_path / "intel-rapl:0", "package-0", 900_000)
    zone(tmp_path / "intel-rapl:0:0", "core", 5)
    zone(tmp_path / "intel-rapl:1", "package-1", 100_000)
    before = measure.energy_counters()
    zone(tmp_path / "intel-rapl:0", "package-0", 399_999)
    zone(tmp_path / "intel-rapl:0:0", "core", 500_000)
    zone(tmp_path / "intel-rapl:1", "package-1", 300_000)
    assert measure.joules_since(before) == pytest.approx(0.5 + 0.2), "the first counter began anew on the way"
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert measure.joules_since(before) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--minutes", "0"], "--minutes is 0"),
        (["--finetune", "-1"], "--finetune is -1"),
        (["--models", "cnn", "cnn"], "names cnn twice"),
        (["--resume"], "--resume needs --out"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_line(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["compare", "digits", *options])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


def row(name: str, ms: float, accuracy: float, *, chosen: bool = False, **more: Any) -> dict[str, Any]:
    entry = {"value": accuracy, "low": accuracy - 0.01, "high": accuracy + 0.01}
    block = {"accuracy": entry, "macro_f1": entry, "log_loss": {"value": 0.3}, "ece": {"value": 0.02}, "n": 500}
    serving = {"milliseconds": ms, "bytes": 10_000_000, "pictures_a_second": 100.0}
    return {
        "name": name,
        "how": "frozen",
        "chosen": chosen,
        "reason": "because",
        "parameters": 1,
        "multiply_adds": 1e6,
        "train_seconds": 60.0,
        "train_joules": None,
        "test_openings": 0,
        "close_to_best": True,
        "against_best": None,
        "validation": block,
        "serving": serving,
        **more,
    }


def content(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "candidates": rows,
        "choice": {"prefer": "latency", "close": "close: near"},
        "seed": 0,
        "left_out": [],
        "seconds": 890.0,
        "requested": {"minutes": 15.0},
        **more,
    }


def told(*rows: dict[str, Any], **more: Any) -> str:
    return paragraph(content(*rows, **more))


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    rows = [row("a", 1, 0.8), row("b", 2, 0.7), row("c", 3, 0.9), row("d", 4, 0.9), row("e", 1, 0.75)]
    assert [one["name"] for one in pareto(rows)] == ["a", "c"]


@pytest.mark.parametrize("joules", [None, 12_345.0])
def test_the_table_is_aligned(joules: float | None) -> None:
    chosen = row("a-much-longer-name", 1, 0.95, chosen=True, train_joules=joules)
    head, *lines, note = table([chosen, row("slow", 10, 0.8)])
    assert lines[0].startswith("* a-much-longer-name")
    assert len({len(line) for line in (head, *lines)}) == 1
    assert head.endswith("  kJ") == ("kJ" in note) == (joules is not None)
    if joules is not None:
        assert lines[0].endswith("12.3")
        assert lines[1].endswith("?")


def test_table_and_reasons_begin_with_the_most_accurate() -> None:
    told = list(lines(content(row("worse", 1, 0.8), row("better", 1, 0.9, chosen=True))))
    assert [line.strip("* ").split()[0] for line in told[1:3]] == ["better", "worse"]
    assert [line.split()[0] for line in told[5:7]] == ["better", "worse"]


def test_energy_is_told_where_it_is_known() -> None:
    assert "kJ" not in told(row("only", 1, 0.9, chosen=True))
    assert "the processor used 12.3 kJ" in told(row("only", 1, 0.9, chosen=True, train_joules=12_345.0))


def test_what_was_left_out_is_told() -> None:
    assert "1 thing(s) were left out" in told(row("only", 1, 0.9, chosen=True), left_out=["left out: vgg16"])


def test_limits_are_told() -> None:
    chosen = row("only", 1, 0.9, chosen=True)
    assert "on the same validation pictures" in told(chosen)
    assert "instead of" not in told(chosen)
    assert "All this took 20.0 minutes instead of 15." in told(chosen, seconds=1200.0)
    unsure = row("unsure", 0.5, 0.89, close_to_best=False, against_best={"distinguishable": False})
    worse = row("worse", 0.5, 0.7, close_to_best=False, against_best={"distinguishable": True})
    assert "too few to tell" in told(chosen, unsure)
    assert "too few to tell" not in told(chosen, worse)


def test_our_network_is_told_to_be_ahead_where_it_is() -> None:
    chosen = row("fast", 1, 0.9, chosen=True)
    assert "is 2.0 points behind." in told(chosen, row("cnn", 2, 0.88, how="from scratch"))
    assert "is 1.0 points ahead." in told(chosen, row("cnn", 2, 0.91, how="from scratch"))


def test_the_baseline_is_ours_and_openings_are_counted() -> None:
    tested = {"test": row("", 1, 0.85)["validation"], "test_openings": 1}
    chosen = row("fast", 1, 0.9, chosen=True, **tested | {"test_openings": 2})
    text = told(chosen, row("former", 1, 0.9, **tested), row("cnn", 1, 0.8, how="from scratch", **tested))
    assert "opened 2 times after the choice" in text
    assert "; cnn, the baseline, 85.0 %." in text
    assert "former" not in text
