"""A pre-trained network as it is: its features of all pictures, computed once, and a linear classifier on them."""

import hashlib
import json
import math
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from darkroom import files
from darkroom.data.batches import plain_batches
from darkroom.data.dataset import DataSet
from darkroom.models.backbones import Backbone, weights_hash
from darkroom.models.inference import batch_size_for
from darkroom.progress import say, track
from darkroom.training.machine import Arithmetic, arrange

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]

STRENGTHS = tuple(10.0**power for power in (-5, -4, -3, -2, -1))
"""Penalties tried: of a squared weight, beside the mean loss of a picture, for features of unit variance."""

CHOOSING = 5_000
"""Most rows on which the penalty is chosen; the last fit takes all."""

ITERATIONS = 300


@dataclass(frozen=True)
class Probe:
    """A linear classifier on features: `weight` (K, F), `bias` (K,), and how it did on validation."""

    weight: Features
    bias: Features
    penalty: float
    accuracy: float
    log_loss: float

    def put_into(self, network: nn.Module) -> None:
        """Make it the last layer of a backbone."""
        with torch.no_grad():
            network.get_parameter("head.weight").copy_(torch.from_numpy(self.weight))
            network.get_parameter("head.bias").copy_(torch.from_numpy(self.bias))


def train_probe(network: Backbone, dataset: DataSet, *, arithmetic: Arithmetic, mirrored: bool, cache: Path) -> Probe:
    """The best linear classifier on the network's features of the training pictures, and of their mirror images."""
    manifest = dataset.manifest
    train, validation = manifest.indices("train"), manifest.indices("validation")
    features = embeddings(network, dataset, train, arithmetic=arithmetic, mirrored=mirrored, cache=cache)
    judged = embeddings(network, dataset, validation, arithmetic=arithmetic, mirrored=False, cache=cache)
    labels = manifest.labels()
    say(f"Fitting a linear classifier on {features.shape[2]:,} features of {len(train):,} pictures")
    return fit_probe(features, labels[train], judged[:, 0], labels[validation], classes=len(manifest.classes))


def fit_probe(features: Features, labels: Labels, judged: Features, judged_labels: Labels, *, classes: int) -> Probe:
    """Logistic regression on features (N, V, F) of V views a picture; its penalty is chosen by log loss on `judged`.

    Features are standardised for it, which is undone in the weights that are returned.
    """
    views = features.shape[1]
    rows, wanted = features.reshape(-1, features.shape[2]), np.repeat(labels, views)
    mean, deviation = rows.mean(0), rows.std(0) + 1e-6
    rows, judged = (rows - mean) / deviation, (judged - mean) / deviation
    some = np.random.default_rng(0).permutation(len(rows))[:CHOOSING]
    tried = {
        penalty: _score(_fit(rows[some], wanted[some], penalty, classes), judged, judged_labels)
        for penalty in STRENGTHS
    }
    penalty = min(tried, key=lambda strength: tried[strength][1])
    weight, bias = _fit(rows, wanted, penalty, classes)
    accuracy, log_loss = _score((weight, bias), judged, judged_labels)
    weight = weight / deviation
    return Probe(weight.astype(np.float32), (bias - weight @ mean).astype(np.float32), penalty, accuracy, log_loss)


def _fit(rows: Features, labels: Labels, penalty: float, classes: int) -> tuple[Weights, Weights]:
    """Weights (K, F) and biases (K,); a class without pictures is never answered."""
    model = LogisticRegression(C=1 / (penalty * len(rows)), max_iter=ITERATIONS)
    model.fit(rows, labels)
    weight, bias = np.zeros((classes, rows.shape[1])), np.full(classes, -30.0)
    if len(model.classes_) == 2:  # which has weights of their difference only
        weight[model.classes_] = np.stack([-model.coef_[0], model.coef_[0]]) / 2
        bias[model.classes_] = np.array([-model.intercept_[0], model.intercept_[0]]) / 2
    else:
        weight[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    return weight, bias


def _score(fitted: tuple[Weights, Weights], rows: Features, labels: Labels) -> tuple[float, float]:
    """Accuracy and log loss."""
    weight, bias = fitted
    logits = torch.from_numpy(rows @ weight.T + bias)
    wanted = torch.from_numpy(labels)
    right = (logits.argmax(1) == wanted).float().mean().item()
    return right, torch.nn.functional.cross_entropy(logits, wanted).item()


def embeddings(
    network: Backbone,
    dataset: DataSet,
    indices: npt.NDArray[np.int64],
    *,
    arithmetic: Arithmetic,
    mirrored: bool,
    cache: Path,
) -> Features:
    """Features (N, V, F) of the pictures `indices`, and with `mirrored` of their mirror images as second view.

    They are kept in `cache` under a hash of weights, pictures, preprocessing and arithmetic.
    """
    path = cache / "features" / f"{_key(network, dataset, indices, arithmetic, mirrored)[:32]}.npy"
    with suppress(OSError, ValueError):  # not there, or cut off
        stored: Features = np.load(path, mmap_mode="r", allow_pickle=False)
        return stored
    computed = _compute(network, dataset, indices, arithmetic=arithmetic, mirrored=mirrored)
    with files.replacing(path) as temporary:
        np.save(temporary, computed)
    return computed


def _key(
    network: Backbone, dataset: DataSet, indices: npt.NDArray[np.int64], arithmetic: Arithmetic, mirrored: bool
) -> str:
    content: list[Any] = [
        [weights_hash(network.normalise), weights_hash(network.body)],
        dataset.preprocessing.to_json(),
        asdict(arithmetic),
        mirrored,
        [dataset.manifest.rows[index].sha256 for index in indices],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@torch.no_grad()
def _compute(
    network: Backbone, dataset: DataSet, indices: npt.NDArray[np.int64], *, arithmetic: Arithmetic, mirrored: bool
) -> Features:
    device = next(network.parameters()).device
    network = arrange(network, arithmetic).eval()  # type: ignore[assignment]
    at_once = batch_size_for(dataset.preprocessing.width)
    batches = plain_batches(dataset.pixels, indices, batch_size=at_once, device=device)
    parts: list[Features] = []
    for batch in track(batches, total=math.ceil(len(indices) / at_once), what="Computing features", unit="batches"):
        views = [batch, batch.flip(3)] if mirrored else [batch]
        with torch.autocast(device.type, torch.bfloat16, enabled=arithmetic.bf16):
            features = [network.features(_in_layout(view, arithmetic)).float().cpu() for view in views]
        parts.append(torch.stack(features, dim=1).numpy())
    return np.concatenate(parts)


def _in_layout(pictures: Tensor, arithmetic: Arithmetic) -> Tensor:
    return pictures.contiguous(memory_format=torch.channels_last) if arithmetic.channels_last else pictures.contiguous()
