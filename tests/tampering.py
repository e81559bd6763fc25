"""Ways to tamper with a reported run, and the checks that must find each of them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import bundles
from darkroom.bundle import CARD_FILE, Bundle, write_bundle
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine, open_session
from darkroom.export.quantise import with_constant
from darkroom.runs import Predictions, Run
from finished import CLASSES
from reported import tell_again


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


def history_cut(run: Run) -> None:
    run.history.write_text("".join(run.history.read_text().splitlines(keepends=True)[:1]))


def history_ends_early(run: Run) -> None:
    with edited(run.config) as config:
        config["training"]["result"]["best_epoch"] = 4
    run.history.write_text("".join(run.history.read_text().splitlines(keepends=True)[:3]))


def sample_replaced(run: Run) -> None:
    first, second = sorted(run.samples.iterdir())[:2]
    first.write_bytes(second.read_bytes())


def sample_added(run: Run) -> None:
    sample = next(run.samples.iterdir())
    (run.samples / f"mine{sample.suffix}").write_bytes(sample.read_bytes())


def layers_rewritten(run: Run) -> None:
    run.layers.write_text(run.layers.read_text().replace("convolution", "attention"))


def card_rewritten(run: Run) -> None:
    """With its hash in bundle.json, which is whole then."""
    bundle = Bundle.open(run.bundle)
    card = (run.bundle / CARD_FILE).read_text(encoding="utf-8").replace("opened 1 time", "opened 0 times")
    write_bundle(run.bundle, info=bundle.info, onnx=bundle.model.read_bytes(), golden=bundle.golden, card=card)


def openings_denied(run: Run) -> None:
    with edited(run.metrics) as metrics:
        metrics["test_openings"] = 0


def opened_split_denied(run: Run) -> None:
    with edited(run.metrics) as metrics:
        del metrics["test"]


def opened_split_denied_twice(run: Run) -> None:
    """In metrics.json and in the bundle, which is whole then; the predictions still tell of it."""
    opened_split_denied(run)
    tell_again(run)


def predictions_of_test_removed(run: Run) -> None:
    stored = run.read_predictions("validation")
    run.predictions.unlink()
    run.write_predictions("validation", stored)


def classes_counted_otherwise(run: Run) -> None:
    with edited(run.config) as config:
        config["data"]["counts"]["train"][CLASSES[0]] += 100
    tell_again(run)


def leaks_denied(run: Run) -> None:
    with edited(run.config) as config:
        config["data"]["leaks"] += 1
    tell_again(run)


def epochs_added(run: Run) -> None:
    with edited(run.config) as config:
        config["training"]["result"]["epochs"] += 1
    tell_again(run)


def another_best_epoch(run: Run) -> None:
    with edited(run.config) as config:
        result = config["training"]["result"]
        result["best_epoch"] = 1 + result["best_epoch"] % result["epochs"]
    tell_again(run)


def best_accuracy_raised(run: Run) -> None:
    with edited(run.config) as config:
        config["training"]["result"]["best_validation_accuracy"] += 0.01
    tell_again(run)


def training_hastened(run: Run) -> None:
    with edited(run.metrics) as metrics:
        metrics["train_seconds"] /= 2
    tell_again(run)


def threshold_explained_otherwise(run: Run) -> None:
    with edited(run.metrics) as metrics:
        metrics["threshold_rule"] = "the threshold that looks best"
    tell_again(run)


def coverage_raised(run: Run) -> None:
    with edited(run.metrics) as metrics:
        metrics["threshold_coverage"] += 0.001
    tell_again(run)


def answered_raised(run: Run) -> None:
    with edited(run.metrics) as metrics:
        metrics["threshold_accuracy_answered"] -= 0.001
    tell_again(run)


def novelty_changed(run: Run) -> None:
    bundle = Bundle.open(run.bundle)
    info = replace(bundle.info, novelty={"score": "energy", "threshold": 0.0, "false_alarms": 0.05})
    card = (run.bundle / CARD_FILE).read_text(encoding="utf-8")
    write_bundle(run.bundle, info=info, onnx=bundle.model.read_bytes(), golden=bundle.golden, card=card)


def hashes_left_out(run: Run) -> None:
    bundle = Bundle.open(run.bundle)
    provenance = {name: value for name, value in bundle.info.provenance.items() if name != "run_sha256"}
    card = (run.bundle / CARD_FILE).read_text(encoding="utf-8")
    info = replace(bundle.info, provenance=provenance)
    write_bundle(run.bundle, info=info, onnx=bundle.model.read_bytes(), golden=bundle.golden, card=card)


def setting(*path: str, value: Any) -> Callable[[Run], None]:
    """Another value of a leaf of config.json from which nothing is computed."""

    def change(run: Run) -> None:
        with edited(run.config) as config:
            content = config
            for part in path[:-1]:
                content = content[part]
            assert content[path[-1]] != value
            content[path[-1]] = value

    change.__name__ = f"another_{path[-1]}"
    return change


def column(name: str) -> Callable[[Run], None]:
    """Twice the values of a column of history.csv."""

    def change(run: Run) -> None:
        run.write_history([{**row, name: 2 * row[name]} for row in run.read_history()])

    change.__name__ = f"another_{name}"
    return change


BUNDLE, REPORT_FILES = "what the bundle says", "report, files"
Tampering = tuple[Callable[[Run], None], set[str]]
"""What is done to a run, and the checks that fail then, perhaps among others."""

TAMPERINGS: list[Tampering] = [
    (metric_changed, {"test: metrics", BUNDLE, REPORT_FILES, "report, numbers"}),
    (class_metric_changed, {"validation: metrics"}),
    (confusion_changed, {"test: metrics"}),
    (interval_changed, {"test: metrics", BUNDLE}),
    (metrics_of_another_kind, {"test: metrics"}),
    (classes_swapped, {BUNDLE, "test: labels", "validation: labels"}),
    (classes_swapped_in_metrics, {"test: metrics"}),
    (label_swapped_in_manifest, {"manifest"}),
    (prediction_edited, {"test: predictions", "test: metrics"}),
    (validation_edited, {"validation: predictions", "temperature and threshold"}),
    (labels_edited, {"test: labels", "test: metrics"}),
    (pictures_left_out, {"test: labels"}),
    (predictions_damaged, set()),
    (graph_changed, {"bundle", "test: predictions"}),
    (other_bundle, {BUNDLE}),
    (other_graph, {"test: predictions", "validation: predictions", REPORT_FILES}),
    (weights_of_another_run, {BUNDLE}),
    (weights_changed, {BUNDLE}),
    (temperature_changed, {"temperature and threshold", BUNDLE}),
    (threshold_changed, {"temperature and threshold", BUNDLE}),
    (history_cut, {"insights"}),
    (history_ends_early, {"insights"}),
]
"""With what is computed from other files."""

UNTRACED: list[Tampering] = [
    (setting("data", "name", value="ImageNet"), {BUNDLE, "model card"}),
    (setting("training", "settings", "optimiser", value="adam"), {BUNDLE, "model card"}),
    (setting("training", "settings", "schedule", value="none"), {BUNDLE}),
    (setting("training", "result", "stopped_early", value="never"), {BUNDLE}),
    (setting("hardware", "processor", value="abacus"), {BUNDLE, "model card"}),
    (setting("network", "kind", value="transformer"), {BUNDLE}),
    (setting("commit", value="0" * 40), {BUNDLE, "model card"}),
    (setting("platform", value="none"), {BUNDLE, "model card"}),
    (column("train_loss"), {BUNDLE}),
    (column("validation_accuracy"), {BUNDLE, "history"}),
    (column("learning_rate"), {BUNDLE}),
    (column("elapsed"), {BUNDLE}),
    (layers_rewritten, {BUNDLE}),
    (card_rewritten, {"model card"}),
    (sample_replaced, {"samples"}),
    (sample_added, {"samples"}),
    (openings_denied, {"model card", "what was measured"}),
    (opened_split_denied, {BUNDLE, "what was measured"}),
    (opened_split_denied_twice, {"what was measured", "test: metrics"}),
    (predictions_of_test_removed, {"what was measured"}),
    (classes_counted_otherwise, {"manifest"}),
    (leaks_denied, {"manifest"}),
    (epochs_added, {"history"}),
    (another_best_epoch, {"history"}),
    (best_accuracy_raised, {"history"}),
    (training_hastened, {"history"}),
    (threshold_explained_otherwise, {"temperature and threshold"}),
    (coverage_raised, {"temperature and threshold"}),
    (answered_raised, {"temperature and threshold"}),
    (novelty_changed, {BUNDLE}),
    (hashes_left_out, {BUNDLE}),
]
"""With what nothing is computed from, or only with other files made to fit; found where there is no report, too."""

FILES = (
    "config.json",
    "manifest.csv",
    "history.csv",
    "metrics.json",
    "predictions.npz",
    "model.safetensors",
    "network.txt",
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
