"""`darkroom ablate`: what is varied, how effects are computed, and that test stays closed."""

import json

import numpy as np
import pytest

from darkroom.ablate import Ablation, ablate, lines, variants_of
from darkroom.cli import main
from darkroom.config import AblateConfig, DataConfig, TrainConfig
from darkroom.data.augmentation import NONE
from darkroom.errors import RunError
from darkroom.evaluation.effects import effect
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
    changed = complete(TrainConfig(**variant.changes), image_size=32, pictures=1000)
    assert changed.augmentation == NONE


def test_each_variant_differs_from_the_baseline() -> None:
    assert [variant.changes["optimiser"] for variant in variants_of("optimiser", BASE)] == ["sgd", "adamw"]
    assert [variant.changes["optimiser"] for variant in variants_of("optimiser", BASE | {"optimiser": "sgd"})] == [
        "adamw"
    ]
    assert [variant.changes["schedule"] for variant in variants_of("schedule", BASE)] == ["cosine"]
    assert not variants_of("label-smoothing", BASE | {"label_smoothing": 0.0})
    assert [variant.changes["width"] for variant in variants_of("width", BASE | {"width": 1.5})] == [0.75, 3.0]


@pytest.fixture(scope="module")
def ablated(tmp_path_factory: pytest.TempPathFactory) -> Ablation:
    folder = tmp_path_factory.mktemp("ablation")
    draw_blobs(folder / "blobs", pictures=20)
    place = Ablation(folder / "out")
    ablate(
        str(folder / "blobs"),
        place.folder,
        data_config=DataConfig(cache=folder / "cache"),
        training=TrainConfig(epochs=2, threads=1, width=0.25),
        config=AblateConfig(of=("label-smoothing", "ema"), seeds=2),
    )
    return place


def test_an_ablation_tells_each_effect(ablated: Ablation) -> None:
    content = json.loads(ablated.content.read_text())
    assert [row["factor"] for row in content["effects"]] == ["label-smoothing", "ema"]
    assert content["seeds"] == [0, 1]
    for row in content["effects"]:
        expected = np.mean(np.array(row["accuracies"]) - content["baseline"])
        assert row["mean"] == pytest.approx(expected)
        assert row["low"] <= row["mean"] <= row["high"]
        settings = ablated.run(row["what"], 1).read_config()["training"]["settings"]
        assert all(settings[name] == value for name, value in row["changes"].items())
    assert ablated.figure.with_suffix(".png").stat().st_size > 3000
    told = list(lines(content))
    assert told[0].startswith("baseline: ")
    assert "2 trainings of 2 epochs each" in told[0]


def test_the_test_split_stays_closed(ablated: Ablation) -> None:
    assert not any(run.name == "metrics.json" for run in ablated.runs.rglob("*"))


def test_it_goes_on_where_it_stopped(ablated: Ablation, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("darkroom.workflow.train", never)
    before = json.loads(ablated.content.read_text())["effects"]
    arguments = {
        "data_config": DataConfig(cache=ablated.folder.parent / "cache"),
        "training": TrainConfig(epochs=2, threads=1, width=0.25),
        "config": AblateConfig(of=("label-smoothing", "ema"), seeds=2),
    }
    data = str(ablated.folder.parent / "blobs")
    again = ablate(data, ablated.folder, resume=True, **arguments)
    assert again["effects"] == before
    with pytest.raises(RunError, match="already holds an ablation"):
        ablate(data, ablated.folder, **arguments)


@pytest.mark.parametrize(
    ("options", "words"), [(["--seeds", "1"], "--seeds is 1"), (["--of", "ema", "ema"], "names ema twice")]
)
def test_what_makes_no_sense_is_told(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["ablate", "digits", *options])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
