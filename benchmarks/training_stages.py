"""The stages of training that throughput.py measures: ours and the textbook's."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch

import textbook
from darkroom.config import DataConfig, TrainConfig
from darkroom.data.dataset import DataSet
from darkroom.runs import Run
from darkroom.training.recipes import Settings
from darkroom.training.settle import settle
from darkroom.training.train import begin, carry_on, make_batches

TEXTBOOK_PICTURES = 2_000
VALIDATED = 5
"""Pictures a class that are left in validation, which is not what is measured."""


class Done(NamedTuple):
    """How many pictures were worked on, and in how many seconds."""

    pictures: int
    seconds: float


Stage = Callable[[], Done]


def training_stages(
    dataset: DataSet, data_config: DataConfig, config: TrainConfig, *, seconds: float
) -> dict[str, Stage]:
    """Augmentation alone, and whole trainings of `seconds`, by the public way through darkroom and by the textbook."""
    dataset = hardly_validated(dataset)
    short = replace(config, minutes=seconds / 60, epochs=None)
    content = settle(dataset, data_config=data_config, config=short)
    batches = make_batches(dataset, Settings.from_json(content["training"]["settings"]), seed=data_config.seed)
    endless = (views for epoch in count() for views, _ in batches.epoch(epoch))
    pictures, labels = textbook_arrays(dataset)
    some = pictures[: textbook.BATCH]
    return {
        "augment": partial(repeated, lambda: len(next(endless)), seconds=seconds / 10),
        "augment, peer": partial(repeated, lambda: len(textbook.crop_and_flip(some)), seconds=seconds / 10),
        "step": partial(train_ours, dataset, content),
        "step, peer": partial(train_textbook, pictures, labels, classes=len(dataset.manifest.classes), seconds=seconds),
    }


def hardly_validated(dataset: DataSet) -> DataSet:
    """The same training pictures, and a few to validate, so that steps are nearly all that a training does."""
    seen: Counter[str] = Counter()
    rows = []
    for row in dataset.manifest.rows:
        seen[row.label] += row.split == "validation"
        spare = row.split == "validation" and seen[row.label] > VALIDATED
        rows.append(replace(row, split="test") if spare else row)
    return replace(dataset, manifest=replace(dataset.manifest, rows=tuple(rows)))


def repeated(work: Callable[[], int], *, seconds: float) -> Done:
    """Do `work` until `seconds` have passed."""
    start, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds or not done:
        done += work()
    return Done(done, passed)


def train_ours(dataset: DataSet, content: dict[str, Any]) -> Done:
    """The training that `content` of a config.json describes; what its epochs took besides validation."""
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
        run = Run(Path(folder))
        begin(dataset, run, deepcopy(content))
        carry_on(dataset, run)
        history = run.read_history()
    pictures = sum(row["images_per_second"] * row["seconds"] for row in history)
    return Done(round(pictures), sum(row["seconds"] for row in history))


def textbook_arrays(dataset: DataSet) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled training pictures (N, 3, H, W) and labels (N,)."""
    ids = dataset.manifest.indices("train")
    ids = ids[:: max(1, len(ids) // TEXTBOOK_PICTURES)]
    pixels, labels = torch.from_numpy(dataset.pixels[ids]), torch.from_numpy(dataset.manifest.labels()[ids])
    return textbook.scaled(pixels, *textbook.statistics_of(pixels)), labels


def train_textbook(pictures: torch.Tensor, labels: torch.Tensor, *, classes: int, seconds: float) -> Done:
    """The textbook's training for `seconds`."""
    start = time.perf_counter()
    steps = textbook.train(textbook.resnet18(classes), pictures, labels, seconds=seconds, cut=True)
    return Done(steps * min(textbook.BATCH, len(labels)), time.perf_counter() - start)
