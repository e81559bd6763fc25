"""Logits of many pictures, batch by batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from darkroom.data.batches import plain_batches

BATCH_BYTES = 200_000_000
"""Bound on the largest activation of a batch, taken as 32 float32 channels at full resolution."""


def batch_size_for(image_size: int) -> int:
    """Pictures that may be evaluated at once."""
    return max(1, min(1000, BATCH_BYTES // (image_size * image_size * 32 * 4)))


def best_device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def exact_float32() -> Iterator[None]:
    """Keep accelerators from rounding float32 to TF32, which their convolutions do unless told otherwise."""
    backends: list[Any] = [torch.backends.cudnn.conv, torch.backends.cuda.matmul]  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


@torch.no_grad()
def logits_of(
    network: nn.Module,
    pixels: npt.NDArray[np.uint8],
    indices: npt.NDArray[np.int64],
    *,
    device: torch.device,
    bf16: bool = False,
) -> npt.NDArray[np.float32]:
    """Logits (N, K) of the pictures `indices` of a pixel cache (M, H, W, 3), in evaluation mode, float32."""
    training = network.training
    network.eval()
    parts = []
    try:
        for batch in plain_batches(pixels, indices, batch_size=batch_size_for(pixels.shape[1]), device=device):
            with exact_float32(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                parts.append(network(batch).float().cpu().numpy())
    finally:
        network.train(training)
    return np.concatenate(parts)
