"""darkroom's own family of convolutional networks, from 8×8 grey digits to 224×224 photos.

    picture (3, S, S), values 0 to 255
      normalise   subtract the channel mean of the training pictures, divide by their standard deviation
      stem        3×3 convolution, batch normalisation, GELU; photos above 64 pixels are halved here
      stage × D   3×3 convolution, 2×2 max pooling, normalisation, GELU, 3×3 convolution, normalisation, GELU
      pool        largest activation of each channel
      head        dropout, fully connected layer -> logits (K,)

Depth follows the picture: stages halve it until 4 pixels or fewer are left. Width follows the data: fewer channels for
a few hundred pictures than for tens of thousands. Pooling *before* the normalisation, and two convolutions a stage, are
the layout of K. Jordan's CIFAR-10 speed records (arXiv 2404.00498), which buys most accuracy for a multiply-add.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

SMALL_PICTURE = 64
"""Largest side in pixels that the stem keeps at full resolution."""


@dataclass(frozen=True)
class Architecture:
    """Everything needed to build the network again; part of config.json."""

    image_size: int
    classes: int
    stem_width: int
    stem_stride: int
    widths: tuple[int, ...]
    dropout: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Architecture":
        """Inverse of `to_json`."""
        return cls(**{**content, "widths": tuple(content["widths"])})


def design(*, image_size: int, classes: int, pictures: int, width: float = 1.0, dropout: float = 0.0) -> Architecture:
    """Choose depth and width from the size of the pictures and how many there are to train on."""
    stride = 1 if image_size <= SMALL_PICTURE else 2
    side = -(-image_size // stride)
    widths: list[int] = []
    while side > 4 or len(widths) < 2:
        side //= 2
        widths.append(_channels(64 * 2 ** len(widths), pictures, width))
    return Architecture(
        image_size=image_size,
        classes=classes,
        stem_width=max(8, round(32 * width / 8) * 8),
        stem_stride=stride,
        widths=tuple(widths),
        dropout=dropout,
    )


def _channels(wish: int, pictures: int, factor: float) -> int:
    most = 256 if pictures >= 2000 else 128  # more channels than that only learn a small set by heart
    return max(8, round(min(wish, most) * factor / 8) * 8)  # multiples of 8 fill vector registers


class Normalise(nn.Module):
    """Channel-wise standardisation of values 0 to 255, inside the network so that it travels with every export."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) of 0 to 255 -> the same shape, about zero mean and unit variance."""
        return (pictures - self.mean) / self.std


def build(
    architecture: Architecture, *, mean: Sequence[float] = (0, 0, 0), std: Sequence[float] = (255, 255, 255)
) -> nn.Sequential:
    """A new network, (N, 3, S, S) float of 0 to 255 -> logits (N, K), with weights from torch's global generator."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalise=Normalise(mean, std))
    layers["stem"] = _stem(architecture)
    channels = architecture.stem_width
    for number, width in enumerate(architecture.widths, start=1):
        layers[f"stage{number}"] = _stage(channels, width)
        channels = width
    layers["pool"] = nn.AdaptiveMaxPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["dropout"] = nn.Dropout(architecture.dropout)
    layers["head"] = nn.Linear(channels, architecture.classes)
    return nn.Sequential(layers)


def _stem(architecture: Architecture) -> nn.Sequential:
    width, stride = architecture.stem_width, architecture.stem_stride
    return nn.Sequential(_convolution(3, width, stride=stride), nn.BatchNorm2d(width), nn.GELU())


def _stage(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(channels, width),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(width),
        nn.GELU(),
        _convolution(width, width),
        nn.BatchNorm2d(width),
        nn.GELU(),
    )


def _convolution(channels: int, width: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
