"""Recipes: what the user says wins, then the recipe, then what follows from the data."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from darkroom.config import TrainConfig
from darkroom.data.dataset import DataSet
from darkroom.data.manifest import Manifest, Row
from darkroom.errors import RunError
from darkroom.preprocess import Preprocessing
from darkroom.training.budget import plan_epochs
from darkroom.training.recipes import RECIPES, Settings, complete
from darkroom.training.settle import _after_planning
from darkroom.training.train import _class_weights


@pytest.mark.parametrize(("size", "recipe"), [(8, "quick"), (64, "quick"), (65, "photo"), (224, "photo")])
def test_auto_follows_the_size(size: int, recipe: str) -> None:
    assert complete(TrainConfig(), image_size=size, pictures=5000).recipe == recipe


def test_a_named_recipe_wins_over_the_size() -> None:
    photo = complete(TrainConfig(recipe="photo"), image_size=32, pictures=5000)
    assert (photo.recipe, photo.augmentation.crop_scale) == ("photo", RECIPES["photo"]["crop_scale"])
    assert complete(TrainConfig(recipe="quick"), image_size=224, pictures=5000).augmentation.crop_scale == 1


GIVEN = TrainConfig(
    epochs=3,
    batch_size=10,
    accumulate=2,
    optimiser="adamw",
    learning_rate=0.0,
    weight_decay=0.0,
    momentum=0.0,
    schedule="plateau",
    label_smoothing=0.0,
    imbalance="balanced-sampling",
    ema_decay=0.0,
    patience=1,
    width=0.5,
    convolutions=3,
    dropout=0.0,
    flip=False,
    translate=0,
    cutout=0,
    crop_scale=1.0,
    colour_jitter=0.0,
    mixup=0.0,
    cutmix=0.0,
    resize_from=1.0,
    views=1,
    precision="fp32",
    memory_format="contiguous",
)


@pytest.mark.parametrize("size", [16, 128])
def test_what_the_user_gives_wins_even_when_it_is_nothing(size: int) -> None:
    settings = complete(GIVEN, image_size=size, pictures=5000)
    for field in dataclasses.fields(TrainConfig):
        place = settings if hasattr(settings, field.name) else settings.augmentation
        if field.name not in {"recipe", "layer_decay"} and hasattr(place, field.name):
            assert getattr(place, field.name) == getattr(GIVEN, field.name), field.name


def test_the_whole_config_finds_a_place() -> None:
    settings = complete(TrainConfig(), image_size=32, pictures=5000)
    known = {*vars(settings), *vars(settings.augmentation)}
    elsewhere = {"model", "minutes", "threads", "tensorboard", "refit", "compile", "frozen", "random_weights"}
    assert {field.name for field in dataclasses.fields(TrainConfig)} - known == elsewhere
    open_until_planned = {"ema_decay", "patience"}
    assert {name for name, value in vars(settings).items() if value is None} == open_until_planned


@pytest.mark.parametrize("size", [8, 32, 128, 224])
@pytest.mark.parametrize("pictures", [2, 30, 500, 3000, 45_000, 1_000_000])
def test_rules_from_the_data_stay_sensible(size: int, pictures: int) -> None:
    settings = complete(TrainConfig(), image_size=size, pictures=pictures)
    assert 16 <= settings.batch_size <= 512
    assert settings.batch_size == 16 or pictures / settings.batch_size >= 25
    assert 8 <= settings.epochs <= 60
    assert 0 <= settings.augmentation.translate <= size // 4
    assert settings.augmentation.cutout <= size // 2
    assert settings.learning_rate > 0


def test_long_trainings_of_the_best_recipe_augment_more() -> None:
    settings = complete(TrainConfig(recipe="best"), image_size=32, pictures=45_000)
    assert (settings.augmentation.translate, settings.augmentation.cutout) == (4, 12)
    for epochs, pixels in ((3, (2, 0)), (15, (4, 8))):
        shorter = complete(TrainConfig(recipe="best", epochs=epochs), image_size=32, pictures=45_000)
        assert (shorter.augmentation.translate, shorter.augmentation.cutout) == pixels


def test_tiny_signs_are_not_mirrored() -> None:
    assert not complete(TrainConfig(), image_size=8, pictures=1000).augmentation.flip
    assert complete(TrainConfig(), image_size=128, pictures=1000).augmentation.flip


@pytest.mark.parametrize("recipe", ["quick", "photo"])
def test_each_optimiser_has_a_rate_of_its_own(recipe: str) -> None:
    rates = {
        name: complete(TrainConfig(recipe=recipe, optimiser=name), image_size=32, pictures=5000).learning_rate  # type: ignore[arg-type]
        for name in ("sgd", "adamw", "muon")
    }
    assert rates["adamw"] < 0.1 * rates["muon"]
    assert rates["adamw"] < 0.1 * rates["sgd"]


def test_what_was_learned_already_is_changed_slowly_by_any_optimiser() -> None:
    settings = {
        name: complete(TrainConfig(model="resnet18", optimiser=name), image_size=224, pictures=5000)  # type: ignore[arg-type]
        for name in ("sgd", "adamw")
    }
    assert settings["sgd"].learning_rate > 3 * settings["adamw"].learning_rate
    from_scratch = complete(TrainConfig(optimiser="sgd"), image_size=224, pictures=5000)
    assert settings["sgd"].learning_rate < 0.5 * from_scratch.learning_rate
    given = complete(TrainConfig(model="resnet18", learning_rate=0.5), image_size=224, pictures=5000)
    assert given.learning_rate == 0.5


def test_layers_that_have_learned_nothing_learn_alike() -> None:
    options = {"image_size": 224, "pictures": 5000}
    assert complete(TrainConfig(model="resnet18"), **options).layer_decay < 1
    assert complete(TrainConfig(model="resnet18", random_weights=True), **options).layer_decay == 1
    asked = TrainConfig(model="resnet18", random_weights=True, layer_decay=0.5)
    assert complete(asked, **options).layer_decay == 0.5


def test_settings_survive_json() -> None:
    settings = complete(TrainConfig(mixup=0.3), image_size=32, pictures=5000)
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


@pytest.mark.parametrize("missing", ["views", "label_smoothing"])
def test_settings_of_another_version_are_told_in_one_line(missing: str) -> None:
    content = complete(TrainConfig(), image_size=32, pictures=5000).to_json()
    del content[missing]
    with pytest.raises(RunError, match=f"does not know .*{missing}.* train again with --overwrite"):
        Settings.from_json(content)


def data_set(counts: dict[str, int]) -> DataSet:
    """A data set with so many training pictures a class, and one picture a class to validate."""
    labels = [(label, "train") for label, count in counts.items() for _ in range(count)]
    labels += [(label, "validation") for label in counts]
    rows = tuple(
        Row(
            id=number,
            path=f"{number}.png",
            label=label,
            split=split,
            sha256="",
            width=8,
            height=8,
            duplicate_group=number,
        )
        for number, (label, split) in enumerate(labels)
    )
    manifest = Manifest(root=Path(), classes=tuple(counts), rows=rows, fingerprint="", unreadable=())
    return DataSet("", "", manifest, Preprocessing(8, 8), np.zeros((len(rows), 8, 8, 3), dtype=np.uint8))


def test_class_weights_make_classes_count_alike() -> None:
    counts = {"cat": 60, "dog": 30, "newt": 2}
    settings = complete(TrainConfig(imbalance="weighted-loss"), image_size=8, pictures=92)
    weights = _class_weights(data_set(counts), settings)
    assert weights is not None
    shares = [float(weight) * count for weight, count in zip(weights, counts.values(), strict=True)]
    assert shares == pytest.approx([92 / 3] * 3)  # each class the same, 1 on average over the pictures


def test_class_weights_where_a_class_has_no_training_pictures() -> None:
    settings = complete(TrainConfig(imbalance="weighted-loss"), image_size=8, pictures=9)
    weights = _class_weights(data_set({"cat": 6, "dog": 0, "newt": 3}), settings)
    assert weights is not None
    assert weights.isfinite().all()
    assert [float(weights[0]) * 6, float(weights[2]) * 3] == pytest.approx([4.5, 4.5])


def test_no_class_weights_unless_wanted() -> None:
    assert _class_weights(data_set({"a": 1, "b": 5}), complete(TrainConfig(), image_size=8, pictures=6)) is None


def test_what_follows_from_the_length_of_the_training() -> None:
    settings = complete(TrainConfig(), image_size=8, pictures=1000)
    short = _after_planning(settings, plan_epochs(4, steps_an_epoch=5), TrainConfig(), side=8)
    long = _after_planning(settings, plan_epochs(60, steps_an_epoch=1000), TrainConfig(), side=8)
    assert (short.epochs, short.ema_decay, short.patience) == (4, 0.8, 10)
    assert (long.epochs, long.ema_decay, long.patience) == (60, 0.9995, 30)
    given = complete(TrainConfig(ema_decay=0.0, patience=2), image_size=8, pictures=1000)
    kept = _after_planning(given, plan_epochs(60, steps_an_epoch=1000), TrainConfig(), side=8)
    assert (kept.ema_decay, kept.patience) == (0.0, 2)
