"""Class-activation maps: where the evidence was put, the map is bright."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from darkroom.evaluation.evaluate import evaluate
from darkroom.evaluation.explain import activation_maps
from darkroom.figures.evaluation import lit
from darkroom.models import backbones, cnn
from darkroom.models.views import with_views
from finished import Finished

SIDE, SQUARE = 128, 44

ELSEWHERE = 6
"""Random regions, as large as what the map marks, that are hidden in its place."""


def scenes(number: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (N, 3, S, S) with a red or a green square (the class) somewhere; classes (N,); where it is (N, S, S)."""
    random = np.random.default_rng(seed)
    pictures = random.integers(60, 130, (number, 3, SIDE, SIDE)).astype(np.float32)
    labels, place = random.integers(0, 2, number), np.zeros((number, SIDE, SIDE), bool)
    for row, label in enumerate(labels):
        top, left = random.integers(0, SIDE - SQUARE, 2)
        place[row, top : top + SQUARE, left : left + SQUARE] = True
        pictures[row, label, top : top + SQUARE, left : left + SQUARE] = 240
    return torch.from_numpy(pictures), torch.from_numpy(labels), torch.from_numpy(place)


def learn(network: nn.Module, *, steps: int = 60, rate: float = 2e-3) -> nn.Module:
    """Train on such scenes."""
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate)
    network.train()
    for step in range(steps):
        pictures, labels, _ = scenes(16, seed=step + 1)
        loss = nn.functional.cross_entropy(network(pictures), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


def hidden(pictures: Tensor, marked: Tensor) -> Tensor:
    """The pictures, grey where `marked` (N, S, S)."""
    return torch.where(marked[:, None], torch.full((), 95.0), pictures)


def brightest(maps: Tensor, part: float) -> Tensor:
    """The brightest `part` of each map."""
    bound = maps.flatten(1).quantile(1 - part, dim=1)
    return maps > bound[:, None, None]


def check(network: nn.Module) -> None:
    """Hiding what the map marks costs more probability than hiding as much elsewhere."""
    pictures, labels, _ = scenes(24, seed=999)
    with torch.no_grad():
        before = network(pictures).softmax(1)
    right = before.argmax(1) == labels
    assert right.float().mean() > 0.85, "it must have learned something to explain"
    maps = activation_maps(network, pictures, labels)
    assert maps is not None
    assert maps.shape == (24, SIDE, SIDE)
    assert 0 <= maps.min() <= maps.max() <= 1
    marked, rows = brightest(maps, 0.2), torch.arange(24)

    def drop(region: Tensor) -> float:
        with torch.no_grad():
            after = network(hidden(pictures, region)).softmax(1)
        return (before - after)[rows, labels][right].mean().item()

    random = np.random.default_rng(0)
    moved = [marked.roll(random.integers(0, SIDE, 2).tolist(), (1, 2)) for _ in range(ELSEWHERE)]
    drops = [drop(region) for region in moved]
    assert drop(marked) > np.mean(drops) + 0.05, (drop(marked), drops)


def ours() -> nn.Module:
    torch.manual_seed(0)
    return cnn.build(cnn.design(image_size=SIDE, classes=2, pictures=500, width=0.5))


def backbone(name: str, *, side: int = SIDE, classes: int = 2) -> backbones.Backbone:
    torch.manual_seed(0)
    found = backbones.find(name)
    return backbones.pretrained(found, found.architecture(image_size=side, classes=classes), random_weights=True)


def opposed(network: nn.Module) -> nn.Module:
    """With two classes, of which what speaks for the one speaks against the other: one of their maps must be lit."""
    head = network.get_submodule("head")
    with torch.no_grad():
        weight = torch.randn(head.weight.shape[1], generator=torch.Generator().manual_seed(0))
        head.weight.copy_(torch.stack([weight, -weight]))
    return network.eval()


def for_both(network: nn.Module, *, side: int = SIDE) -> Tensor | None:
    """Maps (2, S, S) of a picture that is dark on its left, for either class."""
    picture = np.random.default_rng(0).uniform(0, 255, (1, 3, side, side)).astype(np.float32)
    picture[..., : side // 2] *= 0.2
    return activation_maps(network, torch.from_numpy(picture).repeat(2, 1, 1, 1), torch.tensor([0, 1]))


def test_our_network_looks_at_the_square() -> None:
    network = ours()
    cnn.fit_whitening(network, [scenes(50)[0]])
    check(learn(network))


@pytest.mark.parametrize(
    ("name", "steps", "rate"),
    [
        pytest.param("test_resnet", 80, 2e-3, marks=pytest.mark.slow),
        pytest.param("test_vit", 150, 1e-3, marks=pytest.mark.slow),
        pytest.param("test_convnext", 70, 2e-3, marks=pytest.mark.slow),
        pytest.param("test_efficientnet", 100, 2e-3, marks=pytest.mark.slow),
    ],
)
def test_a_backbone_looks_at_the_square(name: str, steps: int, rate: float) -> None:
    check(learn(backbone(name), steps=steps, rate=rate))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "rate"),
    [
        ("vgg11_bn", 60, 3e-4),
        ("mobilenetv3_small_100", 150, 2e-3),
    ],  # Inception's maps are 2 × 2 at this side: too coarse
)
def test_a_network_of_full_size_looks_at_the_square(name: str, steps: int, rate: float) -> None:
    check(learn(backbone(name), steps=steps, rate=rate))


def test_views_and_their_network_are_explained_alike() -> None:
    network = opposed(ours())
    plain, averaged = for_both(network), for_both(with_views(network, 2))
    assert plain is not None
    assert averaged is not None
    assert torch.equal(averaged, plain)


def test_maps_leave_the_network_as_it_was() -> None:
    network = ours().eval()
    pictures, labels, _ = scenes(3)
    with torch.no_grad():
        before = network(pictures)
    activation_maps(network, pictures, labels)
    assert all(parameter.grad is None for parameter in network.parameters())
    with torch.no_grad():
        assert torch.equal(network(pictures), before)


FORMS = [
    ("test_vit", 160),
    ("test_vit", 96),  # of another side than its weights are for
    ("test_convnext", 160),
    ("test_efficientnet", 160),
    ("test_resnet", 160),
    ("test_mambaout", 160),  # channels last
    ("convit_tiny", 224),  # whose class token joins late
]


@pytest.mark.parametrize(("name", "side"), FORMS)
def test_each_form_of_features_has_a_map(name: str, side: int) -> None:
    maps = for_both(opposed(backbone(name, side=side)), side=side)
    assert maps is not None, "neither class has any evidence"
    assert maps.shape == (2, side, side)
    assert maps.isfinite().all()
    assert set(maps.amax((1, 2)).round(decimals=4).tolist()) <= {0, 1}
    assert (maps[0] - maps[1]).std() > 1e-3, "each place says the same"


@pytest.mark.parametrize("name", ["mixer_s32_224", "levit_128s", "xcit_nano_12_p16_224"])
def test_where_the_places_of_features_are_unknown_there_is_no_map(name: str) -> None:
    assert for_both(opposed(backbone(name, side=224)), side=224) is None


def test_what_decides_nothing_has_no_map() -> None:
    assert for_both(backbone("test_resnet").eval()) is None, "its last layer is zero yet"


@pytest.mark.parametrize("name", ["ours", "test_resnet", "test_vit"])
def test_nothing_is_kept_of_the_way_to_the_features(name: str) -> None:
    network = opposed(ours() if name == "ours" else backbone(name))
    recorded: list[bool] = []
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    handle = first.register_forward_hook(lambda module, inputs, output: recorded.append(output.requires_grad))
    assert for_both(network) is not None
    handle.remove()
    assert recorded == [False]
    assert torch.is_grad_enabled()


def test_a_network_without_maps_is_evaluated_all_the_same(
    finished_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("darkroom.evaluation.evaluate.activation_maps", lambda *_: None)
    copied = finished_run.copy(tmp_path / "run")
    copied.run.metrics.unlink()
    assert "accuracy" in evaluate(copied.run, copied.dataset())["validation"]
    assert copied.run.metrics.exists()
    assert "No activation maps: where the features of cnn lie in a picture is not known" in capsys.readouterr().err


def test_a_lit_picture_is_dark_where_nothing_counts() -> None:
    pixels = np.full((4, 4, 3), 200, np.uint8)
    strength = np.zeros((4, 4))
    strength[0, 0] = 1
    shown = lit(pixels, strength)
    assert shown[0, 0].tolist() == [200] * 3
    assert shown[3, 3].max() < 40


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    from darkroom.figures.evaluation import Look
    from darkroom.figures.evaluation import activation_maps as draw

    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    looks = [Look(pixels[row], np.ones((16, 16)), "cat", ("cat", "dog")[row % 2]) for row in range(4)]
    draw(tmp_path / "maps", looks=looks)
    assert (tmp_path / "maps.png").stat().st_size > 3000
    assert json.dumps([look.right for look in looks]) == "[true, false, true, false]"
