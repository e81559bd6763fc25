"""Tiny data sets, settings and trainings for the tests of training."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from darkroom.config import TrainConfig
from darkroom.data.batches import Batches
from darkroom.models import cnn
from darkroom.training.budget import Plan, plan_epochs
from darkroom.training.display import Display
from darkroom.training.fit import Validation, fit
from darkroom.training.machine import Arithmetic
from darkroom.training.optimisers import build_optimiser
from darkroom.training.recipes import Settings, complete
from darkroom.training.schedules import LearningRate, Resolution
from darkroom.training.state import State, averaged, save

CPU = torch.device("cpu")
FP32 = Arithmetic(bf16=False, channels_last=False)
QUIET = Display(None)

torch.set_num_threads(1)  # with so little to compute, threads mostly wait for each other


def drawing(label: int, *, size: int, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A noisy picture (size, size, 3) whose brightest band of rows tells its class."""
    picture = random.integers(0, 120, (size, size, 3))
    picture[(label * size) // 4 : (label * size) // 4 + size // 4] += 100
    return picture.astype(np.uint8)


@dataclass
class Drawn:
    """Pixels (M, S, S, 3) and labels (M,): the first two thirds to train on, the rest to validate."""

    classes: int = 3
    count: int = 36
    size: int = 8
    pixels: npt.NDArray[np.uint8] = field(init=False)
    labels: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        random = np.random.default_rng(0)
        self.labels = np.arange(self.count, dtype=np.int64) % self.classes
        self.pixels = np.stack([drawing(label, size=self.size, random=random) for label in self.labels])

    @property
    def train(self) -> npt.NDArray[np.int64]:
        return np.arange(self.count * 2 // 3)

    @property
    def validation(self) -> npt.NDArray[np.int64]:
        return np.arange(self.count * 2 // 3, self.count)


def draw_folder(folder: Path, *, classes: int = 3, each: int = 40, size: int = 16) -> Path:
    """A data set of class folders with PNG files."""
    random = np.random.default_rng(1)
    for label in range(classes):
        place = folder / f"class{label}"
        place.mkdir(parents=True)
        for number in range(each):
            Image.fromarray(drawing(label, size=size, random=random)).save(place / f"{number:03d}.png")
    return folder


def settings_for(drawn: Drawn, **options: Any) -> Settings:
    """Completed settings for a tiny network: two steps an epoch with the default of 36 pictures."""
    given: dict[str, Any] = {"batch_size": 12, "width": 0.125, "ema_decay": 0.0, "patience": 1000, **options}
    return complete(TrainConfig(**given), image_size=drawn.size, pictures=len(drawn.train))


@dataclass
class Training:
    """Everything that `fit` needs, in memory."""

    drawn: Drawn
    settings: Settings
    plan: Plan
    seed: int = 0
    arithmetic: Arithmetic = FP32

    @property
    def batches(self) -> Batches:
        drawn = self.drawn
        return Batches(
            pixels=drawn.pixels,
            labels=drawn.labels,
            indices=drawn.train,
            classes=drawn.classes,
            batch_size=self.settings.batch_size,
            seed=self.seed,
            device=CPU,
            augmentation=self.settings.augmentation,
        )

    def state(self) -> State:
        """A state before its first step, always with the same weights."""
        torch.manual_seed(self.seed)
        settings = self.settings
        network = cnn.build(
            cnn.design(
                image_size=self.drawn.size,
                classes=self.drawn.classes,
                pictures=len(self.drawn.train),
                width=settings.width,
                dropout=settings.dropout,
            )
        )
        return State(
            network=network,
            average=averaged(network, settings.ema_decay or 0.0),
            optimiser=build_optimiser(
                network,
                name=settings.optimiser,
                learning_rate=settings.learning_rate,
                weight_decay=settings.weight_decay,
                momentum=settings.momentum,
            ),
            learning_rate=LearningRate(settings.schedule, patience=1),
            plan=replace(self.plan),
            patience=settings.patience or 1000,
            resolution=Resolution(self.drawn.size, settings.resize_from),
        )

    def fit(self, state: State, keeper: Any = None, **options: Any) -> State:
        """Train `state` to its end and return it."""
        drawn = self.drawn
        given: dict[str, Any] = {
            "batches": self.batches,
            "validation": Validation(drawn.pixels, drawn.labels, drawn.validation),
            "settings": self.settings,
            "arithmetic": self.arithmetic,
            "class_weights": None,
            "keeper": keeper or Forgetful(),
            "display": QUIET,
        }
        fit(state, **(given | options))
        return state


def training(*, epochs: int = 2, **options: Any) -> Training:
    """A tiny training with two steps an epoch."""
    drawn = Drawn()
    settings = settings_for(drawn, **options)
    steps = Training(drawn, settings, plan_epochs(1, steps_an_epoch=1)).batches.steps
    return Training(drawn, settings, plan_epochs(epochs, steps_an_epoch=steps))


class Forgetful:
    """A keeper that only counts."""

    def __init__(self) -> None:
        self.saves = 0
        self.rows: list[dict[str, float]] = []

    def save(self, state: State) -> None:
        self.saves += 1

    def report(self, row: dict[str, float]) -> None:
        self.rows.append(row)


class Hoarder(Forgetful):
    """A keeper that keeps every checkpoint, in a file of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.paths: list[Path] = []

    def save(self, state: State) -> None:
        super().save(state)
        self.paths.append(self.folder / f"{self.saves}.pt")
        save(state, self.paths[-1])


def same_weights(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two state dicts hold the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
