"""Answers averaged over several views of a picture: more accurate, and that many times dearer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Views


class Averaged(nn.Module):
    """Averages the logits of `network` over 2 views, the picture and its mirror image, or 6: these, and these moved by
    one pixel up and left, and down and right, which count half (test-time augmentation of K. Jordan 2024)."""

    weights: Tensor

    def __init__(self, network: nn.Module, views: Views) -> None:
        super().__init__()
        self.network = network
        weights = [1.0] * 2 if views == 2 else [1.0] * 2 + [0.5] * 4
        self.register_buffer("weights", torch.tensor(weights).view(-1, 1, 1) / sum(weights), persistent=False)
        self.moves = (0,) if views == 2 else (0, -1, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, K)."""
        moved = [_moved(pictures, by) for by in self.moves]
        views = torch.cat([view for picture in moved for view in (picture, picture.flip(3))])  # (V · N, 3, H, W)
        logits: Tensor = self.network(views)
        return (logits.view(len(self.weights), -1, logits.shape[1]) * self.weights).sum(0)


def with_views(network: nn.Module, views: Views) -> nn.Module:
    """The network itself for one view, else one that averages over `views`."""
    return network if views == 1 else Averaged(network, views)


def _moved(pictures: Tensor, by: int) -> Tensor:
    """Pictures whose content is moved down and right by `by` pixels, reflecting at the edges."""
    if by == 0:
        return pictures
    height, width = pictures.shape[2:]
    padded = F.pad(pictures, (1, 1, 1, 1), mode="reflect")
    return padded[:, :, 1 - by : 1 - by + height, 1 - by : 1 - by + width]
