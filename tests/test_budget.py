"""Plans of steps, and that a budget in minutes is kept by machines that change their speed, in a simulated clock."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.training.budget import AIM, Plan, Speed, plan_epochs, plan_minutes
from darkroom.training.fit import Clock
from darkroom.training.schedules import Resolution
from darkroom.training.state import State
from training import training


def test_epochs_are_exact() -> None:
    plan = plan_epochs(7, steps_an_epoch=13)
    assert (plan.total_steps, plan.epochs, plan.budget) == (91, 7, None)
    assert [plan.steps_in(epoch) for epoch in range(1, 8)] == [13] * 7
    for done in range(91):
        assert not plan.finished
        assert plan.progress == pytest.approx(done / 91)
        plan.advance()
        assert not plan.adjust(elapsed=1e6, step_seconds=100.0, epoch_seconds=100.0)
    assert plan.finished
    assert plan.progress == 1.0
    assert plan.total_steps == 91


def test_minutes_count_steps_and_whole_validations() -> None:
    # 10 epochs of 10 s and 2 s of validation fill what is aimed at, 126 s, to the last second.
    plan = plan_minutes(2.1001 / AIM, steps_an_epoch=100, spent=6.0, speed=Speed(0.1, 2.0))
    assert (plan.total_steps, plan.epochs, plan.budget) == (1000, 10, pytest.approx(126.006 / AIM))


def test_a_part_of_an_epoch_costs_a_whole_validation() -> None:
    plan = plan_minutes(1 / AIM, steps_an_epoch=1000, spent=0.0, speed=Speed(0.1, 10.0))
    assert plan.total_steps == pytest.approx(500, abs=1)
    assert plan.epochs == 1
    assert plan.steps_in(1) == plan.total_steps


@pytest.mark.parametrize("speed", [Speed(100.0, 5.0), Speed(1.0, 1000.0)])
def test_however_slow_one_step_is_taken(speed: Speed) -> None:
    assert plan_minutes(0.1, steps_an_epoch=50, spent=3.0, speed=speed).total_steps == 1


@given(
    steps=st.integers(1, 60),
    an_epoch=st.integers(1, 30),
    budget=st.none() | st.floats(1, 1000),
    speeds=st.lists(st.floats(0.001, 50), min_size=1, max_size=300),
)
def test_progress_always_grows_and_ends_at_one(
    steps: int, an_epoch: int, budget: float | None, speeds: list[float]
) -> None:
    plan = Plan(total_steps=steps, steps_an_epoch=an_epoch, budget=budget)
    elapsed = 0.0
    while not plan.finished and plan.done < 2000:
        before = plan.progress
        share = (1 - before) / (plan.total_steps - plan.done)
        plan.advance()
        assert before < plan.progress <= 1
        assert plan.progress - before == pytest.approx(share)
        step = speeds[plan.done % len(speeds)]
        elapsed += step
        here = plan.progress
        plan.adjust(elapsed=elapsed, step_seconds=step, epoch_seconds=step)
        assert plan.progress == here  # a new plan never moves the learning rate by itself
        assert plan.total_steps > plan.done or here == 1.0
    assert not plan.finished or plan.progress == 1.0


def test_a_plan_on_time_is_left_alone() -> None:
    plan = Plan(total_steps=100, steps_an_epoch=10, budget=100.0, done=50, progress=0.5)
    assert not plan.adjust(elapsed=49.0, step_seconds=1.0, epoch_seconds=0.0)
    assert plan.total_steps == 100
    assert plan.adjust(elapsed=70.0, step_seconds=1.0, epoch_seconds=0.0)
    assert plan.total_steps == 78


@dataclass
class FakeTime:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Machine:
    """How long a step and a validation take, and a factor on both that depends on the time."""

    step: float
    validation: float
    slowness: Callable[[float], float]
    fixed: float = 0.0
    """Part of a step that does not depend on the size of the pictures."""


FULL = Resolution(8)


def simulate(
    machine: Machine,
    *,
    budget: float,
    steps_an_epoch: int,
    measured: float = 1.0,
    resolution: Resolution = FULL,
) -> tuple[State, float]:
    """Train without training: `measured` is the factor by which the first measurement was wrong."""
    spent = 2.0
    speed = Speed(machine.step * measured, machine.validation * measured)
    state = training().state()
    state.resolution = resolution
    average = replace(speed, step_seconds=speed.step_seconds * resolution.cost_to_go(0))
    state.plan = plan_minutes(budget / 60, steps_an_epoch=steps_an_epoch, spent=spent, speed=average)
    state.elapsed = spent
    time = FakeTime(1000.0)
    clock = Clock(state, speed, now=time)
    progress = [0.0]
    while not state.finished:
        while state.step < state.plan.steps_in(state.epoch):
            midway = state.plan.midway
            cost, pixels = resolution.cost(midway), (resolution.side(midway) / resolution.full) ** 2
            true_cost = machine.fixed + (1 - machine.fixed) * pixels
            time.now += machine.step * true_cost * machine.slowness(state.elapsed / budget)
            state.plan.advance()
            state.step += 1
            clock.step_done(cost)
            progress.append(state.plan.progress)
        time.now += machine.validation * machine.slowness(state.elapsed / budget)
        state.epoch, state.step = state.epoch + 1, 0
        clock.epoch_done()
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    return state, time.now - 1000.0 + spent


STEADY = Machine(0.1, 3.0, lambda part: 1.0)


def from_then_on(part: float, factor: float) -> Callable[[float], float]:
    return lambda now: factor if now >= part else 1.0


@pytest.mark.parametrize("steps_an_epoch", [15, 100, 170, 1000])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("factor", [0.4, 1.0, 2.0, 3.0])
def test_the_budget_is_kept(steps_an_epoch: int, part: float, factor: float) -> None:
    machine = Machine(0.1, 3.0 if steps_an_epoch > 15 else 0.3, from_then_on(part, factor))
    _, seconds = simulate(machine, budget=120.0, steps_an_epoch=steps_an_epoch)
    assert 108 <= seconds <= 132


@pytest.mark.parametrize("steps_an_epoch", [15, 100, 170, 1000])
@pytest.mark.parametrize("measured", [0.95, 1.0, 1.05])
def test_minutes_are_a_promise_on_a_steady_machine(steps_an_epoch: int, measured: float) -> None:
    machine = Machine(0.1, 1.0, lambda part: 1.0)
    _, seconds = simulate(machine, budget=120.0, steps_an_epoch=steps_an_epoch, measured=measured)
    assert 0.95 * 120 <= seconds <= 120


@pytest.mark.parametrize("measured", [0.3, 0.7, 1.5, 4.0])
def test_a_wrong_measurement_is_made_good(measured: float) -> None:
    _, seconds = simulate(STEADY, budget=120.0, steps_an_epoch=100, measured=measured)
    assert 108 <= seconds <= 132


@pytest.mark.parametrize("steps_an_epoch", [15, 100])
@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("believed", [0.0, 0.3, 0.6])
def test_the_budget_is_kept_while_pictures_grow(steps_an_epoch: int, factor: float, believed: float) -> None:
    """A part of a step takes as long on small pictures, and that part was measured well or badly."""
    machine = Machine(0.1, 1.0, from_then_on(0.4, factor), fixed=0.3)
    resolution = Resolution(128, 0.5, believed)
    _, seconds = simulate(machine, budget=120.0, steps_an_epoch=steps_an_epoch, resolution=resolution)
    assert 114 <= seconds <= 126


def test_more_steps_fit_while_pictures_are_small() -> None:
    machine = Machine(0.1, 1.0, lambda part: 1.0, fixed=0.3)
    small, _ = simulate(machine, budget=120.0, steps_an_epoch=100, resolution=Resolution(128, 0.5, 0.3))
    whole, _ = simulate(machine, budget=120.0, steps_an_epoch=100)
    assert small.plan.done > 1.15 * whole.plan.done


def test_hiccups_and_waves_are_absorbed() -> None:
    machine = Machine(0.1, 2.0, lambda part: 3.0 if int(part * 40) % 4 == 0 else 1.0)
    _, seconds = simulate(machine, budget=120.0, steps_an_epoch=80)
    assert 108 <= seconds <= 132


def test_a_budget_shorter_than_an_epoch_is_kept() -> None:
    state, seconds = simulate(Machine(0.1, 10.0, lambda part: 1.0), budget=60.0, steps_an_epoch=1000)
    assert 54 <= seconds <= 66
    assert state.epoch == 2  # one validation


def test_time_left_counts_steps_and_validations() -> None:
    state = training().state()
    state.plan = Plan(total_steps=25, steps_an_epoch=10, budget=None, done=10)
    clock = Clock(state, Speed(1.0, 4.0), now=FakeTime())
    assert clock.seconds_left() == pytest.approx(15 + 3 * 4)  # epoch 1 is still to be validated
    state.plan.done = 11
    assert clock.seconds_left() == pytest.approx(14 + 2 * 4)


def test_checkpoints_fall_due_by_the_clock() -> None:
    time = FakeTime(50.0)
    clock = Clock(training().state(), Speed(1.0, 4.0), checkpoint_seconds=15.0, now=time)
    due = []
    for time.now in (51.0, 64.9, 65.0, 66.0, 79.9, 80.1):
        due.append(clock.checkpoint.due())
    assert due == [False, False, True, False, False, True]


def test_checkpoints_that_take_long_are_taken_rarely() -> None:
    time = FakeTime(0.0)
    clock = Clock(training().state(), Speed(1.0, 4.0), checkpoint_seconds=15.0, now=time)
    time.now = 15.0
    assert clock.checkpoint.due()
    with clock.checkpoint.spent():
        time.now = 35.0
    for time.now, due in ((50.0, False), (434.0, False), (436.0, True)):
        assert clock.checkpoint.due() is due


def test_looks_fall_due_by_the_clock() -> None:
    time = FakeTime(50.0)
    clock = Clock(training().state(), Speed(1.0, 4.0), look_seconds=1.0, now=time)
    due = []
    for time.now in (50.5, 51.0, 51.9, 52.1):
        due.append(clock.look.due())
    assert due == [False, True, False, True]
    assert Clock(training().state(), Speed(1.0, 4.0), now=time).look.due(), "without an interval, each time"
