"""What a network is made of: one row a layer, measured by passing one picture through it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """One layer: output shape without the batch, parameters of its own, and multiply-adds for one picture.

    What is used in passing, such as the place embedding of a transformer, has parameters and no output shape.
    """

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
    """The layers, in the order in which they end, then all else that has parameters, so that these add up.

    Multiply-adds are counted for convolutions and fully connected layers; the rest is small beside them. What is left
    out of a transformer are the products of its attention, a tenth or so of its work.
    """
    rows: list[Layer] = []
    counted: set[int] = set()
    handles = [
        module.register_forward_hook(_recorder(name, rows, counted))
        for name, module in network.named_modules()
        if not list(module.children()) or list(module.parameters(recurse=False))
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
    rest = [(name, module, _new_parameters(module, counted)) for name, module in network.named_modules()]
    return rows + [Layer(name, _kind(module), (), parameters, 0) for name, module, parameters in rest if parameters]


def _recorder(name: str, rows: list[Layer], counted: set[int]) -> Any:
    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        rows.append(
            Layer(
                name=name,
                kind=_kind(module),
                output_shape=tuple(output.shape[1:]) if isinstance(output, Tensor) else (),
                parameters=_new_parameters(module, counted),
                multiply_adds=_multiply_adds(module, output),
            )
        )

    return record


def _new_parameters(module: nn.Module, counted: set[int]) -> int:
    """Parameters of the module itself; a layer that runs twice, or shares weights with another, has them once."""
    new = [parameter for parameter in module.parameters(recurse=False) if id(parameter) not in counted]
    counted.update(map(id, new))
    return sum(parameter.numel() for parameter in new)


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.Conv2d):
        mirrored = "mirrored " if type(module).__name__ == "Mirrored" else ""
        return f"{mirrored}convolution {module.kernel_size[0]}×{module.kernel_size[1]}"
    names = {
        "Normalise": "normalise",
        "BatchNorm2d": "batch normalisation",
        "BatchNormAct2d": "batch normalisation",
        "MaxPool2d": "max pooling 2×2",
        "AdaptiveMaxPool2d": "global max pooling",
        "Linear": "fully connected",
    }
    return names.get(type(module).__name__, type(module).__name__)


def _multiply_adds(module: nn.Module, output: Any) -> int:
    """Of the one picture, wherever in it the layer is applied: at each place, token or window."""
    if isinstance(module, nn.Conv2d):
        return int(output.numel() * module.weight[0].numel())
    if isinstance(module, nn.Linear):
        return int(output.numel() * module.in_features)
    return 0
