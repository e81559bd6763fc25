"""How far probabilities can be believed: temperature, reliability, and when to say "not sure"."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest

from darkroom.errors import RunError, UsageError

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]

TEMPERATURES = (0.05, 20.0)
"""Range searched for the temperature; real networks lie between about 0.5 and 5."""

BINS = 15
"""Equal-width bins of confidence, as in Guo et al. 2017."""


@dataclass(frozen=True)
class Reliability:
    """Bins of confidence: `edges` (B+1,), the rest (B,), NaN where empty; `low`, `high`: 95 % interval of accuracy."""

    edges: npt.NDArray[np.float64]
    count: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """Answer where confidence >= `value`: on validation that is `coverage` of all, `accuracy_answered` correctly."""

    value: float
    coverage: float
    accuracy_answered: float
    rule: str


def calibrate(logits: Floats, labels: Labels) -> dict[str, Any]:
    """What metrics.json says of temperature and threshold, from predictions of validation."""
    temperature = fit_temperature(logits, labels)
    threshold = not_sure_threshold(labels, probabilities(logits, temperature))
    return {
        "temperature": temperature,
        "threshold": threshold.value,
        "threshold_rule": threshold.rule,
        "threshold_coverage": threshold.coverage,
        "threshold_accuracy_answered": threshold.accuracy_answered,
    }


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Temperature, from 0.05 to 20, that minimises the log loss of validation (Guo et al. 2017).

    One picture in N + 1 is taken to be labelled at random (Platt 1999's guard, for K classes). Without it, a validation
    set with no error would be fitted best by T = 0, certainty that no finite set supports. It raises T, in simulations
    by some 3 % at N = 1,000 and 0.3 % at N = 10,000: less than chance moves it.
    """
    check_predictions(labels, logits)
    count, classes = logits.shape
    exact = logits.astype(np.float64)
    guard = 1 / (count + 1)

    def loss(log_temperature: float) -> float:
        scores = log_softmax(exact / np.exp(log_temperature), axis=1)  # (N, K)
        right = scores[np.arange(count), labels].mean()
        return float(-((1 - guard) * right + guard * scores.sum() / (count * classes)))

    bounds = (np.log(TEMPERATURES[0]), np.log(TEMPERATURES[1]))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(np.clip(np.exp(found.x), *TEMPERATURES))


def probabilities(logits: Floats, temperature: float) -> npt.NDArray[np.float64]:
    """Softmax of `logits` (N, K) divided by `temperature`, in double precision."""
    if not 0 < temperature < np.inf:
        raise UsageError(f"the temperature is {temperature}: it must be a number above 0")
    result: npt.NDArray[np.float64] = softmax(logits.astype(np.float64) / temperature, axis=1)
    return result


def confidence_bins(confidence: Floats, bins: int = BINS) -> npt.NDArray[np.int64]:
    """Bin of each confidence; bin b holds (b/bins, (b+1)/bins]."""
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    return np.digitize(confidence, inner_edges, right=True).astype(np.int64)


def reliability(labels: Labels, probabilities: Floats, *, bins: int = BINS) -> Reliability:
    """What a reliability diagram shows: accuracy against confidence, in equal-width bins."""
    check_predictions(labels, probabilities)
    confidence, right = _confidence_and_hits(labels, probabilities)
    place = confidence_bins(confidence, bins)
    count = np.bincount(place, minlength=bins)
    hits = np.bincount(place[right], minlength=bins)
    total_confidence = np.bincount(place, weights=confidence, minlength=bins)
    divisor = np.where(count > 0, count, np.nan)
    intervals = [wilson(int(hit), int(number)) for hit, number in zip(hits, count, strict=True)]
    low, high = np.array(intervals).T
    return Reliability(np.linspace(0, 1, bins + 1), count, total_confidence / divisor, hits / divisor, low, high)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927); NaN without trials."""
    if trials == 0:
        return float("nan"), float("nan")
    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    share = successes / trials
    return min(float(interval.low), share), max(float(interval.high), share)


def not_sure_threshold(labels: Labels, probabilities: Floats) -> Threshold:
    """Confidence below which to answer "not sure", chosen on validation; the rule that applied comes with it.

    Pictures of equal confidence stand or fall together.
    """
    check_predictions(labels, probabilities)
    confidence, right = _confidence_and_hits(labels, probabilities)
    levels, place = np.unique(confidence, return_inverse=True)  # ascending
    answered = np.bincount(place)[::-1].cumsum()[::-1]  # at each level: pictures at least as sure
    errors = np.bincount(place, weights=~right)[::-1].cumsum()[::-1]
    rates = errors / answered
    chosen, rule = _choose(rates)
    value = float(np.clip(levels[chosen], 0, 1))
    return Threshold(value, float(answered[chosen] / len(labels)), float(1 - rates[chosen]), rule)


def check_predictions(labels: Labels, scores: Floats) -> None:
    """Raise `RunError` unless `scores` (N, K) are finite and `labels` (N,) name their columns."""
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise RunError(f"predictions of shape {scores.shape} do not fit labels of shape {labels.shape}: evaluate again")
    if len(labels) == 0:
        raise RunError("there are no predictions to measure: the split holds no readable picture")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise RunError(f"a label lies outside the {scores.shape[1]} classes of the predictions: evaluate again")
    if not np.isfinite(scores).all():
        broken = int((~np.isfinite(scores).all(axis=1)).sum())
        raise RunError(
            f"{broken} of {len(labels)} predictions are not finite numbers: the network's weights are broken"
        )


def _choose(rates: npt.NDArray[np.float64]) -> tuple[int, str]:
    """Index of the chosen level, from error rates at ascending levels, of which the first answers everything."""
    if rates[0] == 0:
        rule = "validation had no error, so whatever is less sure than every validation picture is called not sure"
        return 0, rule
    halved = np.flatnonzero(rates <= rates[0] / 2)
    if len(halved):
        rule = "the lowest confidence at which the answers given on validation have at most half the overall error"
        return int(halved[0]), rule
    rule = "no confidence halves the error on validation, so the one with the lowest error among its answers is taken"
    return int(rates.argmin()), rule


def _confidence_and_hits(
    labels: Labels, probabilities: Floats
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities[np.arange(len(labels)), predicted].astype(np.float64)
    return confidence, predicted == labels
