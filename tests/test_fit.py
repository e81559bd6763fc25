"""The training loop: loss, accumulation, averaging, early stopping, and how it ends when something goes wrong."""

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from darkroom.data.batches import Batches
from darkroom.errors import TrainingError, TrainingStoppedError
from darkroom.training.budget import plan_epochs
from darkroom.training.display import Display, clock
from darkroom.training.fit import Validation, forward_backward, resize
from darkroom.training.state import State, averaged, restore
from training import FP32, Forgetful, Hoarder, Training, same_weights, training


def plain_network() -> nn.Module:
    """Without batch normalisation, whose statistics belong to the part and not to the batch."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(4 * 36, 3))


def example(count: int = 10) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    targets = torch.rand(count, 3, generator=random)
    return torch.randn(count, 3, 8, 8, generator=random), targets / targets.sum(1, keepdim=True)


def gradients(
    *, accumulate: int = 1, smoothing: float = 0.0, weights: Tensor | None = None, net: nn.Module | None = None
) -> tuple[float, float, list[Tensor]]:
    net = net or plain_network()
    settings = replace(training().settings, accumulate=accumulate, label_smoothing=smoothing)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    loss, correct = forward_backward(net, optimiser, *example(), settings, FP32, weights).tolist()
    return loss, correct, [p.grad for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize("accumulate", [2, 3, 4, 10, 50])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.2, 1.0, 3.0])])
def test_accumulated_parts_equal_the_whole_batch(accumulate: int, weights: Tensor | None) -> None:
    loss, correct, whole = gradients(smoothing=0.1, weights=weights)
    summed_loss, summed_correct, summed = gradients(accumulate=accumulate, smoothing=0.1, weights=weights)
    assert summed_loss == pytest.approx(loss, rel=1e-5)
    assert summed_correct == correct
    for one, other in zip(whole, summed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_gradients_do_not_pile_up_over_steps() -> None:
    net = plain_network()
    once = [gradient.clone() for gradient in gradients(net=net)[2]]
    for one, again in zip(once, gradients(net=net)[2], strict=True):
        torch.testing.assert_close(one, again)


def test_loss_by_hand() -> None:
    weights = torch.tensor([0.2, 1.0, 3.0])
    loss, correct, _ = gradients(smoothing=0.3, weights=weights)
    pictures, targets = example()
    with torch.no_grad():
        logits = plain_network()(pictures).double().numpy()
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    smoothed = targets.numpy() * 0.7 + 0.3 / 3
    by_hand = -(weights.numpy() * smoothed * np.log(chances)).sum(axis=1).mean()
    assert loss == pytest.approx(by_hand, rel=1e-5)
    assert correct == (logits.argmax(axis=1) == targets.numpy().argmax(axis=1)).sum()


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_average_by_hand(decay: float) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = averaged(net, decay)
    assert average is not None
    expected: dict[str, Tensor] = {}
    for step in range(1, 20):
        for value in net.state_dict().values():
            value.add_(step)
        average.update_parameters(net)
        now = min(decay, (1 + step - 1) / (10 + step - 1)) if step > 1 else 0.0
        for name, value in net.state_dict().items():
            old = expected.get(name, value)
            counts = not value.is_floating_point()
            expected[name] = value.clone() if counts else old * now + value * (1 - now)
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, expected[name])


def test_no_average_without_decay() -> None:
    assert averaged(nn.Linear(1, 1), 0.0) is None
    state = training().state()
    assert state.validated is state.network


def test_the_average_is_what_gets_validated_and_kept() -> None:
    made = training(epochs=3, ema_decay=0.9)
    state = made.fit(made.state())
    assert state.average is not None
    assert state.validated is state.average.module
    assert not same_weights(state.validated.state_dict(), state.network.state_dict())
    assert state.best.epoch != 3 or same_weights(state.best.weights, state.validated.state_dict())


@dataclass(frozen=True)
class Scripted(Validation):
    """A validation whose results are given; it notes the weights that it was asked about."""

    results: tuple[tuple[float, float], ...] = ()
    seen: list[dict[str, Tensor]] = field(default_factory=list)

    def score(self, state: State, *_: Any) -> tuple[float, float]:
        self.seen.append({name: value.clone() for name, value in state.validated.state_dict().items()})
        return self.results[len(self.seen) - 1]


def scripted(made: Training, *results: tuple[float, float]) -> Scripted:
    drawn = made.drawn
    return Scripted(drawn.pixels, drawn.labels, drawn.validation, results=results)


def test_patience_stops_and_the_best_weights_stay() -> None:
    made = training(epochs=10, patience=3)
    validation = scripted(made, (0.5, 1.0), (0.8, 0.9), (0.7, 0.1), (0.8, 0.9), (0.6, 0.5), (1.0, 0.0))
    keeper = Forgetful()
    state = made.fit(made.state(), keeper, validation=validation)
    assert len(state.history) == len(keeper.rows) == 5
    assert state.stopped_early
    assert state.finished
    assert not state.plan.finished
    assert state.best.epoch == 2
    assert same_weights(state.best.weights, validation.seen[1])
    assert not same_weights(state.best.weights, state.network.state_dict())
    assert keeper.saves >= 1  # what was found is on disk before anything else happens


def test_equal_accuracy_is_decided_by_the_loss() -> None:
    made = training(epochs=4)
    validation = scripted(made, (0.5, 1.0), (0.5, 0.8), (0.5, 0.9), (0.4, 0.1))
    assert made.fit(made.state(), validation=validation).best.epoch == 2


def test_a_resumed_run_remembers_its_patience_and_never_keeps_a_worse_result(tmp_path: Path) -> None:
    made = training(epochs=10, patience=3)
    keeper = Hoarder(tmp_path)
    results = ((0.5, 1.0), (0.8, 0.9), (0.7, 0.1), (0.6, 0.9), (0.6, 0.5), (1.0, 0.0))
    whole = made.fit(made.state(), keeper, validation=scripted(made, *results), checkpoint_seconds=0.0)
    for path in keeper.paths:
        state = made.state()
        restore(state, path)
        made.fit(state, validation=scripted(made, *results[len(state.history) :]))
        assert [row["epoch"] for row in state.history] == [1, 2, 3, 4, 5]
        assert state.best.epoch == 2
        assert state.stopped_early
        assert same_weights(state.best.weights, whole.best.weights)


def test_history_has_what_is_promised() -> None:
    made = training(epochs=3)
    state = made.fit(made.state())
    assert [row["epoch"] for row in state.history] == [1, 2, 3]
    for row in state.history:
        assert list(row) == [
            "epoch",
            "train_loss",
            "train_accuracy",
            "validation_loss",
            "validation_accuracy",
            "learning_rate",
            "seconds",
            "images_per_second",
            "elapsed",
        ]
        assert row["images_per_second"] == pytest.approx(24 / row["seconds"])
        assert 0 <= row["train_accuracy"] <= 1
    elapsed = [row["elapsed"] for row in state.history]
    assert elapsed == sorted(elapsed)


def test_every_step_uses_the_scheduled_rate() -> None:
    made = training(epochs=5, schedule="cosine", optimiser="muon")
    state, rates = made.state(), []

    class Watching(Display):
        def step(self, **_: Any) -> None:
            rates.append([group["lr"] / group["peak"] for group in state.optimiser.param_groups])

    made.fit(state, display=Watching(None))
    wanted = [state.learning_rate.factor((step + 0.5) / 10) for step in range(10)]
    assert [rate[0] for rate in rates] == pytest.approx(wanted)
    assert all(rate == pytest.approx([rate[0]] * 3) for rate in rates)


def assert_one_line(error: BaseException, *parts: str) -> None:
    text = str(error)
    assert "\n" not in text
    assert all(part in text for part in parts), text


def test_the_network_sees_pictures_grow_and_is_validated_at_full_size() -> None:
    made = training(epochs=10, resize_from=0.5)
    state, seen = made.state(), []
    state.network.register_forward_hook(lambda network, inputs, _: seen.append((network.training, inputs[0].shape[-1])))
    made.fit(state)
    trained = [side for training, side in seen if training]
    assert trained == sorted(trained)
    assert trained[0] == 4
    assert len(set(trained)) == 5
    assert trained[-1] == 8
    assert {side for training, side in seen if not training} == {8}


def test_a_smaller_picture_is_the_mean_of_what_it_covers() -> None:
    pictures = torch.arange(3 * 64, dtype=torch.float32).view(1, 3, 8, 8)
    assert resize(pictures, 8) is pictures
    small = resize(pictures, 4)
    torch.testing.assert_close(small, pictures.view(1, 3, 4, 2, 4, 2).mean(dim=(3, 5)))
    assert small.is_contiguous(memory_format=torch.channels_last)


def test_a_loss_that_is_not_finite_ends_it_and_is_kept_nowhere() -> None:
    made = training(learning_rate=0.3)
    state = made.state()
    with torch.no_grad():
        dict(state.network.named_parameters())["head.bias"][0] = math.nan
    keeper = Forgetful()
    with pytest.raises(TrainingError) as caught:
        made.fit(state, keeper, checkpoint_seconds=0.0)
    assert_one_line(caught.value, "not finite in epoch 1, step 1", "--learning-rate 0.1 ", "--precision fp32")
    assert keeper.saves == 0
    assert state.best.epoch == 0
    assert state.history == []


class Poisoning(Display):
    """Puts a number that is none into the network after a step whose loss was fine."""

    def __init__(self, state: State, after: int, where: str) -> None:
        super().__init__(None)
        self.state, self.after, self.where = state, after, where

    def step(self, **_: Any) -> None:
        if self.state.plan.done == self.after:
            momenta = [kept["momentum_buffer"] for kept in self.state.optimiser.state.values()]
            average = self.state.average
            assert average is not None
            of = {
                "weights": [*self.state.network.parameters()],
                "momenta": momenta,
                "averages": [*average.parameters()],
            }
            with torch.no_grad():
                of[self.where][-1].view(-1)[0] = math.nan


@pytest.mark.parametrize("where", ["weights", "momenta", "averages"])
def test_a_state_that_is_not_finite_is_never_saved(tmp_path: Path, where: str) -> None:
    made = training(epochs=3, ema_decay=0.9)
    state, keeper = made.state(), Hoarder(tmp_path)
    with pytest.raises(TrainingError) as caught:
        made.fit(state, keeper, display=Poisoning(state, 3, where), checkpoint_seconds=0.0)
    assert_one_line(caught.value, "the weights are not finite after 3 steps", "--learning-rate", "--precision fp32")
    assert keeper.saves == 3  # two steps and a validation
    again = made.state()
    restore(again, keeper.paths[-1])
    assert again.is_finite()
    assert made.fit(again).finished


@pytest.mark.parametrize("look_seconds", [0.0, 1e9])
def test_looking_less_often_changes_nothing_but_when_it_is_noticed(look_seconds: float) -> None:
    made = training(epochs=3)
    looked = made.fit(made.state(), look_seconds=look_seconds)
    assert same_weights(looked.network.state_dict(), made.fit(made.state()).network.state_dict())
    state = made.state()
    with torch.no_grad():
        dict(state.network.named_parameters())["head.bias"][0] = math.nan
    keeper = Forgetful()
    with pytest.raises(TrainingError, match=f"not finite in epoch 1, step {1 if look_seconds == 0 else 2}"):
        made.fit(state, keeper, look_seconds=look_seconds)
    assert keeper.saves == 0


class Reads(TorchDispatchMode):
    """Counts values read from tensors, for which a processor would have to wait for its accelerator."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def reads(*, steps: int, look_seconds: float) -> int:
    """Of a training of one epoch whose batches are there already."""
    made = training(epochs=1, mixup=0.0, cutmix=0.0)
    batch = next(made.batches.epoch(1))

    class Prepared(Batches):
        def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
            yield from [batch] * steps

    made.plan = plan_epochs(1, steps_an_epoch=steps)
    state, batches = made.state(), Prepared(**vars(made.batches))
    with Reads() as counter:
        made.fit(state, batches=batches, look_seconds=look_seconds)
    assert state.plan.done == steps
    return counter.count


def test_no_step_reads_anything_from_the_device() -> None:
    assert reads(steps=3, look_seconds=1e9) == reads(steps=30, look_seconds=1e9)
    assert reads(steps=30, look_seconds=0.0) - reads(steps=3, look_seconds=0.0) == 27 * 2  # loss shown, sum checked


def test_averaging_reads_nothing_from_the_device() -> None:
    """The count that PyTorch hands over is a copy on the device."""
    average = averaged(nn.Linear(1, 1), 0.5)
    assert average is not None
    assert average.multi_avg_fn is not None
    values, new = [torch.zeros(1)], [torch.ones(1)]
    average.multi_avg_fn(values, new, None)  # type: ignore[arg-type]
    assert values[0].item() == pytest.approx(0.9)


def test_a_validation_that_is_not_finite_never_becomes_the_best() -> None:
    made = training(epochs=3)
    state = made.state()
    with pytest.raises(TrainingError) as caught:
        made.fit(state, validation=scripted(made, (0.5, 1.0), (0.9, math.nan)))
    assert_one_line(caught.value, "not finite in the validation of epoch 2", "--learning-rate")
    assert state.best.epoch == 1
    assert len(state.history) == 1


class Interrupting(Display):
    """Sends this process a signal at the n-th step."""

    def __init__(self, number: int, at: int) -> None:
        super().__init__(None)
        self.number, self.at, self.steps = number, at, 0

    def step(self, **_: Any) -> None:
        self.steps += 1
        if self.steps == self.at:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_request_to_stop_saves_between_two_steps(tmp_path: Path, number: int, at: int) -> None:
    made = training(epochs=3)
    whole = made.fit(made.state())
    before = signal.getsignal(number)
    keeper, state = Hoarder(tmp_path), made.state()
    with pytest.raises(TrainingStoppedError) as caught:
        made.fit(state, keeper, display=Interrupting(number, at))
    assert_one_line(caught.value, f"stopped after {at} of 6 steps; all is saved")
    assert signal.getsignal(number) == before
    assert state.plan.done == at
    assert keeper.saves == 1
    again = made.state()
    restore(again, keeper.paths[0])
    made.fit(again)
    assert same_weights(again.network.state_dict(), whole.network.state_dict())


def test_a_request_during_the_last_validation_is_not_lost() -> None:
    made = training(epochs=1)

    @dataclass(frozen=True)
    class Killing(Validation):
        def score(self, *arguments: Any) -> tuple[float, float]:
            os.kill(os.getpid(), signal.SIGINT)
            return super().score(*arguments)

    drawn, keeper, state = made.drawn, Forgetful(), made.state()
    with pytest.raises(TrainingStoppedError):
        made.fit(state, keeper, validation=Killing(drawn.pixels, drawn.labels, drawn.validation))
    assert state.finished
    assert keeper.saves == 1


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C does what it does in a terminal, even where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_second_request_does_not_wait() -> None:
    made = training(epochs=1)

    class Impatient(Display):
        def step(self, **_: Any) -> None:
            handler = signal.getsignal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            while signal.getsignal(signal.SIGINT) is handler:  # until Python handles it: two at once become one
                time.sleep(0.001)
            signal.raise_signal(signal.SIGINT)
            time.sleep(10)  # which the second one ends

    with pytest.raises(KeyboardInterrupt):
        made.fit(made.state(), display=Impatient(None))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_outside_the_main_thread_leaves_signals_alone() -> None:
    made = training(epochs=1)
    states: list[State] = []
    thread = threading.Thread(target=lambda: states.append(made.fit(made.state())))
    thread.start()
    thread.join()
    assert states[0].finished


def test_checkpoints_are_as_often_as_asked() -> None:
    made = training(epochs=3)
    always, never = Forgetful(), Forgetful()
    made.fit(made.state(), always, checkpoint_seconds=0.0)
    made.fit(made.state(), never, checkpoint_seconds=1e9)
    assert always.saves == 6 + 3  # after each step and each validation
    assert never.saves == 1  # at the end


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-3, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown
