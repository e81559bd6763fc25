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
from darkroom.report.facts import damage_told
from darkroom.runs import Predictions, Run, judges_of

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
EPOCHS_OF_A_TREND = 5
"""Least epochs whose last third tells whether validation was still improving."""
WATTS_A_CORE, WATTS_A_GIGABYTE = 12.0, 0.3725
"""Of a processor that is not known, and of memory (Lannelongue, Grealey and Inouye 2021, "Green Algorithms")."""
IMBALANCED = 0.5
"""Part of the largest class below which a class is small."""


def insights_of(run: Run) -> dict[str, Any]:
    """The content of insights.json, from the run's files; raises `RunError` where it lacks one, or one is damaged."""
    config = run.read_config()
    return insights_from(run, config, run.read_metrics(), history_of(run, config), manifest_of(run, config))


def manifest_of(run: Run, config: Content) -> Manifest:
    """The pictures of the run, wherever they lie."""
    data = config["data"]
    return Manifest.read(run.manifest, root=run.folder, classes=data["classes"], fingerprint=data["fingerprint"])


def history_of(run: Run, config: Content) -> list[dict[str, float]]:
    """A row an epoch; none of a network that was not trained as a whole."""
    if not isinstance(result := config["training"].get("result"), Mapping):
        raise RunError(f"the training of {run.folder} has not ended: go on with `darkroom train … --resume`")
    if not result.get("epochs"):
        return []
    if not run.history.is_file():
        raise RunError(f"{run.history} is missing: put it back, or train again with --overwrite")
    return run.read_history()


def insights_from(
    run: Run, config: Content, metrics: Content, history: Sequence[Mapping[str, float]], manifest: Manifest
) -> dict[str, Any]:
    """The same from contents that were read already.

    `split` is the one that the headline is about: test where it was opened, else validation.
    """
    judges = judges_of(config, metrics)
    if not judges and "refit" in config["training"]:
        raise RunError(f"{run.folder} was refitted and not judged since: run `darkroom evaluate --split test` first")
    if not judges:
        raise RunError(f"{run.metrics} speaks of no split: run `darkroom evaluate {run.folder}`")
    split = judges[-1]
    with damage_told(f"{run.metrics} or {run.config.name}", f"run `darkroom evaluate {run.folder}` again"):
        content = deduce(config, metrics, history, split=split, predictions=run.read_predictions(split))
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
        "alike": _alike(block["per_class"]),
        "confused": _confused(block),
        "not_sure": _not_sure(predictions, answers, metrics["threshold"]),
        "calibration": _calibration(predictions, answers),
        "training": _training(config, history),
        "time": _time(config),
        "energy": _energy(config),
        "layers": list(_layers(config["network"]["layers"])),
    }
    judged = metrics.get("validation", block)["accuracy"]
    return {**content, "advice": list(_advice(content, config, block["accuracy"], judged))}


def _data(manifest: Manifest) -> dict[str, Any]:
    """Sizes of the pictures as they came, how many are copies of another one, and how many such have two labels."""
    sizes = Counter(row.label for row in manifest.rows)
    most, largest = max(sizes.items(), key=lambda item: item[1])
    least, smallest = min(sizes.items(), key=lambda item: item[1])
    widths, heights = ([getattr(row, side) for row in manifest.rows] for side in ("width", "height"))
    return {
        "copies": len(manifest.rows) - len({row.duplicate_group for row in manifest.rows}),
        "conflicts": _conflicts(manifest),
        "smallest": [min(widths), min(heights)],
        "median": [int(np.median(widths)), int(np.median(heights))],
        "largest": [max(widths), max(heights)],
        "largest_class": {"name": most, "n": largest},
        "smallest_class": {"name": least, "n": smallest},
    }


def _conflicts(manifest: Manifest) -> int:
    """Pictures with a copy, or near copy, of another label."""
    labels: dict[int, set[str]] = {}
    for row in manifest.rows:
        labels.setdefault(row.duplicate_group, set()).add(row.label)
    return sum(len(labels[row.duplicate_group]) > 1 for row in manifest.rows)


def _mistakes(block: Content, predictions: Predictions, answers: Any) -> dict[str, Any]:
    wrong = answers.argmax(axis=1) != predictions.labels
    sure = int((wrong & (answers.max(axis=1) >= SURE)).sum())
    return {"n": int(wrong.sum()), "of": block["n"], "sure": sure, "sure_from": SURE}


def _ranking(per_class: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Names of the classes that have pictures, the lowest F1 first."""
    present = [name for name, row in per_class.items() if row["support"]]
    return sorted(present, key=lambda name: per_class[name]["f1"])


def _alike(per_class: Mapping[str, Mapping[str, float]]) -> dict[str, int]:
    """How many classes share the lowest F1, how many the highest, and how many are without a mistake."""
    scores = [row["f1"] for row in per_class.values() if row["support"]]
    return {
        "lowest": scores.count(min(scores)),
        "highest": scores.count(max(scores)),
        "flawless": scores.count(1.0),
    }


def _confused(block: Content) -> dict[str, Any]:
    """The most frequent mistakes, and the two classes that are taken for each other most often.

    Of these, `one` is at least as often taken for `other` (`there`) as the other way round (`back`). They stand out
    where no other two are taken for each other as often, and more than once.
    """
    classes = list(block["per_class"])
    counts = np.array(block["confusion_matrix"])
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f"the confusion matrix of {len(classes)} classes has the shape {counts.shape}")
    both = np.triu(counts + counts.T, k=1)
    wrong = int(counts.sum() - counts.trace())
    pairs = [
        {"true": true, "said": said, "count": count, "share": share}
        for true, said, count, share in most_confused(block["confusion_matrix"], classes, PAIRS)
    ]
    if not wrong:
        return {"pairs": pairs}
    one, other = map(int, np.unravel_index(both.argmax(), both.shape))
    if counts[one, other] < counts[other, one]:
        one, other = other, one
    n = int(both.max())
    ways = {"there": int(counts[one, other]), "back": int(counts[other, one])}
    alone = n > 1 and int((both == n).sum()) == 1
    found = {"one": classes[one], "other": classes[other], "n": n, **ways, "share": n / wrong, "stands_out": alone}
    return {"pairs": pairs, "both": found}


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
    best, before = history[result["best_epoch"] - 1], history[len(history) * 2 // 3 - 1]
    return {
        "train_accuracy": best["train_accuracy"],
        "validation_accuracy": best["validation_accuracy"],
        "gap": best["train_accuracy"] - best["validation_accuracy"],
        "last_third": history[-1]["validation_accuracy"] - before["validation_accuracy"],
        "images_per_second": float(np.median([row["images_per_second"] for row in history])),
    }


def _time(config: Content) -> dict[str, Any]:
    """What training took, a refit included, and how far the clock moved the number of epochs."""
    training = config["training"]
    result, planned = training["result"], training.get("settings", {}).get("epochs", 0)
    clock = training.get("plan", {}).get("budget") is not None and not result["stopped_early"]
    moved = result["epochs"] - planned if clock else 0
    return {
        "seconds": result["seconds"] + training.get("refit", {}).get("seconds", 0.0),
        "clock": "shortened" if moved < 0 else "lengthened" if moved > 0 else "",
    }


def _energy(config: Content) -> dict[str, float]:
    """What the training may have used, by its time, threads and memory; nothing is known so of accelerators."""
    training, memory = config["training"], config["hardware"].get("memory_bytes")
    if training["device"] != "cpu" or not memory:
        return {}
    watts = WATTS_A_CORE * training["threads"] + WATTS_A_GIGABYTE * memory / 1e9
    return {
        "joules": watts * _time(config)["seconds"],
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


def _advice(content: Content, config: Content, accuracy: Content, validation: Content) -> Iterator[str]:
    """Names of what would help next, strongest evidence first; the words for each are in story.py.

    `accuracy` is what the headline says, `validation` the accuracy on the pictures that chose the epoch.
    """
    training, mistakes = content["training"], content["mistakes"]
    if content["split"] == "validation" and any(config["data"]["counts"].get("test", {}).values()):
        yield "open_test"
    if training and training["gap"] > WIDE_GAP:
        yield "by_heart"
    if training and _was_improving(config["training"]["result"], training["last_third"], validation):
        yield "longer"
    both = content["confused"].get("both", {"n": 0, "share": 0.0})
    if both["n"] >= SEVERAL and both["share"] >= LARGE_SHARE and both["stands_out"] and len(content["ranking"]) > 2:
        yield "pair"
    if mistakes["sure"]:
        yield "labels"
    train = config["data"]["counts"]["train"]
    if content["ranking"] and train.get(content["ranking"][0], 0) < IMBALANCED * max(train.values()):
        yield "small_class"
    if content["split"] == "test" and accuracy["high"] - accuracy["low"] > WIDE_INTERVAL:
        yield "more_test"


def _was_improving(result: Content, gain: float, validation: Content) -> bool:
    """Whether the last third of a training gained more than chance moves: that the last epoch is best says little.

    A learning rate that falls to zero makes the last epochs the best ones, however long the training.
    """
    if result["best_epoch"] != result["epochs"] or result["epochs"] < EPOCHS_OF_A_TREND:
        return False
    return bool(gain > (validation["high"] - validation["low"]) / 2)
