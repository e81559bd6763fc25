"""Networks of timm, pre-trained on ImageNet: found by name or in a folder, with their own preprocessing.

A backbone makes features (N, F) of a picture; a fully connected layer behind it makes logits. Side, crop,
interpolation, mean and deviation come from the weights' own description, so that exchanging backbones changes nothing
else.
"""

import difflib
import functools
import hashlib
import json
import logging
import secrets
import shutil
import socket
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import huggingface_hub
import torch
from huggingface_hub import constants
from torch import Tensor, nn

from darkroom.errors import ModelError, UsageError
from darkroom.models import torchvision_operators
from darkroom.models.cnn import Normalise
from darkroom.preprocess import Preprocessing, Resize
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
"""Names that `compare` takes when none are given, by judgement: light ones on a processor, else the classics too."""

ENLARGEMENT = 4
"""Most times that a small picture is enlarged: a network that halves five times makes 4×4 of 32 pixels then. Beyond,
work grows with the square and the picture holds nothing more; where it stops to pay is judgement."""

SMALLEST, SMALLEST_INCEPTION = 64, 96
"""Least side in pixels of enlarged pictures; of 64, Inception's convolutions, which are not padded, leave nothing."""

CROP_MODES: dict[str, Resize] = {"center": "cover", "squash": "stretch"}
"""How timm brings pictures into a square, and what the contract calls it."""


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
    resize: Resize = "cover"
    smallest: int = SMALLEST
    """Least side that small pictures are brought to."""

    def suits(self, shorter_side: float) -> int:
        """The side to train at, for pictures of that shorter side: its own, less for pictures far smaller.

        In steps of 32, by which most networks divide.
        """
        if self.fixed:
            return self.image_size
        enlarged = -(-round(ENLARGEMENT * shorter_side) // 32) * 32
        return min(self.image_size, max(self.smallest, enlarged))

    def preprocessing(self, side: int) -> Preprocessing:
        """The contract by which pictures are brought to `side`."""
        small = side < self.image_size  # a small picture has nothing to spare at its edge
        return Preprocessing(
            width=side,
            height=side,
            resize=self.resize,
            crop_fraction=1.0 if small or self.resize == "stretch" else self.crop_fraction,
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
        return Path(self.given.removeprefix(LOCAL)).resolve().name if self.given.startswith(LOCAL) else self.given

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
    return Found(given, given, {}, _description(given, asdict(_published(given))))


def _published(name: str) -> PretrainedCfg:
    """What timm knows of the weights of a network."""
    try:
        return timm.get_pretrained_cfg(name) or PretrainedCfg()
    except RuntimeError as error:
        base, _, tag = name.partition(".")
        raise ModelError(f"timm knows no weights {tag} of {base}: {_weights_of(base)}") from error


def _weights_of(base: str) -> str:
    """What to type for a network of that name, without the tag of its weights."""
    tags = timm.list_pretrained(base)
    return f"take one of {', '.join(tags[:5])}" if tags else "train it with --random-weights"


def _in_folder(given: str, folder: Path) -> Found:
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        name = content["architecture"]
        config = content["pretrained_cfg"]
        arguments = {key: value for key, value in content.get("model_args", {}).items() if key != "num_classes"}
        found = Found(given, name, arguments, _description(name, config))
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


def _description(name: str, config: Mapping[str, Any]) -> Description:
    mode = config.get("crop_mode") or "center"
    if mode not in CROP_MODES:
        raise ModelError(
            f"{name} was trained on pictures in timm's crop_mode {mode}, and darkroom knows only "
            f"{' and '.join(CROP_MODES)}: take another network"
        )
    shape, mean, std = tuple(config["input_size"]), tuple(config["mean"]), tuple(config["std"])
    if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2] or len(mean) != 3 or len(std) != 3:
        raise ModelError(
            f"{name} was trained on pictures of {' × '.join(map(str, shape))}, and darkroom shows square ones of three "
            "colours: take another network"
        )
    smallest = config.get("min_input_size") or (SMALLEST_INCEPTION if "inception" in name else SMALLEST,)
    return Description(
        image_size=int(shape[-1]),
        fixed=bool(config.get("fixed_input_size")),
        crop_fraction=float(config["crop_pct"]),
        interpolation=str(config["interpolation"]),
        mean=tuple(255 * value for value in mean),
        std=tuple(255 * value for value in std),
        resize=CROP_MODES[mode],
        smallest=int(smallest[-1]),
    )


def require_side(found: Found, side: int) -> None:
    """Raise `UsageError` where the network cannot look at pictures of `side` pixels: too few, or not to be divided."""
    arguments = json.dumps(found.arguments, sort_keys=True)
    if side != found.description.image_size and (reason := _objection(found.name, arguments, side)) is not None:
        raise UsageError(
            f"{found.title} cannot look at pictures of {side} pixels ({reason}): "
            f"give --image-size {found.description.image_size}, which its weights are for"
        )


@functools.cache
def _objection(name: str, arguments: str, side: int) -> str | None:
    """What the network, its arguments in JSON, says against a picture of that side."""
    body = _body(name, json.loads(arguments)).eval()
    try:
        with torch.no_grad():
            body(torch.zeros(1, 3, side, side))
    except (RuntimeError, ValueError, AssertionError) as error:
        return _in_one_line(error)
    return None


class Backbone(nn.Module):
    """Normalisation, a timm network without its last layer, dropout, and a last layer for our classes.

    In training, batch normalisation keeps the statistics of ImageNet: those of a few small batches would be rougher
    (judgement: not measured). A `random_start` has none to keep.
    """

    def __init__(
        self,
        body: nn.Module,
        architecture: Architecture,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        random_start: bool = False,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.random_start = random_start
        self.normalise = Normalise(mean, std)
        self.body = body
        self.dropout = nn.Dropout(architecture.dropout)
        self.head = nn.Linear(body.head_hidden_size, architecture.classes)  # type: ignore[arg-type]
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
        """Batch normalisation stays in evaluation mode, unless it has learned nothing yet."""
        super().train(mode)
        if not self.random_start:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def build(architecture: Architecture, *, mean: Sequence[float], std: Sequence[float]) -> Backbone:
    """The network with weights that are still to be loaded, (N, 3, S, S) float of 0 to 255 -> logits (N, K)."""
    return Backbone(_body(architecture.name, architecture.arguments), architecture, mean=mean, std=std)


def pretrained(found: Found, architecture: Architecture, *, random_weights: bool = False) -> Backbone:
    """The network with the weights that its name or folder stands for, and a last layer that knows nothing.

    Raises:
        ModelError: the weights are not at hand and cannot be fetched. They are never replaced by random ones, unless
            `random_weights` asks for those, from torch's global generator.
    """
    if random_weights:
        body = _body(found.name, found.arguments)
    else:
        body = _loaded(found)
        body.reset_classifier(0)  # type: ignore[operator]
    description = found.description
    return Backbone(body, architecture, mean=description.mean, std=description.std, random_start=random_weights)


def save(found: Found, folder: Path) -> None:
    """Fetch the weights of a network and write them into `folder`, in timm's form.

    Raises:
        ModelError: they cannot be fetched.
        UsageError: the folder holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--to {folder} holds something already: give a new folder")
    network = _loaded(found)
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


def _loaded(found: Found) -> nn.Module:
    """The whole network, its own last layer too: asked for another, timm would not mind weights that are missing."""
    require_weights(found)
    try:
        with _nothing_missing(found):
            network: nn.Module = timm.create_model(found.given, pretrained=True)
    except Exception as error:  # of many kinds, where weights of another network are converted
        reason = _in_one_line(error)
        raise ModelError(f"the weights of {found.given} cannot be loaded ({reason}): {_remedy(found)}") from error
    return network


@contextmanager
def _nothing_missing(found: Found) -> Iterator[None]:
    """Raise `RuntimeError` where a folder lacks weights: of a few networks timm only logs that, and they stay random.

    What is published under a name is believed: a norm that it lacks begins as its authors meant.
    """
    log = logging.getLogger("timm.models._builder")
    told: list[str] = []

    def listen(record: logging.LogRecord) -> bool:
        told.append(record.getMessage())
        return record.levelno > logging.INFO

    level = log.level
    log.addFilter(listen)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeFilter(listen)
    missing = [message for message in told if message.startswith("Missing keys")]
    if missing and found.given.startswith(LOCAL):
        raise RuntimeError(missing[0])


def _body(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    body: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    return body


def require_weights(found: Found) -> None:
    """Look whether weights are stored or can be fetched, in seconds: the hub's own library tries for a minute.

    Raises:
        ModelError: they are neither here nor within reach, or nobody has published any.
    """
    if found.given.startswith(LOCAL):
        return
    config = _published(found.given)
    if not (config.hf_hub_id or config.url):
        have = _weights_of(found.given.partition(".")[0])
        raise ModelError(f"nobody has published weights of {found.given}: {have}")
    if config.hf_hub_id and not _stored(config.hf_hub_id, config.hf_hub_filename) and not _within_reach():
        where = constants.ENDPOINT
        raise ModelError(
            f"the weights of {found.given} are not on this machine and {where} cannot be reached: {_remedy(found)}"
        )


def _stored(repository: str, filename: str | None) -> bool:
    """Whether the hub's cache holds the file that timm would load, or the same in safetensors, which it prefers."""
    plain = filename or "pytorch_model.bin"
    names = (plain, plain.replace("pytorch_model", "model").replace(".bin", ".safetensors"))
    return any(isinstance(huggingface_hub.try_to_load_from_cache(repository, name), str) for name in names)


def _within_reach() -> bool:
    """Whether the hub answers; behind a proxy only a download can tell."""
    return bool(urllib.request.getproxies().keys() - {"no"}) or _reachable(urlsplit(constants.ENDPOINT))


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


def _in_one_line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]
