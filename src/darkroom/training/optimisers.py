"""SGD with Nesterov momentum, AdamW, and Muon for convolution filters."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from darkroom.config import Optimiser


def build_optimiser(
    network: nn.Module, *, name: Optimiser, learning_rate: float, weight_decay: float, momentum: float
) -> Optimizer:
    """An optimiser over all parameters that are learned; biases and normalisation are never decayed.

    Each group carries `peak`, its highest learning rate, which schedules scale.
    """
    learned = [p for p in network.parameters() if p.requires_grad]
    filters = [p for p in learned if p.ndim == 4]
    matrices = [p for p in learned if p.ndim == 2]
    vectors = [p for p in learned if p.ndim < 2]
    decayed = {"params": filters + matrices, "weight_decay": weight_decay}
    plain = {"params": vectors, "weight_decay": 0.0}
    optimiser: Optimizer
    if name == "adamw":
        optimiser = AdamW([decayed, plain], lr=learning_rate, betas=(momentum, 0.99), fused=True)
    elif name == "sgd":
        nesterov = momentum > 0  # torch refuses it without momentum
        optimiser = SGD([decayed, plain], lr=learning_rate, momentum=momentum, nesterov=nesterov, fused=True)
    else:
        rest = [{"params": matrices, "weight_decay": weight_decay}, plain]
        optimiser = Muon(filters, rest, lr=learning_rate, momentum=momentum)
    for group in optimiser.param_groups:
        group["peak"] = group["lr"]
    return optimiser


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
