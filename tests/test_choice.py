"""The rule of a comparison: who is close to the best, who wins among them, and that every verdict says why."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.comparison.choice import Candidate, choose, summary
from darkroom.config import Preference

MANY = 2500


def candidate(
    name: str,
    wrong: range,
    *,
    ms: float = 1.0,
    mb: float = 1.0,
    loss: float = 0.5,
    n: int = MANY,
    network: str | None = None,
) -> Candidate:
    right = np.ones(n, bool)
    right[list(wrong)] = False
    return Candidate(name, network or name, right, loss, ms, mb)


def chosen(candidates: list[Candidate], prefer: Preference = "latency") -> str:
    verdicts = choose(candidates, prefer)
    assert [verdict.name for verdict in verdicts] == [one.name for one in candidates]
    assert sum(verdict.chosen for verdict in verdicts) == 1
    assert all(verdict.reason for verdict in verdicts)
    return str(summary(verdicts, prefer)["chosen"])


BEST = candidate("best", range(200), ms=30, mb=90)
NEAR = candidate("near", range(205), ms=10, mb=20)
SLIM = candidate("slim", range(206), ms=12, mb=5)
POOR = candidate("poor", range(400), ms=1, mb=1)


def test_the_fastest_of_those_close_to_the_best_wins() -> None:
    assert chosen([BEST, NEAR, SLIM, POOR]) == "near"


def test_the_preference_changes_the_rule() -> None:
    assert chosen([BEST, NEAR, SLIM, POOR], "size") == "slim"
    assert chosen([BEST, NEAR, SLIM, POOR], "accuracy") == "best"


def test_the_best_wins_where_none_is_close() -> None:
    assert chosen([POOR, BEST]) == "best"


def test_of_a_few_pictures_nothing_cheaper_is_called_close() -> None:
    """No test can tell 45 from 43 of 50; that does not make them equal."""
    best, other = candidate("best", range(5), ms=9, n=50), candidate("other", range(3, 10), ms=1, n=50)
    verdicts = choose([best, other], "latency")
    assert verdicts[1].pair is not None
    assert not verdicts[1].pair.distinguishable
    assert not verdicts[1].close
    assert verdicts[0].chosen
    assert verdicts[1].reason.startswith("4.0 points behind best, which may be chance; 50 pictures are too few to tell")
    assert "cannot be ruled out" in verdicts[1].reason


def test_equals_are_called_level() -> None:
    """Not 0.0 points behind."""
    best, other = candidate("best", range(5), loss=0.1, n=50), candidate("other", range(5, 10), loss=0.2, n=50)
    verdicts = choose([best, other], "latency")
    assert verdicts[1].reason.startswith("level with best; 50 pictures are too few to tell (up to ")


@pytest.mark.parametrize("prefer", ["latency", "size"])
def test_the_same_network_costs_the_same_whatever_the_clock_says(prefer: Preference) -> None:
    frozen = candidate("x-frozen", range(205), ms=5.0, mb=19.0, network="x")
    tuned = candidate("x-fine-tuned", range(200), ms=9.9, mb=20.0, network="x")
    other = candidate("y-frozen", range(204), ms=20.0, mb=40.0)
    verdicts = choose([frozen, tuned, other], prefer)
    assert [verdict.name for verdict in verdicts if verdict.chosen] == ["x-fine-tuned"]
    assert verdicts[0].reason == "costs as little as x-fine-tuned, but is less accurate"
    assert "against 20.0 ms" in verdicts[2].reason or "against 40.0 MB" in verdicts[2].reason
    assert "faster" not in verdicts[0].reason


def test_a_cost_that_is_lower_by_little_does_not_count() -> None:
    close = candidate("close", range(203), ms=10.0)
    assert chosen([candidate("best", range(200), ms=10.9), close]) == "best"
    assert chosen([candidate("best", range(200), ms=11.1), close]) == "close"


def test_equals_in_cost_and_accuracy_are_decided_by_log_loss() -> None:
    sure, unsure = candidate("sure", range(9), ms=1.05, loss=0.1), candidate("unsure", range(9), ms=1.0, loss=0.9)
    verdicts = choose([unsure, sure], "latency")
    assert verdicts[1].chosen
    assert verdicts[0].reason == "costs as little as sure, but has no lower log loss"


def test_equal_accuracy_is_decided_by_log_loss() -> None:
    sure, unsure = candidate("sure", range(9), loss=0.1), candidate("unsure", range(9), loss=0.9)
    assert chosen([unsure, sure], "accuracy") == "sure"


def test_reasons_name_what_decided() -> None:
    reasons = {verdict.name: verdict.reason for verdict in choose([BEST, NEAR, SLIM, POOR], "latency")}
    assert reasons["near"].startswith("close to the most accurate (0.2 points behind best")
    assert "faster (10.0 against 30.0 ms" in reasons["near"]
    assert reasons["best"].startswith("the most accurate, but near is close to it")
    assert "near is faster (10.0 against 12.0 ms" in reasons["slim"]
    assert reasons["poor"].startswith("less accurate: 8.0 points behind best, more than chance explains (p < 0.001)")


def test_a_single_candidate_is_chosen() -> None:
    assert chosen([BEST]) == "best"


def test_verdicts_are_plain_values() -> None:
    first, second = (verdict.to_json() for verdict in choose([BEST, POOR], "latency"))
    assert first["against_best"] is None
    assert second["against_best"]["difference"] == pytest.approx(-200 / MANY)
    assert second["against_best"]["distinguishable"]


@given(
    st.lists(
        st.tuples(st.lists(st.booleans(), min_size=30, max_size=30), st.floats(0, 5), st.floats(0.1, 99)),
        min_size=1,
        max_size=5,
    )
)
def test_whoever_wins_by_speed_is_close_and_no_slower_than_the_best(
    drawn: list[tuple[list[bool], float, float]],
) -> None:
    candidates = [
        Candidate(str(place), str(place), np.array(row), loss, ms, 1.0) for place, (row, loss, ms) in enumerate(drawn)
    ]
    verdicts = choose(candidates, "latency")
    winner = next(verdict for verdict in verdicts if verdict.chosen)
    best = next(verdict for verdict in verdicts if verdict.pair is None)
    by_name = {one.name: one for one in candidates}
    assert winner.close
    assert by_name[winner.name].milliseconds <= by_name[best.name].milliseconds
    assert by_name[best.name].accuracy == max(one.accuracy for one in candidates)
