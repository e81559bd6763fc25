"""Ways to tamper with a reported run, and the checks that must find each of them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import bundles
from darkroom.bundle import Bundle, write_bundle
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine, open_session
from darkroom.export.quantise import with_constant
from darkroom.runs import Predictions, Run
from finished import CLASSES


@contextmanager
def edited(path: Path) -> Iterator[Any]:
    """The content of a JSON file, to be changed."""
    content = json.loads(path.read_text(encoding="utf-8"))
    yield content
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def metric_changed(run: Run) -> None:
    with edited(run.metrics) as metrics:
        metrics["test"]["accuracy"]["value"] += 0.01


def class_metric_changed(run: Run) -> None:
    with edited(run.metrics) as metrics:
        metrics["validation"]["per_class"][CLASSES[0]]["recall"] -= 0.001


def confusion_changed(run: Run) -> None:
    with edited(run.metrics) as metrics:
        row = metrics["test"]["confusion_matrix"][0]
        row[0], row[1] = row[0] + 1, row[1] - 1


def interval_changed(run: Run) -> None:
    with edited(run.metrics) as metrics:
        metrics["test"]["macro_f1"]["low"] += 0.005


def metrics_of_another_kind(run: Run) -> None:
    with edited(run.metrics) as metrics:
        metrics["test"] = [1, 2, 3]


def classes_swapped(run: Run) -> None:
    with edited(run.config) as config:
        classes = config["data"]["classes"]
        classes[0], classes[1] = classes[1], classes[0]


def classes_swapped_in_metrics(run: Run) -> None:
    with edited(run.metrics) as metrics:
        table = metrics["test"]["per_class"]
        table[CLASSES[0]], table[CLASSES[1]] = {**table[CLASSES[1]], "support": 8}, table[CLASSES[0]]


def label_swapped_in_manifest(run: Run) -> None:
    text = run.manifest.read_bytes().decode()
    run.manifest.write_bytes(text.replace(f",{CLASSES[0]},test,", f",{CLASSES[1]},test,", 1).encode())


def prediction_edited(run: Run) -> None:
    stored = run.read_predictions("test")
    logits = stored.logits.copy()
    logits[3] = np.where(np.arange(3) == logits[3].argmin(), 40, 0)
    run.write_predictions("test", replace(stored, logits=logits))


def validation_edited(run: Run) -> None:
    stored = run.read_predictions("validation")
    run.write_predictions("validation", replace(stored, logits=2 * stored.logits))


def labels_edited(run: Run) -> None:
    stored = run.read_predictions("test")
    run.write_predictions("test", replace(stored, labels=(stored.labels + 1) % 3))


def pictures_left_out(run: Run) -> None:
    stored = run.read_predictions("test")
    run.write_predictions("test", Predictions(stored.ids[:-1], stored.labels[:-1], stored.logits[:-1]))


def predictions_damaged(run: Run) -> None:
    content = bytearray(run.predictions.read_bytes())
    content[len(content) // 2 - 40 : len(content) // 2 + 40] = b"\xff" * 80
    run.predictions.write_bytes(content)


def graph_changed(run: Run) -> None:
    path = run.bundle / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_bundle(run: Run) -> None:
    bundles.make_bundle(run.bundle)


def other_graph(run: Run) -> None:
    """A bundle that is whole and calls itself that of this run, but computes something else."""
    bundle = Bundle.open(run.bundle)
    graph = with_constant(bundle.model.read_bytes(), "temperature", 20.0)
    with OnnxRuntimeEngine(bundle.info, open_session(graph, 1)) as engine:
        answers = engine.answer(bundle.golden.pixels)
    golden = replace(bundle.golden, logits=answers.logits, probabilities=answers.probabilities)
    write_bundle(run.bundle, info=bundle.info, onnx=graph, golden=golden, card="")


def weights_of_another_run(run: Run) -> None:
    bundle = Bundle.open(run.bundle)
    info = replace(bundle.info, provenance={**bundle.info.provenance, "weights_sha256": "ab" * 32})
    write_bundle(run.bundle, info=info, onnx=bundle.model.read_bytes(), golden=bundle.golden, card="")


def weights_changed(run: Run) -> None:
    content = bytearray(run.weights.read_bytes())
    content[-1] ^= 1
    run.weights.write_bytes(content)


def temperature_changed(run: Run) -> None:
    with edited(run.metrics) as metrics:
        metrics["temperature"] *= 1.01


def threshold_changed(run: Run) -> None:
    with edited(run.metrics) as metrics:
        metrics["threshold"] += 0.01


def insights_changed(run: Run) -> None:
    with edited(run.insights) as insights:
        insights["mistakes"]["n"] += 1


def advice_changed(run: Run) -> None:
    with edited(run.insights) as insights:
        insights["advice"] = [*insights["advice"], "longer"][::-1]


def history_cut(run: Run) -> None:
    run.history.write_text("".join(run.history.read_text().splitlines(keepends=True)[:1]))


def history_ends_early(run: Run) -> None:
    with edited(run.config) as config:
        config["training"]["result"]["best_epoch"] = 4
    run.history.write_text("".join(run.history.read_text().splitlines(keepends=True)[:3]))


def number_in_report_changed(run: Run) -> None:
    with edited(run.told) as told:
        told["report"][5]["shown"] = "99.9 %"


def value_in_report_changed(run: Run) -> None:
    with edited(run.told) as told:
        next(entry for entry in told["slides"] if entry["path"] == "metrics.test.n")["value"] += 1


def pdf_edited(run: Run) -> None:
    run.report.write_bytes(run.report.read_bytes() + b" ")


def slides_edited(run: Run) -> None:
    run.slides.write_bytes(run.slides.read_bytes() + b" ")


TAMPERINGS: list[tuple[Callable[[Run], None], set[str]]] = [
    (metric_changed, {"test: metrics", "test: what the bundle says", "report"}),
    (class_metric_changed, {"validation: metrics"}),
    (confusion_changed, {"test: metrics"}),
    (interval_changed, {"test: metrics", "test: what the bundle says"}),
    (metrics_of_another_kind, {"test: metrics"}),
    (classes_swapped, {"bundle", "test: labels", "validation: labels"}),
    (classes_swapped_in_metrics, {"test: metrics"}),
    (label_swapped_in_manifest, {"manifest"}),
    (prediction_edited, {"test: predictions", "test: metrics"}),
    (validation_edited, {"validation: predictions", "temperature and threshold"}),
    (labels_edited, {"test: labels", "test: metrics"}),
    (pictures_left_out, {"test: labels"}),
    (predictions_damaged, set()),
    (graph_changed, {"bundle", "test: predictions"}),
    (other_bundle, {"bundle"}),
    (other_graph, {"test: predictions", "validation: predictions", "report"}),
    (weights_of_another_run, {"bundle"}),
    (weights_changed, {"bundle"}),
    (temperature_changed, {"temperature and threshold", "test: what the bundle says"}),
    (threshold_changed, {"temperature and threshold", "test: what the bundle says"}),
    (insights_changed, {"insights"}),
    (advice_changed, {"insights"}),
    (history_cut, {"insights"}),
    (history_ends_early, {"insights"}),
    (number_in_report_changed, {"report"}),
    (value_in_report_changed, {"report"}),
    (pdf_edited, {"report"}),
    (slides_edited, {"report"}),
]
"""What is done to the run, and the checks that fail then, perhaps among others."""

FILES = (
    "config.json",
    "manifest.csv",
    "history.csv",
    "metrics.json",
    "predictions.npz",
    "model.safetensors",
    "bundle/bundle.json",
    "bundle/model.onnx",
    "bundle/golden.npz",
    "bundle/model-card.md",
    "insights.json",
    "report.json",
    "report.pdf",
    "slides.pptx",
)
"""What no reported run can do without."""
