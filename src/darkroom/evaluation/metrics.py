"""The numbers of one split, each with a 95 % interval.

Accuracy and top-k are proportions: Wilson's score interval. The other metrics are resampled: 2,000 times, N pictures
are drawn with replacement and the metric is computed again. Averages over classes, in the split and in each resample,
are taken over the classes that have pictures there: a class missing from a split distorts nothing.

- Macro averages, weighted F1 and log loss: percentiles of the resampled values, widened where needed to hold the value
  itself. When every picture is right there is nothing to resample; averages then take the accuracy's interval rather
  than one of width 0.
- Expected calibration error is a sum of absolute differences, so chance alone raises it, and resampling raises it
  again: percentiles would lie too high. The basic interval (2 value - percentiles) undoes that. Its low end is 0 where
  an ideally calibrated network would reach such a value by chance in more than 5 % of draws (Bröcker & Smith 2007).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import precision_recall_fscore_support

from darkroom import progress
from darkroom.errors import RunError
from darkroom.evaluation.calibration import BINS, Floats, Labels, check_predictions, confidence_bins, wilson

RESAMPLES = 2000
AVERAGES = ("macro_precision", "macro_recall", "macro_f1", "weighted_f1")

WILSON = "Wilson score interval"
PERCENTILE = "percentile bootstrap, 2,000 resamples"
CLASS_F1 = "percentile bootstrap, 2,000 resamples; Wilson score interval of the recall where F1 is 0 or 1"
NO_ERRORS = "Wilson score interval of the accuracy (no errors to resample)"
BASIC = "basic bootstrap, 2,000 resamples; from 0 where ideal calibration cannot be excluded"


@dataclass(frozen=True)
class _Outcome:
    """What the metrics need of each picture, (N,) each, and the number of classes."""

    labels: Labels
    predicted: Labels
    loss: npt.NDArray[np.float64]
    bins: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    overconfidence: npt.NDArray[np.float64]  # confidence, less 1 where right
    classes: int


def measure(labels: Labels, probabilities: Floats, classes: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """One split's block of metrics.json from `labels` (N,) and tempered `probabilities` (N, K)."""
    check_predictions(labels, probabilities)
    if len(classes) != probabilities.shape[1]:
        raise RunError(
            f"predictions are of {probabilities.shape[1]} classes, the run has {len(classes)}: evaluate again"
        )
    outcome = _outcome(labels, probabilities)
    per_class = _per_class(outcome, classes)
    resamples, class_f1, ideal_error = _bootstrap(outcome, seed)
    return {
        **_proportions(labels, probabilities),
        **_resampled(outcome, per_class, resamples, ideal_error),
        "per_class": per_class,
        "per_class_intervals": _class_intervals(per_class, outcome, class_f1),
        "per_class_methods": {"precision": WILSON, "recall": WILSON, "f1": CLASS_F1},
        "confusion_matrix": _confusion(outcome),
        "n": len(labels),
    }


def headline(block: Mapping[str, Any]) -> dict[str, Any]:
    """What a bundle tells of a split, from the split's block of metrics.json."""
    return {name: block[name] for name in ("accuracy", "macro_f1", "ece", "n")}


def top_k_for(classes: int) -> int:
    """Places that top-k grants: 5 beyond ten classes, 3 beyond five, 2 beyond two, else 1; more would say nothing."""
    return 5 if classes > 10 else 3 if classes > 5 else 2 if classes > 2 else 1


def most_confused(
    confusion: Sequence[Sequence[int]], classes: Sequence[str], limit: int
) -> list[tuple[str, str, int, float]]:
    """Up to `limit` mistakes (true class, predicted class, pictures, share of the true class), most frequent first."""
    matrix = np.array(confusion)  # (K, K), rows true
    support = matrix.sum(axis=1)
    pairs = [(int(row), int(column)) for row, column in np.argwhere(matrix > 0) if row != column]
    ranked = sorted(pairs, key=lambda pair: (-matrix[pair], -matrix[pair] / support[pair[0]], pair))[:limit]
    return [
        (classes[row], classes[column], int(matrix[row, column]), float(matrix[row, column] / support[row]))
        for row, column in ranked
    ]


def worst_mistakes(labels: Labels, probabilities: Floats, limit: int) -> npt.NDArray[np.int64]:
    """Places of up to `limit` wrongly classified pictures, the most confidently wrong first."""
    check_predictions(labels, probabilities)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order][:limit].astype(np.int64)


def _outcome(labels: Labels, probabilities: Floats) -> _Outcome:
    exact = probabilities.astype(np.float64)
    predicted = exact.argmax(axis=1)
    of_truth = exact[np.arange(len(labels)), labels]
    confidence = exact.max(axis=1)
    return _Outcome(
        labels=labels,
        predicted=predicted,
        loss=-np.log(of_truth.clip(np.finfo(np.float64).eps, 1)),  # a certain mistake costs 36, not infinity
        bins=confidence_bins(confidence),
        confidence=confidence,
        overconfidence=confidence - (predicted == labels),
        classes=probabilities.shape[1],
    )


def _confusion(outcome: _Outcome) -> list[list[int]]:
    cells = np.bincount(outcome.labels * outcome.classes + outcome.predicted, minlength=outcome.classes**2)
    rows: list[list[int]] = cells.reshape(outcome.classes, outcome.classes).tolist()
    return rows


def _per_class(outcome: _Outcome, classes: Sequence[str]) -> dict[str, dict[str, float | int]]:
    """Undefined precision (never predicted) and recall (no pictures) are 0."""
    columns = precision_recall_fscore_support(
        outcome.labels, outcome.predicted, labels=np.arange(len(classes)), zero_division=0
    )
    return {
        name: {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
        for name, precision, recall, f1, support in zip(classes, *columns, strict=True)
    }


def _class_intervals(
    per_class: dict[str, dict[str, float | int]], outcome: _Outcome, class_f1: npt.NDArray[np.float64]
) -> dict[str, dict[str, list[float] | None]]:
    """[low, high] of each metric of each class, none where nothing was counted; `class_f1` (R, K) are resampled."""
    hits = np.bincount(outcome.labels[outcome.labels == outcome.predicted], minlength=outcome.classes)
    answers = np.bincount(outcome.predicted, minlength=outcome.classes)
    result = {}
    for label, (name, row) in enumerate(per_class.items()):
        recall = _interval(int(hits[label]), int(row["support"]))
        intervals = {"precision": _interval(int(hits[label]), int(answers[label])), "recall": recall, "f1": recall}
        if row["support"] and 0 < row["f1"] < 1:
            low, high = np.nanquantile(class_f1[:, label], (0.025, 0.975))
            intervals["f1"] = [min(float(low), row["f1"]), max(float(high), row["f1"])]
        result[name] = intervals
    return result


def _interval(successes: int, trials: int) -> list[float] | None:
    return list(wilson(successes, trials)) if trials else None


def _proportions(labels: Labels, probabilities: Floats) -> dict[str, dict[str, Any]]:
    k = top_k_for(probabilities.shape[1])
    ranking = np.argsort(-probabilities, axis=1, kind="stable")  # equals argmax in its first column, ties included
    hits = ranking[:, :k] == labels[:, None]
    return {
        "accuracy": _proportion(int(hits[:, 0].sum()), len(labels)),
        "top_k": {**_proportion(int(hits.sum()), len(labels)), "k": k},
    }


def _proportion(successes: int, trials: int) -> dict[str, Any]:
    low, high = wilson(successes, trials)
    return _entry(successes / trials, low, high, WILSON)


def _resampled(
    outcome: _Outcome,
    per_class: dict[str, dict[str, float | int]],
    resamples: dict[str, npt.NDArray[np.float64]],
    ideal_error: npt.NDArray[np.float64],
) -> dict[str, dict[str, Any]]:
    values = {
        **_averages(per_class),
        "log_loss": float(outcome.loss.mean()),
        "ece": _calibration_error(outcome.bins, outcome.overconfidence),
    }
    entries = {}
    for name, value in values.items():
        low, high = (float(quantile) for quantile in np.quantile(resamples[name], (0.025, 0.975)))
        entries[name] = _entry(value, min(low, value), max(high, value), PERCENTILE)
    if (outcome.predicted == outcome.labels).all():
        low, high = wilson(len(outcome.labels), len(outcome.labels))
        entries.update({name: _entry(1.0, low, high, NO_ERRORS) for name in AVERAGES})
    entries["ece"] = {**_calibration_entry(values["ece"], resamples["ece"], ideal_error), "bins": BINS}
    return entries


def _averages(per_class: dict[str, dict[str, float | int]]) -> dict[str, float]:
    present = [scores for scores in per_class.values() if scores["support"] > 0]
    support = [scores["support"] for scores in present]
    macro = {f"macro_{name}": float(np.mean([row[name] for row in present])) for name in ("precision", "recall", "f1")}
    return {**macro, "weighted_f1": float(np.average([scores["f1"] for scores in present], weights=support))}


def _bootstrap(
    outcome: _Outcome, seed: int
) -> tuple[dict[str, npt.NDArray[np.float64]], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Each metric over R resamples of the pictures (R,), F1 a class (R, K), NaN where a resample lacks it, and the
    calibration error of an ideal network as confident as this one (R,)."""
    generator = np.random.default_rng(seed)
    count = len(outcome.labels)
    rows, class_f1, ideal = [], [], []
    for _ in progress.track(range(RESAMPLES), total=RESAMPLES, what="Confidence intervals", unit="resamples"):
        drawn = generator.integers(0, count, count)
        error = _calibration_error(outcome.bins[drawn], outcome.overconfidence[drawn])
        averages, f1 = _class_averages(outcome, drawn)
        rows.append((*averages, outcome.loss[drawn].mean(), error))
        class_f1.append(f1)
        luck = generator.random(count) < outcome.confidence
        ideal.append(_calibration_error(outcome.bins, outcome.confidence - luck))
    named = dict(zip((*AVERAGES, "log_loss", "ece"), np.array(rows).T, strict=True))
    return named, np.array(class_f1), np.array(ideal)


def _class_averages(
    outcome: _Outcome, drawn: npt.NDArray[np.int64]
) -> tuple[tuple[float, float, float, float], npt.NDArray[np.float64]]:
    """`AVERAGES` of the drawn pictures, and F1 a class (K,); defined as in `_per_class` and `_averages`."""
    labels, predicted = outcome.labels[drawn], outcome.predicted[drawn]
    support = np.bincount(labels, minlength=outcome.classes)
    answers = np.bincount(predicted, minlength=outcome.classes)
    hits = np.bincount(labels[labels == predicted], minlength=outcome.classes)
    present = support > 0
    support, answers, hits = support[present], answers[present], hits[present]
    f1 = 2 * hits / (support + answers)
    precision = hits / answers.clip(1)
    every_f1 = np.full(outcome.classes, np.nan)
    every_f1[present] = f1
    weighted = float(f1 @ support / len(drawn))
    return (float(precision.mean()), float((hits / support).mean()), float(f1.mean()), weighted), every_f1


def _calibration_error(bins: npt.NDArray[np.int64], overconfidence: npt.NDArray[np.float64]) -> float:
    """Expected calibration error (Guo et al. 2017): sum over bins of n_b / N * |accuracy_b - confidence_b|."""
    return float(np.abs(np.bincount(bins, weights=overconfidence)).sum() / len(bins))


def _calibration_entry(
    value: float, resampled: npt.NDArray[np.float64], ideal: npt.NDArray[np.float64]
) -> dict[str, Any]:
    low, high = np.quantile(resampled, (0.025, 0.975))
    excluded = value > np.quantile(ideal, 0.95)
    basic_low = float(np.clip(2 * value - high, 0, value)) if excluded else 0.0
    return _entry(value, basic_low, float(np.clip(2 * value - low, value, 1)), BASIC)


def _entry(value: float, low: float, high: float, method: str) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "method": method}
