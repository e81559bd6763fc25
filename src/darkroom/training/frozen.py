"""A pre-trained network as it is: its features of all pictures, computed once, and a linear classifier on them."""

import hashlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from darkroom import files
from darkroom.data.batches import plain_batches
from darkroom.data.cache import pixels_key
from darkroom.data.dataset import DataSet
from darkroom.models.backbones import Backbone
from darkroom.models.inference import batch_size_for
from darkroom.progress import say, track
from darkroom.training.machine import Arithmetic, arrange, timed

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]
Fitted = tuple[Weights, Weights]
"""Weights (K, F) and biases (K,)."""

STRENGTHS = tuple(10.0**power for power in (-1, -2, -3, -4, -5))
"""Penalties tried, the strongest first: of a squared weight, beside the mean loss of a picture; features vary by 1."""

CHOOSING = 5_000
"""Most rows on which the penalty is chosen; the last fit takes all."""

ITERATIONS = 300

BLOCK = 256
"""Pictures in one file of features: all that a killed process loses."""

TIMED = 8
"""Pictures that tell how long the features of all will take, on a processor."""


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


def train_probe(extraction: "Extraction", *, mirrored: bool, balanced: bool = False) -> Probe:
    """The best linear classifier on features of the training pictures and, if `mirrored`, of their mirror images.

    If `balanced`, each class weighs as much as any other, however many pictures it has.
    """
    manifest = extraction.dataset.manifest
    train, validation = manifest.indices("train"), manifest.indices("validation")
    features = extraction.features(train, mirrored=mirrored)
    judged = extraction.features(validation, mirrored=False)
    labels = manifest.labels()
    say(f"Fitting a linear classifier on {features.shape[2]:,} features of {len(train):,} pictures")
    classes = len(manifest.classes)
    return fit_probe(features, labels[train], judged[:, 0], labels[validation], classes=classes, balanced=balanced)


def fit_probe(
    features: Features,
    labels: Labels,
    judged: Features,
    judged_labels: Labels,
    *,
    classes: int,
    balanced: bool = False,
) -> Probe:
    """Logistic regression on features (N, V, F) of V views a picture; its penalty is chosen by log loss on `judged`.

    Features are standardised for it, which is undone in the weights that are returned.
    """
    views = features.shape[1]
    rows, wanted = features.reshape(-1, features.shape[2]), np.repeat(labels, views)
    mean, deviation = rows.mean(0), rows.std(0) + 1e-6
    rows, judged = (rows - mean) / deviation, (judged - mean) / deviation
    some = np.random.default_rng(0).permutation(len(rows))[:CHOOSING]
    penalty, fitted = _strongest_that_is_best(rows[some], wanted[some], judged, judged_labels, classes, balanced)
    if len(rows) > len(some):
        fitted = _fit(rows, wanted, penalty, classes, balanced)
    accuracy, log_loss = _score(fitted, judged, judged_labels)
    weight, bias = fitted
    weight = weight / deviation
    return Probe(weight.astype(np.float32), (bias - weight @ mean).astype(np.float32), penalty, accuracy, log_loss)


def _strongest_that_is_best(
    rows: Features, labels: Labels, judged: Features, judged_labels: Labels, classes: int, balanced: bool
) -> tuple[float, Fitted]:
    """The penalty with the lowest log loss on `judged`, and what was fitted with it; weaker ones until it rises."""
    best = STRENGTHS[0], _fit(rows, labels, STRENGTHS[0], classes, balanced)
    least = _score(best[1], judged, judged_labels)[1]
    for penalty in STRENGTHS[1:]:
        fitted = _fit(rows, labels, penalty, classes, balanced)
        if (loss := _score(fitted, judged, judged_labels)[1]) >= least:
            break
        least, best = loss, (penalty, fitted)
    return best


def _fit(rows: Features, labels: Labels, penalty: float, classes: int, balanced: bool) -> Fitted:
    """Weights (K, F) and biases (K,); a class without pictures is never answered."""
    weights = "balanced" if balanced else None
    model = LogisticRegression(C=1 / (penalty * len(rows)), max_iter=ITERATIONS, class_weight=weights)
    model.fit(rows, labels)
    weight, bias = np.zeros((classes, rows.shape[1])), np.full(classes, -30.0)
    if len(model.classes_) == 2:  # which has weights of their difference only
        weight[model.classes_] = np.stack([-model.coef_[0], model.coef_[0]]) / 2
        bias[model.classes_] = np.array([-model.intercept_[0], model.intercept_[0]]) / 2
    else:
        weight[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    return weight, bias


def _score(fitted: Fitted, rows: Features, labels: Labels) -> tuple[float, float]:
    """Accuracy and log loss."""
    weight, bias = fitted
    logits = torch.from_numpy(rows @ weight.T + bias)
    wanted = torch.from_numpy(labels)
    right = (logits.argmax(1) == wanted).float().mean().item()
    return right, torch.nn.functional.cross_entropy(logits, wanted).item()


@dataclass(frozen=True)
class _Block:
    """Pictures in one view: their rows among those asked for, their ids, and where their features are kept."""

    rows: slice
    ids: Labels
    view: int
    path: Path


@dataclass(frozen=True)
class Extraction:
    """Features of a network as it is, kept in files of up to `BLOCK` pictures in one view.

    A file is named by a hash of all that decides its content: network, weights, arithmetic, pixels and view.
    """

    network: Backbone
    weights: str
    """Their hash, that of the network's body."""
    dataset: DataSet
    arithmetic: Arithmetic
    cache: Path

    def features(self, ids: Labels, *, mirrored: bool) -> Features:
        """Features (N, V, F) of the pictures `ids`, and with `mirrored` of their mirror images as second view."""
        features = np.empty((len(ids), 1 + mirrored, self.network.head.in_features), np.float32)
        missing: list[_Block] = []
        for block in self._blocks(ids, mirrored=mirrored):
            if (stored := _stored(block.path)) is not None:
                features[block.rows, block.view] = stored
            else:
                missing.append(block)
        for block in track(missing, total=len(missing), what="Computing features", unit="blocks"):
            computed = self._computed(block.ids, mirror=block.view == 1)
            with files.replacing(block.path) as temporary:
                np.savez(temporary, features=computed)
            features[block.rows, block.view] = computed
        return features

    def missing(self, *, mirrored: bool) -> int:
        """Views of training and validation pictures whose features `train_probe` would have to compute."""
        manifest = self.dataset.manifest
        wanted = [*self._blocks(manifest.indices("train"), mirrored=mirrored)]
        wanted += self._blocks(manifest.indices("validation"), mirrored=False)
        return sum(len(block.ids) for block in wanted if not block.path.exists())

    def seconds_a_view(self) -> float:
        """What the features of one view take on this machine, the median of two batches."""
        on_processor = next(self.network.parameters()).device.type == "cpu"
        number = TIMED if on_processor else batch_size_for(self.dataset.preprocessing.width)
        some = self.dataset.manifest.indices("train")[:number]
        return median(timed(lambda: self._computed(some, mirror=False), seconds=0.0)) / len(some)

    def _blocks(self, ids: Labels, *, mirrored: bool) -> Iterator[_Block]:
        for view in range(1 + mirrored):
            for start in range(0, len(ids), BLOCK):
                rows = slice(start, min(start + BLOCK, len(ids)))
                name = self._key(ids[rows], view)[:32]
                yield _Block(rows, ids[rows], view, self.cache / "features" / f"{name}.npz")

    def _key(self, ids: Labels, view: int) -> str:
        architecture, normalise = self.network.architecture, self.network.normalise
        hashes = [self.dataset.manifest.rows[number].sha256 for number in ids]
        content = [
            [version("timm"), architecture.name, architecture.arguments, self.weights],
            [normalise.mean.flatten().tolist(), normalise.std.flatten().tolist()],
            asdict(self.arithmetic),
            pixels_key(self.dataset.preprocessing, hashes),
            view,
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @torch.no_grad()
    def _computed(self, ids: Labels, *, mirror: bool) -> Features:
        """Features (N, F) of the pictures, or of their mirror images."""
        device = next(self.network.parameters()).device
        network: Backbone = arrange(self.network, self.arithmetic).eval()  # type: ignore[assignment]
        at_once = batch_size_for(self.dataset.preprocessing.width)
        parts: list[Tensor] = []
        for batch in plain_batches(self.dataset.pixels, ids, batch_size=at_once, device=device):
            view = _in_layout(batch.flip(3) if mirror else batch, self.arithmetic)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.arithmetic.bf16):
                parts.append(network.features(view).float().cpu())
        computed: Features = torch.cat(parts).numpy()
        return computed


def _stored(path: Path) -> Features | None:
    """What is kept there, unless it is missing or damaged: the archive holds a checksum, which is read along."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            features: Features = content["features"]
            return features
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile):
        return None


def _in_layout(pictures: Tensor, arithmetic: Arithmetic) -> Tensor:
    return pictures.contiguous(memory_format=torch.channels_last) if arithmetic.channels_last else pictures.contiguous()
