"""Optimisers: what is decayed, what Muon does to filters, and that each of them learns."""

import pytest
import torch
from torch import Tensor, nn

from darkroom.config import Optimiser
from darkroom.models import cnn
from darkroom.training.optimisers import Muon, build_optimiser, orthogonalise
from training import training

NAMES: tuple[Optimiser, ...] = ("sgd", "adamw", "muon")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return cnn.build(cnn.design(image_size=8, classes=3, pictures=10, width=0.25))


def with_gradients(net: nn.Module, scale: float = 1.0) -> nn.Module:
    random = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=random) * scale
    return net


@pytest.mark.parametrize("shape", [(8, 27), (64, 64), (96, 30), (128, 1152)])
def test_orthogonalise_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalise(matrix)
    assert result.shape == matrix.shape
    assert result.dtype == matrix.dtype
    values = torch.linalg.svdvals(result)
    before = torch.linalg.svdvals(matrix) / matrix.norm()
    assert values[before > 0.01].min() > 0.5
    assert values.max() < 1.35
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.nn.functional.cosine_similarity((u @ v).flatten(), result.flatten(), dim=0) > 0.95


def test_orthogonalise_of_nothing_is_nothing() -> None:
    assert torch.equal(orthogonalise(torch.zeros(4, 9)), torch.zeros(4, 9))


@pytest.mark.parametrize("name", NAMES)
def test_every_learned_parameter_is_in_one_group_and_only_weights_are_decayed(name: Optimiser) -> None:
    net = network()
    optimiser = build_optimiser(net, name=name, learning_rate=0.1, weight_decay=0.01, momentum=0.9)
    decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    learned = {label: p for label, p in net.named_parameters() if p.requires_grad}
    assert sorted(decay) == sorted(id(p) for p in learned.values())
    for label, parameter in learned.items():
        held = name == "muon" and parameter.ndim == 4  # its norm is fixed, which makes a decay meaningless
        assert decay[id(parameter)] == (0.01 if parameter.ndim >= 2 and not held else 0.0), label
    assert all(group["peak"] == group["lr"] for group in optimiser.param_groups)


@pytest.mark.parametrize("name", NAMES)
def test_without_gradient_only_weights_shrink(name: Optimiser) -> None:
    net = with_gradients(network(), scale=0.0)
    before = {label: p.detach().clone() for label, p in net.named_parameters()}
    build_optimiser(net, name=name, learning_rate=0.1, weight_decay=0.1, momentum=0.9).step()
    for label, parameter in net.named_parameters():
        if parameter.ndim < 2:
            assert torch.equal(parameter, before[label]), label
    head = dict(net.named_parameters())["head.weight"]
    assert head.norm() < before["head.weight"].norm()


def test_sgd_is_nesterov_by_hand() -> None:
    net = nn.Linear(3, 2, bias=False)
    start, gradients = net.weight.detach().clone(), [torch.ones(2, 3), torch.full((2, 3), 2.0)]
    optimiser = build_optimiser(net, name="sgd", learning_rate=0.1, weight_decay=0.0, momentum=0.5)
    for gradient in gradients:
        net.weight.grad = gradient
        optimiser.step()
    # buffers 1 and 2.5; Nesterov steps 1 + 0.5 × 1 and 2 + 0.5 × 2.5
    torch.testing.assert_close(net.weight.detach(), start - 0.1 * (1.5 + 3.25))


@pytest.mark.parametrize("name", NAMES)
def test_no_momentum_is_allowed(name: Optimiser) -> None:
    net = with_gradients(network())
    build_optimiser(net, name=name, learning_rate=0.1, weight_decay=0.0, momentum=0.0).step()
    assert all(bool(p.isfinite().all()) for p in net.parameters())


def muon(net: nn.Module, *, rate: float) -> Muon:
    optimiser = build_optimiser(net, name="muon", learning_rate=rate, weight_decay=0.0, momentum=0.6)
    assert isinstance(optimiser, Muon)
    return optimiser


def filters(net: nn.Module) -> list[Tensor]:
    return [p for p in net.parameters() if p.ndim == 4]


def test_muon_holds_the_norm_of_filters() -> None:
    net = with_gradients(network(), scale=100.0)
    optimiser = muon(net, rate=0.1)
    for _ in range(20):
        optimiser.step()
        for bank in filters(net):
            wanted = len(bank) ** 0.5
            assert abs(bank.norm().item() - wanted) <= 0.15 * wanted  # the last step, a tenth, is still to be held


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_steps_by_the_orthogonalised_momentum(layout: torch.memory_format) -> None:
    net = with_gradients(network().to(memory_format=layout))  # type: ignore[call-overload]
    before = [bank.detach().clone() for bank in filters(net)]
    gradients = [bank.grad.clone() for bank in filters(net) if bank.grad is not None]
    muon(net, rate=0.1).step()
    for bank, old, gradient in zip(filters(net), before, gradients, strict=True):
        held = old * len(old) ** 0.5 / old.norm()
        update = orthogonalise((gradient * 1.6).reshape(len(old), -1)).reshape(old.shape)
        torch.testing.assert_close(bank.detach(), held - 0.1 * update, rtol=1e-3, atol=1e-4)


def test_muon_teaches_the_rest_slowly() -> None:
    net = with_gradients(network())
    head = dict(net.named_parameters())["head.weight"]
    before, gradient = head.detach().clone(), head.grad
    assert gradient is not None
    muon(net, rate=0.1).step()
    torch.testing.assert_close(head.detach(), before - 0.1 * Muon.REST * 1.6 * gradient)


def test_muon_leaves_what_has_no_gradient() -> None:
    net = network()
    before = [p.detach().clone() for p in net.parameters()]
    muon(net, rate=0.1).step()
    assert all(torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_each_learns_a_simple_task_at_its_default_rate(name: Optimiser) -> None:
    made = training(epochs=30, optimiser=name, flip=False, translate=0, label_smoothing=0.0)
    history = made.fit(made.state()).history
    assert history[-1]["train_accuracy"] >= 0.95
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
