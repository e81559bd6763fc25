"""Pre-trained networks through all stages: frozen, fine-tuned, resumed, exported, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backbone_folders import write_backbone
from darkroom import workflow
from darkroom.bundle import Bundle
from darkroom.cli import main
from darkroom.config import DataConfig, TrainConfig
from darkroom.data.dataset import DataSet, prepare, prepared_for
from darkroom.errors import RunError, TrainingStoppedError, UsageError
from darkroom.models import backbones
from darkroom.models.stored import load_network
from darkroom.runs import Run
from darkroom.training import train as train_module
from darkroom.training.budget import AIM, Speed
from darkroom.training.candidates import Ours, candidate
from darkroom.training.distributed import Team
from darkroom.training.fit import set_learning_rate
from darkroom.training.frozen import Extraction
from darkroom.training.launch import Place
from darkroom.training.machine import Arithmetic
from darkroom.training.optimisers import OPENED_BY, build_optimiser
from darkroom.training.recipes import Settings
from darkroom.training.settle import Probe, settle
from darkroom.training.state import State
from finished import draw_blobs
from training import same_weights


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_backbone(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blobs") / "blobs"
    draw_blobs(folder, pictures=20)
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return DataConfig(cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def frozen(given: str, data: Path, config: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("frozen") / "run")
    settings = TrainConfig(model=given, frozen=True, threads=1)
    workflow.run_all(str(data), run, data_config=config, config=settings)
    return run


@pytest.fixture(scope="module")
def tuned(given: str, data: Path, config: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("tuned") / "run")
    settings = TrainConfig(model=given, epochs=3, threads=1, precision="fp32", memory_format="contiguous")
    workflow.run_all(str(data), run, data_config=config, config=settings)
    return run


def fresh(given: str, *, random_weights: bool = False) -> backbones.Backbone:
    """The network before it is trained."""
    found = backbones.find(given)
    return backbones.pretrained(found, found.architecture(image_size=64, classes=3), random_weights=random_weights)


def last(run: Run, part: str = "network") -> dict[str, torch.Tensor]:
    """Weights at the end of the training, be they the chosen ones or not."""
    weights: dict[str, torch.Tensor] = torch.load(run.checkpoint, map_location="cpu", weights_only=True)[part]
    return weights


def test_a_frozen_network_keeps_its_layers(frozen: Run, given: str) -> None:
    stored = load_network(frozen)
    assert backbones.weights_hash(stored.get_submodule("body")) == backbones.weights_hash(fresh(given).body)
    assert stored.get_parameter("head.weight").abs().max() > 0


def test_a_frozen_run_is_a_run_like_any_other(frozen: Run) -> None:
    content, metrics = frozen.read_config(), frozen.read_metrics()
    assert content["training"]["result"]["best_epoch"] == 0
    assert content["training"]["result"]["epochs"] == 0
    assert metrics["test_openings"] == 1
    known = content["training"]["result"]["best_validation_accuracy"]
    assert metrics["validation"]["accuracy"]["value"] == pytest.approx(known, abs=0.12)
    bundle = Bundle.open(frozen.bundle)
    assert bundle.info.preprocessing.interpolation == "bicubic"
    assert bundle.info.model["kind"] == "tiny"
    assert frozen.figure("activation_maps_test").with_suffix(".png").exists()


def test_the_card_and_the_summary_say_that_it_is_pretrained(frozen: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from darkroom.summary import run_lines

    text = "\n".join(run_lines(frozen, program="darkroom"))
    assert "tiny pre-trained" in text
    assert "last layer" in text
    assert "pre-trained" in (frozen.bundle / "model-card.md").read_text()


def test_fine_tuning_changes_all_layers_and_no_statistics(tuned: Run, given: str) -> None:
    body, after = fresh(given).body, last(tuned)
    assert [name for name, value in body.named_parameters() if torch.equal(value, after[f"body.{name}"])] == []
    assert [name for name, value in body.named_buffers() if not torch.equal(value, after[f"body.{name}"])] == []


def test_fine_tuning_begins_with_the_probe(tuned: Run, frozen: Run) -> None:
    history = tuned.read_history()
    assert len(history) == 3
    content = tuned.read_config()
    assert content["training"]["settings"]["recipe"] == "transfer"
    result = content["training"]["result"]
    before = frozen.read_config()["training"]["result"]["best_validation_accuracy"]
    assert result["best_validation_accuracy"] >= before, "what training does not better stays as it was"


def test_fine_tuning_that_makes_it_worse_is_not_taken(
    given: str, data: Path, config: DataConfig, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    ruinous = TrainConfig(model=given, epochs=1, threads=1, learning_rate=0.3)
    workflow.train(str(data), run, data_config=config, config=ruinous)
    assert run.read_config()["training"]["result"]["best_epoch"] == 0


@pytest.mark.slow
def test_a_killed_fine_tuning_goes_on_to_the_same_weights(
    tuned: Run, given: str, data: Path, config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run")
    settings = TrainConfig(model=given, epochs=3, threads=1, precision="fp32", memory_format="contiguous")
    original = train_module.RunKeeper.save

    def killed(self: train_module.RunKeeper, now: State) -> None:
        original(self, now)
        if now.epoch == 3:
            raise TrainingStoppedError("killed")

    monkeypatch.setitem(train_module.fit.__kwdefaults__, "checkpoint_seconds", 0.0)
    monkeypatch.setattr(train_module.RunKeeper, "save", killed)
    with pytest.raises(TrainingStoppedError):
        workflow.train(str(data), run, data_config=config, config=settings)
    monkeypatch.setattr(train_module.RunKeeper, "save", original)
    workflow.train(str(data), run, data_config=config, config=settings, resume=True)
    assert same_weights(load_network(run).state_dict(), load_network(tuned).state_dict())
    for part in ("network", "average"):  # where the epoch that was chosen came before the kill, these alone tell
        assert same_weights(last(run, part), last(tuned, part))


def test_random_layers_learn_from_the_first_step_on(given: str, data: Path, config: DataConfig, tmp_path: Path) -> None:
    optimiser = build_optimiser(
        fresh(given, random_weights=True), name="adamw", learning_rate=1.0, weight_decay=0.1, momentum=0.9
    )
    assert {(group["opens"], group["peak"]) for group in optimiser.param_groups} == {(0.0, 1.0)}
    run = Run(tmp_path / "run")
    settings = TrainConfig(model=given, random_weights=True, epochs=1, threads=1)
    workflow.train(str(data), run, data_config=config, config=settings)
    statistics = [value for name, value in last(run).items() if name.endswith("running_mean")]
    assert statistics
    assert all(value.any() for value in statistics), "batch normalisation learns too"


def test_random_layers_are_not_shared_by_processes(given: str, data: Path, config: DataConfig) -> None:
    dataset = prepare(str(data), config, candidate(given).preprocessing)
    asked = TrainConfig(model=given, random_weights=True, epochs=1, threads=1)
    content = settle(dataset, data_config=config, config=asked)
    settings = Settings.from_json(content["training"]["settings"])
    arithmetic = Arithmetic(**content["training"]["arithmetic"])
    with pytest.raises(UsageError, match="--random-weights is for one process"):
        train_module._build_state(dataset, content, settings, arithmetic, Team(Place(size=2)))


def settled_in_a_minute(given: str, data: Path, config: DataConfig, cache: Path) -> tuple[DataSet, dict[str, object]]:
    dataset = prepare(str(data), config, candidate(given).preprocessing)
    asked = TrainConfig(
        model=given, minutes=1, threads=1, flip=True, precision="fp32", memory_format="contiguous", batch_size=16
    )
    content = settle(dataset, data_config=replace(config, cache=cache), config=asked)
    return dataset, content["training"]


@pytest.mark.parametrize(("seconds", "mirrored"), [(0.1, True), (0.5, False)])
def test_features_are_part_of_the_minutes(
    given: str,
    data: Path,
    config: DataConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    mirrored: bool,
) -> None:
    monkeypatch.setattr(Extraction, "seconds_a_view", lambda self: seconds)
    monkeypatch.setattr(Probe, "speed", lambda self, settings: Speed(0.01, 0.0))
    dataset, training = settled_in_a_minute(given, data, config, tmp_path)
    train, validation = (len(dataset.manifest.indices(split)) for split in ("train", "validation"))
    left = 60 * AIM - seconds * ((1 + mirrored) * train + validation)
    assert training["mirrored"] is mirrored, "mirror images only where they take at most a tenth of the time"
    assert left - 15 < 0.01 * training["plan"]["total_steps"] <= left  # type: ignore[index]


def test_minutes_that_do_not_do_for_the_features_are_refused(
    given: str, data: Path, config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Extraction, "seconds_a_view", lambda self: 2.0)
    monkeypatch.setattr(Probe, "speed", lambda self, settings: Speed(0.01, 0.0))
    with pytest.raises(UsageError, match=r"more than 50% of --minutes 1: give --minutes 4, or --frozen"):
        settled_in_a_minute(given, data, config, tmp_path)


@pytest.mark.slow
def test_other_weights_are_refused_on_resume(given: str, data: Path, config: DataConfig, tmp_path: Path) -> None:
    copy = write_backbone(tmp_path / "weights" / "tiny", seed=0)
    run = Run(tmp_path / "run")
    settings = TrainConfig(model=copy, epochs=1, threads=1)
    workflow.train(str(data), run, data_config=config, config=settings)
    content = run.read_config()
    del content["training"]["result"]
    run.write_config(content)
    (tmp_path / "weights" / "tiny" / "model.safetensors").unlink()
    write_backbone(tmp_path / "weights" / "tiny", seed=1)
    with pytest.raises(RunError, match="not those that the run began with"):
        workflow.train(str(data), run, data_config=config, config=settings, resume=True)


def test_the_data_decide_for_our_network_and_the_weights_for_theirs(given: str, data: Path, config: DataConfig) -> None:
    ours = prepare(str(data), config, Ours().preprocessing)
    theirs = prepared_for(ours, config, candidate(given).preprocessing)
    assert ours.preprocessing.width == 12
    assert theirs.preprocessing.width == 64
    assert theirs.manifest is ours.manifest
    assert theirs.pixels.shape[1:] == (64, 64, 3)


def test_the_side_can_be_given(given: str, data: Path, config: DataConfig) -> None:
    dataset = prepare(str(data), replace(config, image_size=96), candidate(given).preprocessing)
    assert dataset.preprocessing.width == 96
    assert dataset.preprocessing.interpolation == "bicubic"


def test_a_network_of_one_size_refuses_another(data: Path, config: DataConfig, tmp_path: Path) -> None:
    given = write_backbone(tmp_path / "vit", "test_vit", side=160)
    path = tmp_path / "vit" / "config.json"
    content = json.loads(path.read_text())
    content["pretrained_cfg"]["fixed_input_size"] = True
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="--image-size is 96, and vit takes 160 pixels only"):
        prepare(str(data), replace(config, image_size=96), candidate(given).preprocessing)


def test_rates_fall_by_depth_and_layers_open_from_the_top(given: str) -> None:
    network = fresh(given)
    optimiser = build_optimiser(
        network, name="adamw", learning_rate=1.0, weight_decay=0.1, momentum=0.9, layer_decay=0.5
    )
    *layers, head, head_bias = optimiser.param_groups
    assert head["peak"] == head_bias["peak"] == 1.0
    assert head["opens"] == 0.0
    peaks = [group["peak"] for group in layers]
    assert peaks == sorted(peaks)
    assert peaks[0] < 0.1 < peaks[-1] <= 1.0
    opens = [group["opens"] for group in layers]
    assert opens == sorted(opens, reverse=True)
    assert opens[0] == pytest.approx(OPENED_BY)
    assert all(group["weight_decay"] == 0 for group in layers for value in group["params"] if value.ndim < 2)
    listed = [value for group in optimiser.param_groups for value in group["params"]]
    assert len(listed) == len(set(map(id, listed))) == len(list(network.parameters()))


def test_groups_wait_until_they_open() -> None:
    class Now:
        learning_rate = type("Rate", (), {"factor": staticmethod(lambda progress: 0.5)})()
        plan = type("Plan", (), {"midway": 0.06})()
        optimiser = type("Optimiser", (), {"param_groups": [{"peak": 2.0, "opens": at} for at in (0.0, 0.035, 0.1)]})()

    set_learning_rate(Now())  # type: ignore[arg-type]
    rates = [group["lr"] for group in Now.optimiser.param_groups]
    assert rates == pytest.approx([1.0, 0.5, 0.0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--frozen"], "--frozen is for pre-trained networks"),
        (["--random-weights"], "--random-weights is for pre-trained networks"),
        (["--recipe", "transfer"], "do not fit"),
        (["--model", "resnet18", "--recipe", "quick"], "do not fit"),
        (["--model", "resnet18", "--frozen", "--epochs", "3"], "--frozen has no epochs"),
        (["--model", "resnet18", "--frozen", "--refit"], "--refit is for our own network"),
        (["--model", "resnet18", "--optimiser", "muon"], "--optimiser muon"),
        (["--model", "resnet18", "--width", "2"], "--width is for our own network"),
        (["--model", "resnet51"], "did you mean"),
        (["--model", "resnet18.bogus"], "no weights bogus of resnet18"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "digits", "--out", str(tmp_path / "run"), *options])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_digits_are_not_mirrored_though_they_are_enlarged(given: str, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    config = DataConfig(cache=tmp_path / "cache")
    workflow.train("digits", run, data_config=config, config=TrainConfig(model=given, frozen=True, threads=1))
    settings = run.read_config()["training"]["settings"]
    assert settings["augmentation"]["flip"] is False
    assert run.read_config()["data"]["preprocessing"]["width"] == 64


def test_predictions_of_bundle_and_network_agree(frozen: Run, data: Path, config: DataConfig) -> None:
    from darkroom.engines.onnx_runtime import OnnxRuntimeEngine

    dataset: DataSet = prepare(
        str(data), config, candidate(frozen.read_config()["network"]["origin"]["given"]).preprocessing
    )
    pixels = np.array(dataset.pixels[:5])
    with OnnxRuntimeEngine.open(frozen.bundle) as engine, torch.no_grad():
        expected = load_network(frozen)(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).numpy()
        np.testing.assert_allclose(engine.answer(pixels).logits, expected, atol=1e-3)
