"""Settings as frozen dataclasses: one attribute docstring a field, which is also its help on the command line."""

import math
import re
from dataclasses import dataclass, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, get_args

import platformdirs

from darkroom.errors import UsageError

CACHE_FOLDER = Path(platformdirs.user_cache_dir("darkroom"))

INT8_BOUND = 0.3
"""Points of accuracy."""

MOST_CONNECTIONS = 700
MOST_WORKERS = 128
"""The server watches its connections with select, which knows 1,024 files; each worker process has two of them."""

OURS = "cnn"
"""The name of our own network; every other one is a backbone's."""

Recipe = Literal["auto", "quick", "best", "photo", "transfer"]
Optimiser = Literal["sgd", "adamw", "muon"]
Schedule = Literal["linear", "one-cycle", "cosine", "plateau"]
Imbalance = Literal["none", "weighted-loss", "balanced-sampling"]
Precision = Literal["auto", "fp32", "bf16"]
Views = Literal[1, 2, 6]
Factor = Literal[
    "augmentation",
    "flip",
    "optimiser",
    "schedule",
    "label-smoothing",
    "ema",
    "width",
    "convolutions",
    "dropout",
    "pictures",
]
Preference = Literal["latency", "accuracy", "size"]
MemoryFormat = Literal["auto", "contiguous", "channels-last"]
ExportFormat = Literal["bundle", "saved-model"]
EngineName = Literal["onnxruntime", "tf-serving"]


def check(condition: bool, message: str) -> None:
    """Raise `UsageError` with `message` unless `condition` holds."""
    if not condition:
        raise UsageError(message)


@dataclass(frozen=True, kw_only=True)
class StorageConfig:
    """Where the data set of a run is found again."""

    archive: Path | None = None
    """A local copy of the official archive of `cifar10`, or the archive or unpacked folder of `animals10`."""
    cache: Path = CACHE_FOLDER
    """Folder for downloads, unpacked archives and decoded pixels; may be deleted at any time."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(StorageConfig):
    """How a data set is read, split and cached."""

    image_size: int | None = None
    """Side in pixels of the square pictures the network sees; from the data when not given."""
    validation_fraction: float = 0.15
    """Part of the pictures that validates choices (at most 2,500: more are worth more to learn from)."""
    test_fraction: float = 0.15
    """Part of the pictures kept apart for the test, where the data set brings no test split of its own."""
    train_fraction: float = 1.0
    """Part of the training pictures of each class to train on; the others are left aside."""
    seed: int = 0
    """Seed of the split, of the initial weights and of every epoch's order and augmentation."""
    strict: bool = False
    """Stop at the first unreadable picture instead of listing it and leaving it out."""

    def __post_init__(self) -> None:
        size = self.image_size
        check(size is None or 8 <= size <= 1024, f"--image-size is {size}: give a side from 8 to 1024 pixels")
        for option, value in (("validation", self.validation_fraction), ("test", self.test_fraction)):
            check(0 < value < 0.9, f"--{option}-fraction is {value}: give a part between 0 and 0.9")
        total = self.validation_fraction + self.test_fraction
        check(total < 0.95, f"validation and test take {total:.2f} of the pictures: leave some to train on")
        part = self.train_fraction
        check(0 < part <= 1, f"--train-fraction is {part}: give a part above 0, up to 1 for all")
        check(0 <= self.seed < 2**32, f"--seed is {self.seed}: give a whole number from 0 to 4294967295")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained; what is not given comes from the recipe."""

    model: str = OURS
    """The network to train: `cnn`, our own, from scratch; the name of one that timm knows, pre-trained on ImageNet; or
    `local-dir:PATH`, a folder with such a network and its weights."""
    frozen: bool = False
    """Leave the layers of a pre-trained network as they are, and train a new last one on their features."""
    random_weights: bool = False
    """Begin a network of timm's with random weights instead of those from ImageNet."""
    recipe: Recipe = "auto"
    """A set of defaults for all that follows: `quick` (up to 64 pixels), `best` (for longer trainings), `photo`,
    `transfer` (for pre-trained networks), or `auto`: by network and size."""
    minutes: float | None = None
    """Time budget for training, validation included: speed is measured first, then the epochs are planned."""
    epochs: int | None = None
    """Exact number of passes over the training pictures, instead of a time budget."""
    batch_size: int | None = None
    """Pictures in one optimiser step."""
    accumulate: int = 1
    """Parts into which each batch is cut to save memory; gradients are summed over them."""
    optimiser: Optimiser | None = None
    """SGD with Nesterov momentum, AdamW, or Muon for the convolution filters with SGD for the rest."""
    learning_rate: float | None = None
    """Peak learning rate; by default it follows the optimiser and the batch size."""
    weight_decay: float | None = None
    """Weight decay, decoupled for AdamW; not applied to biases, normalisation, and filters under Muon."""
    momentum: float | None = None
    """Momentum of SGD and Muon, first beta of AdamW."""
    layer_decay: float | None = None
    """Factor on the learning rate from each layer of a pre-trained network to the one below; 1 turns it off."""
    schedule: Schedule | None = None
    """Linear to zero, one cycle (linear up first), cosine with warm-up, or down on a plateau of validation."""
    label_smoothing: float | None = None
    """Probability taken from the true class and spread over all."""
    imbalance: Imbalance | None = None
    """What to do about classes of unequal size."""
    ema_decay: float | None = None
    """Decay a step of the exponential moving average of weights, which is what gets validated; 0 turns it off."""
    patience: int | None = None
    """Epochs without a better validation result after which training stops."""
    refit: bool = False
    """When validation has chosen the number of epochs, train anew on training and validation pictures together."""
    width: float | None = None
    """Factor on the number of channels of our network."""
    convolutions: int | None = None
    """Convolutions in each stage of our network; from three on with a shortcut around them."""
    dropout: float | None = None
    """Dropout before the last layer."""
    flip: bool | None = None
    """Mirror pictures left to right at random."""
    translate: int | None = None
    """Random translation by up to so many pixels, reflecting at the edge."""
    cutout: int | None = None
    """Side in pixels of a square that is blanked at a random place."""
    crop_scale: float | None = None
    """Smallest part of the area that a random resized crop keeps; 1 turns it off."""
    colour_jitter: float | None = None
    """Strength of random changes of brightness, contrast and saturation."""
    resize_from: float | None = None
    """Part of the side with which training begins; pictures grow to full size on the way, 1 turns it off."""
    mixup: float | None = None
    """Alpha of mixup (Zhang et al. 2018), 0 turns it off."""
    cutmix: float | None = None
    """Alpha of cutmix (Yun et al. 2019), 0 turns it off."""
    views: Views = 1
    """Views of a picture averaged for each answer: itself, its mirror image too, or both also moved by a pixel (6)."""
    precision: Precision = "auto"
    """Arithmetic of the forward and backward pass; `auto` measures what is faster here."""
    memory_format: MemoryFormat = "auto"
    """Layout of tensors in memory; `auto` measures what is faster here."""
    compile: bool = False
    """Compile the network with `torch.compile` before training, which takes minutes the first time; with --epochs."""
    threads: int | None = None
    """Threads of PyTorch; all cores when not given."""
    tensorboard: bool = False
    """Also write TensorBoard logs into the run folder."""

    def __post_init__(self) -> None:
        check(
            self.minutes is None or self.epochs is None,
            f"--minutes {self.minutes} and --epochs {self.epochs} contradict each other: give one of them",
        )
        longest = 60 * 24 * 30
        check(
            self.minutes is None or 0 < self.minutes <= longest,
            f"--minutes is {self.minutes}: give more than 0, up to {longest} (a month)",
        )
        ours = self.model == OURS
        for option, given in (("frozen", self.frozen), ("random-weights", self.random_weights)):
            check(
                not (ours and given), f"--{option} is for pre-trained networks: give one with --model, or leave it out"
            )
        check(
            self.recipe == "auto" or ours == (self.recipe != "transfer"),
            f"--recipe {self.recipe} and --model {self.model} do not fit: leave --recipe out",
        )
        check(
            not ours or self.layer_decay is None,
            "--layer-decay is for pre-trained networks: give one with --model, or leave it out",
        )
        for option in ("width", "convolutions"):
            check(
                ours or getattr(self, option) is None,
                f"--{option} is for our own network, not for {self.model}: leave one of them out",
            )
        check(ours or not self.refit, f"--refit is for our own network, not for {self.model}: leave one of them out")
        check(
            ours or self.optimiser != "muon",
            f"--optimiser muon rescales the filters that {self.model} has learned: give adamw or sgd",
        )
        check(
            not self.frozen or (self.minutes is None and self.epochs is None),
            "--frozen has no epochs: leave --minutes and --epochs out",
        )
        check(self.epochs is None or self.epochs >= 1, f"--epochs is {self.epochs}: give at least 1")
        check(self.batch_size is None or self.batch_size >= 2, f"--batch-size is {self.batch_size}: give at least 2")
        check(
            self.views == 1 or self.flip is not False,
            f"--views {self.views} mirrors pictures and --no-flip forbids it: leave one of them out",
        )
        check(
            not self.refit or self.schedule != "plateau",
            "--refit leaves no validation for --schedule plateau to follow: leave one of them out",
        )
        check(
            not self.compile or self.minutes is None,
            "--compile takes a time that cannot be planned: give --epochs instead of --minutes",
        )
        check(
            not self.compile or self.accumulate == 1,
            f"--compile and --accumulate {self.accumulate} do not go together: leave one of them out",
        )
        check(self.accumulate >= 1, f"--accumulate is {self.accumulate}: give at least 1")
        check(self.patience is None or self.patience >= 1, f"--patience is {self.patience}: give at least 1")
        check(self.threads is None or self.threads >= 1, f"--threads is {self.threads}: give at least 1")
        deep = self.convolutions
        check(deep is None or 2 <= deep <= 8, f"--convolutions is {deep}: give a number from 2 to 8")
        for option in ("learning_rate", "weight_decay", "mixup", "cutmix", "translate", "cutout"):
            self._check_range(option, 0, math.inf)
        for option in ("momentum", "ema_decay", "label_smoothing", "dropout"):
            self._check_range(option, 0, 0.99999)
        self._check_range("width", 0.05, 16)
        self._check_range("layer_decay", 0.01, 1)
        self._check_range("colour_jitter", 0, 1)
        self._check_range("crop_scale", 0.01, 1)
        self._check_range("resize_from", 0.5, 1)

    def _check_range(self, field: str, low: float, high: float) -> None:
        value = getattr(self, field)
        option = "--" + field.replace("_", "-")
        wanted = f"a value from {low:g} to {high:g}" if high < math.inf else f"a number from {low:g} on"
        check(value is None or (low <= value <= high and value < math.inf), f"{option} is {value}: give {wanted}")


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Which networks are compared, for how long, and what decides."""

    models: tuple[str, ...] = ()
    """Networks: `cnn`, names that timm knows, or `local-dir:PATH`; a short list that suits the machine if not given."""
    minutes: float = 15.0
    """Time for everything: measuring, features, training, evaluation and export."""
    prefer: Preference = "latency"
    """What decides among networks that are close to the most accurate one; or accuracy alone."""
    finetune: int = 2
    """How many of the best pre-trained networks are trained further as a whole."""
    random_weights: bool = False
    """Begin networks of timm's with random weights instead of those from ImageNet."""

    def __post_init__(self) -> None:
        longest = 60 * 24 * 30
        check(0 < self.minutes <= longest, f"--minutes is {self.minutes}: give more than 0, up to {longest} (a month)")
        check(self.finetune >= 0, f"--finetune is {self.finetune}: give 0 or more")
        twice = sorted({name for name in self.models if self.models.count(name) > 1})
        check(not twice, f"--models names {', '.join(twice)} twice: name each once")


@dataclass(frozen=True, kw_only=True)
class AblateConfig:
    """What is varied, one thing at a time, and how often."""

    of: tuple[str, ...] = ()
    """What is taken away or exchanged, each in trainings of its own: augmentation, flip, optimiser, schedule,
    label-smoothing, ema, width, convolutions, dropout, pictures (half and a quarter of those to train on), with spaces
    or commas between; if not given, all but flip, convolutions, dropout and pictures, and width of our own network
    only."""
    seeds: int = 3
    """Trainings of each kind, with seeds from --seed on; the same seed has the same split."""

    def __post_init__(self) -> None:
        check(2 <= self.seeds <= 100, f"--seeds is {self.seeds}: give 2 to 100, since one training tells of no spread")
        names = [name.replace("_", "-") for given in self.of for name in given.split(",") if name]
        unknown = [name for name in names if name not in get_args(Factor)]
        check(not unknown, f"--of names {', '.join(unknown)}: give some of {', '.join(get_args(Factor))}")
        object.__setattr__(self, "of", tuple(names))
        twice = sorted({name for name in self.of if self.of.count(name) > 1})
        check(not twice, f"--of names {', '.join(twice)} twice: name each once")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What is made of a run."""

    format: ExportFormat = "bundle"
    """The bundle that darkroom serves, or a SavedModel for TensorFlow Serving in saved_model/NAME/VERSION."""
    int8: bool = False
    """Write a faster bundle in 8-bit integers into bundle-int8, beside the one in fp32, and measure both."""
    int8_bound: float = INT8_BOUND
    """Most points of validation accuracy that int8 may lose; where it loses more, it is refused."""

    def __post_init__(self) -> None:
        bound = self.int8_bound
        check(0 <= bound <= 100, f"--int8-bound is {bound}: give points of accuracy, from 0 to 100")
        check(self.int8 or bound == INT8_BOUND, f"--int8-bound {bound:g} bounds nothing without --int8: give both")
        check(
            not self.int8 or self.format == "bundle",
            "--int8 and --format saved-model contradict each other: TensorFlow Serving gets the network in fp32",
        )


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """What answers predictions."""

    engine: EngineName = "onnxruntime"
    """ONNX Runtime inside of the server, or a TensorFlow Serving that runs elsewhere."""
    workers: int | None = None
    """Processes that decode pictures and run ONNX Runtime, a picture each at a time: one a core when not given; with 0,
    threads of the server do it."""
    tf_serving_url: str = ""
    """Where that TensorFlow Serving listens: grpc://HOST:8500 or http://HOST:8501 (grpcs and https with TLS)."""
    tf_serving_model: str = ""
    """The model's name there; the one that `export --format saved-model` gave its folder when not given."""
    tf_serving_version: int | None = None
    """The version to ask; the newest one that is available when not given."""
    tf_serving_label: str = ""
    """The version label to ask, such as stable, instead of a version."""
    tf_serving_timeout: float = 10
    """Seconds after which an answer of TensorFlow Serving is given up, repeated attempts included."""
    tf_serving_wait: float = 60
    """Seconds that the start waits for TensorFlow Serving to have loaded the model."""
    tf_serving_batch: int = 32
    """Most pictures in one request to TensorFlow Serving; at most the max_batch_size that it was started with."""

    def __post_init__(self) -> None:
        most = MOST_WORKERS
        check(self.workers is None or 0 <= self.workers <= most, f"--workers is {self.workers}: give 0 to {most}")
        url, remote = self.tf_serving_url, self.engine == "tf-serving"
        check(bool(url) or not remote, "--engine tf-serving asks a server: say where with --tf-serving-url")
        check(remote or not url, f"--tf-serving-url {url} is asked by --engine tf-serving only: give both")
        known = re.fullmatch(r"(grpcs?://[^/?#@\s]+:\d{1,5}/?|https?://[^/?#@\s]+(/[^?#\s]*)?)", url)
        check(not url or known is not None, f"--tf-serving-url is {url}: give grpc://HOST:8500 or http://HOST:8501")
        version, label = self.tf_serving_version, self.tf_serving_label
        check(version is None or version >= 0, f"--tf-serving-version is {version}: give a whole number from 0")
        check(
            version is None or not label,
            f"--tf-serving-version {version} and --tf-serving-label {label} contradict each other: give one of them",
        )
        check(self.tf_serving_batch >= 1, f"--tf-serving-batch is {self.tf_serving_batch}: give at least 1")
        for option, seconds in (("timeout", self.tf_serving_timeout), ("wait", self.tf_serving_wait)):
            check(0 < seconds < math.inf, f"--tf-serving-{option} is {seconds}: give more than 0 seconds")


@dataclass(frozen=True, kw_only=True)
class ServeConfig(EngineConfig):
    """Where the server listens, who may use it, and what it refuses."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 opens the server to the network."""
    port: int = 8000
    """Port to listen on."""
    metrics_port: int | None = None
    """Port for /metrics alone, to be kept inside; on --port with all else when not given, nowhere with 0."""
    threads: int | None = None
    """Requests for pictures worked on at the same time: two for each worker when not given, or 4 without workers."""
    max_request_megabytes: float = 64
    """Largest request."""
    max_file_megabytes: float = 20
    """Largest single picture."""
    max_files: int = 64
    """Most pictures in one request."""
    max_megapixels: float = 100
    """Largest picture, read from its header before it is decoded."""
    max_decode_seconds: float = 10
    """Longest time that decoding one picture may take before it is given up."""
    max_queue: int = 64
    """Requests that may wait for a free thread; whoever comes after them is told to come back (503)."""
    max_memory_megabytes: float = 512
    """Memory for all requests that arrive, wait or are being answered; beyond it the next are refused (503)."""
    max_connections: int = 200
    """Connections held open at the same time; of so many the one idle for longest is closed, or further ones wait."""
    max_transfer_seconds: float = 60
    """Time in which a request must have arrived, and an answer been taken, before a slow client is cut off."""
    max_requests_per_minute: float = 0
    """Requests that one client may make in a minute (429 beyond it); 0 sets no limit."""
    stop_seconds: float = 30
    """Longest time that stopping waits for requests which are being answered."""
    api_keys: Path | None = None
    """File of API keys, made with `darkroom key`, one of which every prediction then needs; read at start."""
    hosts: str = ""
    """Names, separated by commas, under which alone the server answers, such as example.org; any when empty."""
    allow_origins: str = ""
    """Origins, separated by commas, whose pages may call the API (CORS), such as https://example.org."""
    frame_ancestors: str = ""
    """Origins, separated by commas, whose pages may show the page in a frame, such as https://huggingface.co."""
    trusted_proxy: str = ""
    """Address of the reverse proxy whose X-Forwarded-For and X-Forwarded-Proto are believed, * for any."""
    proxy_hops: int = 1
    """Proxies in front of the server that each add to X-Forwarded-For."""
    samples: Path | None = None
    """Folder of pictures that the page offers to try; those of the run when a run is served."""
    access_log: bool = True
    """Write a line of JSON for each request, without pictures and their names, to standard output."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 <= self.port <= 65535, f"--port is {self.port}: give a number from 0 to 65535")
        own = self.metrics_port
        check(own is None or 0 <= own <= 65535, f"--metrics-port is {own}: give a number from 0 to 65535")
        check(not own or own != self.port, f"--metrics-port and --port are both {own}: give another, or neither")
        for name in (field.name for field in fields(self) if field.name.startswith("max_") or field.name == "threads"):
            value = getattr(self, name)
            unlimited = (name, value) in (("max_requests_per_minute", 0), ("threads", None))
            check(unlimited or 0 < value < math.inf, f"--{name.replace('_', '-')} is {value}: give more than 0")
        check(
            self.max_memory_megabytes >= self.max_request_megabytes,
            f"--max-memory-megabytes {self.max_memory_megabytes:g} does not hold one request of "
            f"--max-request-megabytes {self.max_request_megabytes:g}: give at least as much",
        )
        most = MOST_CONNECTIONS
        check(self.max_connections <= most, f"--max-connections is {self.max_connections}: give at most {most}")
        check(0 <= self.stop_seconds < math.inf, f"--stop-seconds is {self.stop_seconds}: give 0 or more")
        check(1 <= self.proxy_hops <= 20, f"--proxy-hops is {self.proxy_hops}: give 1 to 20")
        proxy = self.trusted_proxy
        is_address = proxy in ("", "*") or _is_address(proxy)
        check(is_address, f"--trusted-proxy is {proxy!r}: give the address from which it asks, or * for any")
        for host in origins(self.hosts):
            known = re.fullmatch(r"[a-z0-9.-]+|\[[0-9a-f:.]+\]", host)
            check(known is not None, f"--hosts has {host!r}: give names without scheme and port, as in example.org")
        _check_origins("--allow-origins", self.allow_origins)
        _check_origins("--frame-ancestors", self.frame_ancestors)


def origins(listed: str) -> frozenset[str]:
    """The origins, or names, of a list with commas."""
    return frozenset(origin.strip() for origin in listed.split(",") if origin.strip())


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _check_origins(option: str, listed: str) -> None:
    for origin in origins(listed):
        known = re.fullmatch(r"https?://[a-z0-9.-]+(:\d+)?|https?://\[[0-9a-f:]+\](:\d+)?", origin)
        check(known is not None, f"{option} has {origin!r}: give scheme and host, as in https://example.org")
