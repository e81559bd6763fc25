"""The run folder: what is written comes back, and what is missing or damaged is said in a line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.errors import RunError
from darkroom.runs import Predictions, Run

CONFIG = {"data": {}, "training": {}, "network": {}, "seed": 3}


def made(count: int, *, classes: int = 3, seed: int = 0) -> Predictions:
    """Random predictions."""
    generator = np.random.default_rng(seed)
    return Predictions(
        ids=generator.permutation(count).astype(np.int64),
        labels=generator.integers(0, classes, count),
        logits=generator.normal(size=(count, classes)).astype(np.float32),
    )


def assert_same(left: Predictions, right: Predictions) -> None:
    """All arrays equal, with their types."""
    for name in ("ids", "labels", "logits"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), strict=True)


@settings(max_examples=20)
@given(st.integers(0, 50), st.integers(0, 50))
def test_predictions_come_back_and_splits_do_not_touch_each_other(
    tmp_path_factory: pytest.TempPathFactory, validation: int, test: int
) -> None:
    run = Run(tmp_path_factory.mktemp("run"))
    first, second, third = made(validation), made(test, seed=1), made(validation, seed=2)
    run.write_predictions("validation", first)
    run.write_predictions("test", second)
    assert_same(run.read_predictions("validation"), first)
    run.write_predictions("validation", third)
    assert_same(run.read_predictions("validation"), third)
    assert_same(run.read_predictions("test"), second)


def test_predictions_hold_nothing_but_the_arrays(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_predictions("test", made(4))
    with np.load(run.predictions, allow_pickle=False) as stored:
        assert sorted(stored.files) == ["test_ids", "test_labels", "test_logits"]


def test_a_split_that_was_not_evaluated_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_predictions("validation", made(4))
    with pytest.raises(RunError, match="holds no predictions of test"):
        run.read_predictions("test")


def test_history_comes_back_as_numbers(tmp_path: Path) -> None:
    run = Run(tmp_path)
    rows = [{"epoch": 1, "loss": 0.1 + 0.2, "rate": 1e-17}, {"epoch": 2, "loss": float("nan"), "rate": 3}]
    run.write_history(rows)
    back = run.read_history()
    assert back[0] == {"epoch": 1.0, "loss": 0.1 + 0.2, "rate": 1e-17}
    assert np.isnan(back[1]["loss"])
    run.write_history([])
    assert run.read_history() == []


def test_config_and_metrics_come_back(tmp_path: Path) -> None:
    run = Run(tmp_path / "new")
    run.write_config(CONFIG)
    run.write_metrics({"accuracy": {"value": 0.5}})
    assert run.read_config() == CONFIG
    assert run.read_metrics() == {"accuracy": {"value": 0.5}}


READERS: dict[str, tuple[str, Callable[[Run], Any]]] = {
    "config": ("config.json", Run.read_config),
    "metrics": ("metrics.json", Run.read_metrics),
    "history": ("history.csv", Run.read_history),
    "predictions": ("predictions.npz", lambda run: run.read_predictions("test")),
}


@pytest.mark.parametrize("name", READERS)
def test_missing_folder_and_missing_file_are_said_in_a_line(tmp_path: Path, name: str) -> None:
    file, read = READERS[name]
    with pytest.raises(RunError, match=r"no run folder at .*nowhere") as caught:
        read(Run(tmp_path / "nowhere"))
    assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match=f"{file} is missing: .*"):
        read(Run(tmp_path))


DAMAGE = [b"", b"x", b"{", b"[1, 2]", b"\xff\xfe\x00", b"epoch,loss\n1,much\n", b"PK\x03\x04" + bytes(40)]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", DAMAGE, ids=repr)
def test_damaged_files_are_said_in_a_line(tmp_path: Path, name: str, content: bytes) -> None:
    file, read = READERS[name]
    (tmp_path / file).write_bytes(content)
    run = Run(tmp_path)
    if name == "history" and len(content.split(b"\n")) == 1 and content.isascii():
        assert read(run) == [], "a line of names and no rows"
        return
    with pytest.raises(RunError) as caught:
        read(run)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_predictions_are_not_written_over_in_silence(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.predictions.write_bytes(b"x")
    with pytest.raises(RunError, match="is damaged: delete it"):
        run.write_predictions("test", made(2))
    assert run.predictions.read_bytes() == b"x"


def test_predictions_cut_off_are_damaged(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_predictions("test", made(40))
    whole = run.predictions.read_bytes()
    for length in (len(whole) // 3, len(whole) - 30):
        run.predictions.write_bytes(whole[:length])
        with pytest.raises(RunError, match="is damaged"):
            run.read_predictions("test")


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    run = Run(tmp_path)
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(run.predictions, test_ids=objects, test_labels=objects, test_logits=objects)
    with pytest.raises(RunError, match="is damaged"):
        run.read_predictions("test")


@pytest.mark.parametrize("content", [{}, {"model_type": "bert"}, {"data": {}, "training": {}}])
def test_a_config_of_another_program_is_no_run(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match="is not that of a run"):
        Run(tmp_path).read_config()


def test_clear_deletes_a_run_and_nothing_else(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_config(CONFIG)
    run.write_history([])
    run.write_predictions("test", made(2))
    for folder in (run.figures, run.samples, run.bundle, run.tensorboard):
        (folder / "inside").mkdir(parents=True)
    reported = ("insights.json", "report.json", "report.pdf", "slides.pptx")
    for name in ("checkpoint.pt", "model.safetensors", "manifest.csv", "metrics.json", *reported):
        (tmp_path / name).write_bytes(b"x")
    mine = {"notes.txt", "config.json.bak", "figures-old"}
    for name in mine:
        (tmp_path / name).write_text("mine")
    assert run.holds()
    run.clear()
    assert {path.name for path in tmp_path.iterdir()} == mine
    assert not run.holds()
    run.clear()


def test_what_makes_a_folder_a_run_is_deleted_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    run.write_config(CONFIG)
    run.manifest.write_text("x")
    run.figures.mkdir()
    run.checkpoint.write_bytes(b"x")
    deleted: list[str] = []
    unlink = Path.unlink

    def watched(path: Path, missing_ok: bool = False) -> None:
        deleted.append(path.name)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", watched)
    run.clear()
    assert deleted[-1] == "config.json"


def test_a_folder_of_ones_own_figures_is_not_a_run(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.figures.mkdir()
    assert run.holds()
    assert not run.begun
    run.write_config(CONFIG)
    assert run.begun


def test_opening_a_run_makes_nothing(tmp_path: Path) -> None:
    assert not Run(tmp_path / "none").holds()
    assert list(tmp_path.iterdir()) == []
    assert Run(tmp_path).figure("x") == tmp_path / "figures" / "x"


def test_leftovers_of_killed_savers_are_swept(tmp_path: Path) -> None:
    run = Run(tmp_path)
    leftover, other = tmp_path / ".checkpoint.0a1b2c3d.pt", tmp_path / ".checkpoint.txt"
    for path in (run.checkpoint, leftover, other):
        path.write_bytes(b"x")
    run.sweep()
    assert sorted(tmp_path.iterdir()) == sorted([run.checkpoint, other])
