"""Networks of timm, pre-trained on ImageNet: found by name or in a folder, with their own preprocessing.

A backbone makes features (N, F) of a picture; a fully connected layer behind it makes logits. Side, crop,
interpolation, mean and deviation come from the weights' own description, so that exchanging backbones changes nothing
else.
"""

import difflib
import hashlib
import json
import secrets
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import huggingface_hub
from huggingface_hub import constants
from safetensors import SafetensorError
from torch import Tensor, nn

from darkroom.errors import ModelError, UsageError
from darkroom.models import torchvision_operators
from darkroom.models.cnn import Normalise
from darkroom.preprocess import Preprocessing
from darkroom.runs import rebuilt

torchvision_operators.declare()

import timm  # noqa: E402
from timm.models import PretrainedCfg, save_for_hf  # noqa: E402

LOCAL = "local-dir:"
"""In front of a folder with config.json and model.safetensors, timm's own form."""

DEFAULTS = {
    "processor": ("mobilenetv3_large_100", "efficientnet_b0", "resnet50"),
    "accelerator": ("resnet50", "vgg16", "inception_v3", "efficientnet_b0", "convnext_tiny", "mobilenetv3_large_100"),
}
"""Names that `compare` takes when none are given: what a machine finishes in minutes, the classics among them."""

ENLARGEMENT = 4
"""Most times that a small picture is enlarged: a network that halves five times makes 4×4 of 32 pixels then. Beyond,
every pixel costs more and shows nothing new."""


@dataclass(frozen=True)
class Architecture:
    """Everything needed to build the network again; part of config.json."""

    name: str
    """As timm knows it, with the arguments that its description adds."""
    arguments: dict[str, Any]
    image_size: int
    classes: int
    dropout: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Architecture":
        """Inverse of `to_json`."""
        return rebuilt(cls, content)


@dataclass(frozen=True)
class Description:
    """What a backbone's weights say of the pictures that they were trained on."""

    image_size: int
    fixed: bool
    """Whether no other size will do."""
    crop_fraction: float
    interpolation: str
    mean: tuple[float, ...]
    """Of each channel on the scale 0 to 255, like `std`."""
    std: tuple[float, ...]

    def suits(self, shorter_side: float) -> int:
        """The side to train at, for pictures of that shorter side: its own, less for pictures far smaller.

        In steps of 32, by which most networks divide.
        """
        if self.fixed:
            return self.image_size
        enlarged = -(-round(ENLARGEMENT * shorter_side) // 32) * 32
        return min(self.image_size, max(64, enlarged))

    def preprocessing(self, side: int) -> Preprocessing:
        """The contract by which pictures are brought to `side`."""
        small = side < self.image_size  # a small picture has nothing to spare at its edge
        return Preprocessing(
            width=side,
            height=side,
            crop_fraction=1.0 if small else self.crop_fraction,
            interpolation=self.interpolation,  # type: ignore[arg-type]  # checked there
        )


@dataclass(frozen=True)
class Found:
    """A backbone before its weights are loaded."""

    given: str
    """What the user typed."""
    name: str
    arguments: dict[str, Any]
    description: Description

    @property
    def title(self) -> str:
        """Its name for people and files: that of a folder where it came from one."""
        return Path(self.given.removeprefix(LOCAL)).name if self.given.startswith(LOCAL) else self.given

    def architecture(self, *, image_size: int, classes: int, dropout: float = 0.0) -> Architecture:
        """The network for so many classes at that size."""
        return Architecture(self.name, self.arguments, image_size, classes, dropout)


def find(given: str) -> Found:
    """The backbone that the user means; nothing is downloaded.

    Raises:
        ModelError: timm knows no such name, or the folder is not in its form.
    """
    if given.startswith(LOCAL):
        return _in_folder(given, Path(given.removeprefix(LOCAL)))
    if not timm.is_model(given):
        raise ModelError(f"timm knows no network {given}: {_near(given)}")
    return Found(given, given, {}, _description(asdict(_published(given))))


def _published(name: str) -> PretrainedCfg:
    """What timm knows of the weights of a network."""
    return timm.get_pretrained_cfg(name) or PretrainedCfg()


def _in_folder(given: str, folder: Path) -> Found:
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        name = content["architecture"]
        config = content["pretrained_cfg"]
        arguments = {key: value for key, value in content.get("model_args", {}).items() if key != "num_classes"}
        found = Found(given, name, arguments, _description(config))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder} is no folder of timm's with config.json and model.safetensors ({error}): make one with "
            "`darkroom weights fetch NAME --to DIR`"
        ) from error
    if not timm.is_model(name):
        raise ModelError(f"{folder}/config.json names the network {name}, which timm does not know: {_near(name)}")
    return found


def _near(name: str) -> str:
    known = timm.list_models()
    base = name.split(".")[0]
    close = difflib.get_close_matches(base, known, n=3, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else "see https://huggingface.co/timm for their names"


def _description(config: Mapping[str, Any]) -> Description:
    return Description(
        image_size=int(config["input_size"][-1]),
        fixed=bool(config.get("fixed_input_size")),
        crop_fraction=float(config["crop_pct"]),
        interpolation=str(config["interpolation"]),
        mean=tuple(255 * value for value in config["mean"]),
        std=tuple(255 * value for value in config["std"]),
    )


class Backbone(nn.Module):
    """Normalisation, a timm network without its last layer, dropout, and a last layer for our classes.

    In training, batch normalisation keeps the statistics of ImageNet: those of a few small batches are worse.
    """

    def __init__(
        self, body: nn.Module, *, classes: int, dropout: float, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.body = body
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(body.head_hidden_size, classes)  # type: ignore[arg-type]
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def maps(self, pictures: Tensor) -> Tensor:
        """(N, 3, S, S) of 0 to 255 -> the body's last features, still with places."""
        result: Tensor = self.body.forward_features(self.normalise(pictures))  # type: ignore[operator]
        return result

    def pooled(self, maps: Tensor) -> Tensor:
        """Those -> features (N, F)."""
        result: Tensor = self.body.forward_head(maps)  # type: ignore[operator]
        return result

    def classified(self, maps: Tensor) -> Tensor:
        """Those -> logits (N, K)."""
        result: Tensor = self.head(self.dropout(self.pooled(maps)))
        return result

    def features(self, pictures: Tensor) -> Tensor:
        """(N, 3, S, S) of 0 to 255 -> features (N, F)."""
        return self.pooled(self.maps(pictures))

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, S, S) of 0 to 255 -> logits (N, K)."""
        return self.classified(self.maps(pictures))

    def train(self, mode: bool = True) -> "Backbone":
        """Batch normalisation stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def build(architecture: Architecture, *, mean: Sequence[float], std: Sequence[float]) -> Backbone:
    """The network with weights that are still to be loaded, (N, 3, S, S) float of 0 to 255 -> logits (N, K)."""
    return _around(_body(architecture.name, architecture.arguments), architecture, mean=mean, std=std)


def pretrained(found: Found, architecture: Architecture, *, random_weights: bool = False) -> Backbone:
    """The network with the weights that its name or folder stands for, and a last layer that knows nothing.

    Raises:
        ModelError: the weights are not at hand and cannot be fetched. They are never replaced by random ones, unless
            `random_weights` asks for those, from torch's global generator.
    """
    body = _body(found.name, found.arguments) if random_weights else _loaded(found, num_classes=0)
    description = found.description
    return _around(body, architecture, mean=description.mean, std=description.std)


def save(found: Found, folder: Path) -> None:
    """Fetch the weights of a network and write them into `folder`, in timm's form.

    Raises:
        ModelError: they cannot be fetched.
        UsageError: the folder holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--to {folder} holds something already: give a new folder")
    network = _loaded(found, num_classes=None)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        save_for_hf(network, str(temporary), safe_serialization=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def weights_hash(network: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of all weights and statistics."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _loaded(found: Found, *, num_classes: int | None) -> nn.Module:
    _require_weights(found)
    try:
        network: nn.Module = timm.create_model(found.given, pretrained=True, num_classes=num_classes)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ModelError(f"the weights of {found.given} cannot be loaded ({reason}): {_remedy(found)}") from error
    return network


def _body(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    body: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    return body


def _require_weights(found: Found) -> None:
    """Look whether weights are stored or can be fetched, in seconds: the hub's own library tries for a minute."""
    if found.given.startswith(LOCAL):
        return
    config = _published(found.given)
    if not (config.hf_hub_id or config.url):
        tags = [name for name in timm.list_pretrained() if name.split(".")[0] == found.given.split(".")[0]]
        have = f"take one of {', '.join(tags[:5])}" if tags else "train it with --random-weights"
        raise ModelError(f"nobody has published weights of {found.given}: {have}")
    if config.hf_hub_id and not _stored(config.hf_hub_id) and not _reachable(urlsplit(constants.ENDPOINT)):
        where = constants.ENDPOINT
        raise ModelError(
            f"the weights of {found.given} are not on this machine and {where} cannot be reached: {_remedy(found)}"
        )


def _stored(repository: str) -> bool:
    names = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(huggingface_hub.try_to_load_from_cache(repository, name), str) for name in names)


def _reachable(address: SplitResult) -> bool:
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except OSError:
        return False
    return True


def _remedy(found: Found) -> str:
    if found.given.startswith(LOCAL):
        return f"make the folder anew with `darkroom weights fetch NAME --to {found.given.removeprefix(LOCAL)}`"
    return (
        f"weights are looked for in {constants.HF_HUB_CACHE}; where there is a network, run `darkroom weights fetch "
        f"{found.given} --to DIR`, bring DIR here, and give {LOCAL}DIR"
    )


def _around(body: nn.Module, architecture: Architecture, *, mean: Sequence[float], std: Sequence[float]) -> Backbone:
    return Backbone(body, classes=architecture.classes, dropout=architecture.dropout, mean=mean, std=std)
