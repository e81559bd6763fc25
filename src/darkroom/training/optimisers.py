"""SGD with Nesterov momentum, AdamW, and Muon for convolution filters."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from darkroom.config import Optimiser

OPENED_BY = 0.1
"""Progress at which the lowest layer of a backbone begins to learn; the others open from the top down before it. Set by
judgement."""


def build_optimiser(
    network: nn.Module,
    *,
    name: Optimiser,
    learning_rate: float,
    weight_decay: float,
    momentum: float,
    layer_decay: float = 1.0,
) -> Optimizer:
    """An optimiser over all parameters that are learned; biases and normalisation are never decayed, nor what timm
    names besides, such as the embeddings of places.

    Each group carries `peak`, its highest learning rate, which schedules scale, and `opens`, the progress at which it
    begins to learn. The groups of a backbone are its layers, whose rates fall by `layer_decay` from each to the one
    below (Clark et al. 2020); they open from the top down (Howard and Ruder 2018), unless their weights are random yet.
    """
    if isinstance(body := getattr(network, "body", None), nn.Module):
        groups = _layers(body, weight_decay=weight_decay, layer_decay=layer_decay)
        if getattr(network, "random_start", False):
            groups = [{**group, "opens": 0.0} for group in groups]
        groups += _kinds(network.get_submodule("head").parameters(), weight_decay=weight_decay)
    else:
        groups = _kinds(network.parameters(), weight_decay=weight_decay)
    optimiser: Optimizer
    if name == "adamw":
        optimiser = AdamW(groups, lr=learning_rate, betas=(momentum, 0.99), fused=True)
    elif name == "sgd":
        nesterov = momentum > 0  # torch refuses it without momentum
        optimiser = SGD(groups, lr=learning_rate, momentum=momentum, nesterov=nesterov, fused=True)
    else:
        filters, matrices, vectors = _by_shape(network.parameters())
        rest = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        optimiser = Muon(filters, rest, lr=learning_rate, momentum=momentum)
    for group in optimiser.param_groups:
        group["peak"] = group["lr"] * group.get("lr_scale", 1.0)
        group.setdefault("opens", 0.0)
    return optimiser


def _by_shape(parameters: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Those that are learned: filters, matrices, and vectors such as biases."""
    learned = [p for p in parameters if p.requires_grad]
    return [p for p in learned if p.ndim == 4], [p for p in learned if p.ndim == 2], [p for p in learned if p.ndim < 2]


def _kinds(parameters: Iterable[Tensor], *, weight_decay: float) -> list[dict[str, Any]]:
    filters, matrices, vectors = _by_shape(parameters)
    return [{"params": filters + matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _layers(body: nn.Module, *, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]

    undecayed = body.no_weight_decay() if hasattr(body, "no_weight_decay") else ()  # type: ignore[operator]
    layers: list[dict[str, Any]] = param_groups_layer_decay(
        body, weight_decay=weight_decay, layer_decay=layer_decay, no_weight_decay_list=tuple(undecayed)
    )
    depths = sorted({layer["lr_scale"] for layer in layers}, reverse=True)  # from the top down
    for layer in layers:
        layer["opens"] = OPENED_BY * (1 + depths.index(layer["lr_scale"])) / len(depths)
    return layers


class Muon(Optimizer):
    """Momentum orthogonalised by Newton-Schulz for filters (O, I, k, k), SGD with Nesterov momentum for the rest.

    After K. Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", with the norm of every
    filter bank held fixed as in his airbench: behind each convolution stands a normalisation, so only the direction of
    the filters matters, and a fixed norm makes the learning rate the relative step. The rest learns at `REST` of it.
    """

    REST = 0.2

    def __init__(
        self, filters: Iterable[Tensor], rest: Iterable[dict[str, Any]], *, lr: float, momentum: float
    ) -> None:
        groups = [{"params": list(filters), "lr": lr, "filters": True}]
        groups += [{**group, "lr": lr * self.REST, "filters": False} for group in rest]
        super().__init__(groups, {"momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters from their gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = self._nesterov(parameter, parameter.grad, group)
                if group["filters"]:
                    parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
                    update = orthogonalise(update.reshape(len(update), -1)).view(update.shape)
                parameter.add_(update, alpha=-group["lr"])

    def _nesterov(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer: Tensor = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        return gradient.add(buffer, alpha=group["momentum"])


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Matrix (m, n) with about the same singular vectors and all singular values near 1.

    Quintic Newton-Schulz iteration with the coefficients of K. Jordan (2024); bfloat16 is precise enough for it.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16() if _fast_bfloat16(matrix.device) else matrix.float()
    x = x / (x.norm() + 1e-7)
    if matrix.shape[0] > matrix.shape[1]:
        x = x.T
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    if matrix.shape[0] > matrix.shape[1]:
        x = x.T
    result: Tensor = x.to(matrix.dtype)
    return result


def _fast_bfloat16(device: torch.device) -> bool:
    return device.type != "cpu" or bool(torch.backends.cpu.get_cpu_capability().startswith("AVX512"))
