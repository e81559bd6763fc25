"""What a network is made of: one row a layer, measured by passing one picture through it."""

from collections.abc import Iterator, Mapping, Sequence
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

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Layer":
        """Inverse of `to_json`."""
        return cls(**{**content, "output_shape": tuple(content["output_shape"])})


def layer_lines(layers: Sequence[Layer]) -> Iterator[str]:
    """The layers as a table for people, with a line of totals."""
    rows = [("layer", "kind", "output", "parameters", "multiply-adds")]
    rows += [
        (row.name, row.kind, "×".join(map(str, row.output_shape)), f"{row.parameters:,}", f"{row.multiply_adds:,}")
        for row in layers
    ]
    parameters, work = sum(row.parameters for row in layers), sum(row.multiply_adds for row in layers)
    rows.append(("total", "", "", f"{parameters:,}", f"{work:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for name, kind, *numbers in rows:
        right = "  ".join(f"{text:>{width}}" for text, width in zip(numbers, widths[2:], strict=True))
        yield f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {right}"


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
            place = next(network.parameters()).device
            network.eval()(torch.zeros(1, 3, image_size, image_size, device=place))
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
        mirrored = "mirrored " if type(module).__name__ == "Mirrored" else ""
        return f"{mirrored}convolution {module.kernel_size[0]}×{module.kernel_size[1]}"
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
