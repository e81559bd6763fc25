"""Metrics agree with scikit-learn and with sums done by hand, and their intervals cover what they should."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn import metrics as reference

from darkroom.errors import RunError
from darkroom.evaluation import metrics

AVERAGED = ("macro_precision", "macro_recall", "macro_f1", "weighted_f1")
ENTRIES = ("accuracy", "top_k", "log_loss", "ece", *AVERAGED)


def drawn_split(seed: int, *, count: int, classes: int, skill: float = 2.0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes)) + skill * np.eye(classes)[labels]
    return labels, softmax(logits, axis=1), [f"class {place}" for place in range(classes)]


@pytest.fixture(autouse=True)
def few_resamples(request, monkeypatch):
    """Point values need no 2,000 resamples; tests of intervals ask for them."""
    if "all_resamples" not in request.fixturenames:
        monkeypatch.setattr(metrics, "RESAMPLES", 40)


@pytest.fixture
def all_resamples():
    assert metrics.RESAMPLES == 2000


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60), classes=st.integers(2, 12))
def test_values_agree_with_scikit_learn(seed, count, classes):
    labels, probabilities, names = drawn_split(seed, count=count, classes=classes, skill=1.0)
    predicted, present = probabilities.argmax(axis=1), np.unique(labels)
    block = metrics.measure(labels, probabilities, names)
    value = {name: block[name]["value"] for name in ENTRIES}
    options = {"labels": present, "zero_division": 0}
    assert value["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert value["macro_precision"] == pytest.approx(
        reference.precision_score(labels, predicted, average="macro", **options)
    )
    assert value["macro_recall"] == pytest.approx(reference.recall_score(labels, predicted, average="macro", **options))
    assert value["macro_f1"] == pytest.approx(reference.f1_score(labels, predicted, average="macro", **options))
    assert value["weighted_f1"] == pytest.approx(reference.f1_score(labels, predicted, average="weighted", **options))
    assert value["log_loss"] == pytest.approx(reference.log_loss(labels, probabilities, labels=range(classes)))
    assert np.array_equal(
        block["confusion_matrix"], reference.confusion_matrix(labels, predicted, labels=range(classes))
    )
    if classes > 2:
        top = reference.top_k_accuracy_score(labels, probabilities, k=block["top_k"]["k"], labels=range(classes))
        assert value["top_k"] == pytest.approx(top)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), classes=st.integers(1, 12))
def test_resampled_metric_of_all_pictures_is_the_metric(seed, count, classes):
    labels, probabilities, names = drawn_split(seed, count=count, classes=classes, skill=1.0)
    block = metrics.measure(labels, probabilities, names)
    outcome = metrics._outcome(labels, probabilities)
    again = metrics._class_averages(outcome, np.arange(count))
    assert again[0] == pytest.approx([block[name]["value"] for name in AVERAGED])
    present = [row["f1"] for row in block["per_class"].values() if row["support"]]
    assert again[1][~np.isnan(again[1])] == pytest.approx(present)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), classes=st.integers(1, 12), skill=st.floats(0, 9))
def test_intervals_hold_their_value_and_everything_is_json(seed, count, classes, skill):
    block = metrics.measure(*drawn_split(seed, count=count, classes=classes, skill=skill))
    for name in ENTRIES:
        entry = block[name]
        assert 0 <= entry["low"] <= entry["value"] <= entry["high"], name
        assert entry["method"]
        assert name == "log_loss" or entry["high"] <= 1 + 1e-9
    assert json.loads(json.dumps(block, allow_nan=False)) == block
    assert block["n"] == count == np.sum(block["confusion_matrix"])


def test_by_hand():
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
    block = metrics.measure(labels, probabilities, ["cat", "dog"])
    assert block["confusion_matrix"] == [[2, 1], [0, 1]]
    assert block["per_class"]["cat"] == pytest.approx({"precision": 1, "recall": 2 / 3, "f1": 0.8, "support": 3})
    assert block["per_class"]["dog"] == pytest.approx({"precision": 0.5, "recall": 1, "f1": 2 / 3, "support": 1})
    assert block["weighted_f1"]["value"] == pytest.approx((3 * 0.8 + 2 / 3) / 4)
    assert block["log_loss"]["value"] == pytest.approx(-np.log([0.9, 0.8, 0.3, 0.55]).mean())
    # bins of width 1/15: .9, .8, .7 and .55 lie alone in theirs
    assert block["ece"]["value"] == pytest.approx((0.1 + 0.2 + 0.7 + 0.45) / 4)
    assert block["accuracy"]["low"] == pytest.approx(0.3006, abs=1e-4)  # Wilson's interval of 3 of 4
    assert block["accuracy"]["high"] == pytest.approx(0.9544, abs=1e-4)


def test_a_class_missing_from_the_split_distorts_nothing():
    labels, probabilities, names = drawn_split(3, count=50, classes=4)
    padded = np.insert(probabilities, 2, 0.0, axis=1)  # a fifth class in the middle, never true, never predicted
    shifted = labels + (labels >= 2)
    plain = metrics.measure(labels, probabilities, names)
    block = metrics.measure(shifted, padded, [*names[:2], "missing", *names[2:]])
    for name in (*AVERAGED, "accuracy", "log_loss", "ece"):
        assert block[name] == plain[name]
    assert block["per_class"]["missing"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert list(block["per_class"]) == [*names[:2], "missing", *names[2:]]


@pytest.mark.parametrize(("classes", "k"), [(1, 1), (2, 1), (3, 2), (5, 2), (6, 3), (10, 3), (11, 5), (1000, 5)])
def test_top_k_fits_the_number_of_classes(classes, k):
    assert metrics.top_k_for(classes) == k


def test_ties_count_as_the_first_class_everywhere():
    block = metrics.measure(np.array([1, 0]), np.full((2, 2), 0.5), ["cat", "dog"])
    assert block["accuracy"]["value"] == block["top_k"]["value"] == 0.5
    assert block["confusion_matrix"] == [[1, 0], [1, 0]]


def test_no_mistake_gives_no_interval_of_width_zero(all_resamples):
    labels = np.arange(100) % 4
    block = metrics.measure(labels, np.eye(4)[labels] * 0.6 + 0.1, list("abcd"))
    for name in ("accuracy", *AVERAGED):
        assert block[name]["value"] == 1
        assert block[name]["low"] == pytest.approx(0.963, abs=1e-3)


def test_a_certain_mistake_has_a_finite_loss():
    block = metrics.measure(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]), ["cat", "dog"])
    assert block["log_loss"]["value"] == pytest.approx(36.04 / 2, abs=0.01)


def test_same_seed_same_numbers():
    split = drawn_split(1, count=80, classes=3)
    assert metrics.measure(*split) == metrics.measure(*split)
    assert metrics.measure(*split, seed=1)["macro_f1"] != metrics.measure(*split)["macro_f1"]


@pytest.mark.slow
def test_intervals_cover_the_truth(monkeypatch):
    """95 % intervals of 150 simulated splits hold the population's value about 95 % of the time."""
    monkeypatch.setattr(metrics, "RESAMPLES", 250)
    names = ("accuracy", "macro_f1", "weighted_f1", "log_loss", "ece")
    covered = dict.fromkeys(names, 0)
    labels, probabilities, classes = drawn_split(0, count=60_000, classes=3)
    whole = metrics.measure(labels, probabilities, classes)
    generator = np.random.default_rng(5)
    for trial in range(150):
        part = generator.integers(0, len(labels), 250)
        block = metrics.measure(labels[part], probabilities[part], classes, seed=trial)
        for name in names:
            covered[name] += block[name]["low"] <= whole[name]["value"] <= block[name]["high"]
    assert all(covered[name] >= 0.88 * 150 for name in names), covered
    assert covered["macro_f1"] < 150, "an interval that always covers is too wide"


def test_ideal_calibration_is_not_excluded_by_chance(monkeypatch):
    """The value of an ideally calibrated network is above 0 by chance; its interval reaches down to 0 all the same."""
    monkeypatch.setattr(metrics, "RESAMPLES", 200)
    generator = np.random.default_rng(2)
    reaches_zero = 0
    for trial in range(100):
        confidence = generator.uniform(0.5, 1, 200)
        probabilities = np.stack([confidence, 1 - confidence], axis=1)
        labels = (generator.random(200) > confidence).astype(np.int64)
        reaches_zero += metrics.measure(labels, probabilities, ["a", "b"], seed=trial)["ece"]["low"] == 0
    assert 87 <= reaches_zero <= 99


def test_gross_overconfidence_is_excluded_from_ideal_calibration():
    labels = np.arange(200) % 2
    block = metrics.measure(labels, np.tile([0.95, 0.05], (200, 1)), ["a", "b"])
    assert block["ece"]["value"] == pytest.approx(0.45)
    assert block["ece"]["low"] > 0.3


def test_is_fast_enough_for_a_large_split(all_resamples):
    split = drawn_split(0, count=10_000, classes=100)
    started = time.perf_counter()
    metrics.measure(*split)
    assert time.perf_counter() - started < 8


@pytest.mark.parametrize(
    ("labels", "probabilities", "said"),
    [
        (np.zeros(0, int), np.zeros((0, 2)), "no predictions"),
        (np.array([0, 2]), np.full((2, 2), 0.5), "outside the 2 classes"),
        (np.array([0, -1]), np.full((2, 2), 0.5), "outside the 2 classes"),
        (np.array([0]), np.full((2, 2), 0.5), "do not fit"),
        (np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 0.5]]), "1 of 2 predictions are not finite"),
        (np.array([0, 1]), np.full((2, 3), 1 / 3), "3 classes, the run has 2"),
    ],
)
def test_errors_are_one_line(labels, probabilities, said):
    with pytest.raises(RunError, match=said) as caught:
        metrics.measure(labels, probabilities, ["cat", "dog"])
    assert "\n" not in str(caught.value)


def test_most_confused_pairs_come_first():
    confusion = [[5, 2, 0], [2, 1, 4], [0, 0, 0]]
    pairs = metrics.most_confused(confusion, ["cat", "dog", "fox"], 5)
    assert pairs == [("dog", "fox", 4, 4 / 7), ("cat", "dog", 2, 2 / 7), ("dog", "cat", 2, 2 / 7)]
    assert metrics.most_confused(confusion, ["cat", "dog", "fox"], 1) == pairs[:1]
    assert metrics.most_confused([[3, 0], [0, 2]], ["cat", "dog"], 5) == []


def test_worst_mistakes_are_wrong_and_confident():
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.05, 0.95], [0.4, 0.6]])
    labels = np.array([0, 0, 0, 1, 0])
    assert metrics.worst_mistakes(labels, probabilities, 10).tolist() == [2, 1, 4]
    assert metrics.worst_mistakes(labels, probabilities, 2).tolist() == [2, 1]
    assert metrics.worst_mistakes(labels[:1], probabilities[:1], 3).tolist() == []


def test_intervals_of_classes(all_resamples):
    labels, probabilities, names = drawn_split(3, count=300, classes=3, skill=1.5)
    block = metrics.measure(labels, probabilities, names)
    predicted = probabilities.argmax(axis=1)
    for label, (class_name, row) in enumerate(block["per_class"].items()):
        intervals = block["per_class_intervals"][class_name]
        hits = int(((labels == label) & (predicted == label)).sum())
        for name, trials in (("precision", (predicted == label).sum()), ("recall", (labels == label).sum())):
            assert intervals[name] == pytest.approx(metrics.wilson(hits, int(trials)))
        low, high = intervals["f1"]
        assert low < row["f1"] < high
        assert 0.05 < high - low < 0.3
    assert set(block["per_class_methods"]) == {"precision", "recall", "f1"}


def test_a_class_without_pictures_or_answers_has_no_interval():
    block = metrics.measure(np.array([0, 0, 1]), np.eye(3)[[0, 0, 1]], ["a", "b", "c"])
    intervals = block["per_class_intervals"]
    assert intervals["c"] == {"precision": None, "recall": None, "f1": None}
    assert intervals["a"]["f1"] == intervals["a"]["recall"]
    json.dumps(block, allow_nan=False)
