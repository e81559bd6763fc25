"""How the minutes of a comparison are shared: measured speeds in, stages and what had to be left out."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

FROZEN_PART = 0.5
"""Most of the budget that goes into features of networks as they are; the rest trains."""

OVERHEAD_SECONDS = 25.0
"""Of evaluating, exporting and timing one candidate, besides answering pictures; measured on two cores."""

LEAST_EPOCHS = 1.0
"""With fewer, fine-tuning is left out: it would stop before its layers are all open."""


@dataclass(frozen=True)
class Speed:
    """Seconds a picture here: `forward` in training's arithmetic, `answer` in float32, `step` of training."""

    name: str
    forward: float
    answer: float
    step: float


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
    mirrored: bool
    """Whether the features of mirror images are computed too."""
    left_out: tuple[str, ...]
    """Sentences for people."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for comparison.json."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """The plan as a table for people."""
        yield f"{'network':<32} {'how':<14} {'time':>8}  epochs"
        for stage in self.stages:
            epochs = f"{stage.epochs:6.1f}" if stage.epochs is not None else ""
            yield f"{stage.name:<32} {stage.what:<14} {_clock(stage.seconds):>8}  {epochs}".rstrip()
        yield from self.left_out


def frozen_seconds(speed: Speed, splits: Splits, *, mirrored: bool) -> float:
    """Of computing features, evaluating and exporting a network as it is."""
    views = 2 if mirrored else 1
    features = speed.forward * (views * splits.train + splits.validation)
    return features + speed.answer * splits.validation + OVERHEAD_SECONDS


def plan_frozen(speeds: Sequence[Speed], splits: Splits, *, seconds: float) -> Plan:
    """Features of as many backbones as fit into their part of `seconds`, the cheapest first.

    Those of mirror images are computed too if there is time for all.
    """
    ordered = sorted(speeds, key=lambda speed: frozen_seconds(speed, splits, mirrored=True))
    budget = FROZEN_PART * seconds
    stages: list[Stage] = []
    left_out: list[str] = []
    mirrored = sum(frozen_seconds(speed, splits, mirrored=True) for speed in ordered) <= budget
    if speeds and not mirrored:
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
    return Plan(tuple(stages), mirrored, tuple(left_out))


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
    stages = [Stage("cnn", "from scratch", share)] if ours else []
    stages += [Stage(speed.name, "fine-tuned", share, epochs[speed.name]) for speed in tuned]
    return Plan(tuple(stages), True, tuple(left_out))


def training_seconds(share: float, answer: float, splits: Splits) -> float:
    """What of a share is left to train."""
    return share - OVERHEAD_SECONDS - answer * splits.validation


def _epochs(share: float, speed: Speed, splits: Splits) -> float:
    epoch = speed.step * splits.train + speed.forward * splits.validation
    return max(0.0, training_seconds(share, speed.answer, splits)) / epoch


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
