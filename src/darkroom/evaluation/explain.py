"""Where a network looks: class-activation maps by Grad-CAM (Selvaraju et al. 2017).

The last features that still have places are weighted by how much each channel raises the logit of a class, and summed:
what is left above zero shows where in the picture evidence for the class lies.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.models.inference import batch_size_for
from darkroom.models.views import Averaged

LEAST_PLACES = 6
"""Side of the smallest map that still tells where, by judgement; our network's later ones are coarser."""


@dataclass(frozen=True)
class Seen:
    """Features, the logits (N, K) that were computed from them, and how to lay the former out as (N, C, H, W)."""

    features: Tensor
    logits: Tensor
    laid_out: Callable[[Tensor], Tensor]


def activation_maps(network: nn.Module, pictures: Tensor, classes: Tensor) -> Tensor | None:
    """Maps (N, H, W), 0 to 1, of evidence in `pictures` (N, 3, H, W), 0 to 255, for one class each (N,).

    None where it is not known how the features of such a network lie in the picture, or they decide nothing.
    """
    network = network.network if isinstance(network, Averaged) else network
    at_once = batch_size_for(pictures.shape[3])
    parts: list[Tensor] = []
    for some, wanted in zip(torch.split(pictures, at_once), torch.split(classes, at_once), strict=True):
        with torch.enable_grad():
            seen = _look(network, some)
        if seen is None:
            return None
        parts.append(_evidence(seen, wanted, size=pictures.shape[2:]))
    maps = torch.cat(parts)
    return maps if maps.any() else None


def _evidence(seen: Seen, classes: Tensor, *, size: torch.Size) -> Tensor:
    """Maps (N, H, W) of `size` for one class each (N,); the brightest place of each is 1, unless all are dark."""
    (gradients,) = torch.autograd.grad(seen.logits.gather(1, classes[:, None]).sum(), seen.features)
    values, slopes = seen.laid_out(seen.features.detach()), seen.laid_out(gradients)
    weights = slopes.mean(dim=(2, 3), keepdim=True)  # (N, C, 1, 1)
    maps = (weights * values).sum(1, keepdim=True).relu()
    maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)[:, 0]
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)


def _look(network: nn.Module, pictures: Tensor) -> Seen | None:
    """What leads to the features is computed without gradients: at full size they would take gigabytes."""
    if isinstance(network, nn.Sequential):
        return _look_by_ours(network, pictures)
    body: Any = network.get_submodule("body")
    if hasattr(body, "num_prefix_tokens"):
        return _look_by_transformer(body, network, pictures)
    with torch.no_grad():
        features = network.maps(pictures)  # type: ignore[operator]
    last = getattr(body, "output_fmt", "NCHW") == "NHWC"
    known = isinstance(features, Tensor) and features.ndim == 4
    if not known or features.shape[3 if last else 1] != body.num_features:
        return None
    logits = network.classified(features.requires_grad_())  # type: ignore[operator]
    return Seen(features, logits, _from_channels_last if last else _as_it_is)


def _look_by_ours(network: nn.Sequential, pictures: Tensor) -> Seen:
    values, features, behind = pictures, None, 0
    with torch.no_grad():
        for number, (name, layer) in enumerate(network.named_children(), start=1):
            values = layer(values)
            if name.startswith("stage") and (features is None or min(values.shape[2:]) >= LEAST_PLACES):
                features, behind = values, number
    if features is None:
        raise TypeError("the network has no stages")
    logits = network[behind:](features.requires_grad_())
    return Seen(features, logits, _as_it_is)


def _look_by_transformer(body: Any, network: nn.Module, pictures: Tensor) -> Seen | None:
    """At what the last attention reads: behind it only the class token would count."""
    blocks: Any = getattr(body, "blocks", None)
    patches: Any = getattr(body, "patch_embed", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not hasattr(blocks[-1], "norm1"):
        return None
    if not hasattr(patches, "dynamic_feat_size"):
        return None
    height, width = patches.dynamic_feat_size(pictures.shape[2:])
    prefix = body.num_prefix_tokens
    last: Any = blocks[-1]
    features, logits = _seen_by(last.norm1, network, pictures)
    if features is None or features.shape[1:-1] != (prefix + height * width,):
        return None

    def laid_out(tokens: Tensor) -> Tensor:
        places = tokens[:, prefix:]  # (N, H * W, C)
        return places.transpose(1, 2).reshape(len(places), -1, height, width)

    return Seen(features, logits, laid_out)


def _seen_by(module: nn.Module, network: nn.Module, pictures: Tensor) -> tuple[Tensor | None, Tensor]:
    """What `module` gives last while the network answers, and the logits; gradients are recorded from there on."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        kept.append(output.requires_grad_())
        torch.set_grad_enabled(True)

    handle = module.register_forward_hook(keep)
    try:
        with torch.no_grad():
            logits = network(pictures)
    finally:
        handle.remove()
    return (kept[-1] if kept else None), logits


def _as_it_is(features: Tensor) -> Tensor:
    return features


def _from_channels_last(features: Tensor) -> Tensor:
    return features.permute(0, 3, 1, 2)
