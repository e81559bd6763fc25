"""Evaluation of a run: every number against scikit-learn, and a test split that cannot be looked at in secret."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn import metrics as sk

from darkroom.data.dataset import DataSet
from darkroom.errors import RunError, UsageError
from darkroom.evaluation import evaluate as module
from darkroom.evaluation.evaluate import evaluate
from darkroom.models.stored import load_network, save_network
from darkroom.runs import Run
from darkroom.training.machine import use_threads
from finished import CLASSES, Finished

SPLITS = ("validation", "test")
ENTRIES = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "weighted_f1", "top_k", "log_loss", "ece")


@pytest.fixture(autouse=True)
def threads() -> None:
    """As many as the finished run was granted: other tests change their number, and the last digits of sums with it."""
    use_threads(1)


@pytest.fixture
def copied(finished_run: Finished, tmp_path: Path) -> Finished:
    """A run to change."""
    return finished_run.copy(tmp_path / "run")


def forget_evaluation(run: Run) -> None:
    """The run as it was before any evaluation."""
    run.metrics.unlink()
    run.predictions.unlink()


def answers_of(run: Run, split: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Labels (N,) and tempered probabilities (N, K), from the run's files alone."""
    stored = np.load(run.predictions)
    return stored[f"{split}_labels"], softmax(
        stored[f"{split}_logits"].astype(np.float64) / run.read_metrics()["temperature"], axis=1
    )


def calibration_error(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], bins: int) -> float:
    """Guo et al. 2017, written the long way."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    total = 0.0
    for place in range(bins):
        inside = (confidence > place / bins) & (confidence <= (place + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("split", SPLITS)
def test_every_number_equals_an_independent_computation(finished_run: Finished, split: str) -> None:
    labels, probabilities = answers_of(finished_run.run, split)
    predicted = probabilities.argmax(axis=1)
    block = finished_run.run.read_metrics()[split]
    average: dict[str, Any] = {"zero_division": 0, "average": "macro"}
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "macro_precision": sk.precision_score(labels, predicted, **average),
        "macro_recall": sk.recall_score(labels, predicted, **average),
        "macro_f1": sk.f1_score(labels, predicted, **average),
        "weighted_f1": sk.f1_score(labels, predicted, average="weighted", zero_division=0),
        "top_k": sk.top_k_accuracy_score(labels, probabilities, k=block["top_k"]["k"]),
        "log_loss": sk.log_loss(labels, probabilities),
        "ece": calibration_error(labels, probabilities, block["ece"]["bins"]),
    }
    assert {name: block[name]["value"] for name in ENTRIES} == pytest.approx(expected, abs=1e-9)
    assert block["n"] == len(labels)
    assert block["confusion_matrix"] == sk.confusion_matrix(labels, predicted, labels=range(len(CLASSES))).tolist()
    report = sk.classification_report(labels, predicted, target_names=CLASSES, output_dict=True, zero_division=0)
    for name in CLASSES:
        row = {key.replace("f1-score", "f1"): value for key, value in report[name].items()}
        assert block["per_class"][name] == pytest.approx(row)


@pytest.mark.parametrize("split", SPLITS)
def test_every_number_lies_in_its_named_interval(finished_run: Finished, split: str) -> None:
    block = finished_run.run.read_metrics()[split]
    for name in ENTRIES:
        entry = block[name]
        assert entry["low"] <= entry["value"] <= entry["high"], name
        assert entry["method"], name
        assert entry["low"] < entry["high"], f"{name}: no certainty from 27 pictures"
    classes = ("per_class", "per_class_intervals", "per_class_methods")
    assert set(block) == {*ENTRIES, *classes, "confusion_matrix", "n"}
    for name, row in block["per_class"].items():
        for metric, interval in block["per_class_intervals"][name].items():
            assert interval is None or interval[0] <= row[metric] <= interval[1]


@pytest.mark.parametrize("split", SPLITS)
def test_confusion_matrix_and_accuracy_agree(finished_run: Finished, split: str) -> None:
    block = finished_run.run.read_metrics()[split]
    matrix = np.array(block["confusion_matrix"])
    assert block["accuracy"]["value"] == np.trace(matrix) / matrix.sum()
    assert matrix.sum(axis=1).tolist() == [row["support"] for row in block["per_class"].values()]
    assert 0 < block["accuracy"]["value"] < 1, "a perfect network would let errors pass here"


@pytest.mark.parametrize("split", SPLITS)
def test_predictions_are_those_of_the_split_in_the_manifest(finished_run: Finished, split: str) -> None:
    dataset, stored = finished_run.dataset(), finished_run.run.read_predictions(split)
    np.testing.assert_array_equal(stored.ids, dataset.manifest.indices(split))
    np.testing.assert_array_equal(stored.labels, dataset.manifest.labels()[stored.ids])
    assert [dataset.manifest.rows[id].split for id in stored.ids] == [split] * len(stored.ids)
    assert stored.logits.dtype == np.float32


@pytest.mark.parametrize("split", SPLITS)
def test_logits_are_the_networks_own(finished_run: Finished, split: str) -> None:
    import torch

    dataset, stored = finished_run.dataset(), finished_run.run.read_predictions(split)
    pictures = torch.from_numpy(np.array(dataset.pixels[stored.ids])).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        expected = load_network(finished_run.run)(pictures).numpy()
    np.testing.assert_allclose(stored.logits, expected, atol=1e-4)


def test_metrics_have_what_stands_beside_the_splits(finished_run: Finished) -> None:
    metrics = finished_run.run.read_metrics()
    names = {"temperature", "threshold", "threshold_rule", "threshold_coverage", "threshold_accuracy_answered"}
    assert set(metrics) == names | {"validation", "test", "test_openings", "train_seconds"}
    assert metrics["train_seconds"] == finished_run.run.read_config()["training"]["result"]["seconds"] > 0
    assert metrics["test_openings"] == 1


def test_validation_accuracy_is_what_training_chose(finished_run: Finished) -> None:
    result = finished_run.run.read_config()["training"]["result"]
    measured = finished_run.run.read_metrics()["validation"]["accuracy"]["value"]
    assert abs(measured - result["best_validation_accuracy"]) <= 1 / 27 + 1e-9, "bf16 may turn a doubtful picture"


def test_temperature_is_the_best_for_validation(finished_run: Finished) -> None:
    """Against another optimiser, of the same loss with one picture in N + 1 labelled at random."""
    stored = np.load(finished_run.run.predictions)
    logits, labels = stored["validation_logits"].astype(np.float64), stored["validation_labels"]
    count, classes = logits.shape
    targets = np.eye(classes)[labels] * (1 - 1 / (count + 1)) + 1 / (count + 1) / classes

    def loss(inverse: npt.NDArray[np.float64]) -> float:
        return float(-(targets * np.log(softmax(logits * inverse[0], axis=1))).sum(axis=1).mean())

    best = 1 / minimize(loss, [1.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12}).x[0]
    assert finished_run.run.read_metrics()["temperature"] == pytest.approx(best, rel=1e-3)


def test_threshold_keeps_its_word_on_validation(finished_run: Finished) -> None:
    metrics = finished_run.run.read_metrics()
    labels, probabilities = answers_of(finished_run.run, "validation")
    answered = probabilities.max(axis=1) >= metrics["threshold"]
    right = probabilities.argmax(axis=1) == labels
    assert metrics["threshold_coverage"] == pytest.approx(answered.mean())
    assert metrics["threshold_accuracy_answered"] == pytest.approx(right[answered].mean())


def with_test_labels_turned(dataset: DataSet) -> DataSet:
    """The data set with every test picture under the next class's name."""
    following = dict(zip(CLASSES, (*CLASSES[1:], CLASSES[0]), strict=True))
    rows = tuple(
        replace(row, label=following[row.label]) if row.split == "test" else row for row in dataset.manifest.rows
    )
    return replace(dataset, manifest=replace(dataset.manifest, rows=rows))


def test_test_labels_change_nothing_that_is_chosen(copied: Finished) -> None:
    before = copied.run.read_metrics()
    forget_evaluation(copied.run)
    after = evaluate(copied.run, with_test_labels_turned(copied.dataset()), split="test")
    assert after["test"]["accuracy"]["value"] < 0.5 < before["test"]["accuracy"]["value"]
    for name in before.keys() - {"test"}:
        assert after[name] == before[name], name


def test_evaluating_again_gives_the_same_numbers(copied: Finished) -> None:
    before = copied.run.read_metrics()
    assert evaluate(copied.run, copied.dataset(), split="validation") == before
    assert evaluate(copied.run, copied.dataset(), split="test") == {**before, "test_openings": 2}


def test_only_test_counts_as_an_opening(copied: Finished) -> None:
    forget_evaluation(copied.run)
    metrics = evaluate(copied.run, copied.dataset(), split="validation")
    assert metrics["test_openings"] == 0
    assert "test" not in metrics
    with pytest.raises(RunError, match="no predictions of test"):
        copied.run.read_predictions("test")
    assert evaluate(copied.run, copied.dataset(), split="validation")["test_openings"] == 0
    assert evaluate(copied.run, copied.dataset(), split="test")["test_openings"] == 1
    assert evaluate(copied.run, copied.dataset(), split="test")["test_openings"] == 2
    assert copied.run.read_metrics()["test_openings"] == 2


class Watched:
    """Pixels that refuse to be read once a picture of the test split is asked for."""

    def __init__(self, dataset: DataSet) -> None:
        self.pixels, self.shape = dataset.pixels, dataset.pixels.shape
        self.test = set(dataset.manifest.indices("test").tolist())

    def __getitem__(self, ids: Any) -> npt.NDArray[np.uint8]:
        if self.test & set(np.atleast_1d(ids).tolist()):
            raise KeyboardInterrupt
        return self.pixels[ids]


def test_an_interrupted_look_at_test_counts(copied: Finished) -> None:
    dataset = copied.dataset()
    watched = replace(dataset, pixels=Watched(dataset))  # type: ignore[arg-type]
    for expected in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            evaluate(copied.run, watched, split="test")
        assert copied.run.read_metrics()["test_openings"] == expected


def test_evaluating_validation_reads_no_test_picture(copied: Finished) -> None:
    dataset = copied.dataset()
    watched = replace(dataset, pixels=Watched(dataset))  # type: ignore[arg-type]
    assert evaluate(copied.run, watched, split="validation")["test_openings"] == 1


def test_the_opening_is_written_before_the_network_answers(copied: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def answering(*arguments: Any, **options: Any) -> Any:
        seen.append(json.loads(copied.run.metrics.read_text())["test_openings"])
        raise MemoryError("in the middle")

    monkeypatch.setattr(module, "logits_of", answering)
    with pytest.raises(MemoryError):
        evaluate(copied.run, copied.dataset(), split="test")
    assert seen == [2]


@pytest.mark.parametrize("split", ["train", "", "Test"])
def test_another_split_is_refused(copied: Finished, split: str) -> None:
    with pytest.raises(UsageError, match="give validation or test"):
        evaluate(copied.run, copied.dataset(), split=split)


def test_an_empty_split_is_refused_and_not_counted(copied: Finished) -> None:
    dataset = copied.dataset()
    rows = tuple(replace(row, split="train") if row.split == "test" else row for row in dataset.manifest.rows)
    without = replace(dataset, manifest=replace(dataset.manifest, rows=rows))
    with pytest.raises(UsageError, match="the test split is empty"):
        evaluate(copied.run, without, split="test")
    assert copied.run.read_metrics()["test_openings"] == 1


def test_a_run_without_weights_is_said_in_a_line(copied: Finished) -> None:
    copied.run.weights.unlink()
    with pytest.raises(RunError, match="has not ended"):
        evaluate(copied.run, copied.dataset())


def test_weights_that_are_not_finite_are_found(copied: Finished) -> None:
    network = load_network(copied.run)
    weights = {
        name: value * math.nan if value.is_floating_point() else value for name, value in network.state_dict().items()
    }
    save_network(copied.run, weights)
    before = copied.run.metrics.read_bytes()
    with pytest.raises(RunError, match="not finite"):
        evaluate(copied.run, copied.dataset())
    assert copied.run.metrics.read_bytes() == before


FIGURES = ("confusion_matrix", "per_class", "confused_pairs", "reliability", "worst_mistakes", "surest_mistakes")


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_for_both_splits(finished_run: Finished, name: str, split: str) -> None:
    path = finished_run.run.figure(f"{name}_{split}")
    assert path.with_suffix(".svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_figures_of_training_are_there_too(finished_run: Finished) -> None:
    names = {path.name for path in finished_run.run.figures.iterdir()}
    for name in ("learning_curves", "samples", "class_balance", "augmentation", "network"):
        assert {f"{name}.svg", f"{name}.png"} <= names


def test_deleting_the_metrics_does_not_unsee_the_test(copied: Finished) -> None:
    copied.run.metrics.unlink()
    assert evaluate(copied.run, copied.dataset())["test_openings"] == 1
