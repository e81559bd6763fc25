"""What is deduced of a run: each piece of advice has its rule, and every number can be counted by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.data.manifest import Manifest, Row
from darkroom.errors import RunError
from darkroom.export.card import command_of
from darkroom.report import insights
from darkroom.report.insights import deduce, insights_of
from darkroom.runs import Predictions
from finished import CLASSES, SIDE, Finished

Matrix = Sequence[Sequence[int]]

EVEN: Matrix = (np.ones((6, 6), int) + 29 * np.eye(6, dtype=int)).tolist()
"""Six classes that are all confused alike: no two of them have a tenth of the mistakes."""
LAYERS = [
    {"name": "normalise", "output_shape": [3, 8, 8], "parameters": 0, "multiply_adds": 0},
    {"name": "stem.convolution", "output_shape": [8, 8, 8], "parameters": 216, "multiply_adds": 13_824},
    {"name": "stem.activation", "output_shape": [8, 7, 7], "parameters": 0, "multiply_adds": 0},
    {"name": "stage1.first", "output_shape": [16, 4, 4], "parameters": 1152, "multiply_adds": 73_728},
    {"name": "stage1.rest.0", "output_shape": [16, 4, 4], "parameters": 32, "multiply_adds": 0},
    {"name": "pool", "output_shape": [16], "parameters": 0, "multiply_adds": 0},
    {"name": "head", "output_shape": [6], "parameters": 102, "multiply_adds": 96},
]


def answers_of(confusion: Matrix, confidence: float | Sequence[float]) -> Predictions:
    """Predictions with this confusion matrix, row by row, each with its confidence."""
    counts = np.array(confusion)
    labels, said = np.repeat(np.argwhere(counts >= 0), counts.ravel(), axis=0).T
    sure = np.broadcast_to(np.asarray(confidence, float), labels.shape)
    classes = len(counts)
    logits = np.zeros((len(labels), classes), np.float32)
    logits[np.arange(len(labels)), said] = np.log(sure / (1 - sure) * (classes - 1))
    return Predictions(np.arange(len(labels)), labels.astype(np.int64), logits)


def scores(counts: npt.NDArray[np.int64], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """`per_class` of metrics.json, as far as insights read it."""
    hits, given_to, support = counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1)
    f1 = 2 * hits / np.maximum(1, given_to + support)
    return {name: {"f1": float(f1[place]), "support": int(support[place])} for place, name in enumerate(names)}


def deduced(
    confusion: Matrix = EVEN,
    *,
    confidence: float | Sequence[float] = 0.8,
    train: Sequence[int] = (),
    reached: tuple[float, float] = (0.94, 0.92),
    epochs: tuple[int, int] = (2, 3),
    before: float = 0.8,
    interval: tuple[float, float] = (0.91, 0.94),
    threshold: float = 0.5,
    split: str = "test",
    **training: Any,
) -> dict[str, Any]:
    """Insights of drawn numbers.

    `reached` are the accuracies on training views and validation in the best epoch, `epochs` the best one and how many
    there were, `before` the accuracy on validation in all others, `train` the training pictures of each class, and
    `training` what config.json says of it; as they are here, nothing is to be advised.
    """
    counts = np.array(confusion)
    names = [f"class {place}" for place in range(len(counts))]
    block = {
        "per_class": scores(counts, names),
        "confusion_matrix": counts.tolist(),
        "n": int(counts.sum()),
        "accuracy": dict(zip(("low", "high"), interval, strict=True)),
    }
    best, planned = epochs
    rows = [
        {"train_accuracy": before, "validation_accuracy": before, "images_per_second": 100.0 + 10 * place**2}
        for place in range(planned)
    ]
    if best:
        rows[best - 1] |= dict(zip(("train_accuracy", "validation_accuracy"), reached, strict=True))
    counted = {"train": dict(zip(names, train or [100] * len(names), strict=True)), "test": {"class 0": 9}}
    result = {"best_epoch": best, "epochs": planned, "seconds": 100.0, "stopped_early": False}
    config = {
        "data": {"counts": counted},
        "training": {"result": result, "device": "cpu", "threads": 2, **training},
        "hardware": {"memory_bytes": 8e9},
        "network": {"layers": LAYERS},
    }
    metrics = {split: block, "temperature": 1.0, "threshold": threshold}
    return deduce(config, metrics, rows, split=split, predictions=answers_of(confusion, confidence))


def one_pair(mistakes: int) -> Matrix:
    """The even matrix with so many more mistakes between its last two classes."""
    counts = np.array(EVEN)
    counts[4, 5] += mistakes
    matrix: Matrix = counts.tolist()
    return matrix


def weak() -> Matrix:
    """The even matrix with fewer right answers for class 2, which so has the lowest F1."""
    counts = np.array(EVEN)
    counts[2, 2] = 20
    matrix: Matrix = counts.tolist()
    return matrix


def test_where_all_is_well_nothing_is_advised() -> None:
    assert deduced()["advice"] == []


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"reached": (0.96, 0.92)}, ["by_heart"]),
        ({"reached": (0.94, 0.92)}, []),
        ({"reached": (0.85, 0.92)}, []),
        ({"epochs": (6, 6)}, ["longer"]),
        ({"epochs": (5, 6)}, []),
        ({"epochs": (4, 4)}, []),
        ({"epochs": (6, 6), "before": 0.906}, []),
        ({"epochs": (6, 6), "before": 0.904}, ["longer"]),
        ({"confusion": one_pair(1)}, []),
        ({"confusion": one_pair(40)}, ["pair"]),
        ({"confusion": [[9, 0, 0], [0, 9, 4], [0, 0, 9]]}, []),
        ({"confusion": [[9, 0, 0], [0, 9, 4], [0, 1, 9]]}, ["pair"]),
        ({"confusion": [[9, 5, 0], [0, 9, 5], [0, 0, 9]]}, []),
        ({"confusion": [[40, 3], [2, 40]]}, []),
        ({"confidence": 0.951}, ["labels"]),
        ({"confidence": 0.949}, []),
        ({"confusion": weak(), "train": [100, 100, 49, 100, 100, 100]}, ["small_class"]),
        ({"confusion": weak(), "train": [100, 100, 50, 100, 100, 100]}, []),
        ({"confusion": weak(), "train": [100, 100, 100, 49, 100, 100]}, []),
        ({"interval": (0.9, 0.945)}, ["more_test"]),
        ({"interval": (0.9, 0.935)}, []),
        ({"split": "validation", "interval": (0.8, 0.945)}, ["open_test"]),
    ],
)
def test_advice_is_given_exactly_when_its_rule_says(changes: dict[str, Any], advice: list[str]) -> None:
    assert deduced(**changes)["advice"] == advice


def test_the_strongest_evidence_comes_first() -> None:
    everything = deduced(
        one_pair(40),
        confidence=0.97,
        train=[100, 100, 100, 100, 30, 30],
        reached=(0.99, 0.8),
        epochs=(6, 6),
        before=0.6,
        interval=(0.7, 0.9),
    )
    assert everything["advice"] == ["by_heart", "longer", "pair", "labels", "small_class", "more_test"]


def test_classes_are_ranked_by_f1_and_those_without_pictures_left_out() -> None:
    matrix = [[9, 1, 0, 0], [0, 5, 0, 5], [0, 0, 0, 0], [0, 0, 0, 10]]
    assert deduced(matrix)["ranking"] == ["class 1", "class 3", "class 0"]


def test_both_ways_of_confusing_two_classes_are_counted() -> None:
    found = deduced([[50, 4, 0], [3, 50, 6], [0, 0, 50]])["confused"]
    assert found["both"] == {
        "one": "class 0",
        "other": "class 1",
        "n": 7,
        "there": 4,
        "back": 3,
        "share": pytest.approx(7 / 13),
        "stands_out": True,
    }
    assert [(pair["true"], pair["said"], pair["count"]) for pair in found["pairs"]] == [
        ("class 1", "class 2", 6),
        ("class 0", "class 1", 4),
        ("class 1", "class 0", 3),
    ]
    assert [pair["share"] for pair in found["pairs"]] == pytest.approx([6 / 59, 4 / 54, 3 / 59])
    assert len(deduced(EVEN)["confused"]["pairs"]) == 5


@pytest.mark.parametrize(
    ("matrix", "pair", "ways", "stands_out"),
    [
        ([[9, 0, 0], [4, 9, 0], [0, 0, 9]], ("class 1", "class 0"), (4, 0), True),
        ([[9, 4, 0], [5, 9, 0], [0, 0, 9]], ("class 1", "class 0"), (5, 4), True),
        ([[9, 1, 0], [0, 9, 0], [0, 0, 9]], ("class 0", "class 1"), (1, 0), False),
        ([[9, 2, 0], [0, 9, 2], [0, 0, 9]], ("class 0", "class 1"), (2, 0), False),
    ],
)
def test_each_way_of_confusing_is_known(
    matrix: Matrix, pair: tuple[str, str], ways: tuple[int, int], stands_out: bool
) -> None:
    both = deduced(matrix)["confused"]["both"]
    assert (both["one"], both["other"]) == pair
    assert (both["there"], both["back"]) == ways
    assert both["stands_out"] is stands_out


def test_classes_that_are_alike_are_counted() -> None:
    assert deduced([[9, 0, 0, 0], [0, 9, 0, 0], [0, 0, 8, 1], [0, 0, 1, 8]])["alike"] == {
        "lowest": 2,
        "highest": 2,
        "flawless": 2,
    }
    assert deduced(weak())["alike"] == {"lowest": 1, "highest": 5, "flawless": 0}


def test_without_mistakes_no_classes_are_confused() -> None:
    found = deduced((30 * np.eye(4, dtype=int)).tolist(), confidence=0.99)
    assert found["confused"] == {"pairs": []}
    assert found["mistakes"] == {"n": 0, "of": 120, "sure": 0, "sure_from": 0.95}
    assert found["advice"] == []


def test_two_classes_are_reported_too() -> None:
    found = deduced([[40, 3], [2, 40]], confidence=[0.97] * 41 + [0.6] * 44)
    assert found["confused"]["both"]["share"] == 1.0
    assert found["confused"]["both"]["n"] == 5
    assert found["mistakes"] == {"n": 5, "of": 85, "sure": 1, "sure_from": 0.95}
    assert found["ranking"] == ["class 0", "class 1"]
    assert found["advice"] == ["labels"], "of two classes, each mistake is between the two"


def test_not_sure_is_what_lies_below_the_threshold() -> None:
    # right, right, right, wrong | wrong, right, right, right
    confidence = [0.9, 0.69, 0.71, 0.72, 0.4, 0.95, 0.6, 0.99]
    found = deduced([[3, 1, 0], [0, 0, 1], [0, 0, 3]], confidence=confidence, threshold=0.7)["not_sure"]
    assert found == {"threshold": 0.7, "share": pytest.approx(3 / 8), "accuracy": pytest.approx(4 / 5)}
    nothing = deduced(EVEN, threshold=0.9)["not_sure"]
    assert (nothing["share"], nothing["accuracy"]) == (1.0, None)
    everything = deduced(EVEN, threshold=0.1)["not_sure"]
    assert (everything["share"], everything["accuracy"]) == (0.0, pytest.approx(180 / 210))


def test_bins_of_confidence_hold_every_picture_once() -> None:
    bins = deduced([[6, 2], [0, 8]], confidence=[0.81] * 8 + [0.99] * 8)["calibration"]
    assert [(row["n"], row["accuracy"]) for row in bins] == [(8, 0.75), (8, 1.0)]
    assert [row["confidence"] for row in bins] == pytest.approx([0.81, 0.99], abs=1e-5)


def test_training_is_told_by_its_best_epoch_and_median_speed() -> None:
    assert deduced(reached=(0.97, 0.9), epochs=(2, 4))["training"] == {
        "train_accuracy": 0.97,
        "validation_accuracy": 0.9,
        "gap": pytest.approx(0.07),
        "last_third": pytest.approx(0.8 - 0.9),
        "images_per_second": 125.0,
    }
    assert deduced(epochs=(0, 3))["training"] == {}, "what was there before the first epoch stayed the best"
    assert "longer" not in deduced(epochs=(0, 0))["advice"]


def test_energy_is_estimated_for_processors_only() -> None:
    watts = 2 * 12 + 8 * 0.3725
    assert deduced()["energy"] == {
        "joules": pytest.approx(100 * watts),
        "watts_a_core": 12.0,
        "watts_a_gigabyte": 0.3725,
    }
    assert deduced(device="cuda")["energy"] == {}


def test_a_refit_costs_time_and_energy_too() -> None:
    refitted = deduced(refit={"seconds": 50.0})
    assert refitted["time"]["seconds"] == 150.0
    assert refitted["energy"]["joules"] == pytest.approx(1.5 * deduced()["energy"]["joules"])
    assert deduced()["time"]["seconds"] == 100.0


@pytest.mark.parametrize(
    ("planned", "budget", "said"),
    [(5, 60.0, "shortened"), (3, 60.0, ""), (2, 60.0, "lengthened"), (5, None, "")],
)
def test_the_clock_is_told_of_where_it_moved_the_end(planned: int, budget: float | None, said: str) -> None:
    found = deduced(epochs=(2, 3), settings={"epochs": planned}, plan={"budget": budget})
    assert found["time"]["clock"] == said


def test_layers_are_told_by_stages() -> None:
    assert deduced()["layers"] == [
        {"name": "stem", "layers": 1, "output_shape": [8, 7, 7], "parameters": 216, "multiply_adds": 13_824},
        {"name": "stage1", "layers": 2, "output_shape": [16, 4, 4], "parameters": 1184, "multiply_adds": 73_728},
        {"name": "head", "layers": 1, "output_shape": [6], "parameters": 102, "multiply_adds": 96},
    ]


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("stage2.rest.0", "stage2"),
        ("head", "head"),
        ("body.blocks.3.0.conv", "body.blocks.3"),
        ("body.conv_stem", "body.conv_stem"),
        ("body.stem.norm.bias", "body.stem"),
    ],
)
def test_stages_of_our_networks_and_of_others(name: str, stage: str) -> None:
    assert insights._stage(name) == stage


@settings(max_examples=40)
@given(
    st.integers(2, 5).flatmap(
        lambda size: st.lists(st.lists(st.integers(0, 6), min_size=size, max_size=size), min_size=size, max_size=size)
    )
)
def test_counts_agree_with_each_other(matrix: list[list[int]]) -> None:
    matrix[0][0] += 1
    counts = np.array(matrix)
    found = deduced(matrix)
    wrong = int(counts.sum() - counts.trace())
    assert found["mistakes"]["n"] == wrong
    assert ("both" in found["confused"]) == (wrong > 0)
    if wrong:
        both = found["confused"]["both"]
        assert both["n"] == max(int(counts[a, b] + counts[b, a]) for a in range(len(counts)) for b in range(a))
        assert both["share"] == both["n"] / wrong
    assert sum(row["n"] for row in found["calibration"]) == counts.sum()
    assert len(found["ranking"]) == (counts.sum(axis=1) > 0).sum()
    assert json.loads(json.dumps(found, allow_nan=False)) == found, "as it comes back from insights.json"


def drawn_manifest(*rows: tuple[str, int, int, int]) -> Manifest:
    """A manifest of pictures with label, width, height and smallest copy."""
    pictures = tuple(
        Row(place, f"{place}.png", label, "train", "0" * 64, width, height, group)
        for place, (label, width, height, group) in enumerate(rows)
    )
    return Manifest(Path(), ("cat", "dog"), pictures, "")


def test_pictures_are_measured_and_counted() -> None:
    manifest = drawn_manifest(("cat", 10, 90, 0), ("cat", 30, 20, 0), ("dog", 20, 40, 2), ("cat", 25, 30, 0))
    assert insights._data(manifest) == {
        "copies": 2,
        "conflicts": 0,
        "smallest": [10, 20],
        "median": [22, 35],
        "largest": [30, 90],
        "largest_class": {"name": "cat", "n": 3},
        "smallest_class": {"name": "dog", "n": 1},
    }


def test_copies_with_two_labels_are_counted() -> None:
    assert insights._data(drawn_manifest(("cat", 9, 9, 0), ("dog", 9, 9, 0), ("cat", 9, 9, 2)))["conflicts"] == 2


def test_a_run_is_judged_by_test_where_it_was_opened(finished_run: Finished, tmp_path: Path) -> None:
    run = finished_run.copy(tmp_path / "run").run
    found = insights_of(run)
    metrics = run.read_metrics()
    assert found["split"] == "test"
    assert found["mistakes"]["of"] == metrics["test"]["n"]
    assert set(found["ranking"]) == set(CLASSES)
    assert found["command"] == command_of(run.read_config())
    assert found["data"]["smallest"] == found["data"]["largest"] == [SIDE, SIDE]
    del metrics["test"]
    run.write_metrics(metrics)
    assert insights_of(run)["split"] == "validation"


def test_a_refitted_run_can_be_judged_by_test_only(finished_run: Finished, tmp_path: Path) -> None:
    run = finished_run.copy(tmp_path / "run").run
    config, metrics = run.read_config(), run.read_metrics()
    config["training"]["refit"] = {"pictures": 150, "leaks": 0, "epochs": 4, "steps": 9, "seconds": 1.0}
    run.write_config(config)
    assert insights_of(run)["split"] == "test"
    del metrics["test"]
    run.write_metrics(metrics)
    with pytest.raises(RunError, match="test"):
        insights_of(run)
