"""What the numbers of a run mean, deduced by stated rules; insights.json holds the evidence, templates the words.

Everything here follows from files of the run, so `darkroom verify` deduces it anew and compares.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from darkroom.data.manifest import Manifest
from darkroom.errors import RunError
from darkroom.evaluation.calibration import probabilities, reliability
from darkroom.evaluation.metrics import most_confused
from darkroom.export.card import command_of
from darkroom.runs import Predictions, Run

Content = Mapping[str, Any]

PAIRS = 5
SURE = 0.95
"""Confidence from which a mistake may be the label's."""
WIDE_GAP = 0.03
"""By which accuracy on training views exceeds that on validation where pictures are learned by heart."""
LARGE_SHARE = 0.1
"""Of all mistakes, from which one pair of classes is worth work of its own."""
SEVERAL = 5
"""Mistakes from which a pair of classes is more than chance, and pictures of them are worth looking for."""
WIDE_INTERVAL = 0.04
"""Width of an accuracy's interval from which more test pictures would say more."""
WATTS_A_CORE, WATTS_A_GIGABYTE = 12.0, 0.3725
"""Of a processor that is not known, and of memory (Lannelongue, Grealey and Inouye 2021, "Green Algorithms")."""
IMBALANCED = 0.5
"""Part of the largest class below which a class is small."""


def insights_of(run: Run) -> dict[str, Any]:
    """The content of insights.json; raises `RunError` where the run lacks a file.

    `split` is the one that the headline is about: test where it was opened, else validation.
    """
    config, metrics = run.read_config(), run.read_metrics()
    judges = run.judges()
    if not judges:
        raise RunError(f"{run.folder} was refitted and not judged since: run `darkroom evaluate --split test` first")
    split = judges[-1]
    history = run.read_history() if run.history.is_file() else []
    content = deduce(config, metrics, history, split=split, predictions=run.read_predictions(split))
    classes, fingerprint = config["data"]["classes"], config["data"]["fingerprint"]
    manifest = Manifest.read(run.manifest, root=run.folder, classes=classes, fingerprint=fingerprint)
    return {**content, "data": _data(manifest), "command": command_of(config)}


def deduce(
    config: Content,
    metrics: Content,
    history: Sequence[Mapping[str, float]],
    *,
    split: str,
    predictions: Predictions,
) -> dict[str, Any]:
    """What follows from numbers alone; `predictions` are those of `split`."""
    block, answers = metrics[split], probabilities(predictions.logits, metrics["temperature"])
    content = {
        "split": split,
        "mistakes": _mistakes(block, predictions, answers),
        "ranking": _ranking(block["per_class"]),
        "confused": _confused(block),
        "not_sure": _not_sure(predictions, answers, metrics["threshold"]),
        "calibration": _calibration(predictions, answers),
        "training": _training(config, history),
        "energy": _energy(config),
        "layers": list(_layers(config["network"]["layers"])),
    }
    return {**content, "advice": list(_advice(content, config, block))}


def _data(manifest: Manifest) -> dict[str, Any]:
    """Sizes of the pictures as they came, and how many are copies of another one."""
    sizes = Counter(row.label for row in manifest.rows)
    most, largest = max(sizes.items(), key=lambda item: item[1])
    least, smallest = min(sizes.items(), key=lambda item: item[1])
    widths, heights = ([getattr(row, side) for row in manifest.rows] for side in ("width", "height"))
    return {
        "copies": len(manifest.rows) - len({row.duplicate_group for row in manifest.rows}),
        "smallest": [min(widths), min(heights)],
        "median": [int(np.median(widths)), int(np.median(heights))],
        "largest": [max(widths), max(heights)],
        "largest_class": {"name": most, "n": largest},
        "smallest_class": {"name": least, "n": smallest},
    }


def _mistakes(block: Content, predictions: Predictions, answers: Any) -> dict[str, Any]:
    wrong = answers.argmax(axis=1) != predictions.labels
    sure = int((wrong & (answers.max(axis=1) >= SURE)).sum())
    return {"n": int(wrong.sum()), "of": block["n"], "sure": sure, "sure_from": SURE}


def _ranking(per_class: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Names of the classes that have pictures, the lowest F1 first."""
    present = [name for name, row in per_class.items() if row["support"]]
    return sorted(present, key=lambda name: per_class[name]["f1"])


def _confused(block: Content) -> dict[str, Any]:
    """The most frequent mistakes, and the two classes that are taken for each other most often."""
    classes = list(block["per_class"])
    counts = np.array(block["confusion_matrix"])
    both = np.triu(counts + counts.T, k=1)
    first, second = np.unravel_index(both.argmax(), both.shape)
    wrong = int(counts.sum() - counts.trace())
    pairs = [
        {"true": true, "said": said, "count": count, "share": share}
        for true, said, count, share in most_confused(block["confusion_matrix"], classes, PAIRS)
    ]
    if not wrong:
        return {"pairs": pairs}
    n = int(both[first, second])
    return {"pairs": pairs, "both": {"one": classes[first], "other": classes[second], "n": n, "share": n / wrong}}


def _not_sure(predictions: Predictions, answers: Any, threshold: float) -> dict[str, Any]:
    """What the threshold that validation chose does to the answers of this split."""
    given = answers.max(axis=1) >= threshold
    right = answers.argmax(axis=1) == predictions.labels
    return {
        "threshold": threshold,
        "share": float(1 - given.mean()),
        "accuracy": float(right[given].mean()) if given.any() else None,
    }


def _calibration(predictions: Predictions, answers: Any) -> list[dict[str, Any]]:
    """The bins of the reliability diagram that hold pictures."""
    bins = reliability(predictions.labels, answers)
    return [
        {"confidence": float(confidence), "accuracy": float(accuracy), "n": int(count)}
        for confidence, accuracy, count in zip(bins.confidence, bins.accuracy, bins.count, strict=True)
        if count
    ]


def _training(config: Content, history: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    result = config["training"]["result"]
    if not history or not result["best_epoch"]:
        return {}
    best = history[result["best_epoch"] - 1]
    return {
        "train_accuracy": best["train_accuracy"],
        "validation_accuracy": best["validation_accuracy"],
        "gap": best["train_accuracy"] - best["validation_accuracy"],
        "images_per_second": float(np.median([row["images_per_second"] for row in history])),
    }


def _energy(config: Content) -> dict[str, float]:
    """What the training may have used, by its time, threads and memory; nothing is known so of accelerators."""
    training, memory = config["training"], config["hardware"].get("memory_bytes")
    if training["device"] != "cpu" or not memory:
        return {}
    watts = WATTS_A_CORE * training["threads"] + WATTS_A_GIGABYTE * memory / 1e9
    return {
        "joules": watts * training["result"]["seconds"],
        "watts_a_core": WATTS_A_CORE,
        "watts_a_gigabyte": WATTS_A_GIGABYTE,
    }


def _layers(layers: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Layers with parameters, by stages: what follows each other and shares the beginning of its name."""
    for name, group in groupby(layers, key=lambda layer: _stage(layer["name"])):
        rows = list(group)
        parameters = sum(row["parameters"] for row in rows)
        if parameters:
            yield {
                "name": name,
                "layers": sum(1 for row in rows if row["parameters"]),
                "output_shape": rows[-1]["output_shape"],
                "parameters": parameters,
                "multiply_adds": sum(row["multiply_adds"] for row in rows),
            }


def _stage(name: str) -> str:
    """`stage2.rest.0` belongs to `stage2`, and of pre-trained networks `body.blocks.3.0.conv` to `body.blocks.3`."""
    parts = name.split(".")
    numbered = parts[2:3] and parts[2].isdigit()
    return ".".join(parts[: 1 if parts[0] != "body" else 3 if numbered else 2])


def _advice(content: Content, config: Content, block: Content) -> Iterator[str]:
    """Names of what would help next, strongest evidence first; the words for each are in the templates."""
    training, mistakes, confused = content["training"], content["mistakes"], content["confused"]
    if training and training["gap"] > WIDE_GAP:
        yield "by_heart"
    result = config["training"]["result"]
    if training and result["best_epoch"] == result["epochs"]:
        yield "longer"
    both = confused.get("both", {"n": 0, "share": 0.0})
    if both["n"] >= SEVERAL and both["share"] >= LARGE_SHARE and len(content["ranking"]) > 2:
        yield "pair"
    if mistakes["sure"]:
        yield "labels"
    train = config["data"]["counts"]["train"]
    if content["ranking"] and train.get(content["ranking"][0], 0) < IMBALANCED * max(train.values()):
        yield "small_class"
    accuracy = block["accuracy"]
    if accuracy["high"] - accuracy["low"] > WIDE_INTERVAL:
        yield "more_test"
