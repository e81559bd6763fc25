"""Seeded batches: the same (seed, epoch, step) always gives the same pictures in the same views."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from darkroom.config import Imbalance
from darkroom.data.augmentation import NONE, Augmentation, augment, mix


@dataclass(frozen=True)
class Batches:
    """Batches of the pictures `indices` out of a pixel cache (M, H, W, 3) with `labels` (M,)."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    classes: int
    batch_size: int
    seed: int
    device: torch.device
    augmentation: Augmentation = NONE
    imbalance: Imbalance = "none"

    @property
    def steps(self) -> int:
        """Batches in one epoch."""
        return max(1, round(len(self.indices) / self.batch_size))

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Views (N, 3, H, W) float of 0 to 255 and target probabilities (N, K), from step `start` on."""
        order = self._order(np.random.default_rng([self.seed, epoch]))
        # Parts of nearly equal size see every picture once, and leave no tiny batch to upset batch normalisation.
        for step, part in enumerate(np.array_split(order, self.steps)[start:], start=start):
            yield self._batch(part, generator_for(self.seed, epoch, step))

    def _order(self, random: np.random.Generator) -> npt.NDArray[np.int64]:
        if self.imbalance != "balanced-sampling":
            return random.permutation(self.indices)
        labels = self.labels[self.indices]
        chance = 1 / np.bincount(labels, minlength=self.classes)[labels]
        return random.choice(self.indices, size=len(self.indices), p=chance / chance.sum())

    def _batch(self, part: npt.NDArray[np.int64], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(self.pixels[part]).to(self.device)
        labels = torch.from_numpy(self.labels[part]).to(self.device)
        targets = torch.nn.functional.one_hot(labels, self.classes).float()
        return mix(augment(pixels, self.augmentation, generator), targets, self.augmentation, generator)


def generator_for(seed: int, epoch: int, step: int) -> torch.Generator:
    """A CPU generator of its own for every step, so that any step can be reproduced without the ones before it."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{step}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def plain_batches(
    pixels: npt.NDArray[np.uint8], indices: npt.NDArray[np.int64], *, batch_size: int, device: torch.device
) -> Iterator[Tensor]:
    """Pictures in the order of `indices`, unaugmented, as (N, 3, H, W) float of 0 to 255."""
    for start in range(0, len(indices), batch_size):
        part = torch.from_numpy(pixels[indices[start : start + batch_size]]).to(device)
        yield augment(part, NONE, torch.Generator())


def channel_statistics(
    pixels: npt.NDArray[np.uint8], indices: npt.NDArray[np.int64]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation a channel over the pictures `indices` (the training split), on the scale 0 to 255."""
    total = np.zeros(3)
    squares = np.zeros(3)
    for part in np.array_split(indices, -(-len(indices) // 256)):
        values = pixels[part].reshape(-1, 3).astype(np.float64)
        total += values.sum(axis=0)
        squares += (values**2).sum(axis=0)
    count = len(indices) * pixels.shape[1] * pixels.shape[2]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1.0))  # a constant channel must not be divided by zero
    return tuple(mean.tolist()), tuple(std.tolist())
