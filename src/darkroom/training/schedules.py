"""Learning rate, as a factor of its peak, and size of the pictures, by how far the training has come (0 to 1)."""

import math
from dataclasses import dataclass, field
from typing import Any

from darkroom.config import Schedule

WARM_UP = 0.05
PEAK_AT = 0.2
PLATEAU_FACTOR = 0.3
GROWN_AT = 0.7


def one_cycle(progress: float) -> float:
    """Linear up to the peak, then linear to zero (Smith 2018, in its triangular form)."""
    return progress / PEAK_AT if progress < PEAK_AT else (1 - progress) / (1 - PEAK_AT)


def cosine(progress: float) -> float:
    """Linear warm-up, then half a cosine to zero (Loshchilov and Hutter 2017)."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def opened(progress: float, *, at: float) -> float:
    """Factor on the rate of layers that begin to learn when the progress is `at`: 0 before, then linearly up to 1."""
    return min(1.0, max(0.0, progress - at) / WARM_UP) if at > 0 else 1.0


@dataclass(frozen=True)
class Resolution:
    """Progressive resizing: small pictures first, which cost less, then larger ones (Tan and Le 2021, section 4).

    The side grows linearly from `start` of `full` pixels to all of them, and stays there for the last part of training.
    """

    full: int
    start: float = 1.0
    fixed: float = 0.0
    """Part of a full step's time that does not depend on the size: augmentation, optimiser."""

    def side(self, progress: float) -> int:
        """Side of the pictures in pixels, in eighths of the full one."""
        step = max(1, self.full // 8)
        return self.full - step * round(self.full * (1 - self._share(progress)) / step)

    def cost(self, progress: float) -> float:
        """What a step costs, of one at full size: convolutions take time for every pixel."""
        return self._with_fixed((self.side(progress) / self.full) ** 2)

    def cost_to_go(self, progress: float) -> float:
        """Mean of that from `progress` to the end."""
        if progress >= GROWN_AT:
            return 1.0
        here = self._share(progress)
        growing = (GROWN_AT - progress) * (1 + here + here**2) / 3  # the integral of the share's square
        return self._with_fixed((growing + 1 - GROWN_AT) / (1 - progress))

    def _with_fixed(self, pixels: float) -> float:
        return self.fixed + (1 - self.fixed) * pixels

    def _share(self, progress: float) -> float:
        return self.start + (1 - self.start) * min(1.0, progress / GROWN_AT)


@dataclass
class LearningRate:
    """The schedule chosen, with the little state that a plateau needs."""

    schedule: Schedule
    patience: int = 3
    best: float = field(default=math.inf)
    waited: int = 0
    scale: float = 1.0

    def factor(self, progress: float) -> float:
        """Factor on the peak learning rate at `progress`, 0 at the start of training to 1 at its planned end."""
        if self.schedule == "linear":
            return 1 - progress
        if self.schedule == "one-cycle":
            return one_cycle(progress)
        if self.schedule == "cosine":
            return cosine(progress)
        return self.scale * min(1.0, progress / WARM_UP)

    def observe(self, validation_loss: float) -> None:
        """After each epoch: a plateau of `patience` epochs without a lower loss lowers the rate for good."""
        if validation_loss < self.best:
            self.best, self.waited = validation_loss, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.scale *= PLATEAU_FACTOR
            self.waited = 0

    def state_dict(self) -> dict[str, Any]:
        """What exact resume needs."""
        return {"best": self.best, "waited": self.waited, "scale": self.scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.best, self.waited, self.scale = state["best"], state["waited"], state["scale"]
