"""A backbone as it is: features computed once, and a linear classifier whose penalty validation chooses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backbone_folders import write_backbone
from darkroom.config import DataConfig
from darkroom.data.dataset import DataSet, prepare
from darkroom.models import backbones
from darkroom.training import frozen
from darkroom.training.candidates import candidate
from darkroom.training.frozen import embeddings, fit_probe, train_probe
from darkroom.training.machine import Arithmetic
from finished import draw_blobs

FP32 = Arithmetic(bf16=False, channels_last=False)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_backbone(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, given: str) -> DataSet:
    folder = tmp_path_factory.mktemp("blobs")
    draw_blobs(folder / "data", pictures=20)
    return prepare(str(folder / "data"), DataConfig(cache=folder / "cache"), candidate(given).preprocessing)


@pytest.fixture
def network(given: str) -> backbones.Backbone:
    found = backbones.find(given)
    return backbones.pretrained(found, found.architecture(image_size=64, classes=3)).eval()


def clouds(number: int, *, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 1, 20) around one centre a class, on very different scales, and labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, number)
    centres = np.random.default_rng(99).normal(size=(classes, 20))
    features = (centres[labels] + 0.7 * random.normal(size=(number, 20))) * np.logspace(-2, 2, 20) + 5
    return features[:, None].astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_learns_what_is_linear(classes: int) -> None:
    (features, labels), (judged, wanted) = clouds(300, classes=classes), clouds(200, classes=classes, seed=1)
    probe = fit_probe(features, labels, judged[:, 0], wanted, classes=classes)
    said = judged[:, 0] @ probe.weight.T + probe.bias
    assert probe.weight.shape == (classes, 20)
    assert probe.accuracy == pytest.approx((said.argmax(1) == wanted).mean())
    assert probe.accuracy > 0.9
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(said), torch.from_numpy(wanted)).item()
    assert probe.log_loss == pytest.approx(loss, rel=1e-3)


def test_a_class_without_pictures_is_never_answered() -> None:
    (features, labels), (judged, wanted) = clouds(100, classes=2), clouds(50, classes=2, seed=1)
    probe = fit_probe(features, labels * 2, judged[:, 0], wanted * 2, classes=3)
    assert set((judged[:, 0] @ probe.weight.T + probe.bias).argmax(1)) <= {0, 2}
    assert probe.accuracy > 0.9


def test_noise_is_penalised_more_than_signal() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(size=(60, 1, 200)).astype(np.float32)
    labels = np.arange(60) % 2
    hopeless = fit_probe(noise, labels, noise[::-1, 0], labels, classes=2)
    features, wanted = clouds(300, classes=2)
    judged, judged_labels = clouds(200, classes=2, seed=1)
    assert hopeless.penalty > fit_probe(features, wanted, judged[:, 0], judged_labels, classes=2).penalty


def test_features_are_those_of_pictures_and_of_their_mirror_images(
    network: backbones.Backbone, dataset: DataSet, tmp_path: Path
) -> None:
    ids = dataset.manifest.indices("validation")
    got = embeddings(network, dataset, ids, arithmetic=FP32, mirrored=True, cache=tmp_path)
    pictures = torch.from_numpy(np.array(dataset.pixels[ids])).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        for view, seen in enumerate((pictures, pictures.flip(3))):
            torch.testing.assert_close(torch.from_numpy(got[:, view]), network.features(seen), rtol=1e-4, atol=1e-4)


def test_features_are_computed_once(
    network: backbones.Backbone, dataset: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = dataset.manifest.indices("validation")
    first = embeddings(network, dataset, ids, arithmetic=FP32, mirrored=False, cache=tmp_path)
    computed: list[int] = []
    original = frozen._compute

    def counting(*arguments: object, **options: object) -> object:
        computed.append(1)
        return original(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(frozen, "_compute", counting)
    again = embeddings(network, dataset, ids, arithmetic=FP32, mirrored=False, cache=tmp_path)
    np.testing.assert_array_equal(first, again)
    assert not computed
    other = {"arithmetic": FP32, "mirrored": True, "cache": tmp_path}
    embeddings(network, dataset, ids, **other)
    embeddings(network, dataset, ids[:-1], **other)
    embeddings(network, replace(dataset, preprocessing=replace(dataset.preprocessing, crop_fraction=1.0)), ids, **other)
    with torch.no_grad():
        next(network.body.parameters()).mul_(1.01)
    embeddings(network, dataset, ids, **other)
    assert len(computed) == 4, "views, pictures, preprocessing and weights each make other features"


def test_a_damaged_cache_is_computed_again(network: backbones.Backbone, dataset: DataSet, tmp_path: Path) -> None:
    ids = dataset.manifest.indices("validation")
    first = embeddings(network, dataset, ids, arithmetic=FP32, mirrored=False, cache=tmp_path)
    (path,) = (tmp_path / "features").iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    again = embeddings(network, dataset, ids, arithmetic=FP32, mirrored=False, cache=tmp_path)
    np.testing.assert_array_equal(first, again)


def test_the_last_layer_answers_as_the_probe(network: backbones.Backbone, dataset: DataSet, tmp_path: Path) -> None:
    probe = train_probe(network, dataset, arithmetic=FP32, mirrored=True, cache=tmp_path)
    probe.put_into(network)
    ids = dataset.manifest.indices("validation")
    pictures = torch.from_numpy(np.array(dataset.pixels[ids])).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        right = (network(pictures).argmax(1).numpy() == dataset.manifest.labels()[ids]).mean()
    assert right == pytest.approx(probe.accuracy)
    assert probe.accuracy > 0.5, "blobs differ in colour, which even random filters see"
