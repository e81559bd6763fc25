"""Recipes: the defaults of training, as data in one place, and how they are completed for a data set."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from darkroom.config import OURS, Imbalance, MemoryFormat, Optimiser, Precision, Recipe, Schedule, TrainConfig, Views
from darkroom.data.augmentation import Augmentation
from darkroom.errors import UsageError
from darkroom.models.cnn import SMALL_PICTURE
from darkroom.runs import rebuilt

# Measured on digits, CIFAR-10 (JPEG) and small sets of photos; docs/lab-notes.md has the trials. Only `transfer` is
# set by judgement.
COMMON: dict[str, Any] = {
    "optimiser": "muon",
    "schedule": "linear",
    "label_smoothing": 0.2,
    "imbalance": "none",
    "width": 1.0,
    "convolutions": 2,
    "dropout": 0.0,
    "crop_scale": 1.0,
    "resize_from": 1.0,
    "colour_jitter": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "layer_decay": 1.0,
}

RECIPES: dict[str, dict[str, Any]] = {
    "quick": COMMON,
    "best": COMMON | {"width": 1.5},
    "photo": COMMON
    | {
        "schedule": "one-cycle",
        "label_smoothing": 0.1,
        "dropout": 0.2,
        "translate": 0,
        "crop_scale": 0.35,
        "colour_jitter": 0.3,
    },
    "transfer": COMMON
    | {
        "optimiser": "adamw",
        "layer_decay": 0.75,
        "schedule": "cosine",
        "label_smoothing": 0.1,
        "dropout": 0.2,
        "translate": 0,
        "crop_scale": 0.5,
        "colour_jitter": 0.2,
    },
}


@dataclass(frozen=True)
class Rung:
    """A network, and the fewest epochs of it that must fit into the minutes: with fewer, a smaller one learns more."""

    epochs: float
    width: float
    convolutions: int


LADDERS: dict[str, tuple[Rung, ...]] = {
    "quick": (Rung(0, 0.5, 2), Rung(2, 0.7, 2), Rung(4, 1.0, 2)),
    "best": (Rung(0, 0.5, 2), Rung(2, 0.7, 2), Rung(4, 1.0, 2), Rung(15, 1.5, 2)),
    "photo": (Rung(0, 1.0, 2),),
    "transfer": (Rung(0, 1.0, 2),),
}
"""From the cheapest network to the dearest; the highest that the measured speed allows is taken.

The step to width 1 at 4 epochs rests on one trial (docs/lab-notes.md), the others are judgement.
"""

OPTIMISERS: dict[str, dict[str, float]] = {
    "muon": {"learning_rate": 0.12, "momentum": 0.6, "weight_decay": 5e-4},
    "sgd": {"learning_rate": 0.2, "momentum": 0.9, "weight_decay": 5e-4},
    "adamw": {"learning_rate": 4e-3, "momentum": 0.9, "weight_decay": 0.05},
}
"""Learning rates are for batches of `REFERENCE_BATCH`; they are scaled by the root of the batch size."""

RATES: dict[str, dict[str, float]] = {"transfer": {"sgd": 0.02, "adamw": 2e-3}}
"""Of recipes that take others, for batches of the same size: what a network has learned must not be lost. Judgement."""

REFERENCE_BATCH = 512

LONG, VERY_LONG = 12, 20
"""Epochs from which `best` augments more, and still more: too early it costs as much as it gains too late."""

FIT_PICTURES_SEEN = {"quick": 400_000, "best": 1_200_000, "photo": 120_000, "transfer": 30_000}
"""Pictures shown in all when neither minutes nor epochs are given."""


@dataclass(frozen=True)
class Settings:
    """A recipe completed for one data set; the fields are those of `TrainConfig`, none left open."""

    recipe: str
    epochs: int
    batch_size: int
    accumulate: int
    optimiser: Optimiser
    learning_rate: float
    weight_decay: float
    momentum: float
    layer_decay: float
    schedule: Schedule
    label_smoothing: float
    imbalance: Imbalance
    ema_decay: float | None
    patience: int | None
    width: float
    convolutions: int
    dropout: float
    augmentation: Augmentation
    resize_from: float
    views: Views
    precision: Precision
    memory_format: MemoryFormat

    def to_json(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Settings":
        """Inverse of `to_json`."""
        return rebuilt(cls, {**content, "augmentation": rebuilt(Augmentation, content["augmentation"])})


def may_mirror(own_size: int) -> bool:
    """Whether a mirror image is of the same class, told from the side: tiny pictures are mostly signs."""
    return own_size >= 16


def complete(config: TrainConfig, *, image_size: int, pictures: int, own_size: int | None = None) -> Settings:
    """What the user gave, then the recipe, then rules that follow from the data: `pictures` to train on, their side.

    `own_size` is the side that they have by themselves, where a network wants them enlarged.
    """
    recipe = config.recipe if config.recipe != "auto" else _recipe_for(config.model, image_size)
    values: dict[str, Any] = {
        "epochs": min(60, max(8, round(FIT_PICTURES_SEEN[recipe] / pictures))),
        "batch_size": _batch_size(pictures, image_size),
        "flip": may_mirror(own_size or image_size),
    }
    values |= RECIPES[recipe]
    if config.random_weights:
        values["layer_decay"] = 1.0  # lower layers have learned nothing yet that they should keep
    given = {field.name: getattr(config, field.name) for field in fields(config)}
    given = {name: value for name, value in given.items() if value is not None}
    values |= given | {"recipe": recipe}
    values = moved_and_hidden(recipe, epochs=values["epochs"], side=image_size) | values
    optimiser = values["optimiser"]
    values = OPTIMISERS[optimiser] | values
    if "learning_rate" not in given:
        peak = RATES.get(recipe, {}).get(optimiser, values["learning_rate"])
        values["learning_rate"] = peak * (values["batch_size"] / REFERENCE_BATCH) ** 0.5
    if values["views"] > 1 and not values["flip"]:
        raise UsageError(
            f"--views {values['views']} mirrors pictures, which at {image_size} pixels is not trained: add --flip"
        )
    augmentation = Augmentation(**{field.name: values[field.name] for field in fields(Augmentation)})
    names = {field.name for field in fields(Settings)} - {"augmentation"}
    completed: dict[str, Any] = {name: values.get(name) for name in names}
    return Settings(augmentation=augmentation, **completed)


def _recipe_for(model: str, image_size: int) -> Recipe:
    if model != OURS:
        return "transfer"
    return "quick" if image_size <= SMALL_PICTURE else "photo"


def moved_and_hidden(recipe: str, *, epochs: float, side: int) -> dict[str, Any]:
    """Pixels by which pictures of `side` are translated, and side of the square that is cut out, where both are open.

    Trainings of many epochs learn the pictures by heart without more of it.
    """
    if recipe != "best" or epochs < LONG:
        return {"translate": round(side / 16), "cutout": 0}
    return {"translate": round(side / 8), "cutout": round(side * (3 / 8 if epochs >= VERY_LONG else 1 / 4))}


def _batch_size(pictures: int, image_size: int) -> int:
    """A power of two that makes about 25 steps of an epoch, up to what is cheapest a picture on two cores."""
    most = 512 if image_size <= SMALL_PICTURE else 64
    size = 16
    while size < most and size * 50 <= pictures:
        size *= 2
    return size
