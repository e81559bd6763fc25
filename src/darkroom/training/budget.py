"""How many steps fit into the minutes that were given, and how far along the plan the training is."""

import math
from dataclasses import asdict, dataclass
from typing import Any

AIM = 0.98
"""Part of the budget that is planned for: minutes are a promise, and nobody minds a little less."""

TOLERANCE = 0.02
"""The plan is left alone while its end is expected within this part of the budget around the aim."""


@dataclass(frozen=True)
class Speed:
    """What was measured before training: seconds a step, and seconds an epoch besides its steps."""

    step_seconds: float
    epoch_seconds: float
    fixed: float = 0.0
    """Part of a step that takes as long on smaller pictures."""


UNMEASURED = Speed(0.0, 0.0)


@dataclass
class Plan:
    """A number of steps, and the budget in seconds that it must fit (None: the number is exact).

    `progress` runs from 0 to 1 and drives the schedule. When the plan has to change, it goes on from where it is, so
    that the learning rate never jumps and always reaches its end.
    """

    total_steps: int
    steps_an_epoch: int
    budget: float | None = None
    done: int = 0
    progress: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether all planned steps are done."""
        return self.done >= self.total_steps

    @property
    def epochs(self) -> int:
        """Epochs planned, of which the last may be a part only."""
        return -(-self.total_steps // self.steps_an_epoch)

    def steps_in(self, epoch: int) -> int:
        """Steps of `epoch`, counted from 1: all, or what is left of the plan."""
        return min(self.steps_an_epoch, self.total_steps - (epoch - 1) * self.steps_an_epoch)

    @property
    def midway(self) -> float:
        """Progress in the middle of the coming step."""
        return self.progress + self._stride / 2

    def advance(self) -> None:
        """Count one step as done."""
        self.progress += self._stride
        self.done += 1

    @property
    def _stride(self) -> float:
        return (1 - self.progress) / max(1, self.total_steps - self.done)

    def adjust(self, *, elapsed: float, step_seconds: float, epoch_seconds: float) -> bool:
        """Re-plan if the budget would be missed; says whether it did.

        `elapsed` seconds are spent; a step takes `step_seconds`, and each epoch `epoch_seconds` more for validation.
        """
        if self.budget is None or self.finished:
            return False
        before = self.total_steps
        aim = AIM * self.budget
        expected = elapsed + self.seconds_left(step_seconds=step_seconds, epoch_seconds=epoch_seconds)
        if abs(expected - aim) <= TOLERANCE * self.budget:
            return False
        steps = self._steps_in(aim - elapsed, step_seconds=step_seconds, epoch_seconds=epoch_seconds)
        self.total_steps = self.done + max(1, steps)
        return self.total_steps != before

    def seconds_left(self, *, step_seconds: float, epoch_seconds: float) -> float:
        """Expected time to the end: of the steps, and of each epoch's validation, the last one's too if it is short."""
        validations = self.epochs - max(0, self.done - 1) // self.steps_an_epoch
        return (self.total_steps - self.done) * step_seconds + validations * epoch_seconds

    def _steps_in(self, seconds: float, *, step_seconds: float, epoch_seconds: float) -> int:
        """Steps that fit into `seconds`, with a whole validation behind every epoch, be it complete or not."""
        first = -self.done % self.steps_an_epoch if self.done else self.steps_an_epoch  # left of the epoch under way
        later = seconds - first * step_seconds - epoch_seconds
        if later <= 0:
            return math.floor((seconds - epoch_seconds) / step_seconds)
        whole, rest = divmod(later, self.steps_an_epoch * step_seconds + epoch_seconds)
        part = max(0, math.floor((rest - epoch_seconds) / step_seconds))
        return first + int(whole) * self.steps_an_epoch + part

    def state_dict(self) -> dict[str, Any]:
        """What exact resume needs."""
        return asdict(self)


def plan_epochs(epochs: int, *, steps_an_epoch: int) -> Plan:
    """An exact number of epochs."""
    return Plan(total_steps=epochs * steps_an_epoch, steps_an_epoch=steps_an_epoch)


def plan_minutes(minutes: float, *, steps_an_epoch: int, spent: float, speed: Speed) -> Plan:
    """As many steps as fit into `minutes`, of which `spent` seconds went into measuring."""
    budget = minutes * 60
    plan = Plan(total_steps=1, steps_an_epoch=steps_an_epoch, budget=budget)
    plan.adjust(elapsed=spent, step_seconds=speed.step_seconds, epoch_seconds=speed.epoch_seconds)
    return plan
