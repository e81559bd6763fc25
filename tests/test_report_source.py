"""Reports are of one state of one run: what is damaged, unfinished or of other data is refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darkroom.errors import RunError
from darkroom.report.source import source_of
from darkroom.report.write import write_report
from darkroom.runs import Predictions, Run
from finished import Finished
from reported import ABLATION


@pytest.fixture
def run(finished_run: Finished, tmp_path: Path) -> Run:
    return finished_run.copy(tmp_path / "run").run


def refused(run: Run, **options: Any) -> str:
    """What is said; one line, and nothing is written."""
    with pytest.raises(RunError) as caught:
        write_report(run.folder, **options)
    assert "\n" not in str(caught.value)
    assert not any(path.is_file() for path in run.reported)
    return str(caught.value)


def unfinish(config: dict[str, Any]) -> None:
    del config["training"]["result"]


def cut_result(config: dict[str, Any]) -> None:
    config["training"]["result"] = {"epochs": 4}


@pytest.mark.parametrize(("change", "said"), [(unfinish, "has not ended: go on with"), (cut_result, "is damaged")])
def test_a_training_that_has_not_ended_is_told(run: Run, change: Callable[[dict[str, Any]], None], said: str) -> None:
    config = run.read_config()
    change(config)
    run.write_config(config)
    assert said in refused(run)


@pytest.mark.parametrize(
    "damage",
    [
        lambda metrics: metrics["test"].pop("per_class"),
        lambda metrics: metrics["test"].update(accuracy=None),
        lambda metrics: metrics["test"]["accuracy"].update(value="high"),
        lambda metrics: metrics.update(temperature="warm"),
        lambda metrics: metrics.pop("threshold"),
        lambda metrics: metrics["test"].update(confusion_matrix=[[1]]),
        lambda metrics: metrics.update(test=[]),
        lambda metrics: metrics["test"]["macro_f1"].pop("low"),
    ],
)
def test_damaged_metrics_are_told_in_a_line(run: Run, damage: Callable[[dict[str, Any]], Any]) -> None:
    metrics = run.read_metrics()
    damage(metrics)
    run.metrics.write_text(json.dumps(metrics))
    refused(run)


def test_without_its_history_a_run_is_not_reported_as_if_frozen(run: Run) -> None:
    run.history.unlink()
    said = refused(run)
    assert "history.csv is missing" in said
    assert "put it back" in said


def test_a_folder_where_the_report_goes_is_told(run: Run) -> None:
    run.report.mkdir()
    assert "report.pdf is a folder" in refused(run)


def test_another_manifest_is_refused(run: Run) -> None:
    content = run.manifest.read_text().replace(",train,", ",test,", 1)
    run.manifest.write_text(content)
    assert "manifest.csv was changed" in refused(run)


@pytest.mark.parametrize("what", ["ids", "classes", "fewer"])
def test_predictions_of_other_pictures_are_refused(run: Run, what: str) -> None:
    stored = run.read_predictions("test")
    ids, logits = stored.ids, stored.logits
    changed = {
        "ids": Predictions(ids[::-1], stored.labels, logits),
        "classes": Predictions(ids, stored.labels, np.pad(logits, ((0, 0), (0, 1)))),
        "fewer": Predictions(ids[1:], stored.labels[1:], logits[1:]),
    }
    run.write_predictions("test", changed[what])
    assert "other pictures or classes" in refused(run)


def test_an_ablation_of_other_data_is_refused(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "ablation"
    folder.mkdir()
    fingerprint = run.read_config()["data"]["fingerprint"]
    (folder / "ablation.json").write_text(json.dumps({**ABLATION, "fingerprint": "of others"}))
    assert "other pictures or labels" in refused(run, ablation=folder)
    (folder / "ablation.json").write_text(json.dumps({**ABLATION, "fingerprint": fingerprint}))
    assert source_of(run.folder, ablation=folder).contents["ablation"]["seeds"] == [0, 1, 2]
    (folder / "ablation.json").write_text(json.dumps(ABLATION))  # of an older darkroom, whose state tells
    state = {"requested": {}, "fingerprint": fingerprint}
    (folder / "ablation-state.json").write_text(json.dumps(state))
    source_of(run.folder, ablation=folder)
    (folder / "ablation-state.json").write_text(json.dumps({**state, "fingerprint": "of others"}))
    assert "other pictures or labels" in refused(run, ablation=folder)


def test_each_file_is_read_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    usual = Path.read_text

    def counted(path: Path, *arguments: Any, **options: Any) -> str:
        seen.append(path)
        return usual(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", counted)
    source_of(run.folder)
    assert seen.count(run.config) == seen.count(run.metrics) == 1
