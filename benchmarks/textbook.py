"""The textbook recipe in plain PyTorch, on the arrays that all contestants share: what a good tutorial would type.

    python benchmarks/textbook.py ARRAYS.npz --out RESULT.json --minutes M [--schedule cut|compressed] [--seed 0]

A ResNet-18 for small pictures (He et al. 2016: a 3×3 stem, no pooling), SGD with rate 0.1, momentum 0.9 and weight
decay 5e-4, batches of 128, random crop and flip, float32, cosine over 200 epochs. `cut` computes that schedule for
200 epochs and stops after M minutes; `compressed` squeezes it into them. The test comes after the minutes and is not
counted; nothing is validated, so all minutes go into training.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPOCHS, BATCH, RATE = 200, 128, 0.1
PROGRESS_SECONDS = 20.0


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after))
        self.second = nn.Sequential(nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after))
        self.shortcut = nn.Sequential()
        if stride > 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, H / stride, W / stride)."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


def resnet18(classes: int, width: int = 64) -> nn.Module:
    """Four stages of two blocks behind a 3×3 stem: 11 million parameters."""
    stages = []
    before = width
    for stage, after in enumerate((width, 2 * width, 4 * width, 8 * width)):
        stages += [Block(before, after, 1 if stage == 0 else 2), Block(after, after, 1)]
        before = after
    stem = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    return nn.Sequential(stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, classes))


def sgd(network: nn.Module) -> torch.optim.SGD:
    """The textbook's optimiser."""
    return torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4)


def crop_and_flip(pictures: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) padded by 4, cropped at random and mirrored by a coin."""
    side = pictures.shape[-1]
    padded = F.pad(pictures, (4, 4, 4, 4))
    views = torch.empty_like(pictures)
    for place, (top, left) in enumerate(torch.randint(0, 9, (len(pictures), 2)).tolist()):
        views[place] = padded[place, :, top : top + side, left : left + side]
    mirrored = torch.rand(len(views)) < 0.5
    views[mirrored] = views[mirrored].flip(3)
    return views


def statistics_of(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation a channel (3, 1, 1), on the scale 0 to 1, of every tenth picture."""
    values = pixels[::10].reshape(-1, 3).float() / 255
    return values.mean(0)[:, None, None], values.std(0)[:, None, None].clamp(min=1e-3)


def scaled(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Pixels uint8 (N, H, W, 3) -> float (N, 3, H, W) of mean 0 and deviation 1."""
    return ((pixels.permute(0, 3, 1, 2) / 255 - mean) / std).contiguous()


def step(network: nn.Module, optimiser: torch.optim.Optimizer, pictures: Tensor, labels: Tensor) -> float:
    """One step of training; returns the loss."""
    optimiser.zero_grad()
    loss = F.cross_entropy(network(pictures), labels)
    loss.backward()
    optimiser.step()
    return loss.item()


def endless_batches(pictures: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented batches, epoch after epoch, each in a new order; what is left of an epoch is dropped."""
    batch = min(BATCH, len(labels))
    while True:
        for part in torch.randperm(len(labels)).split(batch):
            if len(part) == batch:
                yield crop_and_flip(pictures[part]), labels[part]


def cosine(progress: float) -> float:
    """Learning rate at `progress` from 0 to 1 through the schedule."""
    return RATE * (1 + math.cos(math.pi * progress)) / 2


def train(network: nn.Module, pictures: Tensor, labels: Tensor, *, seconds: float, cut: bool) -> int:
    """Train for `seconds`; returns the number of steps."""
    optimiser = sgd(network)
    planned = EPOCHS * max(1, len(labels) // BATCH)
    start = told = time.perf_counter()
    network.train()
    for done, batch in enumerate(endless_batches(pictures, labels)):
        passed = time.perf_counter() - start
        if passed >= seconds or (cut and done == planned):
            break
        optimiser.param_groups[0]["lr"] = cosine(done / planned if cut else passed / seconds)
        loss = step(network, optimiser, *batch)
        if time.perf_counter() - told > PROGRESS_SECONDS:
            told = time.perf_counter()
            print(f"textbook: {passed:.0f} of {seconds:.0f} s, step {done}, loss {loss:.3f}", file=sys.stderr)
    return done


@torch.no_grad()
def accuracy(network: nn.Module, pictures: Tensor, labels: Tensor) -> float:
    """Part of `pictures` (N, 3, H, W) that is named rightly."""
    network.eval()
    pairs = zip(pictures.split(500), labels.split(500), strict=True)
    return sum((network(part).argmax(1) == truth).sum().item() for part, truth in pairs) / len(labels)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, test and write one file."""
    options = parse(arguments)
    torch.manual_seed(options.seed)
    with np.load(options.arrays) as arrays:
        loaded = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "classes"}
        classes = len(arrays["classes"])
    pixels, labels = loaded["train_pixels"], loaded["train_labels"]
    mean, std = statistics_of(pixels)
    network = resnet18(classes)
    start = time.perf_counter()
    pictures = scaled(pixels, mean, std)
    steps = train(network, pictures, labels, seconds=60 * options.minutes, cut=options.schedule == "cut")
    seconds = time.perf_counter() - start
    print(f"textbook: testing on {len(loaded['test_labels']):,} pictures", file=sys.stderr)
    result = {
        "seconds": seconds,
        "steps": steps,
        "epochs": steps * min(BATCH, len(labels)) / len(labels),
        "test_accuracy": accuracy(network, scaled(loaded["test_pixels"], mean, std), loaded["test_labels"]),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    options.out.write_text(json.dumps(result))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arrays", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--schedule", choices=["cut", "compressed"], default="cut")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
