"""What `--model` stands for: our own network from scratch, or a pre-trained one, and what each wants of the data."""

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from darkroom.config import OURS
from darkroom.data.batches import channel_statistics, plain_batches
from darkroom.data.dataset import DataSet
from darkroom.data.manifest import Manifest
from darkroom.errors import RunError, UsageError
from darkroom.models import cnn
from darkroom.models.inference import best_device
from darkroom.models.networks import Architecture
from darkroom.preprocess import Preprocessing
from darkroom.training.recipes import Settings

if TYPE_CHECKING:
    from darkroom.models.backbones import Found

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of each channel, on the scale 0 to 255."""


class Candidate(Protocol):
    """A kind of network."""

    @property
    def kind(self) -> str:
        """What people call it."""

    @property
    def given(self) -> str:
        """What `--model` takes for it."""

    def preprocessing(self, manifest: Manifest, side: int | None) -> Preprocessing | None:
        """How it wants the pictures, of the `side` that the user gave; None where the data decide."""

    def normalisation(self, dataset: DataSet) -> Normalisation:
        """What the first layer takes off and divides by."""

    def architecture(self, dataset: DataSet, settings: Settings) -> Architecture:
        """The network for these data and settings."""

    def new(
        self, dataset: DataSet, architecture: Architecture, *, seed: int, normalisation: Normalisation
    ) -> nn.Module:
        """The network before its first step: the same for the same seed and training pictures."""

    def origin(self, seed: int) -> dict[str, Any]:
        """Where its first weights come from, for config.json."""


class Ours:
    """Our own network, from scratch."""

    kind = given = OURS

    def preprocessing(self, manifest: Manifest, side: int | None) -> Preprocessing | None:
        """Any will do."""
        return None

    def normalisation(self, dataset: DataSet) -> Normalisation:
        """Of the training pictures."""
        return channel_statistics(dataset.pixels, dataset.manifest.indices("train"))

    def architecture(self, dataset: DataSet, settings: Settings) -> cnn.Architecture:
        """As deep and wide as the data ask for."""
        return cnn.design(
            image_size=dataset.preprocessing.width,
            classes=len(dataset.manifest.classes),
            pictures=len(dataset.manifest.training_rows),
            width=settings.width,
            convolutions=settings.convolutions,
            dropout=settings.dropout,
            mirrored=settings.augmentation.flip,
        )

    def new(
        self, dataset: DataSet, architecture: Architecture, *, seed: int, normalisation: Normalisation
    ) -> nn.Module:
        """Its stem is fitted to the training pictures."""
        if not isinstance(architecture, cnn.Architecture):
            raise TypeError(f"{architecture} is not ours")
        torch.manual_seed(seed)
        mean, std = normalisation
        network = cnn.build(architecture, mean=mean, std=std)
        train = dataset.manifest.indices("train")
        some = train[:: -(-len(train) // cnn.WHITENING_PICTURES)]  # of all classes, which lie one behind the other
        cnn.fit_whitening(network, plain_batches(dataset.pixels, some, batch_size=500, device=torch.device("cpu")))
        return network.to(best_device())

    def origin(self, seed: int) -> dict[str, Any]:
        """From nowhere."""
        return {}


@dataclass(frozen=True)
class Pretrained:
    """A backbone of timm."""

    found: "Found"
    random_weights: bool = False
    sha256: str | None = None
    """Of the weights that a run began with."""

    @property
    def kind(self) -> str:
        """Its name, or that of its folder."""
        return self.found.title

    @property
    def given(self) -> str:
        """Its name in timm, or its folder."""
        return self.found.given

    def preprocessing(self, manifest: Manifest, side: int | None) -> Preprocessing | None:
        """As its weights were trained; at a side that suits the pictures.

        Raises:
            UsageError: the network cannot look at pictures of the `side`.
        """
        from darkroom.models import backbones

        description = self.found.description
        if description.fixed and side not in (None, description.image_size):
            raise UsageError(
                f"--image-size is {side}, and {self.kind} takes {description.image_size} pixels only: leave it out"
            )
        shorter = median(min(row.width, row.height) for row in manifest.training_rows)
        preprocessing = description.preprocessing(side or description.suits(shorter))
        backbones.require_side(self.found, preprocessing.width)
        return preprocessing

    def normalisation(self, dataset: DataSet) -> Normalisation:
        """Of what it was trained on."""
        return self.found.description.mean, self.found.description.std

    def architecture(self, dataset: DataSet, settings: Settings) -> Architecture:
        """Its own, with a last layer for our classes."""
        return self.found.architecture(
            image_size=dataset.preprocessing.width,
            classes=len(dataset.manifest.classes),
            dropout=settings.dropout,
        )

    def new(
        self, dataset: DataSet, architecture: Architecture, *, seed: int, normalisation: Normalisation
    ) -> nn.Module:
        """With the weights of its name or folder, and a last layer of zeros."""
        from darkroom.models import backbones

        if not isinstance(architecture, backbones.Architecture):
            raise TypeError(f"{architecture} is no backbone's")
        torch.manual_seed(seed)
        network = backbones.pretrained(self.found, architecture, random_weights=self.random_weights)
        if self.sha256 is not None and backbones.weights_hash(network.body) != self.sha256:
            raise RunError(f"the weights of {self.found.given} are not those that the run began with: bring those back")
        return network.to(best_device())

    def origin(self, seed: int) -> dict[str, Any]:
        """Name or folder, and hash."""
        from darkroom.models import backbones

        torch.manual_seed(seed)
        any_size = self.found.architecture(image_size=self.found.description.image_size, classes=1)
        network = backbones.pretrained(self.found, any_size, random_weights=self.random_weights)
        sha256 = backbones.weights_hash(network.body)
        return {"given": self.found.given, "random": self.random_weights, "sha256": sha256}


def candidate(model: str, *, random_weights: bool = False) -> Candidate:
    """What `--model` names.

    Raises:
        ModelError: no network has that name.
        UsageError: a folder of weights is called as our own network is.
        ModuleNotFoundError: timm is not installed; the command line says what to type.
    """
    if model == OURS:
        return Ours()
    from darkroom.models import backbones

    found = Pretrained(backbones.find(model), random_weights=random_weights)
    if found.kind == OURS:
        raise UsageError(f"{model} is called {OURS!r}, as our own network is: give the folder another name")
    return found


def candidate_of(network: dict[str, Any]) -> Candidate:
    """The same from the `network` part of a config.json."""
    if network["kind"] == OURS:
        return Ours()
    origin = network["origin"]
    again = candidate(origin["given"], random_weights=origin["random"])
    return replace(again, sha256=origin["sha256"]) if isinstance(again, Pretrained) else again
