"""Results as lines for people: metrics, predictions, and the story of a run, its every figure read from its folder."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from darkroom.bundle import CARD_FILE, INFO_FILE, Bundle, BundleInfo
from darkroom.engines.prediction import Failure, Prediction
from darkroom.runs import Run

NAMES = {
    "accuracy": "accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "top_k": "top-{k} accuracy",
    "log_loss": "log loss",
    "ece": "calibration error",
}
SHARES = frozenset(NAMES) - {"log_loss", "ece"}


def metric_lines(block: Mapping[str, Any]) -> Iterator[str]:
    """One line a metric, with its 95 % interval."""
    for name, title in NAMES.items():
        entry = block[name]
        show = _percent if name in SHARES else _decimal
        label = title.format(k=entry.get("k"))
        yield f"{label:<18} {show(entry['value']):>7}   95 % interval {show(entry['low'])} to {show(entry['high'])}"


def class_lines(block: Mapping[str, Any]) -> Iterator[str]:
    """One line a class: precision, recall, F1, pictures."""
    width = max(map(len, block["per_class"]), default=5)
    yield f"{'class':<{width}}  precision  recall      F1  pictures"
    for name, row in block["per_class"].items():
        yield (
            f"{name:<{width}}  {_percent(row['precision']):>9} {_percent(row['recall']):>7} "
            f"{_percent(row['f1']):>7} {row['support']:>9,}"
        )


def run_lines(run: Run, *, program: str = "darkroom") -> Iterator[str]:
    """The story of a finished run: data, network, training, result, weak points, and what to do next with `program`."""
    config, metrics = run.read_config(), run.read_metrics()
    test, result = metrics["test"], config["training"]["result"]
    accuracy = test["accuracy"]
    yield (
        f"{_percent(accuracy['value'])} of {test['n']:,} test pictures are classified correctly "
        f"(95 % interval {_percent(accuracy['low'])} to {_percent(accuracy['high'])})."
    )
    yield ""
    yield _row("data", _data(config))
    yield _row("network", _network(config["network"]))
    yield _row("", f"all layers: {run.layers}")
    yield _row("training", _training(config["training"], result))
    yield _row("macro F1", f"{_percent(test['macro_f1']['value'])} on test, log loss {test['log_loss']['value']:.3f}")
    yield _row("weakest class", _weakest(test["per_class"]))
    yield _row("most confused", _confused(test["confusion_matrix"], list(test["per_class"])))
    yield _row("not sure", _not_sure(metrics))
    yield _row("test opened", f"{metrics['test_openings']} time{'s' if metrics['test_openings'] != 1 else ''}")
    yield _row("bundle", _bundle(run))
    yield _row("time", ", ".join(f"{stage} {value:.0f} s" for stage, value in config["seconds"].items()))
    yield ""
    yield _row("results", str(run.folder))
    yield _row("figures", str(run.figures))
    folder = str(run.folder)
    if run.report.is_file():
        yield _row("report", f"{run.report}, {run.slides}")
    else:
        yield _row("report", shlex.join([program, "report", folder]))
    yield _row("verify", shlex.join([program, "verify", folder]))
    yield _row("predict", shlex.join([program, "predict", folder, str(run.samples)]))
    yield _row("serve", shlex.join([program, "serve", folder]))


def int8_lines(info: BundleInfo) -> Iterator[str]:
    """What an int8 bundle lost and gained against fp32."""
    details = info.quantisation
    for split, accuracy in details["accuracy"].items():
        lost = accuracy["lost_points"]
        change = f"{abs(lost):.2f} points {'lost' if lost >= 0 else 'gained'}"
        allowed = f" ({details['bound_points']:g} allowed)" if split == "validation" else ""
        yield (
            f"{split:<10}  {100 * accuracy['int8']:.2f} % of {accuracy['n']:,} pictures right, "
            f"{100 * accuracy['fp32']:.2f} % in fp32: {change}{allowed}"
        )
    for speed in details["throughput"]:
        rates, title = speed["pictures_a_second"], f"batch {speed['batch_size']}"
        yield (
            f"{title:<10}  {rates['int8']:,.0f} pictures a second, {rates['fp32']:,.0f} in fp32: "
            f"{speed['ratio']['int8']:.2f} times as many, on {speed['threads']} threads"
        )
    sizes = details["bytes"]
    yield f"{'graph':<10}  {sizes['int8'] / 1e6:.2f} MB, {sizes['fp32'] / 1e6:.2f} MB in fp32"


def _row(title: str, text: str) -> str:
    return f"  {title:<14} {text}"


def _data(config: Mapping[str, Any]) -> str:
    data = config["data"]
    counts = {split: sum(by_class.values()) for split, by_class in data["counts"].items()}
    left_out = f", {len(data['unreadable'])} unreadable left out" if data["unreadable"] else ""
    parts = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    return f"{data['name']}: {len(data['classes'])} classes, {parts}{left_out}"


def _network(network: Mapping[str, Any]) -> str:
    views = network["views"]
    return (
        f"{network['kind']} {_origin(network)}, {network['parameters']:,} parameters, "
        f"{network['multiply_adds'] / 1e6:,.1f} million multiply-adds a "
        + ("picture" if views == 1 else f"view, {views} views a picture")
    )


def _origin(network: Mapping[str, Any]) -> str:
    origin = network.get("origin") or {"random": True}
    return "from scratch" if origin["random"] else "pre-trained"


def _training(training: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    if not result["epochs"]:
        return f"a new last layer on the network as it is, in {result['seconds']:.0f} s"
    early = " (stopped early)" if result["stopped_early"] else ""
    settings = training["settings"]
    return (
        f"{result['epochs']} epochs in {result['seconds']:.0f} s{early}, {settings['optimiser']}, "
        f"{settings['schedule']}; best epoch {result['best_epoch']}{_refit(training)}"
    )


def _refit(training: Mapping[str, Any]) -> str:
    refit = training.get("refit")
    return f"; then anew on {refit['pictures']:,}, with validation, in {refit['seconds']:.0f} s" if refit else ""


def _weakest(per_class: Mapping[str, Mapping[str, float]]) -> str:
    present = {name: row for name, row in per_class.items() if row["support"]}
    name = min(present, key=lambda name: present[name]["f1"])
    row = present[name]
    return (
        f"{name} (F1 {_percent(row['f1'])}, precision {_percent(row['precision'])}, recall {_percent(row['recall'])})"
    )


def _confused(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    pairs = [
        (count, classes[true], classes[said])
        for true, row in enumerate(confusion)
        for said, count in enumerate(row)
        if true != said and count
    ]
    if not pairs:
        return "no class with another"
    count, true, said = max(pairs, key=lambda pair: pair[0])
    return f"{true} taken for {said}, {count} time{'s' if count != 1 else ''}"


def _not_sure(metrics: Mapping[str, Any]) -> str:
    return (
        f"below {_percent(metrics['threshold'])} confidence; above it lie "
        f"{_percent(metrics['threshold_coverage'])} of validation, "
        f"{_percent(metrics['threshold_accuracy_answered'])} of them right"
    )


def _bundle(run: Run) -> str:
    bundle = Bundle.open(run.bundle)
    return (
        f"{run.bundle} ({_megabytes(run.bundle)}); graph and network differ by at most "
        f"{bundle.info.parity['largest_difference']:.1e} in probability"
    )


def shipped_lines(models: Mapping[str, Path]) -> Iterator[str]:
    """Two lines a model: its name and what it reaches on which data, then where its card lies."""
    width = max(map(len, models), default=0)
    for name, folder in models.items():
        info = BundleInfo.read(folder / INFO_FILE)
        split = "test" if "test" in info.metrics else "validation"
        accuracy, size = info.metrics[split]["accuracy"], info.preprocessing
        yield (
            f"{name:<{width}}  {_percent(accuracy['value'])} of {info.metrics[split]['n']:,} {split} pictures right "
            f"(95 % interval {_percent(accuracy['low'])} to {_percent(accuracy['high'])}), "
            f"{len(info.classes)} classes, {size.width}×{size.height} pixels, {_megabytes(folder)}"
        )
        yield f"{'':<{width}}  trained on {info.provenance['source']}; {folder / CARD_FILE}"


def _megabytes(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6:.1f} MB"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _decimal(value: float) -> str:
    return f"{value:.3f}"


def prediction_lines(answers: Sequence[Prediction | Failure], *, top: int) -> Iterator[str]:
    """One line a picture: its name and its best classes, or why it has none."""
    width = min(60, max((len(answer.name) for answer in answers), default=0))
    for answer in answers:
        if isinstance(answer, Failure):
            yield f"{answer.name:<{width}}  error: {answer.error}"
            continue
        classes = "  ".join(f"{name} {_percent(value)}" for name, value in answer.probabilities[:top])
        yield f"{answer.name:<{width}}  {classes}{'' if answer.sure else '  (not sure)'}"


def prediction_json(answer: Prediction | Failure) -> dict[str, Any]:
    """One picture's answer with all classes, best first, or its error."""
    if isinstance(answer, Failure):
        return {"name": answer.name, "error": answer.error}
    content = {
        "name": answer.name,
        "label": answer.label,
        "confidence": answer.confidence,
        "sure": answer.sure,
        "probabilities": dict(answer.probabilities),
    }
    return content if answer.novelty is None else content | {"novelty": answer.novelty._asdict()}
