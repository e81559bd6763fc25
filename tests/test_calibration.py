"""Temperature, reliability and the "not sure" threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from darkroom.errors import DarkroomError
from darkroom.evaluation import calibration


def truthful_logits(seed: int, *, count: int, classes: int = 5):
    """Logits whose softmax is the very distribution their labels are drawn from."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, classes)) * 2
    cumulative = softmax(logits, axis=1).cumsum(axis=1)
    labels = (cumulative > generator.random((count, 1))).argmax(axis=1)
    return logits, labels


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5, 6.0])
def test_temperature_undoes_a_factor_on_the_logits(factor):
    logits, labels = truthful_logits(0, count=4000)
    assert calibration.fit_temperature((logits * factor).astype(np.float32), labels) == pytest.approx(factor, rel=0.06)


def test_temperature_lowers_the_log_loss_but_keeps_the_answers():
    logits, labels = truthful_logits(1, count=500)
    temperature = calibration.fit_temperature(logits * 4, labels)
    before, after = (calibration.probabilities(logits * 4, value) for value in (1.0, temperature))
    place = np.arange(len(labels))
    assert -np.log(after[place, labels]).mean() < -np.log(before[place, labels]).mean()
    assert np.array_equal(before.argmax(axis=1), after.argmax(axis=1))


@pytest.mark.parametrize("count", [1, 5, 100, 1000])
def test_a_faultless_validation_does_not_make_certain(count):
    labels = np.arange(count) % 3
    logits = np.eye(3)[labels] * 6 + np.random.default_rng(0).normal(size=(count, 3)) * 0.1
    temperature = calibration.fit_temperature(logits, labels)
    confidence = calibration.probabilities(logits, temperature).max(axis=1).mean()
    assert 0.05 < temperature < 20
    assert confidence == pytest.approx((count + 1 / 3) / (count + 1), abs=0.02)  # one picture in N + 1 at random


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5), st.sampled_from([1e-6, 1.0, 1e6]))
def test_temperature_stays_in_its_range(seed, count, scale):
    generator = np.random.default_rng(seed)
    logits, labels = generator.normal(size=(count, 4)) * scale, generator.integers(0, 4, count)
    low, high = calibration.TEMPERATURES
    assert low <= calibration.fit_temperature(logits, labels) <= high


def test_probabilities_are_stable():
    logits = np.array([[3e38, -3e38], [1000.0, 999.0], [0.0, 0.0]], dtype=np.float32)
    found = calibration.probabilities(logits, 0.5)
    assert found.sum(axis=1) == pytest.approx(1)
    assert found[0].tolist() == [1, 0]
    assert found[1, 0] == pytest.approx(1 / (1 + np.exp(-2)))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_temperature_is_refused(temperature):
    with pytest.raises(DarkroomError, match="temperature is"):
        calibration.probabilities(np.zeros((1, 2)), temperature)


def test_bins_close_above():
    confidence = np.array([0.0, 1 / 15, 1 / 15 + 1e-9, 0.5, 14 / 15, 1.0])
    assert calibration.confidence_bins(confidence).tolist() == [0, 0, 1, 7, 13, 14]


def test_reliability_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.97, 0.03], [0.4, 0.6]])
    found = calibration.reliability(np.array([0, 1, 1]), probabilities, bins=10)
    assert found.count.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 2]
    assert found.confidence[9] == pytest.approx(0.96)
    assert found.accuracy[[5, 9]].tolist() == [1, 0.5]
    assert found.low[9] == pytest.approx(0.0945, abs=1e-3)
    assert np.isnan(found.accuracy[0])
    assert np.isnan(found.confidence[0])
    assert len(found.edges) == 11


def binary(confidence, right):
    """Labels and probabilities of two classes, of which the first is always predicted."""
    confidence = np.array(confidence)
    return 1 - np.array(right, dtype=int), np.stack([confidence, 1 - confidence], axis=1)


def test_threshold_halves_the_error():
    labels, probabilities = binary([0.9, 0.8, 0.7, 0.6, 0.55], [1, 1, 1, 0, 0])
    found = calibration.not_sure_threshold(labels, probabilities)  # 2 of 5 wrong; of the four surest 1 of 4, too many
    assert (found.value, found.coverage, found.accuracy_answered) == (0.7, 0.6, 1.0)
    assert "half" in found.rule


def test_threshold_is_the_lowest_that_does():
    labels, probabilities = binary([0.9, 0.8, 0.7, 0.65, 0.6, 0.55], [1, 1, 1, 0, 1, 0])
    assert calibration.not_sure_threshold(labels, probabilities).value == 0.9 - 0.2
    labels, probabilities = binary([0.9, 0.8, 0.7, 0.65, 0.6, 0.55], [0, 1, 1, 1, 0, 0])  # 1/2 overall, 1/4 of four
    found = calibration.not_sure_threshold(labels, probabilities)
    assert (found.value, found.accuracy_answered) == (0.65, 0.75)
    assert "half" in found.rule, "exactly half is enough"


def test_threshold_without_errors_is_the_lowest_confidence_seen():
    labels, probabilities = binary([0.9, 0.6, 0.75], [1, 1, 1])
    found = calibration.not_sure_threshold(labels, probabilities)
    assert (found.value, found.coverage, found.accuracy_answered) == (0.6, 1.0, 1.0)
    assert "no error" in found.rule


def test_pictures_of_equal_confidence_stand_or_fall_together():
    labels, probabilities = binary([0.9, 0.7, 0.7, 0.7], [1, 1, 1, 0])  # of the ties, the right two alone would do
    found = calibration.not_sure_threshold(labels, probabilities)
    assert (found.value, found.coverage) == (0.9, 0.25)


def test_threshold_where_confidence_tells_nothing():
    labels, probabilities = binary([0.9, 0.8], [0, 0])
    found = calibration.not_sure_threshold(labels, probabilities)
    assert (found.value, found.accuracy_answered) == (0.8, 0.0)
    assert "no confidence halves" in found.rule


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.5, 0.6, 0.75, 0.9, 1.0]), st.booleans()), min_size=1, max_size=30))
def test_threshold_says_what_a_server_would_do(pictures):
    confidence, right = (np.array(column) for column in zip(*pictures, strict=True))
    found = calibration.not_sure_threshold(*binary(confidence, right))
    answered = confidence >= found.value
    assert 0 <= found.value <= 1
    assert found.coverage == pytest.approx(answered.mean())
    assert found.accuracy_answered == pytest.approx(right[answered].mean())
    assert found.accuracy_answered >= right.mean() - 1e-12


@pytest.mark.parametrize("measure", [calibration.fit_temperature, lambda x, y: calibration.reliability(y, x)])
def test_errors_are_one_line(measure):
    with pytest.raises(DarkroomError, match="no predictions"):
        measure(np.zeros((0, 3)), np.zeros(0, int))
    with pytest.raises(DarkroomError, match="not finite"):
        measure(np.array([[np.inf, 0]]), np.zeros(1, int))
