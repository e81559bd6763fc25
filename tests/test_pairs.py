"""Two networks on the same pictures: the tests give what the definitions say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from darkroom.errors import RunError
from darkroom.evaluation.pairs import compare_with_best, difference_interval, holm, mcnemar


def rows(both: int, left: int, right: int, none: int) -> tuple[np.ndarray, np.ndarray]:
    """Two rows with so many pictures that both, only one, or none get right."""
    one = np.repeat([True, True, False, False], [both, left, right, none])
    other = np.repeat([True, False, True, False], [both, left, right, none])
    return one, other


def test_mcnemar_is_a_fair_coin_over_the_pictures_that_differ() -> None:
    left, right = rows(80, 2, 10, 8)
    assert mcnemar(left, right) == pytest.approx(2 * binom.cdf(2, 12, 0.5))
    assert mcnemar(left, right) == mcnemar(right, left)


def test_pictures_on_which_both_agree_change_nothing() -> None:
    assert mcnemar(*rows(80, 2, 10, 8)) == mcnemar(*rows(8000, 2, 10, 800))


def test_networks_that_never_differ_are_not_distinguishable() -> None:
    assert mcnemar(*rows(5, 0, 0, 5)) == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_and_keeps_the_order(values: list[float]) -> None:
    corrected = holm(values)
    assert all(value <= other <= 1 for value, other in zip(values, corrected, strict=True))
    order = sorted(range(len(values)), key=lambda place: values[place])
    assert [corrected[place] for place in order] == sorted(corrected)


def test_the_interval_holds_the_difference_and_narrows_with_more_pictures() -> None:
    few, many = rows(70, 10, 15, 5), rows(7000, 1000, 1500, 500)
    for left, right in (few, many):
        low, high = difference_interval(left, right)
        assert low < left.mean() - right.mean() < high
    widths = [np.diff(difference_interval(*pair))[0] for pair in (few, many)]
    assert widths[0] == pytest.approx(10 * widths[1], rel=0.1)


def test_the_interval_agrees_with_resampling_pictures_one_by_one() -> None:
    left, right = rows(60, 12, 20, 8)
    random, difference = np.random.default_rng(1), left.astype(float) - right
    means = [random.choice(difference, len(difference)).mean() for _ in range(10_000)]
    assert difference_interval(left, right) == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.011)


def test_few_pictures_without_a_difference_do_not_make_equals() -> None:
    """Of 20 pictures alike, 17 points may still be between the two; of 2,500, not one."""
    few, many = np.ones(20, bool), np.ones(2500, bool)
    assert difference_interval(few, few)[0] < -0.04
    assert difference_interval(many, many)[0] > -0.005


def test_each_is_held_against_the_best_and_the_best_against_nobody() -> None:
    best, worse = rows(80, 15, 2, 3)
    same = best.copy()
    first, second, third = compare_with_best([worse, best, same], best=1)
    assert second is None
    assert first is not None
    assert third is not None
    assert first.difference == pytest.approx(-0.13)
    assert (first.only_this, first.only_best) == (2, 15)
    assert first.distinguishable
    assert first.high < 0
    assert first.corrected == pytest.approx(2 * first.p_value)
    assert not third.distinguishable
    assert third.difference == 0
    assert first.to_json()["distinguishable"] is True


def test_intervals_hold_for_all_pairs_together() -> None:
    best, worse = rows(80, 15, 2, 3)
    (_, alone), (_, *among) = compare_with_best([best, worse], best=0), compare_with_best([best, *[worse] * 9], best=0)
    assert alone is not None
    assert (alone.low, alone.high) == difference_interval(worse, best)
    for pair in among:
        assert pair is not None
        assert (pair.low, pair.high) == difference_interval(worse, best, level=0.05 / 9)
        assert pair.low < alone.low < alone.high < pair.high


def test_networks_measured_on_other_pictures_are_refused() -> None:
    with pytest.raises(RunError, match="same pictures"):
        compare_with_best([np.ones(3, bool), np.ones(4, bool)], best=0)
