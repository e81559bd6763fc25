"""Which network to take, and why: a rule, applied to what validation and this machine say.

Candidates *close to the best* are those that validation cannot tell from the most accurate one (McNemar's exact
test, corrected by Holm) and that are within `MARGIN` of it with 95 % confidence. Both are asked for: of a few pictures
the test alone would call everything alike, and the cheapest would win for want of evidence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from darkroom.config import Preference
from darkroom.evaluation.pairs import Pair, compare_with_best

MARGIN = 0.02
"""Accuracy that a cheaper network may lack."""

RULES: dict[Preference, str] = {
    "latency": "among the networks close to the most accurate one, the fastest for a single picture",
    "size": "among the networks close to the most accurate one, the one with the smallest bundle",
    "accuracy": "the network with the highest accuracy; between equals the one with the lower log loss",
}

CLOSE = (
    f"close: not distinguishable from it (McNemar's exact test, Holm's correction), and within {100 * MARGIN:g} points "
    "with 95 % confidence"
)


@dataclass(frozen=True, eq=False)
class Candidate:
    """What is known of a network before the test split is opened."""

    name: str
    right: npt.NDArray[np.bool_]
    """Validation pictures (N,) that it gets right."""
    log_loss: float
    milliseconds: float
    """For one picture."""
    megabytes: float
    """Of its bundle."""

    @property
    def accuracy(self) -> float:
        """On validation."""
        return float(self.right.mean())


@dataclass(frozen=True)
class Verdict:
    """One candidate beside the best: the pair (None for the best itself), and why it was chosen or not."""

    name: str
    pair: Pair | None
    close: bool
    chosen: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "close_to_best": self.close,
            "chosen": self.chosen,
            "reason": self.reason,
            "against_best": self.pair.to_json() if self.pair is not None else None,
        }


def choose(candidates: Sequence[Candidate], prefer: Preference) -> list[Verdict]:
    """A verdict on each candidate, in the order given; exactly one is chosen."""
    best = max(candidates, key=lambda one: (one.accuracy, -one.log_loss))
    pairs = compare_with_best([one.right for one in candidates], candidates.index(best))
    close = {one.name: is_close(pair) for one, pair in zip(candidates, pairs, strict=True)}
    eligible = [one for one in candidates if close[one.name]]
    cost = {"latency": lambda one: one.milliseconds, "size": lambda one: one.megabytes, "accuracy": lambda one: 0.0}
    chosen = best if prefer == "accuracy" else min(eligible, key=cost[prefer])
    return [
        Verdict(one.name, pair, close[one.name], one is chosen, _reason(one, pair, best, chosen, prefer))
        for one, pair in zip(candidates, pairs, strict=True)
    ]


def is_close(pair: Pair | None) -> bool:
    """Whether a network is close to the best one; the best itself, which has no pair, is."""
    return pair is None or (not pair.distinguishable and pair.low >= -MARGIN)


def _reason(one: Candidate, pair: Pair | None, best: Candidate, chosen: Candidate, prefer: Preference) -> str:
    if one is chosen:
        return _why_chosen(one, pair, best, prefer)
    if pair is None:
        return f"the most accurate, but {chosen.name} is close to it and {_cheaper(chosen, one, prefer)}"
    behind = f"{-100 * pair.difference:.1f} points behind {best.name}"
    if pair.distinguishable:
        return f"less accurate: {behind}, more than chance explains ({_p(pair.corrected)})"
    if prefer == "accuracy":
        return f"{behind}, which may be chance ({_p(pair.corrected)})" if pair.difference else "higher log loss"
    if not is_close(pair):
        return f"{behind}; up to {-100 * pair.low:.1f} points cannot be ruled out with so few pictures"
    return f"close to {best.name}, but {chosen.name} is {_cheaper(chosen, one, prefer)}"


def _why_chosen(one: Candidate, pair: Pair | None, best: Candidate, prefer: Preference) -> str:
    if pair is None:
        return "the most accurate" + ("" if prefer == "accuracy" else ", and none that is close to it is cheaper")
    what = f"{100 * abs(pair.difference):.1f} points {'behind' if pair.difference < 0 else 'from'} {best.name}"
    return f"close to the most accurate ({what}, {_p(pair.corrected)}) and {_cheaper(one, best, prefer)}"


def _cheaper(one: Candidate, other: Candidate, prefer: Preference) -> str:
    if prefer == "size":
        return f"smaller ({one.megabytes:.1f} against {other.megabytes:.1f} MB)"
    return f"faster ({one.milliseconds:.1f} against {other.milliseconds:.1f} ms for a picture)"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def summary(verdicts: Sequence[Verdict], prefer: Preference) -> Mapping[str, Any]:
    """The rule and its outcome, for comparison.json."""
    return {
        "prefer": prefer,
        "rule": RULES[prefer],
        "close": CLOSE,
        "margin": MARGIN,
        "best": next(verdict.name for verdict in verdicts if verdict.pair is None),
        "chosen": next(verdict.name for verdict in verdicts if verdict.chosen),
    }
