"""Every number that is printed stands in the run's files."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from darkroom.engines.prediction import Failure, Prediction
from darkroom.runs import Run
from darkroom.summary import NAMES, class_lines, metric_lines, prediction_json, prediction_lines, run_lines
from finished import CLASSES, Finished


def percent(value: float) -> str:
    """As people read it."""
    return f"{value * 100:.1f} %"


def story(finished: Finished) -> dict[str, str]:
    """The titled lines of the summary."""
    lines = run_lines(finished.run)
    rows = [re.match(r"  (\S.*?)\s{2,}(\S.*)", line) for line in lines]
    return {row[1]: row[2] for row in rows if row}


def test_the_story_ends_with_what_to_do_next(finished_run: Finished, tmp_path: Path) -> None:
    run = finished_run.copy(tmp_path / "run").run
    told = story(finished_run)
    assert told["verify"] == f"darkroom verify {finished_run.run.folder}"
    assert told["report"] == f"darkroom report {finished_run.run.folder}"
    run.report.write_bytes(b"%PDF-")
    told = dict(line.strip().split(maxsplit=1) for line in run_lines(run) if line.startswith("  report "))
    assert told["report"] == f"{run.report}, {run.slides}"


def test_first_line_is_the_test_accuracy(finished_run: Finished) -> None:
    block = json.loads(finished_run.run.metrics.read_text())["test"]
    accuracy = block["accuracy"]
    assert next(iter(run_lines(finished_run.run))) == (
        f"{percent(accuracy['value'])} of {block['n']} test pictures are classified correctly "
        f"(95 % interval {percent(accuracy['low'])} to {percent(accuracy['high'])})."
    )


def test_the_story_says_what_the_files_say(finished_run: Finished) -> None:
    run, told = finished_run.run, story(finished_run)
    config, metrics = json.loads(run.config.read_text()), json.loads(run.metrics.read_text())
    bundle = json.loads((run.bundle / "bundle.json").read_text())
    history = run.history.read_text().splitlines()
    test, result = metrics["test"], config["training"]["result"]
    manifest = run.manifest.read_text().splitlines()[1:]
    counts = [sum(f",{split}," in line for line in manifest) for split in ("train", "validation", "test")]
    assert told["data"] == (
        f"blobs: 3 classes, {counts[0]} train, {counts[1]} validation, {counts[2]} test, 1 unreadable left out"
    )
    assert told["network"] == (
        f"cnn from scratch, {config['network']['parameters']:,} parameters, "
        f"{config['network']['multiply_adds'] / 1e6:,.1f} million multiply-adds a picture"
    )
    settings = config["training"]["settings"]
    assert told["training"] == (
        f"{len(history) - 1} epochs in {result['seconds']:.0f} s, {settings['optimiser']}, {settings['schedule']}; "
        f"best epoch {result['best_epoch']}"
    )
    assert told["macro F1"] == f"{percent(test['macro_f1']['value'])} on test, log loss {test['log_loss']['value']:.3f}"
    worst = min(test["per_class"].items(), key=lambda item: item[1]["f1"])
    assert told["weakest class"] == (
        f"{worst[0]} (F1 {percent(worst[1]['f1'])}, precision {percent(worst[1]['precision'])}, "
        f"recall {percent(worst[1]['recall'])})"
    )
    assert told["not sure"] == (
        f"below {percent(metrics['threshold'])} confidence; above it lie {percent(metrics['threshold_coverage'])} of "
        f"validation, {percent(metrics['threshold_accuracy_answered'])} of them right"
    )
    assert told["test opened"] == "1 time"
    assert f"differ by at most {bundle['parity']['largest_difference']:.1e}" in told["bundle"]
    size = sum(path.stat().st_size for path in run.bundle.iterdir())
    assert f"({size / 1e6:.1f} MB)" in told["bundle"]


def test_the_most_confused_pair_is_the_largest_off_the_diagonal(finished_run: Finished) -> None:
    matrix = finished_run.run.read_metrics()["test"]["confusion_matrix"]
    off = {(true, said): matrix[true][said] for true in range(3) for said in range(3) if true != said}
    told = re.fullmatch(r"(.+) taken for (.+), (\d+) times?", story(finished_run)["most confused"])
    assert told is not None
    pair = (CLASSES.index(told[1]), CLASSES.index(told[2]))
    assert off[pair] == max(off.values()) == int(told[3]) > 0


def test_the_commands_at_the_end_can_be_pasted(finished_run: Finished, tmp_path: Path) -> None:
    spaced = finished_run.copy(tmp_path / "my run")
    told = story(spaced)
    assert told["serve"] == f"darkroom serve '{spaced.run.folder}'"
    assert told["predict"] == f"darkroom predict '{spaced.run.folder}' '{spaced.run.samples}'"
    assert Path(told["results"]) == spaced.run.folder
    assert Path(told["figures"]).is_dir()


def changed(finished: Finished, folder: Path, change: Any) -> dict[str, str]:
    """The story after `change` was done to config and metrics."""
    copied = finished.copy(folder)
    config, metrics = copied.run.read_config(), copied.run.read_metrics()
    change(config, metrics)
    copied.run.write_config(config)
    copied.run.write_metrics(metrics)
    return story(copied)


def test_a_perfect_early_twice_opened_run_is_told_as_such(finished_run: Finished, tmp_path: Path) -> None:
    def change(config: Any, metrics: Any) -> None:
        metrics["test"]["confusion_matrix"] = [[9, 0, 0], [0, 9, 0], [0, 0, 9]]
        metrics["test_openings"] = 2
        per_class = metrics["test"]["per_class"]
        per_class[CLASSES[0]].update(support=0, f1=0.0)
        per_class[CLASSES[1]].update(precision=0.2, recall=0.3, f1=0.9)
        per_class[CLASSES[2]].update(precision=0.9, recall=0.8, f1=0.1)
        config["training"]["result"]["stopped_early"] = True
        config["data"]["unreadable"] = []

    told = changed(finished_run, tmp_path / "run", change)
    assert told["most confused"] == "no class with another"
    assert told["test opened"] == "2 times"
    assert told["weakest class"].startswith(f"{CLASSES[2]} "), "F1 decides, and a class without pictures has none"
    assert "(stopped early)" in told["training"]
    assert "unreadable" not in told["data"]


def test_metric_lines_show_each_value_with_its_interval(finished_run: Finished) -> None:
    block = finished_run.run.read_metrics()["validation"]
    lines = list(metric_lines(block))
    assert len(lines) == len(NAMES) == 8
    for name, line in zip(NAMES, lines, strict=True):
        entry = block[name]
        scale = (lambda value: f"{value:.3f}") if name in ("log_loss", "ece") else percent
        assert line.endswith(f"{scale(entry['value'])}   95 % interval {scale(entry['low'])} to {scale(entry['high'])}")
    assert lines[5].startswith("top-2 accuracy")


def test_class_lines_show_each_class(finished_run: Finished) -> None:
    block = finished_run.run.read_metrics()["test"]
    head, *lines = class_lines(block)
    assert head.split() == ["class", "precision", "recall", "F1", "pictures"]
    for (name, row), line in zip(block["per_class"].items(), lines, strict=True):
        shown = [percent(row[key]) for key in ("precision", "recall", "f1")]
        assert re.split(r"\s{2,}|(?<=%) ", line) == [name, *shown, str(row["support"])]
    assert len({len(line) for line in (head, *lines)}) == 1, "columns stand under their names"


ANSWERS = [
    Prediction("a.png", "cat", 0.9, True, (("cat", 0.9), ("dog", 0.1))),
    Failure("broken.jpg", "not a picture"),
    Prediction("b.png", "dog", 0.5001, False, (("dog", 0.5001), ("cat", 0.4999))),
]


def test_prediction_lines_name_the_best_classes_or_the_error() -> None:
    assert list(prediction_lines(ANSWERS, top=1)) == [
        "a.png       cat 90.0 %",
        "broken.jpg  error: not a picture",
        "b.png       dog 50.0 %  (not sure)",
    ]
    assert "dog 10.0 %" in next(iter(prediction_lines(ANSWERS, top=2)))
    assert list(prediction_lines([], top=3)) == []


def test_prediction_json_has_an_answer_or_an_error() -> None:
    good, bad, _ = (prediction_json(answer) for answer in ANSWERS)
    assert good == {
        "name": "a.png",
        "label": "cat",
        "confidence": 0.9,
        "sure": True,
        "probabilities": {"cat": 0.9, "dog": 0.1},
    }
    assert bad == {"name": "broken.jpg", "error": "not a picture"}


def test_a_run_that_is_not_finished_has_no_story(tmp_path: Path) -> None:
    from darkroom.errors import RunError

    with pytest.raises(RunError):
        list(run_lines(Run(tmp_path)))
