"""Schedules at their corner points, between them, and the plateau's memory."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.config import Schedule
from darkroom.training.schedules import GROWN_AT, LearningRate, Resolution, cosine, one_cycle

EVERY: tuple[Schedule, ...] = ("linear", "one-cycle", "cosine", "plateau")


@pytest.mark.parametrize(("progress", "factor"), [(0, 0), (0.1, 0.5), (0.2, 1), (0.6, 0.5), (0.9, 0.125), (1, 0)])
def test_one_cycle(progress: float, factor: float) -> None:
    assert one_cycle(progress) == pytest.approx(factor)


@pytest.mark.parametrize(("progress", "factor"), [(0, 1), (0.25, 0.75), (1, 0)])
def test_linear(progress: float, factor: float) -> None:
    assert LearningRate("linear").factor(progress) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("progress", "factor"),
    [(0, 0), (0.025, 0.5), (0.05, 1), (0.05 + 0.95 / 2, 0.5), (0.05 + 0.95 / 3, 0.75), (1, 0)],
)
def test_cosine(progress: float, factor: float) -> None:
    assert cosine(progress) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("schedule", EVERY)
def test_schedules_are_continuous_and_within_the_peak(schedule: Schedule) -> None:
    rate = LearningRate(schedule)
    factors = [rate.factor(i / 10_000) for i in range(10_001)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(factors) == pytest.approx(1)
    assert all(abs(b - a) < 0.0025 for a, b in itertools.pairwise(factors))
    rising = [b >= a for a, b in itertools.pairwise(factors)]
    assert rising == sorted(rising, reverse=True)  # up once, then down


@given(st.floats(0, 1))
def test_factors_are_never_negative(progress: float) -> None:
    assert all(0 <= LearningRate(schedule).factor(progress) <= 1 for schedule in EVERY)


def test_plateau_lowers_the_rate_after_its_patience() -> None:
    rate = LearningRate("plateau", patience=2)
    factors = []
    for loss in (1.0, 0.9, 0.95, 0.9, 0.5, 0.6, 0.6, 0.6, 0.6):
        rate.observe(loss)
        factors.append(rate.factor(0.5))
    assert factors == pytest.approx([1, 1, 1, 0.3, 0.3, 0.3, 0.09, 0.09, 0.027])
    assert rate.best == 0.5


def test_other_schedules_ignore_what_they_observe() -> None:
    rate = LearningRate("cosine", patience=1)
    for _ in range(5):
        rate.observe(1.0)
    assert rate.factor(0.05) == 1


def test_plateau_remembers_across_a_resume() -> None:
    rate = LearningRate("plateau", patience=2)
    for loss in (1.0, 2.0, 2.0, 2.0):
        rate.observe(loss)
    again = LearningRate("plateau", patience=2)
    again.load_state_dict(rate.state_dict())
    assert again == rate
    for each in (rate, again):
        each.observe(2.0)
    assert again.factor(1) == rate.factor(1) == pytest.approx(0.09)


def test_warm_up_of_plateau() -> None:
    rate = LearningRate("plateau")
    assert [rate.factor(p) for p in (0, 0.025, 0.05, 1)] == pytest.approx([0, 0.5, 1, 1])
    assert math.isinf(rate.best)


@pytest.mark.parametrize(
    ("progress", "side"),
    [(0, 64), (GROWN_AT / 8 - 0.01, 64), (GROWN_AT / 8 + 0.01, 80), (GROWN_AT / 2, 96), (GROWN_AT, 128), (1, 128)],
)
def test_pictures_grow(progress: float, side: int) -> None:
    assert Resolution(128, 0.5).side(progress) == side
    assert Resolution(128, 0.5).cost(progress) == pytest.approx((side / 128) ** 2)
    assert Resolution(128, 0.5, 0.2).cost(progress) == pytest.approx(0.2 + 0.8 * (side / 128) ** 2)
    assert Resolution(128).side(progress) == 128
    assert Resolution(128).cost(progress) == 1
    assert Resolution(128).cost_to_go(progress) == pytest.approx(1)


@given(st.integers(8, 224), st.floats(0.5, 1), st.floats(0, 1))
def test_pictures_never_shrink_and_end_whole(full: int, start: float, progress: float) -> None:
    resolution = Resolution(full, start)
    sides = [resolution.side(progress * place / 10) for place in range(11)]
    assert sides == sorted(sides)
    assert full * (start - 1 / 8) <= sides[0] <= sides[-1] <= full
    assert resolution.side(1) == full


@given(st.sampled_from([64, 128, 224]), st.floats(0.5, 1), st.floats(0, 0.99), st.floats(0, 1))
def test_the_cost_to_go_is_the_mean_of_the_costs(full: int, start: float, progress: float, fixed: float) -> None:
    resolution = Resolution(full, start, fixed)
    places = [progress + (1 - progress) * (step + 0.5) / 2000 for step in range(2000)]
    mean = sum(resolution.cost(place) for place in places) / len(places)
    assert resolution.cost_to_go(progress) == pytest.approx(mean, rel=0.05)  # the sides go in steps, the formula not
