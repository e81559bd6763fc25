"""Where a network looks: class-activation maps by Grad-CAM (Selvaraju et al. 2017).

The last features that still have places are weighted by how much each channel raises the logit of a class, and summed:
what is left above zero shows where in the picture evidence for the class lies.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.models.views import Averaged

LEAST_PLACES = 6
"""Side of the smallest map that still tells where; our network's later ones are coarser."""


def activation_maps(network: nn.Module, pictures: Tensor, classes: Tensor) -> Tensor:
    """Maps (N, H, W), 0 to 1, of evidence in `pictures` (N, 3, H, W), 0 to 255, for one class each (N,)."""
    network = network.network if isinstance(network, Averaged) else network
    with torch.enable_grad():
        features, logits = _features_and_logits(network, pictures)
        score = logits.gather(1, classes[:, None]).sum()
        (gradients,) = torch.autograd.grad(score, features)
    values, slopes = _with_places(network, features.detach()), _with_places(network, gradients)
    weights = slopes.mean(dim=(2, 3), keepdim=True)  # (N, C, 1, 1)
    maps = (weights * values).sum(1, keepdim=True).relu()
    maps = F.interpolate(maps, size=pictures.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)


def _features_and_logits(network: nn.Module, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """The features that are looked at, part of the graph that leads to the logits (N, K)."""
    if isinstance(network, nn.Sequential):
        return _of_ours(network, pictures)
    body = network.get_submodule("body")
    if (blocks := _transformer_blocks(body)) is not None:
        return _seen_by(blocks[-1].get_submodule("norm1"), network, pictures)
    features = network.maps(pictures).requires_grad_()  # type: ignore[operator]
    return features, network.classified(features)  # type: ignore[operator]


def _of_ours(network: nn.Sequential, pictures: Tensor) -> tuple[Tensor, Tensor]:
    values, features = pictures, None
    for name, layer in network.named_children():
        values = layer(values)
        if name.startswith("stage") and (features is None or min(values.shape[2:]) >= LEAST_PLACES):
            features = values = values.requires_grad_()
    if features is None:
        raise TypeError("the network has no stages")
    return features, values


def _seen_by(module: nn.Module, network: nn.Module, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """What `module` gives while the network answers: behind the last attention only the class token would count."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output.requires_grad_())
        return output

    handle = module.register_forward_hook(keep)
    try:
        logits = network(pictures)
    finally:
        handle.remove()
    return kept[-1], logits


def _transformer_blocks(body: nn.Module) -> nn.Sequential | None:
    """The blocks of a vision transformer; other networks have features with places to the end."""
    blocks = getattr(body, "blocks", None)
    return blocks if hasattr(body, "num_prefix_tokens") and isinstance(blocks, nn.Sequential) else None


def _with_places(network: nn.Module, features: Tensor) -> Tensor:
    """(N, C, H, W) of features in the network's own form: tokens (N, T, C), or channels last (N, H, W, C)."""
    body: Any = getattr(network, "body", None)
    if features.ndim == 3:
        height, width = body.patch_embed.grid_size
        places = features[:, body.num_prefix_tokens :]  # (N, H * W, C)
        return places.transpose(1, 2).reshape(len(places), -1, height, width)
    return features.permute(0, 3, 1, 2) if getattr(body, "output_fmt", "NCHW") == "NHWC" else features
