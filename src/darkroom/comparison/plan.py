"""How the minutes of a comparison are shared: measured speeds in, stages and what had to be left out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from darkroom.config import MemoryFormat, Precision

# The seconds and parts here are judgement, for two cores, and not measured.
FROZEN_PART = 0.5
"""Most of the budget that goes into features of networks as they are; the rest trains."""

FROZEN_ALONE = 0.8
"""The same where nothing is trained afterwards; the rest opens the test split."""

MIRRORED_PART = 0.5
"""Of that, most that may go into all features where those of mirror images are among them: they gain little."""

SETTLE_SECONDS = 8.0
"""Of loading a network before its features are computed."""

FIT_SECONDS = 7.5e-4
"""Of fitting a last layer, for each row of features (measured with 1,280 features and ten classes)."""

TRIED, TRIED_ROWS = 5, 5_000
"""Penalties that are tried before, and the most rows for that."""

OVERHEAD_SECONDS = 25.0
"""Of evaluating, exporting and timing one candidate, besides answering pictures."""

ANSWERED = 250
"""Pictures that a candidate answers besides those of a split: to be timed, and to prove that its graph is right."""

LEAST_SECONDS = 12.0
"""Of a training that the plan grants no time any more: it was promised, and so it takes place."""

LEAST_EPOCHS = 1.0
"""With fewer, fine-tuning is left out: it would stop before its layers are all open."""


@dataclass(frozen=True)
class Speed:
    """Seconds a picture here: `forward` in training's arithmetic, `answer` in float32, `step` of training.

    The rest is the arithmetic that was fastest: all trainings of the network take it, so that it is measured once.
    """

    name: str
    forward: float
    answer: float
    step: float
    precision: Precision = "auto"
    memory_format: MemoryFormat = "auto"
    threads: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The arithmetic, as `TrainConfig` takes it."""
        return {"precision": self.precision, "memory_format": self.memory_format, "threads": self.threads}


@dataclass(frozen=True)
class Splits:
    """Pictures of each split."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Stage:
    """One training: `what` is frozen, fine-tuned or from scratch; `seconds` are expected, or granted."""

    name: str
    what: str
    seconds: float
    epochs: float | None = None


@dataclass(frozen=True)
class Plan:
    """What is done in which order, and what is not."""

    stages: tuple[Stage, ...]
    left_out: tuple[str, ...]
    """Sentences for people."""
    mirrored: bool = False
    """Whether the frozen stage computes features of mirror images, too."""
    overrun: float = 0.0
    """Seconds that the stages are expected to take beyond those that there are."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for comparison.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Plan":
        """Inverse of `to_json`."""
        stages = tuple(Stage(**stage) for stage in content["stages"])
        return cls(**{**content, "stages": stages, "left_out": tuple(content["left_out"])})

    def lines(self) -> Iterator[str]:
        """The plan as a table for people."""
        yield f"{'network':<32} {'how':<14} {'time':>8}  epochs"
        for stage in self.stages:
            epochs = f"{stage.epochs:6.1f}" if stage.epochs is not None else ""
            yield f"{stage.name:<32} {stage.what:<14} {_clock(stage.seconds):>8}  {epochs}".rstrip()
        if self.overrun >= 1:
            yield f"the minutes cannot be kept: this takes {_clock(self.overrun)} more than is left: give more"
        yield from self.left_out


def measuring_seconds(answer: float, pictures: int) -> float:
    """Of evaluating a network on so many pictures and exporting it, which both answer them, and of timing it."""
    return OVERHEAD_SECONDS + answer * (2 * pictures + ANSWERED)


def frozen_seconds(speed: Speed, splits: Splits, *, mirrored: bool) -> float:
    """Of computing features, evaluating and exporting a network as it is."""
    views = 2 if mirrored else 1
    features = speed.forward * (views * splits.train + splits.validation)
    fitting = fitting_seconds(views * splits.train)
    return SETTLE_SECONDS + features + fitting + measuring_seconds(speed.answer, splits.validation)


def fitting_seconds(rows: int) -> float:
    """Of a linear classifier on so many rows of features."""
    return FIT_SECONDS * (rows + TRIED * min(rows, TRIED_ROWS))


def plan_frozen(
    speeds: Sequence[Speed], splits: Splits, *, seconds: float, part: float = FROZEN_PART, mirrors: bool = True
) -> Plan:
    """Features of as many backbones as fit into their part of `seconds`, the cheapest first.

    If a mirror image is of the same class, as `mirrors` tells, its features are computed too if there is time for all.
    """
    ordered = sorted(speeds, key=lambda speed: frozen_seconds(speed, splits, mirrored=True))
    budget = part * seconds
    stages: list[Stage] = []
    left_out: list[str] = []
    mirrored = (
        mirrors and sum(frozen_seconds(speed, splits, mirrored=True) for speed in ordered) <= MIRRORED_PART * budget
    )
    if speeds and mirrors and not mirrored:
        left_out.append("left out: features of mirror images, for want of time")
    for speed in ordered:
        cost = frozen_seconds(speed, splits, mirrored=mirrored)
        if cost <= budget or not stages:  # one at least, so that there is something to compare with
            stages.append(Stage(speed.name, "frozen", cost))
            budget -= cost
        else:
            left_out.append(
                f"left out: {speed.name}, whose features alone would take {_clock(cost)}: give more --minutes"
            )
    return Plan(tuple(stages), tuple(left_out), mirrored, _overrun(stages, seconds))


def plan_trainings(tuned: Sequence[Speed], splits: Splits, *, ours: bool, seconds: float) -> Plan:
    """Equal shares of `seconds` for our network, if it takes part, and for fine-tuning each of `tuned`.

    Each share bears its own evaluation and export; the answers to the test split are held back from the whole.
    """
    left_out: list[str] = []
    tuned = list(tuned)
    while True:
        share = seconds / max(1, len(tuned) + ours)
        epochs = {speed.name: _epochs(share, speed, splits) for speed in tuned}
        short = [speed for speed in tuned if epochs[speed.name] < LEAST_EPOCHS]
        if not short:
            break
        tuned.remove(short[-1])
        left_out.append(f"left out: fine-tuning of {short[-1].name}, of which no epoch would fit: give more --minutes")
    share = max(share, LEAST_SECONDS + OVERHEAD_SECONDS)
    stages = [Stage("cnn", "from scratch", share)] if ours else []
    stages += [Stage(speed.name, "fine-tuned", share, epochs[speed.name]) for speed in tuned]
    return Plan(tuple(stages), tuple(left_out), overrun=_overrun(stages, seconds))


def training_seconds(share: float, answer: float, splits: Splits) -> float:
    """What of a share is left to train."""
    return share - measuring_seconds(answer, splits.validation)


def opening_seconds(answer: float, splits: Splits) -> float:
    """Of opening the test split for one network, and of exporting it again with what was found."""
    return measuring_seconds(answer, splits.validation + splits.test)


def _epochs(share: float, speed: Speed, splits: Splits) -> float:
    epoch = speed.step * splits.train + speed.forward * splits.validation
    ahead = fitting_seconds(2 * splits.train)  # of the last layer that it begins with
    return max(0.0, training_seconds(share, speed.answer, splits) - ahead) / epoch


def _overrun(stages: Sequence[Stage], seconds: float) -> float:
    return max(0.0, sum(stage.seconds for stage in stages) - seconds) if stages else 0.0


def _clock(seconds: float) -> str:
    whole = max(0, int(seconds))
    return f"{whole // 60}:{whole % 60:02d}"
