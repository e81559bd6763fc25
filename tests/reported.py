"""A report of the finished run, and what reports are made of where the run had other classes or rivals."""

import copy
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from darkroom.bundle import Bundle, write_bundle
from darkroom.compare import told_by, verdicts_on
from darkroom.comparison.choice import summary
from darkroom.comparison.folder import Comparison, plain
from darkroom.comparison.words import lines
from darkroom.config import CompareConfig
from darkroom.export.card import model_card
from darkroom.export.description import describe
from darkroom.runs import Predictions, Run
from finished import Finished

LONG = tuple(
    f"great northern spotted woodpecker no {number:03d}"
    if number % 2
    else f"Donaudampfschifffahrtsgesellschaft{number:06d}"
    for number in range(100)
)
"""Names of forty letters, half of them in one word."""

ODD = ("a # b", "$x$", "*bold*", "_low_", "`code`", "<tag>", "@ref", "[box]", "back\\slash", 'quo"te', "til~de")
"""Names with signs that mean something to Typst."""

TOLD_OF_CANDIDATES = ("accuracy", "macro_f1", "log_loss", "ece", "n")
ABLATION: Mapping[str, Any] = {
    "seeds": [0, 1, 2],
    "effects": [
        {"what": "wider layers", "mean": 0.0042, "low": -0.001, "high": 0.009},
        {"what": "no augmentation", "mean": -0.0431, "low": -0.06, "high": -0.02},
    ],
}


@dataclass(frozen=True)
class Reported(Finished):
    """A run with its report, and how long that took."""

    seconds: float


def report(finished: Finished, folder: Path) -> Reported:
    """Copy the run into `folder` and report it there."""
    from darkroom.report.write import write_report

    copied = finished.copy(folder)
    start = time.perf_counter()
    write_report(folder)
    return Reported(copied.run, copied.data, copied.config, time.perf_counter() - start)


def figures_of(run: Run) -> dict[str, Path]:
    """The SVG files that a report of the test split shows."""
    found = (path for path in sorted(run.figures.glob("*.svg")) if not path.stem.endswith("_validation"))
    return {path.stem.removesuffix("_test"): path for path in found}


def invented(run: Run, names: Sequence[str], *, each: int = 10, right: float = 3.0) -> dict[str, Any]:
    """Contents of the run's files as if it had these classes, with `each` test pictures of every one.

    The greater `right`, the fewer mistakes.
    """
    from darkroom.evaluation.calibration import probabilities
    from darkroom.evaluation.metrics import measure
    from darkroom.export.card import command_of
    from darkroom.report.insights import deduce

    config, metrics, history = run.read_config(), run.read_metrics(), run.read_history()
    labels = np.repeat(np.arange(len(names), dtype=np.int64), each)
    logits = np.random.default_rng(0).normal(size=(len(labels), len(names))) + right * np.eye(len(names))[labels]
    predictions = Predictions(np.arange(len(labels)), labels, logits.astype(np.float32))
    sizes = {"train": 7 * each, "validation": each, "test": each}
    counts = {split: dict.fromkeys(names, count) for split, count in sizes.items()}
    config["data"] |= {"classes": list(names), "counts": counts}
    metrics["test"] = measure(labels, probabilities(predictions.logits, metrics["temperature"]), names)
    data = {
        "copies": 0,
        "conflicts": 0,
        "smallest": [12, 12],
        "median": [320, 240],
        "largest": [1640, 1480],
        "largest_class": {"name": names[0], "n": 9 * each},
        "smallest_class": {"name": names[-1], "n": 9 * each - 1},
    }
    insights = deduce(config, metrics, history, split="test", predictions=predictions)
    return {
        "config": config,
        "metrics": metrics,
        "history": history,
        "bundle": json.loads((run.bundle / "bundle.json").read_text(encoding="utf-8")),
        "insights": {**insights, "data": data, "command": command_of(config)},
    }


def rendered(contents: Mapping[str, Any], figures: Mapping[str, Path]) -> str:
    """The report in Typst's language."""
    from darkroom.report.document import TEMPLATE, environment_for
    from darkroom.report.facts import Facts
    from darkroom.report.story import story_of, title_of

    facts = Facts(contents)
    template = environment_for(facts, figures).get_template(TEMPLATE)
    return template.render(title=title_of(facts), **story_of(facts, figures))


def read(contents: Mapping[str, Any], figures: Mapping[str, Path] | None = None) -> str:
    """The report as it is read, on one line, but for the marks of Typst."""
    text = re.sub(r'#told\("(?:[^"\\]|\\.)*", "([^"]*)"\);', r"\1", rendered(contents, figures or {}))
    return " ".join(re.sub(r'#"((?:[^"\\]|\\.)*)";', r"\1", text).split())


def refitted(contents: Mapping[str, Any]) -> dict[str, Any]:
    """The same contents after a refit."""
    changed = copy.deepcopy(dict(contents))
    changed["config"]["training"]["refit"] = {"pictures": 2345, "leaks": 7, "epochs": 3, "steps": 27, "seconds": 61.0}
    changed["insights"]["time"]["seconds"] = 123.0
    return changed


def unopened(contents: Mapping[str, Any]) -> dict[str, Any]:
    """The same contents where the test split was not opened."""
    changed = copy.deepcopy(dict(contents))
    changed["metrics"]["validation"] = changed["metrics"].pop("test")
    changed["metrics"]["test_openings"] = 0
    changed["insights"]["split"] = "validation"
    changed["insights"]["advice"] = ["open_test"]
    return changed


def comparison_of(metrics: Mapping[str, Mapping[str, Any]], *, chosen: str) -> dict[str, Any]:
    """What comparison.json says of candidates with these contents of metrics.json."""
    rows = [
        {
            "name": name,
            "chosen": name == chosen,
            "reason": "the most accurate" if name == chosen else f"close to {chosen}, but that is faster",
            "parameters": 1_234_567 + 1_000_000 * place,
            "train_seconds": 61.0 + 60 * place,
            "serving": {"milliseconds": 1.25 + place, "bytes": 4_700_000 + 1_000_000 * place},
            **{
                split: {entry: content[split][entry] for entry in TOLD_OF_CANDIDATES}
                for split in ("validation", "test")
                if split in content
            },
        }
        for place, (name, content) in enumerate(metrics.items())
    ]
    choice = {"chosen": chosen, "rule": "the fastest of the best", "close": "close: near", "prefer": "latency"}
    left_out = ["left out: vgg, for which there was no time"]
    return {"choice": choice, "requested": {"minutes": 15.0}, "candidates": rows, "left_out": left_out}


def compared(finished: Finished, folder: Path) -> Comparison:
    """A comparison of the run, which is chosen, with a copy of it that calls itself another network."""
    place = Comparison(folder)
    runs = [finished.copy(place.run(name).folder).run for name in ("cnn", "rival-frozen")]
    config = runs[1].read_config()
    config["network"]["kind"] = "rival"
    runs[1].write_config(config)
    tell_again(runs[1])
    serving = {"milliseconds": 1.25, "low": 1.0, "high": 1.5, "pictures_a_second": 900.0, "calls": 2000}
    rows = [
        {
            **told_by(run),
            "network": run.read_config()["network"]["kind"],
            "how": how,
            "serving": {**serving, "bytes": (run.bundle / "model.onnx").stat().st_size},
        }
        for run, how in zip(runs, ("from scratch", "frozen"), strict=True)
    ]
    settle_comparison(place, rows, finished.run.read_config())
    return place


def settle_comparison(place: Comparison, rows: Sequence[dict[str, Any]], config: Mapping[str, Any]) -> None:
    """Choose among these rows of comparison.json and write all files, as `darkroom compare` does."""
    verdicts = verdicts_on([(row["network"], place.run(row["name"]), row["serving"]) for row in rows], "latency")
    requested = plain(CompareConfig(models=("cnn", "rival"), minutes=15.0))
    content = {
        "seed": config["seed"],
        "data": {name: value for name, value in config["data"].items() if name not in ("preprocessing", "requested")},
        "requested": requested,
        "choice": summary(verdicts, "latency"),
        "candidates": [{**row, **verdict.to_json()} for row, verdict in zip(rows, verdicts, strict=True)],
        "left_out": ["left out: vgg, for which there was no time"],
        "speeds": {},
        "plans": {},
        "seconds": 61.0,
    }
    kept = {name: content[name] for name in ("speeds", "plans")}
    kept |= {"fingerprint": config["data"]["fingerprint"], "requested": {"comparison": requested}}
    kept |= {"serving": {row["name"]: row["serving"] for row in rows}, "chosen": content["choice"]["chosen"]}
    place.keep(kept)
    place.text.write_text("\n".join(lines(content)) + "\n", encoding="utf-8")
    place.content.write_text(json.dumps(content), encoding="utf-8")


def tell_again(run: Run) -> None:
    """Write the bundle anew, so that it tells of the run as it is now, but for its graph and golden pictures."""
    bundle = Bundle.open(run.bundle)
    info = replace(describe(run), parity=bundle.info.parity)
    card = model_card(run.read_config(), run.read_metrics(), info)
    write_bundle(run.bundle, info=info, onnx=bundle.model.read_bytes(), golden=bundle.golden, card=card)


def with_rivals(contents: Mapping[str, Any]) -> dict[str, Any]:
    """The same contents with a comparison and an ablation."""
    metrics = contents["metrics"]
    comparison = comparison_of({"cnn": metrics, "resnet50-frozen": metrics}, chosen="cnn")
    return {**contents, "comparison": comparison, "ablation": dict(ABLATION)}


def with_learning_curve(contents: Mapping[str, Any], more: str) -> dict[str, Any]:
    """The same contents with an ablation that says this of more training pictures."""
    effects = [
        *({**row, "factor": "width"} for row in ABLATION["effects"]),
        {"factor": "pictures", "what": "half of the training pictures", "mean": -0.0712, "low": -0.091, "high": -0.05},
    ]
    gain = {"mean": 0.0712, "low": 0.05, "high": 0.091}
    doubling = {"from": 1234, "to": 2468, **gain, "deviation": 0.01, "n": 3, "more": more}
    return {**contents, "ablation": {**ABLATION, "effects": effects, "doubling": doubling}}
