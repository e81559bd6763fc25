"""Which network to take, and why: a rule, applied to what validation and this machine say.

Candidates *close to the best* are those that validation cannot tell from the most accurate one (McNemar's exact
test, corrected by Holm) and that are within `MARGIN` of it with 95 % confidence. Both are asked for: of a few pictures
the test alone would call everything alike, and the cheapest would win for want of evidence. So with few pictures the
most accurate one wins, and its reason says that these could not tell.

Of those, the cheapest counts, and all that cost at most `TOLERANCE` more: between them accuracy decides, not the noise
of a clock. The same network with other weights costs the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from darkroom.config import Preference
from darkroom.evaluation.pairs import Pair, compare_with_best

MARGIN = 0.02
"""Accuracy that a cheaper network may lack (judgement)."""

TOLERANCE = 0.1
"""Part by which costs may differ and still count as equal (judgement)."""

RULES: dict[Preference, str] = {
    "latency": "among the networks close to the most accurate one, the fastest for a single picture; of those within "
    f"{100 * TOLERANCE:g} % of its time, the most accurate",
    "size": "among the networks close to the most accurate one, the one with the smallest graph; of those within "
    f"{100 * TOLERANCE:g} % of its size, the most accurate",
    "accuracy": "the network with the highest accuracy; between equals the one with the lower log loss",
}

CLOSE = (
    f"close: not distinguishable from it (McNemar's exact test, Holm's correction), and within {100 * MARGIN:g} points "
    "with 95 % confidence for all of them together (smoothed paired bootstrap, Bonferroni's correction)"
)


@dataclass(frozen=True, eq=False)
class Candidate:
    """What is known of a network before the test split is opened."""

    name: str
    network: str
    """Candidates of the same network differ in their weights only."""
    right: npt.NDArray[np.bool_]
    """Validation pictures (N,) that it gets right."""
    log_loss: float
    milliseconds: float
    """For one picture."""
    megabytes: float
    """Of its graph."""

    @property
    def accuracy(self) -> float:
        """On validation."""
        return float(self.right.mean())

    @property
    def rank(self) -> tuple[float, float]:
        """By which the best is found."""
        return self.accuracy, -self.log_loss


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


@dataclass(frozen=True)
class Choice:
    """The most accurate candidate, the chosen one, and what each costs by its name."""

    best: Candidate
    chosen: Candidate
    prefer: Preference
    cost: Mapping[str, float]

    def cheaper(self, one: Candidate, other: Candidate) -> str:
        """That `one` costs less than `other`, in words."""
        word, unit = ("smaller", "MB") if self.prefer == "size" else ("faster", "ms for a picture")
        return f"{word} ({self.cost[one.name]:.1f} against {self.cost[other.name]:.1f} {unit})"


def choose(candidates: Sequence[Candidate], prefer: Preference) -> list[Verdict]:
    """A verdict on each candidate, in the order given; exactly one is chosen."""
    best = max(candidates, key=lambda one: one.rank)
    pairs = compare_with_best([one.right for one in candidates], candidates.index(best))
    close = {one.name: is_close(pair) for one, pair in zip(candidates, pairs, strict=True)}
    cost = _costs(candidates, prefer)
    cheap = _cheapest([one for one in candidates if close[one.name]], cost)
    chosen = best if prefer == "accuracy" else max(cheap, key=lambda one: one.rank)
    choice = Choice(best, chosen, prefer, cost)
    return [
        Verdict(one.name, pair, close[one.name], one is chosen, _reason(one, pair, choice, cheap=one in cheap))
        for one, pair in zip(candidates, pairs, strict=True)
    ]


def is_close(pair: Pair | None) -> bool:
    """Whether a network is close to the best one; the best itself, which has no pair, is."""
    return pair is None or (not pair.distinguishable and pair.low >= -MARGIN)


def _costs(candidates: Sequence[Candidate], prefer: Preference) -> dict[str, float]:
    """Milliseconds or megabytes of each by its name; of the same network, the least that was measured."""
    measured = [(one.network, one.megabytes if prefer == "size" else one.milliseconds) for one in candidates]
    return {one.name: min(cost for network, cost in measured if network == one.network) for one in candidates}


def _cheapest(eligible: Sequence[Candidate], cost: Mapping[str, float]) -> list[Candidate]:
    """The cheapest, and those that cost as little."""
    limit = (1 + TOLERANCE) * min(cost[one.name] for one in eligible)
    return [one for one in eligible if cost[one.name] <= limit]


def _reason(one: Candidate, pair: Pair | None, choice: Choice, *, cheap: bool) -> str:
    best, chosen = choice.best, choice.chosen
    if one is chosen:
        return _why_chosen(pair, choice)
    if pair is None:
        return f"the most accurate, but {chosen.name} is close to it and {choice.cheaper(chosen, one)}"
    behind = _gap(pair, best)
    if pair.distinguishable:
        return f"less accurate: {behind}, more than chance explains ({_p(pair.corrected)})"
    if choice.prefer == "accuracy":
        return f"{behind}, which may be chance ({_p(pair.corrected)})" if pair.difference else "no lower log loss"
    if not is_close(pair):
        least = f"up to {-100 * pair.low:.1f} points cannot be ruled out"
        chance = ", which may be chance" if pair.difference else ""
        return f"{behind}{chance}; {len(one.right):,} pictures are too few to tell ({least})"
    if not cheap:
        return f"close to {best.name}, but {chosen.name} is {choice.cheaper(chosen, one)}"
    worse = "is less accurate" if one.accuracy < chosen.accuracy else "has no lower log loss"
    return f"costs as little as {chosen.name}, but {worse}"


def _why_chosen(pair: Pair | None, choice: Choice) -> str:
    if pair is None:
        if choice.prefer == "accuracy":
            return "the most accurate"
        return "the most accurate, and none that is shown to be close to it is clearly cheaper"
    why = choice.cheaper(choice.chosen, choice.best)
    return f"close to the most accurate ({_gap(pair, choice.best)}, {_p(pair.corrected)}) and {why}"


def _gap(pair: Pair, best: Candidate) -> str:
    return f"{-100 * pair.difference:.1f} points behind {best.name}" if pair.difference else f"level with {best.name}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def summary(verdicts: Sequence[Verdict], prefer: Preference) -> Mapping[str, Any]:
    """The rule and its outcome, for comparison.json."""
    return {
        "prefer": prefer,
        "rule": RULES[prefer],
        "close": CLOSE,
        "margin": MARGIN,
        "tolerance": TOLERANCE,
        "best": next(verdict.name for verdict in verdicts if verdict.pair is None),
        "chosen": next(verdict.name for verdict in verdicts if verdict.chosen),
    }
