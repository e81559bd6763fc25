"""`--refit`: what validation chose is trained anew with it, and nothing said then rests on pictures that it learned."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from darkroom import workflow
from darkroom.bundle import GOLDEN_FILE, Bundle, Golden
from darkroom.config import DataConfig, ExportConfig, TrainConfig
from darkroom.data.dataset import DataSet, prepare
from darkroom.errors import RunError, UsageError
from darkroom.export.card import model_card
from darkroom.export.onnx_bundle import deployed_network, network_answers
from darkroom.files import sha256_of
from darkroom.models.inference import logits_of
from darkroom.models.stored import load_network
from darkroom.runs import Run
from darkroom.summary import run_lines
from darkroom.training import fit
from darkroom.training.budget import Speed
from darkroom.training.refit import first_share
from darkroom.training.settle import Probe, settle
from darkroom.training.state import Best
from darkroom.verify import verify
from darkroom.verify.checks import Check
from finished import Finished
from reported import tell_again
from tampering import edited
from training import draw_folder

CONFIG = TrainConfig(
    epochs=3,
    batch_size=16,
    width=0.25,
    dropout=0.2,
    threads=1,
    precision="fp32",
    memory_format="contiguous",
    refit=True,
)


@pytest.fixture(scope="module")
def refitted(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of all stages with `--refit`."""
    folder = tmp_path_factory.mktemp("refit")
    made = Finished(Run(folder / "run"), draw_folder(folder / "data"), DataConfig(cache=folder / "cache"))
    workflow.run_all(str(made.data), made.run, data_config=made.config, config=CONFIG)
    return made


@pytest.fixture
def copied(refitted: Finished, tmp_path: Path) -> Finished:
    """The same to change."""
    return refitted.copy(tmp_path / "run")


def train(made: Finished, run: Run, *, resume: bool = False) -> None:
    workflow.train(str(made.data), run, data_config=made.config, config=CONFIG, resume=resume)


def test_it_learns_from_train_and_validation_and_never_from_test(refitted: Finished) -> None:
    run = refitted.run
    splits, again = (run_.read_config()["data"]["counts"] for run_ in (run, Run(run.refit)))
    for name, count in splits["train"].items():
        assert again["train"][name] == count + splits["validation"][name]
        assert again["validation"][name] == 0
        assert again["test"][name] == splits["test"][name]
    content = run.read_config()["training"]
    assert content["refit"]["pictures"] == sum(again["train"].values())
    steps = Run(run.refit).read_config()["training"]["plan"]["steps_an_epoch"]
    assert content["refit"]["steps"] == content["result"]["best_epoch"] * steps


def test_it_has_the_settings_that_were_chosen(refitted: Finished) -> None:
    first, second = (run.read_config() for run in (refitted.run, Run(refitted.run.refit)))
    assert first["network"] == second["network"]
    assert first["seed"] == second["seed"]
    for name in ("settings", "arithmetic", "threads", "mean", "std"):
        assert first["training"][name] == second["training"][name], name


def test_its_weights_are_those_of_the_run(refitted: Finished) -> None:
    run = refitted.run
    assert run.finished
    assert run.refitted
    assert sha256_of(run.weights) == sha256_of(Run(run.refit).weights)
    assert Bundle.open(run.bundle).info.provenance["weights_sha256"] == sha256_of(run.weights)


def test_validation_is_judged_by_the_network_before(refitted: Finished, tmp_path: Path) -> None:
    run, dataset = refitted.run, refitted.dataset()
    once = Run(tmp_path / "once")
    config = replace(CONFIG, refit=False)
    workflow.train(str(refitted.data), once, data_config=refitted.config, config=config)
    workflow.evaluate(once, split="validation", data_config=refitted.config)
    before, after = once.read_metrics(), run.read_metrics()
    for name in ("temperature", "threshold", "validation"):
        assert before[name] == after[name], name
    stored = run.read_predictions("validation")
    np.testing.assert_array_equal(stored.logits, once.read_predictions("validation").logits)
    now = logits_of(load_network(run), dataset.pixels, stored.ids, device=torch.device("cpu"))
    assert not np.allclose(now, stored.logits)


def test_test_is_opened_once_and_answered_by_the_new_network(refitted: Finished) -> None:
    run, dataset = refitted.run, refitted.dataset()
    assert run.read_metrics()["test_openings"] == 1
    stored = run.read_predictions("test")
    now = logits_of(load_network(run), dataset.pixels, stored.ids, device=torch.device("cpu"))
    np.testing.assert_allclose(now, stored.logits, atol=1e-4)
    parity = Bundle.open(run.bundle).info.parity
    assert "validation" not in parity
    assert set(Bundle.open(run.bundle).info.metrics) == {"test"}
    assert parity["test"]["accuracy"] == run.read_metrics()["test"]["accuracy"]["value"]


def test_it_says_so(refitted: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    run = refitted.run
    pictures = run.read_config()["training"]["refit"]["pictures"]
    card = (run.bundle / "model-card.md").read_text()
    assert f"settings on {pictures:,} pictures, those of validation among them" in " ".join(card.split())
    assert "--refit" in card
    assert any(f"then anew on {pictures:,}, with validation" in line for line in run_lines(run))
    assert Bundle.open(run.bundle).info.provenance["refit"] is True
    metrics, training = run.read_metrics(), run.read_config()["training"]
    assert metrics["train_seconds"] == training["result"]["seconds"] + training["refit"]["seconds"] == run.train_seconds


def test_copies_that_it_learned_are_told(copied: Finished) -> None:
    content = copied.run.read_config()
    counted = Run(copied.run.refit).read_config()["data"]["leaks"]
    assert content["training"]["refit"]["leaks"] == counted
    content["training"]["refit"]["leaks"] = 3
    content["data"]["leaks"] = 1  # of training alone
    info = Bundle.open(copied.run.bundle).info
    assert "3 training pictures have a copy" in model_card(content, copied.run.read_metrics(), info)


def test_a_run_without_it_says_nothing_of_it(finished_run: Finished) -> None:
    assert finished_run.run.finished
    assert not finished_run.run.refitted
    assert "those of validation among them" not in (finished_run.run.bundle / "model-card.md").read_text()


def test_validation_is_refused_as_a_judge(copied: Finished) -> None:
    metrics = copied.run.metrics.read_bytes()
    with pytest.raises(UsageError, match="refitted on validation"):
        workflow.evaluate(copied.run, split="validation", data_config=copied.config)
    with pytest.raises(UsageError, match="refitted on validation"):
        workflow.export(copied.run, data_config=copied.config, config=ExportConfig(int8=True))
    assert copied.run.metrics.read_bytes() == metrics


def test_without_a_test_result_nothing_is_known_of_it(refitted: Finished, copied: Finished) -> None:
    metrics = copied.run.read_metrics()
    del metrics["test"]
    copied.run.write_metrics(metrics)
    before = sha256_of(copied.run.bundle / "bundle.json")
    with pytest.raises(RunError, match=r"open the test split first, with `darkroom evaluate .* --split test`"):
        workflow.export(copied.run, data_config=copied.config)
    assert sha256_of(copied.run.bundle / "bundle.json") == before


@pytest.mark.parametrize("split", ["validation", "test"])
def test_without_what_validation_said_before_it_cannot_be_judged(copied: Finished, split: str) -> None:
    copied.run.metrics.unlink()
    with pytest.raises(RunError, match=r"metrics\.json is gone, and with it .* train again with --overwrite"):
        workflow.evaluate(copied.run, split=split, data_config=copied.config)


def test_it_can_be_shared(refitted: Finished, tmp_path: Path) -> None:
    assert Bundle.open(workflow.share(refitted.run.folder, tmp_path / "shared", licence="mit")).info.provenance["refit"]


@pytest.mark.slow
def test_the_command_line_goes_on_with_what_is_possible(refitted: Finished, tmp_path: Path) -> None:
    where = ["--out", str(tmp_path / "run"), "--cache", str(refitted.config.cache)]
    given = ["--refit", "--epochs=1", "--threads=1", "--width=0.25", "--precision=fp32"]
    command = [sys.executable, "-m", "darkroom", "train", str(refitted.data), *where, *given]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "evaluate it: " in done.stdout
    assert "--split test" in done.stdout


def test_it_is_exported_again(copied: Finished) -> None:
    workflow.export(copied.run, data_config=copied.config)
    assert copied.run.read_metrics()["test_openings"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1000.0])
def test_stopped_in_the_refit_and_resumed_to_the_same_bits(
    refitted: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_seconds: float
) -> None:
    run = Run(tmp_path / "run")
    monkeypatch.setitem(fit.fit.__kwdefaults__, "checkpoint_seconds", checkpoint_seconds)
    keep, steps = fit.keep, iter(range(10_000))

    def broken(*arguments: Any) -> None:
        keep(*arguments)
        if Run(run.refit).config.exists() and next(steps) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit, "keep", broken)
    with pytest.raises(KeyboardInterrupt):
        train(refitted, run)
    assert run.trained
    assert not run.finished
    for work in (
        lambda: workflow.evaluate(run, split="test", data_config=refitted.config),
        lambda: workflow.export(run, data_config=refitted.config),
    ):
        with pytest.raises(RunError, match=r"the refit of .* has not ended: go on with"):
            work()
    monkeypatch.undo()
    train(refitted, run, resume=True)
    assert run.finished
    assert sha256_of(run.weights) == sha256_of(refitted.run.weights)


def test_killed_before_the_weights_are_put_in_place(refitted: Finished, copied: Finished) -> None:
    content = copied.run.read_config()
    del content["training"]["refit"]
    copied.run.write_config(content)
    train(refitted, copied.run, resume=True)
    assert copied.run.refitted
    assert sha256_of(copied.run.weights) == sha256_of(refitted.run.weights)


def test_weights_that_are_lost_come_back(refitted: Finished, copied: Finished) -> None:
    copied.run.weights.unlink()
    train(refitted, copied.run, resume=True)
    assert copied.run.finished
    assert sha256_of(copied.run.weights) == sha256_of(refitted.run.weights)


def test_overwriting_leaves_nothing_of_it(copied: Finished) -> None:
    config = replace(CONFIG, refit=False, epochs=1)
    workflow.train(str(copied.data), copied.run, data_config=copied.config, config=config, overwrite=True)
    assert not copied.run.refit.exists()
    assert not copied.run.refitted


def test_a_best_epoch_before_the_last_is_where_the_refit_ends(
    tmp_path: Path, refitted: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run")
    monkeypatch.setattr(Best, "beaten_by", lambda self, *scores: np.isnan(scores[0]) or self.epoch == 0)
    train(refitted, run)
    training = run.read_config()["training"]
    assert training["result"]["best_epoch"] == 1
    assert training["refit"]["epochs"] == 1


@pytest.fixture(scope="module")
def dataset(refitted: Finished) -> DataSet:
    return prepare(str(refitted.data), refitted.config)


def test_both_trainings_share_the_minutes(dataset: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Probe, "speed", lambda *_: Speed(0.1, 0.0))
    config = replace(CONFIG, epochs=None, minutes=10.0)
    plans = [
        settle(dataset, data_config=DataConfig(), config=replace(config, refit=refit))["training"]["plan"]
        for refit in (False, True)
    ]
    assert plans[1]["budget"] == pytest.approx(600 * first_share(dataset))
    assert plans[1]["total_steps"] == pytest.approx(plans[0]["total_steps"] * first_share(dataset), rel=0.01)
    train, validation = (len(dataset.manifest.indices(split)) for split in ("train", "validation"))
    assert first_share(dataset) * (1 + (train + validation) / train) == pytest.approx(1)


@pytest.mark.slow
def test_it_is_as_long_as_validation_chose_whatever_the_clock_says(refitted: Finished, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    config = replace(CONFIG, epochs=None, minutes=0.2)
    workflow.train(str(refitted.data), run, data_config=refitted.config, config=config)
    first, second = (of.read_config()["training"] for of in (run, Run(run.refit)))
    epochs = min(first["result"]["best_epoch"], first["result"]["steps"] / first["plan"]["steps_an_epoch"])
    assert second["result"]["steps"] == round(epochs * second["plan"]["steps_an_epoch"])
    assert second["plan"]["budget"] is None


def test_a_plateau_without_validation_is_refused() -> None:
    with pytest.raises(UsageError, match="--refit leaves no validation for --schedule plateau"):
        TrainConfig(refit=True, schedule="plateau")


def test_the_golden_pictures_are_answered_by_the_new_network(refitted: Finished) -> None:
    golden = Golden.read(refitted.run.bundle / GOLDEN_FILE)
    answers = network_answers(deployed_network(refitted.run), golden.pixels)
    np.testing.assert_allclose(answers.probabilities, golden.probabilities, atol=1e-4)


def verified(made: Finished) -> dict[str, Check]:
    """All checks by their names."""
    return {check.name: check for check in verify(made.run.folder, made.config)}


def predictions_of_validation_tripled(run: Run) -> None:
    stored = run.read_predictions("validation")
    run.write_predictions("validation", replace(stored, logits=3 * stored.logits))


def accuracy_of_validation_changed(run: Run) -> None:
    with edited(run.metrics) as metrics:
        metrics["validation"]["accuracy"]["value"] = 0.5


def threshold_changed(run: Run) -> None:
    with edited(run.metrics) as metrics:
        metrics["threshold"] = 0.2
    tell_again(run)


@pytest.mark.parametrize(
    ("tamper", "finds"),
    [
        (predictions_of_validation_tripled, {"validation: metrics", "temperature and threshold"}),
        (accuracy_of_validation_changed, {"validation: metrics"}),
        (threshold_changed, {"temperature and threshold"}),
    ],
)
def test_what_is_known_of_the_network_before_is_verified(
    copied: Finished, tamper: Callable[[Run], None], finds: set[str]
) -> None:
    tamper(copied.run)
    assert finds <= {name for name, check in verified(copied).items() if not check.passed}


def test_it_is_verified_but_for_the_network_that_is_gone(refitted: Finished) -> None:
    checks = verified(refitted)
    assert [check for check in checks.values() if not check.passed] == []
    assert "before the refit, which is kept nowhere" in checks["validation: predictions"].detail
    path = refitted.dataset().manifest.path(int(refitted.run.read_predictions("validation").ids[0]))
    content = path.read_bytes()
    path.write_bytes(b"another picture")
    try:
        assert not verified(refitted)["validation: pictures"].passed
    finally:
        path.write_bytes(content)
