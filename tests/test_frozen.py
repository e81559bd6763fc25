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
from darkroom.training.frozen import Extraction, fit_probe, train_probe
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


def extraction(network: backbones.Backbone, dataset: DataSet, cache: Path) -> Extraction:
    return Extraction(network, backbones.weights_hash(network.body), dataset, FP32, cache)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """How many pictures were computed each time, and whether mirrored."""
    calls: list[tuple[int, bool]] = []
    original = Extraction._computed

    def counting(self: Extraction, ids: np.ndarray, *, mirror: bool) -> np.ndarray:
        calls.append((len(ids), mirror))
        return original(self, ids, mirror=mirror)

    monkeypatch.setattr(Extraction, "_computed", counting)
    return calls


def clouds(number: int, *, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 1, 20) around one centre a class, on very different scales, and labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, number)
    centres = np.random.default_rng(99).normal(size=(classes, 20))
    features = (centres[labels] + 0.7 * random.normal(size=(number, 20))) * np.logspace(-2, 2, 20) + 5
    return features[:, None].astype(np.float32), labels


def test_classes_weigh_alike_where_that_is_asked_for() -> None:
    """Two classes that overlap, one with nine times as many pictures."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [270, 30])
    features = (generator.normal(size=(300, 1, 4)) + labels[:, None, None]).astype(np.float32)
    judged = (generator.normal(size=(200, 4)) + np.repeat([0, 1], 100)[:, None]).astype(np.float32)
    wanted = np.repeat([0, 1], 100)

    def recall(*, balanced: bool) -> float:
        probe = fit_probe(features, labels, judged, wanted, classes=2, balanced=balanced)
        return float(((judged @ probe.weight.T + probe.bias).argmax(1) == wanted)[100:].mean())

    assert recall(balanced=True) > recall(balanced=False) + 0.2


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
    got = extraction(network, dataset, tmp_path).features(ids, mirrored=True)
    pictures = torch.from_numpy(np.array(dataset.pixels[ids])).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        for view, seen in enumerate((pictures, pictures.flip(3))):
            torch.testing.assert_close(torch.from_numpy(got[:, view]), network.features(seen), rtol=1e-4, atol=1e-4)


def test_features_are_computed_once_each_view_by_itself(
    network: backbones.Backbone, dataset: DataSet, tmp_path: Path, computed: list[tuple[int, bool]]
) -> None:
    ids = dataset.manifest.indices("train")
    source = extraction(network, dataset, tmp_path)
    first = source.features(ids, mirrored=False)
    np.testing.assert_array_equal(source.features(ids, mirrored=False), first)
    assert computed == [(len(ids), False)]
    both = source.features(ids, mirrored=True)
    assert computed[1:] == [(len(ids), True)], "the picture itself is there already"
    np.testing.assert_array_equal(both[:, :1], first)


def test_whatever_makes_other_features_makes_another_file(
    network: backbones.Backbone,
    dataset: DataSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    computed: list[tuple[int, bool]],
) -> None:
    ids = dataset.manifest.indices("validation")
    source, architecture = extraction(network, dataset, tmp_path), network.architecture
    source.features(ids, mirrored=False)
    source.features(ids[:-1], mirrored=False)
    other = replace(dataset, preprocessing=replace(dataset.preprocessing, crop_fraction=1.0))
    replace(source, dataset=other).features(ids, mirrored=False)
    replace(source, weights="of another").features(ids, mirrored=False)
    replace(source, arithmetic=replace(FP32, channels_last=True)).features(ids, mirrored=False)
    for changed in (replace(architecture, name="test_resnet2"), replace(architecture, arguments={"bn_eps": 0.1})):
        monkeypatch.setattr(network, "architecture", changed)
        source.features(ids, mirrored=False)
    monkeypatch.setattr(network, "architecture", architecture)
    with torch.no_grad():
        network.normalise.mean.add_(1)
    source.features(ids, mirrored=False)
    network.normalise.mean.sub_(1)
    for module in ("darkroom.training.frozen", "darkroom.data.cache"):  # of timm, and of Pillow
        monkeypatch.setattr(f"{module}.version", lambda package: f"{package} 99")
        source.features(ids, mirrored=False)
    assert len(computed) == 10


def test_a_stopped_extraction_keeps_its_blocks(
    network: backbones.Backbone, dataset: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "BLOCK", 4)
    ids, source = dataset.manifest.indices("train")[:10], extraction(network, dataset, tmp_path)
    original, done = Extraction._computed, []

    def stopped(self: Extraction, ids: np.ndarray, *, mirror: bool) -> np.ndarray:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(len(ids))
        return original(self, ids, mirror=mirror)

    monkeypatch.setattr(Extraction, "_computed", stopped)
    with pytest.raises(KeyboardInterrupt):
        source.features(ids, mirrored=False)
    assert len(list((tmp_path / "features").iterdir())) == 2
    done.clear()
    assert source.features(ids, mirrored=False).shape == (10, 1, network.head.in_features)
    assert done == [2], "the rest alone"


def test_what_is_missing_is_known_beforehand(network: backbones.Backbone, dataset: DataSet, tmp_path: Path) -> None:
    train, validation = (len(dataset.manifest.indices(split)) for split in ("train", "validation"))
    source = extraction(network, dataset, tmp_path)
    assert source.missing(mirrored=True) == 2 * train + validation
    train_probe(source, mirrored=False)
    assert source.missing(mirrored=False) == 0
    assert source.missing(mirrored=True) == train
    assert source.seconds_a_view() > 0
    assert source.missing(mirrored=True) == train, "what is timed is not kept"


@pytest.mark.parametrize("cut", [True, False])
def test_a_damaged_cache_is_computed_again(
    network: backbones.Backbone, dataset: DataSet, tmp_path: Path, cut: bool
) -> None:
    ids = dataset.manifest.indices("validation")
    first = extraction(network, dataset, tmp_path).features(ids, mirrored=False)
    (path,) = (tmp_path / "features").iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content[:-100] if cut else content)
    again = extraction(network, dataset, tmp_path).features(ids, mirrored=False)
    np.testing.assert_array_equal(first, again)


def test_the_last_layer_answers_as_the_probe(network: backbones.Backbone, dataset: DataSet, tmp_path: Path) -> None:
    probe = train_probe(extraction(network, dataset, tmp_path), mirrored=True)
    probe.put_into(network)
    ids = dataset.manifest.indices("validation")
    pictures = torch.from_numpy(np.array(dataset.pixels[ids])).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        right = (network(pictures).argmax(1).numpy() == dataset.manifest.labels()[ids]).mean()
    assert right == pytest.approx(probe.accuracy)
    assert probe.accuracy > 0.5, "blobs differ in colour, which even random filters see"
