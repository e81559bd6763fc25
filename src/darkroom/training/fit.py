"""The training loop, with nothing hidden: read `fit` from top to bottom."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from darkroom.data.batches import Batches
from darkroom.errors import TrainingError, TrainingStoppedError
from darkroom.models.inference import logits_of
from darkroom.training.budget import UNMEASURED, Speed
from darkroom.training.display import Display
from darkroom.training.distributed import ALONE, Team
from darkroom.training.machine import Arithmetic
from darkroom.training.recipes import Settings
from darkroom.training.schedules import opened
from darkroom.training.state import Best, State, Sums

CHECKPOINT_SECONDS = 15.0
"""Least time between checkpoints; what is lost with a killed process is computed again, to the same bits."""

SPARING = 20.0
"""Times as long as the last checkpoint took, at least, go by before the next."""

LOOK_SECONDS = 1.0
"""Least time between two looks at the loss on an accelerator, each of which waits for it."""


class Keeper(Protocol):
    """Where results of training go while it runs."""

    def save(self, state: State) -> None:
        """Keep everything that exact resume needs."""

    def report(self, row: dict[str, float]) -> None:
        """Log one finished epoch."""


@dataclass(frozen=True)
class Validation:
    """The pictures that choose the best epoch; without any, the last epoch is it."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]

    def score(
        self, state: State, arithmetic: Arithmetic, device: torch.device, team: Team = ALONE
    ) -> tuple[float, float]:
        """Accuracy and log loss of the network whose predictions count, NaN without pictures.

        Each process looks at its part.
        """
        if not len(self.indices):
            return math.nan, math.nan
        part = np.array_split(self.indices, team.size)[team.rank]
        correct, loss = 0.0, 0.0
        if len(part):
            logits = logits_of(state.validated, self.pixels, part, device=device, bf16=arithmetic.bf16)
            scores, labels = torch.from_numpy(logits), torch.from_numpy(self.labels[part])
            correct = (scores.argmax(1) == labels).sum().item()
            loss = F.cross_entropy(scores.double(), labels, reduction="sum").item()
        correct, loss = team.sum_numbers(correct, loss)
        return correct / len(self.indices), loss / len(self.indices)


def fit(
    state: State,
    *,
    batches: Batches,
    validation: Validation,
    settings: Settings,
    arithmetic: Arithmetic,
    class_weights: Tensor | None,
    keeper: Keeper,
    display: Display,
    team: Team = ALONE,
    speed: Speed = UNMEASURED,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    look_seconds: float = 0.0,
) -> None:
    """Train `state` to the end of its plan or patience; afterwards `state.best` holds the chosen weights.

    Nothing of a step is read back from the device, which can so work ahead; every `look_seconds` the loss is.

    Raises:
        TrainingError: the loss or the weights are not finite, or a process of the team was lost.
        TrainingStoppedError: the user stopped it; `keeper` has saved the state, between two steps.
    """
    clock = Clock(state, speed, checkpoint_seconds=checkpoint_seconds, look_seconds=look_seconds)
    with stop_requests() as stop:
        while not state.finished:
            state.network.train()
            for pictures, targets in batches.epoch(state.epoch, start=state.step):
                if state.step >= state.plan.steps_in(state.epoch):
                    break
                whole = batches.pictures_in(state.step)
                set_learning_rate(state)
                pictures = resize(pictures, state.resolution.side(state.plan.midway))
                totals = forward_backward(
                    state.network, state.optimiser, pictures, targets, settings, arithmetic, class_weights, whole=whole
                )
                loss, correct = team.sum_gradients(state.network, totals)
                state.optimiser.step()
                if state.average is not None:
                    state.average.update_parameters(state.network)
                cost = state.resolution.cost(state.plan.midway)
                state.plan.advance()
                state.step += 1
                state.sums.add(loss, correct, whole)
                clock.step_done(cost)
                if clock.look.due():
                    look(state, display, clock, settings, loss=loss.item(), pictures=whole)
                keep(state, keeper, clock, stop, team, settings)
            require_finite_loss(state, settings)
            state.sums.seconds += clock.stamp()  # the device has caught up
            accuracy, log_loss = validation.score(state, arithmetic, batches.device, team)
            if len(validation.indices) and not math.isfinite(log_loss):
                where = f"the validation of epoch {state.epoch}"
                raise TrainingError(non_finite(f"the loss is not finite in {where}", settings))
            finish_epoch(state, clock, accuracy=accuracy, loss=log_loss)
            keeper.report(state.history[-1])
            improved = state.best.epoch == state.epoch - 1
            display.epoch(
                state.history[-1],
                epochs=state.plan.epochs,
                best=improved,
                last=state.finished,
                seconds_left=clock.seconds_left(),
            )
            keep(state, keeper, clock, stop, team, settings)
            clock.epoch_done()


def forward_backward(
    network: nn.Module,
    optimiser: Optimizer,
    pictures: Tensor,
    targets: Tensor,
    settings: Settings,
    arithmetic: Arithmetic,
    class_weights: Tensor | None,
    *,
    whole: int | None = None,
) -> Tensor:
    """Gradients of the mean loss of a batch of `whole` pictures, of which these are all or a share.

    They are summed over `settings.accumulate` parts. Returns this share of the loss and its number right (2,).
    """
    optimiser.zero_grad(set_to_none=True)
    totals = torch.zeros(2, device=pictures.device)
    parts = min(settings.accumulate, len(pictures))
    for part, wanted in zip(pictures.tensor_split(parts), targets.tensor_split(parts), strict=True):
        with torch.autocast(part.device.type, torch.bfloat16, enabled=arithmetic.bf16):
            logits = network(part).float()
        loss = F.cross_entropy(logits, wanted, weight=class_weights, label_smoothing=settings.label_smoothing)
        loss = loss * (len(part) / (whole or len(pictures)))
        loss.backward()  # type: ignore[no-untyped-call]
        correct = (logits.argmax(1) == wanted.argmax(1)).sum()
        totals += torch.stack([loss.detach(), correct])
    return totals


def resize(pictures: Tensor, side: int) -> Tensor:
    """Views (N, 3, S, S) at `side` pixels, each the mean of what it covers."""
    if side == pictures.shape[-1]:
        return pictures
    resized = F.interpolate(pictures, size=(side, side), mode="area")
    return resized.contiguous(memory_format=torch.channels_last)


def set_learning_rate(state: State) -> None:
    """Scale the peak rate of every group by the schedule's factor in the middle of the coming step.

    At its beginning the first step would have a rate of zero, and do nothing. Groups that open later wait for it.
    """
    progress = state.plan.midway
    factor = state.learning_rate.factor(progress)
    for group in state.optimiser.param_groups:
        group["lr"] = group["peak"] * factor * opened(progress, at=group["opens"])


def keep(state: State, keeper: Keeper, clock: "Clock", stop: threading.Event, team: Team, settings: Settings) -> None:
    """Save at the end, when a checkpoint is due, and when the user asks to stop, which then happens."""
    plan = state.plan
    stopping, due, plan.total_steps = team.agree(
        stop=stop.is_set(), save=clock.checkpoint.due(), steps=plan.total_steps
    )
    if state.finished or stopping or due:
        if not state.is_finite():
            raise TrainingError(non_finite(f"the weights are not finite after {plan.done:,} steps", settings))
        with clock.checkpoint.spent():
            keeper.save(state)
    if stopping:
        raise TrainingStoppedError(f"stopped after {plan.done:,} of {plan.total_steps:,} steps; all is saved")


def look(state: State, display: Display, clock: "Clock", settings: Settings, *, loss: float, pictures: int) -> None:
    """Tell the display where the training stands, unless it has failed; this waits for the device."""
    require_finite_loss(state, settings)
    display.step(
        epoch=state.epoch,
        epochs=state.plan.epochs,
        done=state.plan.done / state.plan.total_steps,
        loss=loss,
        speed=pictures / max(clock.step_seconds * state.resolution.cost(state.plan.progress), 1e-9),
        seconds_left=clock.seconds_left(),
    )


def require_finite_loss(state: State, settings: Settings) -> None:
    """Raise `TrainingError` if the loss of any step of this epoch was not finite; this waits for the device."""
    if not math.isfinite(state.sums.loss.item()):
        raise TrainingError(non_finite(f"the loss is not finite in epoch {state.epoch}, step {state.step}", settings))


def finish_epoch(state: State, clock: "Clock", *, accuracy: float, loss: float) -> None:
    """Add the epoch to the history, keep its weights if they are the best, and go on to the next."""
    clock.stamp()
    sums = state.sums
    state.history.append(
        {
            "epoch": state.epoch,
            "train_loss": sums.loss.item() / sums.pictures,
            "train_accuracy": sums.correct.item() / sums.pictures,
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "learning_rate": max(group["lr"] for group in state.optimiser.param_groups),
            "seconds": sums.seconds,
            "images_per_second": sums.pictures / sums.seconds,
            "elapsed": state.elapsed,
        }
    )
    if state.best.beaten_by(accuracy, loss):
        weights = {name: value.clone() for name, value in state.validated.state_dict().items()}
        state.best = Best(epoch=state.epoch, accuracy=accuracy, loss=loss, weights=weights)
        state.waited = 0
    else:
        state.waited += 1
    state.learning_rate.observe(loss)
    state.epoch, state.step, state.sums = state.epoch + 1, 0, Sums()


class Clock:
    """Measures steps and epochs, and keeps the plan within its budget."""

    def __init__(
        self,
        state: State,
        speed: Speed,
        *,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        look_seconds: float = 0.0,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._state, self._now = state, now
        self.checkpoint, self.look = Timer(checkpoint_seconds, now), Timer(look_seconds, now)
        self._last = now()
        self._last_step = state.elapsed
        self.step_seconds = speed.step_seconds
        """Of a step at full size."""
        self._validation_steps = speed.epoch_seconds / speed.step_seconds if speed.step_seconds else 0.0

    @property
    def epoch_seconds(self) -> float:
        """Expected time of an epoch besides its steps; a machine that slows down takes longer for this too."""
        return self._validation_steps * self.step_seconds

    def stamp(self) -> float:
        """Add the time since the last stamp to the elapsed time, and return it."""
        now = self._now()
        passed, self._last = now - self._last, now
        self._state.elapsed += passed
        return passed

    @property
    def step_seconds_to_go(self) -> float:
        """Expected time of the steps that are left, on average."""
        return self.step_seconds * self._state.resolution.cost_to_go(self._state.plan.progress)

    def step_done(self, cost: float = 1.0) -> None:
        """Time the step, which cost that much of one at full size; change the plan if the budget would be missed."""
        seconds = self.stamp()
        self._state.sums.seconds += seconds
        self._last_step = self._state.elapsed
        # A running mean over about 20 steps: new enough to notice a slower machine, long enough to ignore a hiccup.
        whole = seconds / cost
        self.step_seconds = whole if not self.step_seconds else 0.95 * self.step_seconds + 0.05 * whole
        if self._state.plan.done > 5:
            self._state.plan.adjust(
                elapsed=self._state.elapsed, step_seconds=self.step_seconds_to_go, epoch_seconds=self.epoch_seconds
            )

    def epoch_done(self) -> None:
        """Validation and checkpoint are over: their time is part of what an epoch costs."""
        self.stamp()
        if self.step_seconds:  # none was measured yet if the training went on from behind the last step of an epoch
            self._validation_steps = (self._state.elapsed - self._last_step) / self.step_seconds

    def seconds_left(self) -> float:
        """Expected time to the end of the plan."""
        return self._state.plan.seconds_left(step_seconds=self.step_seconds_to_go, epoch_seconds=self.epoch_seconds)


class Timer:
    """Says every `seconds` that something is due; more rarely, where that itself takes more than a part of them."""

    def __init__(self, seconds: float, now: Callable[[], float]) -> None:
        self._least = self._seconds = seconds
        self._now = now
        self._last = now()

    def due(self) -> bool:
        """Whether enough time has passed since it last was; if so, the time starts again."""
        now = self._now()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True

    @contextmanager
    def spent(self) -> Iterator[None]:
        """Do what was due: the checkpoint of a large network is gigabytes, and must not be all that is done."""
        began = self._now()
        yield
        self._last = self._now()
        if self._least:  # else it is wanted each time
            self._seconds = max(self._least, SPARING * (self._last - began))


def non_finite(what: str, settings: Settings) -> str:
    """What to tell the user whose numbers are none."""
    return (
        f"{what}: try --learning-rate {settings.learning_rate / 3:.3g} (it was {settings.learning_rate:.3g}), "
        "or --precision fp32"
    )


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that training stops between two steps; a second Ctrl-C kills."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def request(number: int, frame: FrameType | None) -> None:
        event.set()
        signal.signal(number, before[number])

    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, request)
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
