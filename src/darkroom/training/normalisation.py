"""Batch normalisation over a batch whose pictures are shared among processes.

PyTorch's own SyncBatchNorm needs a GPU. This one uses the same kernels as ordinary batch normalisation, on any device,
and exchanges two numbers a channel forward and two backward.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from darkroom.training.distributed import sum_over_all


def share_statistics(network: nn.Module) -> None:
    """Let every batch normalisation of `network` use the mean and variance over all processes; names stay the same."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:  # those of timm, some with an activation in them, keep their statistics
            module.__class__ = SharedBatchNorm2d


class SharedBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` of the whole batch, of which each process holds a share (N, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """The share, normalised; all processes must come here together while training."""
        if not self.training:
            return super().forward(input)
        output: Tensor
        output, mean, variance, count = _Normalise.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.eps
        )
        self._remember(mean, variance * (count / (count - 1)))
        return output

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        part = self.momentum if self.momentum is not None else 1 / int(self.num_batches_tracked)
        self.running_mean.lerp_(mean, part)
        self.running_var.lerp_(variance, part)


class _Normalise(Function):
    """The formulas of Ioffe and Szegedy 2015, with sums over all processes in place of those over the batch."""

    @staticmethod
    def forward(
        context: Any, share: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance, count = _moments(share)
        context.save_for_backward(share, weight, mean, variance, count)
        context.epsilon = epsilon
        context.mark_non_differentiable(mean, variance, count)
        return _affine(share, mean, variance, weight, bias, epsilon), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        share, weight, mean, variance, count = context.saved_tensors
        # As if mean and variance were constants: the gradients of this share, by PyTorch's kernel for that.
        direct, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, share, weight, mean, variance, None, None, False, context.epsilon, [True, True, True]
        )
        # They are not: each activation of any process moves them, and with them all activations.
        mean_to_weight, mean_to_bias = (sum_over_all(torch.stack([to_weight, to_bias])) / count).float()
        scale = torch.rsqrt(variance + context.epsilon) * (1 if weight is None else weight)
        indirect = _affine(share, mean, variance, scale * mean_to_weight, scale * mean_to_bias, context.epsilon)
        needs = context.needs_input_grad
        return direct - indirect, to_weight if needs[1] else None, to_bias if needs[2] else None, None


def _moments(share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (C,) over all processes in float32, and how many values they come from."""
    channels = share.shape[1]
    zero = torch.zeros(channels, device=share.device)  # float32 also where the activations are bfloat16
    mean, variance = (part.double() for part in torch.batch_norm_update_stats(share, zero, zero.clone(), 0.0))
    count = mean.new_full((1,), share.numel() // channels)
    sums = sum_over_all(torch.cat([mean * count, (variance + mean.square()) * count, count]))
    first, second, count = torch.split(sums, [channels, channels, 1])
    mean = first / count
    return mean.float(), (second / count - mean.square()).clamp(min=0).float(), count.float()


def _affine(
    values: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> Tensor:
    """(values - mean) / sqrt(variance + epsilon) * weight + bias, channel by channel."""
    return F.batch_norm(values, mean, variance, weight, bias, training=False, eps=epsilon)
