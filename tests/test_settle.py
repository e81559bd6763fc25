"""What is decided before a training: the network of the ladder that the minutes allow, and a stem fitted to data."""

import json
from pathlib import Path

import pytest
import torch

from darkroom.config import DataConfig, TrainConfig
from darkroom.data.dataset import DataSet, prepare
from darkroom.errors import UsageError
from darkroom.models import cnn
from darkroom.training import machine
from darkroom.training.budget import AIM, Speed
from darkroom.training.candidates import Ours
from darkroom.training.distributed import Team
from darkroom.training.launch import Place
from darkroom.training.machine import Arithmetic
from darkroom.training.recipes import LADDERS, Settings
from darkroom.training.settle import FASTEST, Probe, settle
from training import draw_folder

BEST = LADDERS["best"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = tmp_path_factory.mktemp("settle")
    return prepare(str(draw_folder(folder / "data")), DataConfig(cache=folder / "cache"))


def settled(dataset: DataSet, **options: object) -> dict[str, object]:
    given: dict[str, object] = {"threads": 1, "precision": "fp32", "memory_format": "contiguous", **options}
    return settle(dataset, data_config=DataConfig(), config=TrainConfig(**given))["training"]["settings"]  # type: ignore[arg-type, no-any-return]


@pytest.mark.parametrize(
    ("recipe", "epochs_that_fit", "rung"),
    [
        *(("quick", epochs, rung) for epochs, rung in ((0.5, 0), (1.9, 0), (2.1, 1), (3.9, 1), (4.1, 2), (99, 2))),
        *(("best", epochs, rung) for epochs, rung in ((1.9, 0), (5.1, 2), (14.9, 2), (15.1, 3), (99, 3))),
    ],
)
def test_the_network_follows_the_epochs_that_fit(
    dataset: DataSet, monkeypatch: pytest.MonkeyPatch, recipe: str, epochs_that_fit: float, rung: int
) -> None:
    def fake(self: Probe, settings: Settings, *, side: int) -> float:
        return 60 / epochs_that_fit / self.batches.steps

    monkeypatch.setattr(Probe, "time_steps", fake)
    settings, wanted = settled(dataset, minutes=1, recipe=recipe), LADDERS[recipe][rung]
    assert (settings["width"], settings["convolutions"]) == (wanted.width, wanted.convolutions)


@pytest.mark.parametrize(
    ("recipe", "epochs", "pixels"),
    [("quick", 99, (1, 0)), ("best", 11, (1, 0)), ("best", 12, (2, 4)), ("best", 19, (2, 4)), ("best", 20, (2, 6))],
)
def test_long_trainings_of_best_augment_more(
    dataset: DataSet, monkeypatch: pytest.MonkeyPatch, recipe: str, epochs: int, pixels: tuple[int, int]
) -> None:
    def fake(self: Probe, settings: Settings) -> Speed:
        return Speed(60 * AIM / (epochs + 0.01) / self.batches.steps, 0.0)

    monkeypatch.setattr(Probe, "speed", fake)
    monkeypatch.setattr(Probe, "step_seconds", lambda *_, **__: 1000.0)
    for options in ({"epochs": epochs}, {"minutes": 1, "width": 0.5}, {"minutes": 1}):
        settings = settled(dataset, recipe=recipe, **options)
        augmentation = settings["augmentation"]
        assert settings["epochs"] in (epochs, epochs + 1)
        assert (augmentation["translate"], augmentation["cutout"]) == pixels, options
        given = settled(dataset, recipe=recipe, **options, cutout=3, translate=0)["augmentation"]
        assert (given["translate"], given["cutout"]) == (0, 3)


def test_what_does_not_depend_on_the_size_is_measured(dataset: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Probe, "time_steps", lambda self, settings, *, side: 0.4 + 0.6 * (side / 16) ** 2)
    given = {"threads": 1, "precision": "fp32", "memory_format": "contiguous", "minutes": 1, "width": 0.5}
    speeds = [
        settle(dataset, data_config=DataConfig(), config=TrainConfig(**given, resize_from=part))["training"]["speed"]  # type: ignore[arg-type]
        for part in (1.0, 0.5)
    ]
    assert [speed["fixed"] for speed in speeds] == [0.0, pytest.approx(0.4)]
    assert [speed["step_seconds"] for speed in speeds] == [1.0, 1.0]


def test_each_network_is_measured_once(dataset: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fake(self: Probe, settings: Settings, *, side: int) -> float:
        tried.append(settings.width)
        return 1000.0 if settings.width > 0.5 else 0.001  # the dear ones are far too slow for a minute

    monkeypatch.setattr(Probe, "time_steps", fake)
    assert settled(dataset, minutes=1, recipe="best")["width"] == BEST[0].width
    assert tried == [0.7, 0.7, 0.5], "those above the first that is too dear are not timed"
    tried.clear()
    assert settled(dataset, minutes=10_000, recipe="best")["width"] == BEST[-1].width
    assert tried == [0.7, 1.0, 1.5], "not again for the plan"


def test_no_rungs_are_climbed_where_the_user_gives_the_network(
    dataset: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    monkeypatch.setattr(Probe, "time_steps", lambda self, settings, *, side: tried.append(settings.width) or 1000.0)
    settled(dataset, minutes=1, width=0.5, convolutions=2)
    assert tried == [0.5]


def test_what_is_fastest_is_measured_once_so_that_a_second_training_computes_alike(
    dataset: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flips = iter([Arithmetic(bf16=False, channels_last=True), *[Arithmetic(bf16=True, channels_last=True)] * 3])
    monkeypatch.setattr(machine, "choose_arithmetic", lambda *_, **__: next(flips))

    def bf16(cache: Path, **options: object) -> bool:
        config = TrainConfig(epochs=1, threads=1, **options)  # type: ignore[arg-type]
        return settle(dataset, data_config=DataConfig(cache=cache), config=config)["training"]["arithmetic"]["bf16"]  # type: ignore[no-any-return]

    assert [bf16(tmp_path) for _ in range(3)] == [False] * 3
    assert bf16(tmp_path, width=0.5), "another network is measured itself"
    assert not bf16(tmp_path), "and does not push out the first"
    assert bf16(tmp_path, precision="bf16"), "nor is an answer given to another question"
    (tmp_path / "a file").write_text("")
    assert bf16(tmp_path / "a file" / "below"), "a cache that cannot be written stops nothing"


@pytest.mark.parametrize("nonsense", [{}, [], "yes", {"bf16": 1, "channels_last": True, "threads": 1}])
def test_what_is_remembered_is_measured_again_where_it_makes_no_sense(
    dataset: DataSet, tmp_path: Path, nonsense: object
) -> None:
    config, data_config = TrainConfig(epochs=1, threads=1), DataConfig(cache=tmp_path)
    first = settle(dataset, data_config=data_config, config=config)["training"]["arithmetic"]
    memory = tmp_path / FASTEST
    sense = memory.read_text()
    memory.write_text(json.dumps(dict.fromkeys(json.loads(sense), nonsense)))
    assert settle(dataset, data_config=data_config, config=config)["training"]["arithmetic"].keys() == first.keys()
    (mended,) = json.loads(memory.read_text()).values()
    assert mended.keys() == {"bf16", "channels_last", "threads"}
    assert mended["threads"] == 1


def test_compiling_is_refused_with_several_processes(dataset: DataSet) -> None:
    team = Team(Place(rank=0, size=2, local_rank=0, local_size=2))
    with pytest.raises(UsageError, match="--compile is not tried with several processes"):
        settle(dataset, data_config=DataConfig(), config=TrainConfig(compile=True), team=team)


def test_a_pause_of_the_machine_does_not_decide(dataset: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    durations = iter([1000.0, *[0.001] * 9])
    monkeypatch.setattr(Probe, "time_steps", lambda self, settings, *, side: next(durations))
    assert settled(dataset, minutes=1, recipe="quick")["width"] == LADDERS["quick"][-1].width


def test_a_step_on_small_pictures_is_timed_on_small_pictures(dataset: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = set()

    def fake(network: object, optimiser: object, pictures: torch.Tensor, *_: object) -> torch.Tensor:
        sides.add(pictures.shape[-1])
        return torch.zeros(2)

    monkeypatch.setattr("darkroom.training.settle.forward_backward", fake)
    settled(dataset, minutes=1, width=0.5, resize_from=0.5)
    assert sides == {8, 16}


def test_what_the_user_gives_is_not_replaced(dataset: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settled(dataset, minutes=0.02, width=1.25)
    assert (settings["width"], settings["convolutions"]) == (1.25, 2)
    monkeypatch.setattr(Probe, "step_seconds", lambda *_, **__: 1000.0)
    settings = settled(dataset, minutes=0.02, convolutions=3, recipe="best")
    assert (settings["width"], settings["convolutions"]) == (BEST[0].width, 3)
    assert settled(dataset, epochs=1)["width"] == 1.0


def test_a_new_network_has_a_stem_fitted_to_training_pictures_only(dataset: DataSet) -> None:
    architecture = cnn.design(image_size=16, classes=3, pictures=84)
    assert architecture.stem == "whitening"

    def stem(dataset: DataSet) -> torch.Tensor:
        network = Ours().new(dataset, architecture, seed=0, normalisation=((100,) * 3, (50,) * 3))
        return network.get_submodule("stem.0").weight.detach()

    fitted = stem(dataset)
    assert fitted.abs().sum() > 0
    pixels = dataset.pixels.copy()
    held_out = [row.id for row in dataset.manifest.rows if row.split != "train"]
    pixels[held_out] = 0
    other = DataSet(dataset.argument, dataset.name, dataset.manifest, dataset.preprocessing, pixels)
    assert torch.equal(stem(other), fitted)
    pixels[dataset.manifest.indices("train")] //= 2
    assert not torch.equal(stem(other), fitted)
