"""`darkroom ablate`: what is varied, how effects are computed, and that test stays closed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darkroom import workflow
from darkroom.ablate import (
    FACTORS,
    HALF,
    MORE_PICTURES,
    PARTS,
    _pinned,
    ablate,
    changed,
    factors_of,
    lines,
    more,
    variants_of,
)
from darkroom.cli import main
from darkroom.comparison.folder import Ablation
from darkroom.config import AblateConfig, DataConfig, TrainConfig
from darkroom.data.augmentation import NONE
from darkroom.errors import DataError, RunError, TrainingError, UsageError
from darkroom.evaluation.effects import Effect, effect
from darkroom.runs import Run
from darkroom.training.recipes import complete
from finished import draw_blobs

BASE = {
    "optimiser": "muon",
    "schedule": "linear",
    "label_smoothing": 0.2,
    "ema_decay": 0.9,
    "width": 1.0,
    "convolutions": 2,
    "dropout": 0.0,
    "flip": True,
    "translate": 2,
    "cutout": 0,
    "crop_scale": 1.0,
    "colour_jitter": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "epochs": 8,
    "batch_size": 32,
    "train_fraction": 1.0,
    "pictures": 1000,
}


def test_an_effect_is_the_paired_difference_with_students_interval() -> None:
    found = effect([0.82, 0.85, 0.9], [0.8, 0.81, 0.84])
    assert found.mean == pytest.approx(0.04)
    half = 4.302653 * np.std([0.02, 0.04, 0.06], ddof=1) / 3**0.5
    assert (found.low, found.high) == pytest.approx((0.04 - half, 0.04 + half))
    assert found.n == 3


def test_what_seeds_share_cancels_out() -> None:
    assert effect([0.5, 0.9], [0.4, 0.8]).high == pytest.approx(0.1)


def test_no_augmentation_means_none() -> None:
    (variant,) = variants_of("augmentation", BASE)
    settings = complete(TrainConfig(**variant.changes), image_size=32, pictures=1000)
    assert settings.augmentation == NONE


def test_each_variant_differs_from_the_baseline() -> None:
    assert [variant.changes["optimiser"] for variant in variants_of("optimiser", BASE)] == ["sgd", "adamw"]
    assert [variant.changes["optimiser"] for variant in variants_of("optimiser", BASE | {"optimiser": "sgd"})] == [
        "adamw"
    ]
    assert [variant.changes["schedule"] for variant in variants_of("schedule", BASE)] == ["cosine"]
    assert not variants_of("label-smoothing", BASE | {"label_smoothing": 0.0})
    assert [variant.changes["width"] for variant in variants_of("width", BASE | {"width": 1.5})] == [0.75, 3.0]


def test_what_goes_along_with_mirroring_is_told() -> None:
    (ours,), (theirs,) = variants_of("augmentation", BASE), variants_of("augmentation", BASE, model="resnet18")
    assert (ours.what, theirs.what) == ("no augmentation, no mirrored filters", "no augmentation")
    (mirrored,) = variants_of("flip", BASE | {"flip": False})
    assert mirrored.what == "mirroring, mirrored filters"
    (plain,) = variants_of("augmentation", BASE | {"flip": False})
    assert plain.what == "no augmentation"


def test_width_is_varied_where_there_is_one() -> None:
    assert factors_of(AblateConfig(), "cnn") == FACTORS
    assert "width" in FACTORS
    assert factors_of(AblateConfig(), "resnet18") == tuple(factor for factor in FACTORS if factor != "width")
    assert factors_of(AblateConfig(of=("ema",)), "resnet18") == ("ema",)
    for factor in ("width", "convolutions"):
        with pytest.raises(UsageError, match=f"--of {factor} is for our own network, not for resnet18"):
            factors_of(AblateConfig(of=(factor,)), "resnet18")


@pytest.mark.parametrize(
    ("pictures", "batch_size", "epochs", "expected"),
    [
        (1000, 32, 9, [(0.5, 17), (0.25, 35)]),  # 31 steps an epoch, then 16 and 8
        (45_000, 512, 10, [(0.5, 20), (0.25, 40)]),  # 88, 44, 22
        (40, 16, 3, [(0.5, 6), (0.25, 6)]),  # 2, then 1 of as many pictures as there are
        (1, 16, 1, [(0.5, 1), (0.25, 1)]),
    ],
)
def test_a_part_of_the_pictures_takes_as_many_steps(
    pictures: int, batch_size: int, epochs: int, expected: list[tuple[float, int]]
) -> None:
    base = BASE | {"pictures": pictures, "batch_size": batch_size, "epochs": epochs}
    variants = variants_of("pictures", base)
    assert [variant.what for variant in variants] == list(PARTS)
    assert [(each.changes["train_fraction"], each.changes["epochs"]) for each in variants] == expected
    assert {each.changes["batch_size"] for each in variants} == {batch_size}


def test_a_part_of_the_pictures_takes_as_many_minutes_of_the_same_training() -> None:
    base = BASE | {"epochs": None, "train_fraction": 0.3, "translate": 4, "cutout": 12}
    for variant, fraction in zip(variants_of("pictures", base), (0.15, 0.075), strict=True):
        data_config, training = changed(
            DataConfig(train_fraction=0.3, seed=5), TrainConfig(minutes=2.0, recipe="best"), variant.changes
        )
        assert data_config.train_fraction == pytest.approx(fraction)
        assert replace(data_config, train_fraction=1.0) == DataConfig(seed=5)
        assert training == TrainConfig(minutes=2.0, recipe="best", batch_size=32, translate=4, cutout=12)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.001, 0.004, "help"),
        (0.02, 0.06, "help"),
        (0.0, 0.009, "little"),
        (-0.02, 0.009, "little"),
        (-0.03, 0.08, "unsure"),
        (-0.001, 0.01, "unsure"),
    ],
)
def test_what_the_last_doubling_says_of_more_pictures(low: float, high: float, said: str) -> None:
    assert more(Effect((low + high) / 2, low, high, deviation=0.01, n=3, sure=low > 0 or high < 0)) == said
    assert said in MORE_PICTURES


def test_what_is_measured_of_the_baseline_holds_for_all() -> None:
    settled = {
        "settings": {"width": 0.7, "convolutions": 2},
        "arithmetic": {"bf16": True, "channels_last": False, "compiled": False},
        "threads": 2,
    }
    measured = {"precision": "bf16", "memory_format": "contiguous", "threads": 2}
    ours, theirs = TrainConfig(minutes=1.0), TrainConfig(model="resnet18", minutes=1.0)
    assert _pinned(ours, settled) == replace(ours, **measured, width=0.7, convolutions=2)
    assert _pinned(theirs, settled) == replace(theirs, **measured)


ARGUMENTS: dict[str, Any] = {
    "training": TrainConfig(epochs=2, threads=1, width=0.25),
    "config": AblateConfig(of=("label-smoothing", "ema"), seeds=2),
}


@pytest.fixture(scope="module")
def ablated(tmp_path_factory: pytest.TempPathFactory) -> Ablation:
    folder = tmp_path_factory.mktemp("ablation")
    draw_blobs(folder / "blobs", pictures=20)
    place = Ablation(folder / "out")
    ablate(str(folder / "blobs"), place.folder, data_config=DataConfig(cache=folder / "cache"), **ARGUMENTS)
    return place


@pytest.fixture
def copied(ablated: Ablation, tmp_path: Path) -> Ablation:
    """An ablation to change."""
    shutil.copytree(ablated.folder, tmp_path / "copy")
    return Ablation(tmp_path / "copy")


@pytest.fixture
def data(ablated: Ablation) -> str:
    return str(ablated.folder.parent / "blobs")


@pytest.fixture
def storage(ablated: Ablation) -> DataConfig:
    return DataConfig(cache=ablated.folder.parent / "cache")


def test_an_ablation_tells_each_effect(ablated: Ablation) -> None:
    content = json.loads(ablated.content.read_text())
    assert [row["factor"] for row in content["effects"]] == ["label-smoothing", "ema"]
    assert content["doubling"] is None
    assert content["seeds"] == [0, 1]
    for row in content["effects"]:
        expected = np.mean(np.array(row["accuracies"]) - content["baseline"])
        assert row["mean"] == pytest.approx(expected)
        assert row["low"] <= row["mean"] <= row["high"]
        settings = ablated.run(f"{row['what']}-seed-1").read_config()["training"]["settings"]
        assert all(settings[name] == value for name, value in row["changes"].items())
    assert ablated.figure.with_suffix(".png").stat().st_size > 3000
    told = list(lines(content))
    assert told[0].startswith("baseline: ")
    assert "2 trainings of 2 epochs each" in told[0]


def test_the_test_split_stays_closed(ablated: Ablation) -> None:
    assert not any(run.name == "metrics.json" for run in ablated.runs.rglob("*"))


@pytest.fixture(scope="module")
def learning_curve(ablated: Ablation) -> Ablation:
    """Trainings on all, half and a quarter of 42 pictures, with two seeds."""
    folder = ablated.folder.parent
    place = Ablation(folder / "curve")
    storage = DataConfig(cache=folder / "cache")
    config = AblateConfig(of=("pictures",), seeds=2)
    ablate(str(folder / "blobs"), place.folder, data_config=storage, training=ARGUMENTS["training"], config=config)
    return place


def test_a_learning_curve_varies_nothing_but_the_pictures(learning_curve: Ablation) -> None:
    content = json.loads(learning_curve.content.read_text())
    for seed in (0, 1):
        runs = [learning_curve.run(f"{what}-seed-{seed}") for what in ("baseline", *PARTS)]
        configs = [run.read_config() for run in runs]
        assert [sum(config["data"]["counts"]["train"].values()) for config in configs] == [42, 21, 12]
        assert [config["training"]["result"]["steps"] for config in configs] == [6, 6, 6]
        for part in ("architecture", "kind"):
            assert configs[0]["network"][part] == configs[1]["network"][part] == configs[2]["network"][part]
        settings = [config["training"]["settings"] for config in configs]
        left = [{k: v for k, v in each.items() if k not in ("epochs", "patience")} for each in settings]
        assert left[0] == left[1] == left[2]
        rows = [run.manifest.read_text().splitlines() for run in runs]
        splits = [[row.split(",")[3].replace("unused", "train") for row in table] for table in rows]
        assert splits[0] == splits[1] == splits[2]
    gain = effect(content["baseline"], content["effects"][0]["accuracies"])
    assert content["effects"][0]["what"] == HALF
    assert content["doubling"] == {
        **{name: pytest.approx(value) for name, value in vars(gain).items()},
        "from": 21,
        "to": 42,
        "more": more(gain),
    }
    assert any(line.startswith("from 21 training pictures to 42: ") for line in lines(content))


def test_all_trainings_share_what_was_measured(ablated: Ablation) -> None:
    names = ("width", "convolutions", "precision", "memory_format", "threads")
    requested = [Run(folder).read_config()["training"]["requested"] for folder in ablated.runs.iterdir()]
    assert len(requested) == 6
    (shared,) = {tuple(values[name] for name in names) for values in requested}
    assert None not in shared
    assert "auto" not in shared


def test_it_goes_on_where_it_stopped(
    ablated: Ablation, data: str, storage: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("darkroom.workflow.train", never)
    before = json.loads(ablated.content.read_text())
    defaults = {"training": TrainConfig(), "config": AblateConfig()}
    again = ablate(data, ablated.folder, resume=True, data_config=storage, **defaults)
    assert again["effects"] == before["effects"]
    assert again["budget"] == {"minutes": None, "epochs": 2}, "the options are those that it began with"
    with pytest.raises(RunError, match="already holds an ablation"):
        ablate(data, ablated.folder, data_config=storage, **ARGUMENTS)


def test_an_interrupted_training_goes_on_from_its_checkpoint(
    copied: Ablation, data: str, storage: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied.run("no averaging of weights-seed-1")
    content = run.read_config()
    result = content["training"].pop("result")
    run.write_config(content)
    calls: list[tuple[str, Any, Any]] = []
    original = workflow.train

    def watched(data: str, run: Run, **options: Any) -> None:
        calls.append((run.folder.name, options["resume"], options["overwrite"]))
        original(data, run, **options)

    monkeypatch.setattr(workflow, "train", watched)
    ablate(data, copied.folder, resume=True, data_config=storage, **ARGUMENTS)
    assert calls == [(run.folder.name, True, False)]
    again = run.read_config()["training"]["result"]
    assert {**again, "seconds": result["seconds"]} == result


def test_a_variant_that_diverges_is_left_out_and_told(
    copied: Ablation, data: str, storage: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied.run("no averaging of weights-seed-1")
    content = run.read_config()
    del content["training"]["result"]
    run.write_config(content)

    def failed(*arguments: object, **options: object) -> None:
        raise TrainingError("the loss is not finite")

    monkeypatch.setattr(workflow, "train", failed)
    found = ablate(data, copied.folder, resume=True, data_config=storage, **ARGUMENTS)
    assert [row["factor"] for row in found["effects"]] == ["label-smoothing"]
    assert found["left_out"] == ["left out: no averaging of weights, which failed: the loss is not finite"]
    assert found["left_out"][0] in copied.text.read_text()


def test_one_process_at_a_time(copied: Ablation, data: str, storage: DataConfig) -> None:
    with workflow.held(copied), pytest.raises(RunError, match="another darkroom is at work"):
        ablate(data, copied.folder, resume=True, data_config=storage, **ARGUMENTS)


def test_another_optimiser_does_not_take_over_what_was_given_for_the_first() -> None:
    base = complete(TrainConfig(learning_rate=0.12), image_size=32, pictures=1000, own_size=32).to_json()
    variants = variants_of("optimiser", BASE | base | base["augmentation"])
    assert {variant.changes["optimiser"] for variant in variants} == {"sgd", "adamw"} - {base["optimiser"]}
    for variant in variants:
        assert (variant.changes["learning_rate"], variant.changes["momentum"]) == (None, None)


def test_differences_that_are_all_alike_are_not_called_sure() -> None:
    """Two seeds that happen to differ by one picture each tell of no spread."""
    assert not effect([0.5, 0.5], [0.25, 0.25]).sure
    assert effect([0.9, 0.91, 0.9], [0.8, 0.8, 0.8]).sure


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"training": TrainConfig(epochs=3)}, "--epochs is 3, but"),
        ({"training": TrainConfig(minutes=10.0)}, "--minutes is 10.0, but"),
        ({"config": AblateConfig(seeds=5)}, "--seeds is 5, but"),
        ({"config": AblateConfig(of=("width",))}, "--of is width, but"),
        ({"data_config": DataConfig(seed=7)}, "--seed is 7, but"),
        ({"data": "digits"}, "was begun on"),
    ],
)
def test_resuming_with_anything_else_is_refused(
    ablated: Ablation, data: str, options: dict[str, Any], words: str
) -> None:
    before = ablated.content.read_bytes()
    given = {"data": data, "data_config": DataConfig(), **ARGUMENTS, **options}
    with pytest.raises(UsageError, match=words):
        ablate(folder=ablated.folder, resume=True, **given)
    assert ablated.content.read_bytes() == before


def test_resuming_with_other_pictures_is_refused(copied: Ablation, data: str, storage: DataConfig) -> None:
    copied.keep(copied.kept() | {"fingerprint": "of others"})
    with pytest.raises(RunError, match="holds other pictures than when"):
        ablate(data, copied.folder, resume=True, data_config=storage, **ARGUMENTS)


def test_overwriting_with_what_cannot_be_trained_costs_nothing(
    copied: Ablation, data: str, storage: DataConfig
) -> None:
    before = {path: path.read_bytes() for path in copied.folder.rglob("*") if path.is_file()}
    nothing = {"training": TrainConfig(epochs=2, label_smoothing=0.0), "config": AblateConfig(of=("label-smoothing",))}
    frozen = {"training": TrainConfig(model="resnet18", frozen=True), "config": AblateConfig()}
    refit = {"training": TrainConfig(epochs=2, refit=True), "config": AblateConfig()}
    views = {"training": TrainConfig(epochs=2, views=2, flip=True), "config": AblateConfig(of=("augmentation",))}
    with pytest.raises(DataError):
        ablate(f"{data}-nowhere", copied.folder, overwrite=True, data_config=storage, **ARGUMENTS)
    for options, words in (
        (nothing, "would change nothing"),
        (frozen, "--frozen trains nothing"),
        (refit, "--refit trains anew"),
        (views, "--views 2 mirrors pictures"),
    ):
        with pytest.raises(UsageError, match=words):
            ablate(data, copied.folder, overwrite=True, data_config=storage, **options)
    assert {path: path.read_bytes() for path in copied.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seeds", "1"], "--seeds is 1"),
        (["--of", "ema", "ema"], "names ema twice"),
        (["--of", "colour,ema"], "--of names colour: give some of augmentation, flip,"),
        (["--of", "ema,label_smoothing,ema"], "names ema twice"),
        (["--of", "width", "--model", "resnet18"], "--of width is for our own network, not for resnet18"),
    ],
)
def test_what_makes_no_sense_is_told(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["ablate", "digits", *options])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
