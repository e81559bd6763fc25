"""Networks by kind: our own, or a backbone of timm; built again from what config.json says of them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from darkroom.config import OURS
from darkroom.models import cnn

if TYPE_CHECKING:
    from darkroom.models import backbones

Architecture: TypeAlias = "cnn.Architecture | backbones.Architecture"


def architecture_of(network: Mapping[str, Any]) -> Architecture:
    """The architecture that the `network` part of a config.json describes."""
    if network["kind"] == OURS:
        return cnn.Architecture.from_json(network["architecture"])
    from darkroom.models import backbones

    return backbones.Architecture.from_json(network["architecture"])


def build(
    architecture: Architecture, *, mean: Sequence[float] = (0, 0, 0), std: Sequence[float] = (255, 255, 255)
) -> nn.Module:
    """A network whose weights are still to be loaded or trained, (N, 3, S, S) of 0 to 255 -> logits (N, K)."""
    if isinstance(architecture, cnn.Architecture):
        return cnn.build(architecture, mean=mean, std=std)
    from darkroom.models import backbones

    return backbones.build(architecture, mean=mean, std=std)
