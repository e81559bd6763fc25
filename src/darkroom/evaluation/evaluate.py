"""Evaluation of a run: predictions of a split, its block of metrics.json, and its figures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from darkroom.data.dataset import DataSet
from darkroom.errors import RunError, UsageError
from darkroom.evaluation.calibration import Floats, calibrate, probabilities, reliability
from darkroom.evaluation.explain import activation_maps
from darkroom.evaluation.metrics import measure, most_confused, worst_mistakes
from darkroom.figures import evaluation as draw
from darkroom.figures.training import learning_curves
from darkroom.models.inference import best_device, logits_of
from darkroom.models.stored import load_network
from darkroom.progress import say
from darkroom.runs import Predictions, Run

SPLITS = ("validation", "test")
MISTAKES = {"worst_mistakes": 15, "surest_mistakes": 5}
"""Figures of them, for a page and for a slide, where letters must be larger, and how many each shows."""
PAIRS = 15
LOOKS = 9
"""Pictures named rightly, and as many mistakes, whose evidence is shown."""


def evaluate(run: Run, dataset: DataSet, *, split: str = "validation") -> dict[str, Any]:
    """Measure the chosen network on `split` and return the new content of metrics.json.

    Validation fits temperature and threshold; the test split is opened on purpose only, and each opening is counted
    *before* anything is computed, so that an interrupted look counts too.
    """
    if split not in SPLITS:
        raise UsageError(f"--split is {split}: give validation or test")
    if len(dataset.manifest.indices(split)) == 0:
        raise UsageError(f"the {split} split is empty: nothing can be measured on it")
    metrics = _metrics_so_far(run)
    if run.refitted:
        _require_judged_before(run, split, metrics)
    if split == "test":
        if "validation" not in metrics:
            metrics = evaluate(run, dataset, split="validation")
        metrics["test_openings"] += 1
        run.write_metrics(metrics)
    predictions = _predict(run, dataset, split)
    if split == "validation":
        metrics |= calibrate(predictions.logits, predictions.labels)
    metrics["train_seconds"] = run.train_seconds
    classes = dataset.manifest.classes
    answers = probabilities(predictions.logits, metrics["temperature"])
    metrics[split] = measure(predictions.labels, answers, classes)
    run.write_predictions(split, predictions)
    _draw(run, dataset, predictions, metrics, split)
    run.write_metrics(metrics)  # last: with them the evaluation is done
    return metrics


def _require_judged_before(run: Run, split: str, metrics: Mapping[str, Any]) -> None:
    """After a refit, test alone can judge, and temperature and threshold must be there already."""
    if "validation" not in metrics:
        raise RunError(
            f"{run.metrics} is gone, and with it what validation said before the refit: train again with --overwrite"
        )
    if split == "validation":
        raise UsageError(f"{run.folder} was refitted on validation, which cannot judge it any more: give --split test")
    say("The network was refitted on train and validation; what is known of validation is of the one before")


def _metrics_so_far(run: Run) -> dict[str, Any]:
    if run.metrics.exists():
        return run.read_metrics()
    # Whoever deleted metrics.json has not unseen the test pictures.
    return {"test_openings": int(run.has_predictions("test"))}


def _predict(run: Run, dataset: DataSet, split: str) -> Predictions:
    ids = dataset.manifest.indices(split)
    say(f"Evaluating {len(ids):,} pictures of {split}")
    device = best_device()
    # In float32, as the bundle answers, whatever arithmetic trained the network.
    logits = logits_of(load_network(run).to(device), dataset.pixels, ids, device=device)
    return Predictions(ids=ids, labels=dataset.manifest.labels()[ids], logits=logits)


def _draw(run: Run, dataset: DataSet, predictions: Predictions, metrics: Mapping[str, Any], split: str) -> None:
    block, classes = metrics[split], dataset.manifest.classes
    answers = probabilities(predictions.logits, metrics["temperature"])
    pairs = most_confused(block["confusion_matrix"], classes, PAIRS)
    draw.confusion_matrix(
        run.figure(f"confusion_matrix_{split}"), confusion=block["confusion_matrix"], classes=classes, pairs=pairs
    )
    draw.per_class(run.figure(f"per_class_{split}"), scores=block["per_class"])
    draw.confused_pairs(run.figure(f"confused_pairs_{split}"), pairs=pairs)
    bins = reliability(predictions.labels, answers)
    draw.reliability_diagram(
        run.figure(f"reliability_{split}"),
        count=bins.count,
        confidence=bins.confidence,
        accuracy=bins.accuracy,
        low=bins.low,
        high=bins.high,
        ece=block["ece"],
        threshold=metrics["threshold"],
    )
    for name, most in MISTAKES.items():
        worst = worst_mistakes(predictions.labels, answers, most)
        draw.worst_mistakes(
            run.figure(f"{name}_{split}"),
            pixels=np.asarray(dataset.pixels[predictions.ids[worst]]),
            true=[classes[label] for label in predictions.labels[worst]],
            predicted=[classes[label] for label in answers[worst].argmax(axis=1)],
            confidence=answers[worst].max(axis=1).tolist(),
        )
    _draw_maps(run, dataset, predictions, answers, split)
    best = run.read_config()["training"]["result"]["best_epoch"]
    if history := run.read_history():  # a frozen network has none
        learning_curves(run.figure("learning_curves"), history=history, best_epoch=best)


def _draw_maps(run: Run, dataset: DataSet, predictions: Predictions, answers: Floats, split: str) -> None:
    """Where the network looks, in pictures that it names rightly and in its worst mistakes."""
    classes = dataset.manifest.classes
    wrong = worst_mistakes(predictions.labels, answers, LOOKS)
    right = np.flatnonzero(answers.argmax(axis=1) == predictions.labels)
    right = right[np.linspace(0, len(right) - 1, min(LOOKS, len(right))).round().astype(int)]
    places = np.concatenate([right, wrong])
    pixels = np.asarray(dataset.pixels[predictions.ids[places]])
    said = answers[places].argmax(axis=1)
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    maps = activation_maps(load_network(run), pictures, torch.from_numpy(said))
    if maps is None:
        kind = run.read_config()["network"]["kind"]
        say(f"No activation maps: where the features of {kind} lie in a picture is not known")
        return
    looks = [
        draw.Look(pixels[row], maps[row].numpy(), classes[predictions.labels[place]], classes[said[row]])
        for row, place in enumerate(places)
    ]
    draw.activation_maps(run.figure(f"activation_maps_{split}"), looks=looks)
