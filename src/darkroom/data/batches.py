"""Seeded batches: the same (seed, epoch, step) always gives the same pictures in the same views."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from darkroom.config import Imbalance
from darkroom.data.augmentation import NONE, Augmentation, augment, mix, to_device

FLIPS = 2**32
"""In the place of an epoch's number, so that which pictures are mirrored first is drawn apart from all orders."""

RESIDENT_PART = 0.5
"""Most of an accelerator's free memory that the pictures may take; the rest is for the training itself."""


@dataclass(frozen=True)
class Batches:
    """Batches of the pictures `indices` out of a pixel cache (M, H, W, 3) with `labels` (M,).

    Several processes each get their share of every batch: pictures `process`, `process + processes`, … of it.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    classes: int
    batch_size: int
    seed: int
    device: torch.device
    augmentation: Augmentation = NONE
    imbalance: Imbalance = "none"
    process: int = 0
    processes: int = 1
    resident: Tensor | None = None
    """The pixels of `indices`, in their order, on the device."""

    @property
    def steps(self) -> int:
        """Batches in one epoch."""
        return max(1, round(len(self.indices) / self.batch_size))

    def pictures_in(self, step: int) -> int:
        """Pictures of the batch at `step`, all shares together."""
        # Parts of nearly equal size see every picture once, and leave no tiny batch to upset batch normalisation.
        least, rest = divmod(len(self.indices), self.steps)
        return least + (step < rest)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Views (N, 3, H, W) float of 0 to 255 and target probabilities (N, K), from step `start` on."""
        order = self._order(np.random.default_rng([self.seed, epoch]))
        # Alternating flip (K. Jordan 2024): a picture mirrored in one epoch is not in the next.
        mirrored = (np.random.default_rng([self.seed, FLIPS]).random(len(self.indices)) < 0.5) ^ bool(epoch % 2)
        ends = np.cumsum([self.pictures_in(step) for step in range(self.steps)])
        for step, places in enumerate(np.split(order, ends[:-1])[start:], start=start):
            views, targets = self._batch(places, mirrored[places], generator_for(self.seed, epoch, step))
            yield self._share(views, torch.channels_last), self._share(targets, torch.contiguous_format)

    def _order(self, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """Places in `indices`, in the order of an epoch."""
        count = len(self.indices)
        if self.imbalance != "balanced-sampling":
            return random.permutation(count)
        labels = self.labels[self.indices]
        chance = 1 / np.bincount(labels, minlength=self.classes)[labels]
        return random.choice(count, size=count, p=chance / chance.sum())

    def _batch(
        self, places: npt.NDArray[np.int64], mirrored: npt.NDArray[np.bool_], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        labels = torch.from_numpy(self.labels[self.indices[places]])
        targets = to_device(torch.nn.functional.one_hot(labels, self.classes).float(), self.device)
        views = augment(self._pixels(places), self.augmentation, generator, mirrored=torch.from_numpy(mirrored))
        return mix(views, targets, self.augmentation, generator)

    def _pixels(self, places: npt.NDArray[np.int64]) -> Tensor:
        if self.resident is not None:
            return self.resident[to_device(torch.from_numpy(places), self.resident.device)]
        return to_device(torch.from_numpy(self.pixels[self.indices[places]]), self.device)

    def _share(self, batch: Tensor, layout: torch.memory_format) -> Tensor:
        """The part of a batch that this process computes on, taken after random numbers were drawn for all of it."""
        return batch[self.process :: self.processes].contiguous(memory_format=layout) if self.processes > 1 else batch


def resident(
    pixels: npt.NDArray[np.uint8], indices: npt.NDArray[np.int64], device: torch.device, *, free: int | None = None
) -> Tensor | None:
    """The pictures `indices` on an accelerator, if they fit into its `free` bytes (asked for when None); else None."""
    if free is None:
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    size = len(indices) * int(np.prod(pixels.shape[1:]))
    return torch.from_numpy(pixels[indices]).to(device) if size <= RESIDENT_PART * free else None


def generator_for(seed: int, epoch: int, step: int) -> torch.Generator:
    """A CPU generator of its own for every step, so that any step can be reproduced without the ones before it."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{step}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def plain_batches(
    pixels: npt.NDArray[np.uint8], indices: npt.NDArray[np.int64], *, batch_size: int, device: torch.device
) -> Iterator[Tensor]:
    """Pictures in the order of `indices`, unaugmented, as (N, 3, H, W) float of 0 to 255."""
    for start in range(0, len(indices), batch_size):
        part = torch.from_numpy(pixels[indices[start : start + batch_size]])
        yield augment(to_device(part, device), NONE, torch.Generator())


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
