"""What a network is made of: one row a layer, measured by passing one picture through it."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """One layer: output shape without the batch, parameters, and multiply-adds for one picture."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return asdict(self)


def summarise(network: nn.Module, image_size: int) -> list[Layer]:
    """The layers without children, in the order in which they run.

    Multiply-adds are counted for convolutions and fully connected layers; the rest is small beside them.
    """
    rows: list[Layer] = []
    handles = [
        module.register_forward_hook(_recorder(name, rows))
        for name, module in network.named_modules()
        if not list(module.children())
    ]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, image_size, image_size))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return rows


def _recorder(name: str, rows: list[Layer]) -> Any:
    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        rows.append(
            Layer(
                name=name,
                kind=_kind(module),
                output_shape=tuple(output.shape[1:]),
                parameters=sum(parameter.numel() for parameter in module.parameters()),
                multiply_adds=_multiply_adds(module, output),
            )
        )

    return record


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.Conv2d):
        return f"convolution {module.kernel_size[0]}×{module.kernel_size[1]}"
    names = {
        "Normalise": "normalise",
        "BatchNorm2d": "batch normalisation",
        "MaxPool2d": "max pooling 2×2",
        "AdaptiveMaxPool2d": "global max pooling",
        "Linear": "fully connected",
    }
    return names.get(type(module).__name__, type(module).__name__)


def _multiply_adds(module: nn.Module, output: Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        return output[0].numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return module.weight.numel()
    return 0
