"""Class-activation maps: where the evidence was put, the map is bright."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from darkroom.evaluation.explain import activation_maps
from darkroom.figures.evaluation import lit
from darkroom.models import backbones, cnn
from darkroom.models.views import with_views

SIDE, SQUARE = 128, 44


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
    assert maps.shape == (24, SIDE, SIDE)
    assert 0 <= maps.min() <= maps.max() <= 1
    marked = brightest(maps, 0.2)
    elsewhere = marked.roll((SIDE // 2, SIDE // 2), (1, 2))
    rows = torch.arange(24)
    with torch.no_grad():
        drops = [
            (before - network(hidden(pictures, region)).softmax(1))[rows, labels][right].mean().item()
            for region in (marked, elsewhere)
        ]
    assert drops[0] > drops[1] + 0.05, drops


def ours() -> nn.Module:
    torch.manual_seed(0)
    return cnn.build(cnn.design(image_size=SIDE, classes=2, pictures=500, width=0.5))


def backbone(name: str) -> nn.Module:
    torch.manual_seed(0)
    found = backbones.Found(name, name, {}, backbones._description(backbones.timm.get_pretrained_cfg(name).to_dict()))
    return backbones.pretrained(found, found.architecture(image_size=SIDE, classes=2), random_weights=True)


def test_our_network_looks_at_the_square() -> None:
    network = ours()
    cnn.fit_whitening(network, [scenes(50)[0]])
    check(learn(network))


def test_a_backbone_looks_at_the_square() -> None:
    check(learn(backbone("test_resnet"), steps=80))


def test_views_and_their_network_are_explained_alike() -> None:
    network = ours().eval()
    pictures, labels, _ = scenes(3)
    plain = activation_maps(network, pictures, labels)
    assert torch.equal(activation_maps(with_views(network, 2), pictures, labels), plain)


def test_maps_leave_the_network_as_it_was() -> None:
    network = ours().eval()
    pictures, labels, _ = scenes(3)
    with torch.no_grad():
        before = network(pictures)
    activation_maps(network, pictures, labels)
    assert all(parameter.grad is None for parameter in network.parameters())
    with torch.no_grad():
        assert torch.equal(network(pictures), before)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet", "test_resnet"])
def test_each_form_of_features_has_a_map(name: str) -> None:
    torch.manual_seed(0)
    config = backbones.timm.get_pretrained_cfg(name).to_dict()
    side = config["input_size"][-1]
    found = backbones.Found(name, name, {}, backbones._description(config))
    network = backbones.pretrained(found, found.architecture(image_size=side, classes=3), random_weights=True).eval()
    nn.init.normal_(network.head.weight)
    pictures = torch.rand(2, 3, side, side) * 255
    maps = activation_maps(network, pictures, torch.tensor([0, 2]))
    assert maps.shape == (2, side, side)
    assert maps.isfinite().all()
    assert set(maps.amax(dim=(1, 2)).round(decimals=4).tolist()) <= {0, 1}, "a class may have no evidence at all"


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
