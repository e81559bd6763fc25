"""Everything that changes during training, gathered so that a checkpoint can hold all of it."""

import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from darkroom import files
from darkroom.errors import RunError
from darkroom.training.budget import Plan
from darkroom.training.schedules import LearningRate, Resolution


@dataclass
class Best:
    """The best validation result so far and the weights that gave it."""

    epoch: int = 0
    accuracy: float = -1.0
    loss: float = math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)

    def beaten_by(self, accuracy: float, loss: float) -> bool:
        """Higher accuracy wins, then lower loss; without validation (NaN) the later epoch does."""
        return math.isnan(accuracy) or (accuracy, -loss) > (self.accuracy, -self.loss)


def _zero() -> Tensor:
    return torch.zeros((), dtype=torch.float64)


@dataclass
class Sums:
    """Running totals of the epoch under way; `loss` and `correct` stay on the device until someone reads them."""

    pictures: int = 0
    loss: Tensor = field(default_factory=_zero)
    correct: Tensor = field(default_factory=_zero)
    seconds: float = 0.0

    def add(self, loss: Tensor, correct: Tensor, pictures: int) -> None:
        """Count a batch, by its mean loss and the number right."""
        self.pictures += pictures
        self.loss = self.loss + loss.double() * pictures
        self.correct = self.correct + correct.double()


@dataclass
class State:
    """A training under way: `epoch` counts from 1, `step` is the next step of that epoch."""

    network: nn.Module
    average: AveragedModel | None
    optimiser: Optimizer
    learning_rate: LearningRate
    plan: Plan
    patience: int
    resolution: Resolution
    epoch: int = 1
    step: int = 0
    waited: int = 0
    elapsed: float = 0.0
    sums: Sums = field(default_factory=Sums)
    best: Best = field(default_factory=Best)
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether the plan is done, or patience has run out, at the end of an epoch."""
        return self.step == 0 and (self.plan.finished or self.waited >= self.patience)

    @property
    def stopped_early(self) -> bool:
        """Whether patience ended the training before its plan."""
        return self.waited >= self.patience and not self.plan.finished

    @property
    def validated(self) -> nn.Module:
        """The network whose predictions count: the average of weights where there is one."""
        return self.average.module if self.average is not None else self.network

    def is_finite(self) -> bool:
        """Whether no number in weights, averages and momenta is infinite or NaN."""
        tensors = [*self.network.state_dict().values()]
        tensors += self.average.state_dict().values() if self.average is not None else []
        tensors += [
            value for kept in self.optimiser.state.values() for value in kept.values() if torch.is_tensor(value)
        ]
        return all(bool(tensor.isfinite().all()) for tensor in tensors)


def averaged(network: nn.Module, decay: float) -> AveragedModel | None:
    """Exponential moving average of parameters and buffers; short at first, so that the start is forgotten."""
    if decay == 0:
        return None

    def update(averages: Any, currents: Any, count: Any) -> None:
        if averages[0].is_floating_point():
            steps = int(average.n_averaged)  # on the processor; `count` is a copy on the device, to be waited for
            torch._foreach_lerp_(averages, currents, 1 - min(decay, (1 + steps) / (10 + steps)))
        else:
            torch._foreach_copy_(averages, currents)

    average = AveragedModel(network, multi_avg_fn=torch.no_grad()(update), use_buffers=True)
    return average


def save(state: State, path: Path, *, random: list[dict[str, Tensor]] | None = None) -> None:
    """Replace the checkpoint atomically; `random` are the `random_state`s of all processes, by default of this one."""
    content = {
        "network": state.network.state_dict(),
        "average": state.average.state_dict() if state.average is not None else None,
        "optimiser": state.optimiser.state_dict(),
        "learning_rate": state.learning_rate.state_dict(),
        "plan": state.plan.state_dict(),
        "counters": {name: getattr(state, name) for name in ("epoch", "step", "waited", "elapsed", "patience")},
        "sums": vars(state.sums),
        "best": vars(state.best),
        "history": state.history,
        "random": random or [random_state()],
    }
    with files.replacing(path) as temporary:
        torch.save(content, temporary)


def restore(state: State, path: Path, *, rank: int = 0) -> None:
    """Bring `state`, newly built for the same settings, to where the checkpoint was saved.

    A process of a `rank` that did not exist then keeps its random state.

    Raises:
        RunError: the file is missing, damaged, or belongs to another network.
    """
    if not path.is_file():
        raise RunError(f"{path} is missing: this run was never started, leave out --resume")
    try:
        _require_intact(path)
        content = torch.load(path, weights_only=True, map_location="cpu")
        state.network.load_state_dict(content["network"])
        if state.average is not None:
            state.average.load_state_dict(content["average"])
        state.optimiser.load_state_dict(content["optimiser"])
        state.learning_rate.load_state_dict(content["learning_rate"])
        state.plan = Plan(**content["plan"])
        state.sums = Sums(**content["sums"])
        state.best = Best(**content["best"])
        for name, value in content["counters"].items():
            setattr(state, name, value)
        state.history = content["history"]
        if rank < len(content["random"]):
            _set_random_state(content["random"][rank])
    except Exception as error:  # torch and pickle raise many kinds for a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise RunError(f"{path} cannot be read ({reason}): start again with --overwrite") from error


def _require_intact(path: Path) -> None:
    """Compare the checksums in the archive, which `torch.load` doesn't."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} has a wrong checksum")


def random_state() -> dict[str, Tensor]:
    """State of the generators that dropout draws from: the processor's, and that of this process's accelerator."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else state


def _set_random_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
