"""The SavedModel answers as the network does, in TensorFlow's plain operators, and appears whole or not at all."""

import base64
import hashlib
import importlib.util
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'darkroom[tf]'")

from darkroom import workflow
from darkroom.bundle import LOSSY_TOLERANCE, BundleInfo
from darkroom.config import EngineConfig, ExportConfig
from darkroom.engines import tf_serving_messages as messages
from darkroom.engines.choice import open_engine
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.errors import EngineError, ExportError, UsageError
from darkroom.export import saved_model, tensorflow_network, tensorflow_pictures
from darkroom.export.drawn import drawn_pictures
from darkroom.export.onnx_bundle import Deployed, network_answers
from darkroom.export.saved_model import SavedModelEngine, export_saved_model, next_version
from darkroom.export.tensorflow_network import Network
from darkroom.export.tensorflow_pictures import pixels_of
from darkroom.export.tensorflow_runtime import tf
from darkroom.models import cnn
from darkroom.models.views import with_views
from darkroom.preprocess import Preprocessing, load
from finished import Finished
from pictures import encoded, marked, noisy
from serving_fake import FACES, FakeServing
from serving_fake import saved_model as answers_of
from test_export import answers_of_network, scale_weights

# TensorFlow, timm and PyTorch's exporter warn of their own parts, which nobody here can mend.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

FORBIDDEN = ("PyFunc", "Xla", "Python", "Tfl")
"""Parts of the names of operators that a stock server does not have, or has switched off."""


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


SCALED = Apply(lambda x: (x - 128) / 64)


def graph_of(network: nn.Module, height: int, width: int) -> tuple[Deployed, Any]:
    """The network with its last step, and the same as a concrete function of TensorFlow."""
    deployed = Deployed(network.eval(), 1.5).eval()
    written = Network(deployed, height=height, width=width)
    signature = [tf.TensorSpec((None, height, width, 3), tf.uint8)]
    function = tf.function(lambda pixels: written(pixels), input_signature=signature, autograph=False)
    concrete = function.get_concrete_function()
    concrete.network = written  # which holds the weights; a function only reads them
    return deployed, concrete


def agrees(
    network: nn.Module, *, height: int = 12, width: int = 10, counts: tuple[int, ...] = (1, 3, 17), within: float = 2e-5
) -> Any:
    """TensorFlow says what PyTorch says, for any number of pictures; returns the concrete function."""
    deployed, function = graph_of(network, height, width)
    for count in counts:
        pixels = np.random.default_rng(count).integers(0, 256, (count, height, width, 3), np.uint8)
        expected = network_answers(deployed, pixels)
        found = function(tf.constant(pixels))
        scale = max(1.0, float(np.abs(expected.logits).max()))
        np.testing.assert_allclose(found["logits"].numpy() / scale, expected.logits / scale, atol=within)
        np.testing.assert_allclose(found["probabilities"].numpy(), expected.probabilities, atol=1e-4)
    return function


def operators(function: Any) -> list[str]:
    """Names of the operators of a graph."""
    return [operation.type for operation in function.graph.get_operations()]


def lively(module: nn.Module) -> nn.Module:
    """Statistics of batch normalisation that do something."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
    return module


# Operators -----------------------------------------------------------------------------------------------------------

WINDOWS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Conv2d(3, 5, 3, padding=1),
    "valid": lambda: nn.Conv2d(3, 5, (2, 3), bias=False),
    "stride": lambda: nn.Conv2d(3, 5, 3, stride=2, padding=1),
    "uneven stride": lambda: nn.Conv2d(3, 5, 3, stride=(1, 2), padding=(0, 1)),
    "even kernel": lambda: nn.Conv2d(3, 5, 4, padding="same"),
    "long kernel": lambda: nn.Conv2d(3, 4, (1, 7), padding=(0, 3)),
    "wide padding": lambda: nn.Conv2d(3, 4, 3, padding=2),
    "dilation": lambda: nn.Conv2d(3, 4, 3, padding=2, dilation=2),
    "depthwise": lambda: nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3),
    "depthwise dilated": lambda: nn.Conv2d(3, 3, 3, padding=2, dilation=2, groups=3),
    "groups": lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, padding=1, groups=4)),
    "large": lambda: nn.Conv2d(3, 64, 5, padding=2),
    "folded": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
    "folded with bias": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)),
    "not folded": lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.MaxPool2d(2), nn.BatchNorm2d(6), nn.GELU()),
    "max": lambda: nn.MaxPool2d(3, stride=2, padding=1),
    "max up": lambda: nn.MaxPool2d(3, stride=2, ceil_mode=True),
    "max up and padded": lambda: nn.MaxPool2d((3, 2), stride=(3, 2), padding=1, ceil_mode=True),
    "average": lambda: nn.AvgPool2d(2),
    "average padded": lambda: nn.AvgPool2d(3, stride=1, padding=1),
    "average of what is there": lambda: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    "average up": lambda: nn.AvgPool2d(3, stride=2, ceil_mode=True),
    "average up and padded": lambda: nn.AvgPool2d(5, stride=3, padding=2, ceil_mode=True),
    "average up of what is there": lambda: nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
    "one average": lambda: nn.AdaptiveAvgPool2d(1),
    "some averages": lambda: nn.AdaptiveAvgPool2d((5, 3)),
    "more averages": lambda: nn.AdaptiveAvgPool2d(17),
    "one maximum": lambda: nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(3, 4)),
    "some maxima": lambda: nn.AdaptiveMaxPool2d((4, 5)),
}

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": lambda x: F.relu6(4 * x),
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "hardswish": lambda x: F.hardswish(3 * x),
    "hardsigmoid": lambda x: F.hardsigmoid(3 * x),
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 1.5),
    "leaky relu": lambda x: F.leaky_relu(x, 0.2),
    "elu": F.elu,
    "mish": F.mish,
    "sigmoid and tanh": lambda x: x.sigmoid() + x.tanh(),
    "in place": lambda x: (x * 1).add_(3.0).clamp_(0.0, 6.0).div_(6.0).relu_(),
    "arithmetic": lambda x: 2 - x * 0.5 + x.abs().sqrt() / 3 - torch.exp(-x.pow(2)) + (x.abs() + 3).pow(1.5).neg(),
    "maximum": lambda x: torch.maximum(x, x.flip(2)) + torch.minimum(x, 1 - x),
    "scale of channels": lambda x: x * torch.tensor([1.0, 2, 3])[:, None, None] + torch.tensor([[[[0.5]]]]),
    "gate": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "sums": lambda x: x.mean((2, 3)) + x.amax((2, 3)) - x.amin(dim=(2, 3)) + x.sum((2, 3)) / 120 + x.mean(),
    "norm": lambda x: x / (x.norm(p=2, dim=(1, 2), keepdim=True) + 1e-6),
    "addcmul": lambda x: torch.addcmul(x, x, x + 1, value=0.5),
    "softmax": lambda x: F.conv2d(x, torch.eye(3).view(3, 3, 1, 1)).softmax(1),
    "layer norm": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (3,), torch.ones(3) * 2, torch.ones(3)),
    "layer norm of all": lambda x: F.layer_norm(x, (3, 12, 10)),
    "there and back": lambda x: x.permute(0, 2, 3, 1).transpose(1, 2).permute(0, 3, 2, 1) + x,
    "tokens": lambda x: x.flatten(2).transpose(1, 2),
    "regrouped": lambda x: x.reshape(x.shape[0], 3, 6, 2, 10).permute(0, 2, 4, 1, 3).flatten(1),
    "cut": lambda x: x[:, 1:, 2:-3, ::2] - x[:, :1, -7:, 5:],
    "picked": lambda x: x[:, :, 0] + x[:, :, -1, :],
    "unbound": lambda x: sum(x.unbind(1)) + x[:, 0],
    "chunks": lambda x: torch.cat([part * number for number, part in enumerate(x.chunk(3, 1))], 1),
    "split": lambda x: torch.cat(x.split([4, 8], 2)[::-1], 2),
    "concatenated orders": lambda x: torch.cat([F.relu6(F.max_pool2d(x, 1)), x.transpose(2, 3).transpose(2, 3)], 1),
    "squeezed": lambda x: x.mean(1, keepdim=True).squeeze(1).unsqueeze(1).unsqueeze(-1).squeeze(-1),
    "token in front": lambda x: torch.cat([torch.ones(1, 1, 3).expand(x.shape[0], -1, -1), x.flatten(2).mT], 1),
    "padded": lambda x: F.pad(x, (1, 0, 2, 3), value=-1.0),
    "reflected": lambda x: F.pad(x, (1, 2, 0, 3), mode="reflect"),
    "products": lambda x: (x.flatten(2) @ x.flatten(2).mT) @ torch.arange(12.0).view(3, 4) / 100,
    "attention": lambda x: F.scaled_dot_product_attention(x, x.flip(1), x * 2),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name: str) -> None:
    torch.manual_seed(0)
    agrees(nn.Sequential(SCALED, lively(WINDOWS[name]())))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    agrees(Apply(lambda x: FUNCTIONS[name](SCALED(x))))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_behind_a_convolution(name: str) -> None:
    """There the channels lie last."""
    torch.manual_seed(0)
    agrees(nn.Sequential(SCALED, nn.Conv2d(3, 3, 3, padding=1), Apply(FUNCTIONS[name])))


def test_batch_normalisation_costs_nothing_behind_a_convolution() -> None:
    function = agrees(nn.Sequential(SCALED, lively(WINDOWS["folded"]())))
    assert not {"Mul", "Rsqrt", "FusedBatchNormV3"} & set(operators(function))


def test_a_convolution_with_two_readers_is_not_folded() -> None:
    torch.manual_seed(0)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.normalisation = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            features = self.convolution(x)
            result: Tensor = self.normalisation(features) + features
            return result

    agrees(nn.Sequential(SCALED, lively(Twice())))


def our_network(side: int, **options: Any) -> nn.Module:
    """Our network with weights that are all at work."""
    torch.manual_seed(0)
    architecture = cnn.design(image_size=side, classes=7, pictures=5000, width=0.25, **options)
    network = cnn.build(architecture, mean=(120, 125, 130), std=(60, 61, 62))
    for parameter in network.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter)
    return lively(cnn.written_out(network))


@pytest.mark.parametrize("views", [1, 2, 6])
@pytest.mark.parametrize(
    ("side", "options"), [(8, {}), (32, {"mirrored": True}), (32, {"convolutions": 3}), (80, {"mirrored": True})]
)
def test_our_network(side: int, options: dict[str, Any], views: Any) -> None:
    function = agrees(with_views(our_network(side, **options), views), height=side, width=side)
    transposed = operators(function).count("Transpose")
    assert transposed <= 1, "pictures come and stay with their channels last, up to the flattening"
    assert not [name for name in operators(function) if any(part in name for part in FORBIDDEN)]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x.cumsum(1), r"aten\.cumsum\.default, which darkroom's converter to TensorFlow does not know"),
        (lambda x: F.conv2d(x, x.mean(0, keepdim=True)), "filters of a convolution depend on the picture"),
        (lambda x: F.max_pool2d(x, 2, dilation=2), "max pooling with dilation"),
        (lambda x: F.adaptive_max_pool2d(x, 5), "windows of unequal size"),
        (lambda x: F.pad(x, (-1, 0)), "padding that cuts off"),
        (lambda x: F.conv_transpose2d(x, torch.ones(3, 2, 2, 2)), "aten"),
        (lambda x: x if x.sum() > 3 else -x, "PyTorch cannot trace the network"),
    ],
)
def test_what_cannot_be_expressed_is_told_in_a_line(function: Callable[[Tensor], Tensor], said: str) -> None:
    with pytest.raises(ExportError, match=said) as caught:
        graph_of(Apply(function), 12, 10)
    assert "\n" not in str(caught.value)


def test_a_result_of_another_shape_or_type_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def halved(site: Any, x: Any) -> Any:
        return x.like(x.tensor[:, ::2])

    def doubled(site: Any, x: Any) -> Any:
        return x.like(tf.cast(x.tensor, tf.float64))

    for wrong in (halved, doubled):
        monkeypatch.setitem(tensorflow_network.OPERATORS, "relu.default", wrong)
        with pytest.raises(ExportError, match=r"aten\.relu\.default cannot be expressed"):
            graph_of(Apply(F.relu), 12, 10)


FAMILIES = {
    "vgg11_bn": 64,
    "vgg16": 64,
    "resnet18": 64,
    "resnet50d": 64,
    "seresnet18": 64,
    "resnext26ts": 64,
    "inception_v3": 107,
    "mobilenetv2_100": 64,
    "mobilenetv3_small_100": 64,
    "mobilenetv3_large_100": 96,
    "efficientnet_b0": 64,
    "tf_efficientnetv2_b0": 71,
    "convnext_atto": 64,
    "convnextv2_atto": 64,
    "vit_tiny_patch16_224": 224,
    "deit3_small_patch16_224": 224,
}
"""Networks of timm, with random weights, and the side of the pictures that they are tried on."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_networks_of_timm(name: str) -> None:
    if importlib.util.find_spec("darkroom.models.torchvision_operators"):
        importlib.import_module("darkroom.models.torchvision_operators").declare()
    # Beside a PyTorch for processors, torchvision may not be importable.
    timm = pytest.importorskip("timm", reason="timm cannot be imported", exc_type=(ImportError, RuntimeError))
    torch.manual_seed(0)
    network = nn.Sequential(SCALED, lively(timm.create_model(name, pretrained=False, num_classes=5)))
    agrees(network, height=FAMILIES[name], width=FAMILIES[name], within=1e-4)


# Preparation of files ------------------------------------------------------------------------------------------------


def prepared(content: bytes, contract: Preprocessing) -> np.ndarray:
    """Pixels by TensorFlow."""
    pixels: np.ndarray = pixels_of(tf.constant([content]), contract).numpy()[0]
    return pixels


def difference(content: bytes, contract: Preprocessing) -> np.ndarray:
    """In grey levels, against the contract."""
    result: np.ndarray = np.abs(prepared(content, contract).astype(int) - load(content, contract))
    return result


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("resize", ["cover", "stretch", "pad"])
@pytest.mark.parametrize("size", [(24, 16), (61, 47), (200, 31), (9, 40), (1, 1)])
def test_resizing_is_the_contracts(interpolation: Any, resize: Any, size: tuple[int, int]) -> None:
    contract = Preprocessing(24, 16, resize=resize, interpolation=interpolation, background=(10, 200, 30))
    found = difference(encoded(noisy(*size)), contract)
    assert found.max() <= 1, "a level may round to its neighbour"
    assert found.mean() < 0.1
    if size == (24, 16):
        assert found.max() == 0, "what has the size already keeps its pixels"


def test_boxes_agree_where_no_pixel_lies_on_their_edge() -> None:
    """There Pillow takes one side, and TensorFlow half of both."""
    assert difference(encoded(noisy(72, 48)), Preprocessing(24, 16, interpolation="box")).max() <= 1


def test_only_the_middle_may_be_taken() -> None:
    contract = Preprocessing(32, 32, crop_fraction=0.875, interpolation="bicubic")
    assert difference(encoded(noisy(75, 60)), contract).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_jpeg_files_are_turned_upright(orientation: int, order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[0x0112] = orientation
    content = encoded(marked(64, 32), "JPEG", exif=exif.tobytes())
    assert {"<": b"II*\0", ">": b"MM\0*"}[order] in content
    assert difference(content, Preprocessing(48, 48, resize="stretch")).mean() <= LOSSY_TOLERANCE


def photo(width: int, height: int) -> Image.Image:
    """Soft colours with a grain, as a camera has it."""
    soft = np.asarray(noisy(12, 9).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    grain = np.random.default_rng(0).normal(0, 8, (height, width, 1)).astype(int)
    return Image.fromarray(np.clip(soft + grain, 0, 255).astype(np.uint8))


REDUCED = {(24, 18): 8, (75, 60): 8, (120, 90): 4, (300, 200): 2, (400, 300): 1}
"""At which part a picture of 1440×1120 is decoded for which target, cut to cover it."""


@pytest.mark.parametrize("orientation", [1, 6, 3, 5])
@pytest.mark.parametrize("target", REDUCED)
def test_large_jpeg_files_are_reduced_alike(target: tuple[int, int], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    size = (1440, 1120) if orientation < 5 else (1120, 1440)
    content = encoded(photo(*size), "JPEG", exif=exif.tobytes(), quality=90)
    contract = Preprocessing(*target)
    assert tensorflow_pictures._jpeg(tf.constant(content), contract).shape[1] == 1440 // REDUCED[target]
    assert difference(content, contract).mean() <= LOSSY_TOLERANCE


@pytest.mark.parametrize(
    ("size", "contract"),
    [
        ((1443, 1117), Preprocessing(40, 30, resize="stretch")),
        ((1443, 301), Preprocessing(40, 30, resize="stretch", interpolation="lanczos")),
        ((1443, 301), Preprocessing(40, 30, resize="pad", interpolation="bicubic")),
        ((1443, 1117), Preprocessing(40, 30, crop_fraction=0.4, interpolation="bicubic")),
        ((1443, 5), Preprocessing(40, 30, resize="pad")),
        ((1443, 1117), Preprocessing(40, 30, interpolation="nearest")),
        ((1443, 1117), Preprocessing(40, 30, version=1)),
        ((640, 480), Preprocessing(20, 15)),  # a sixteenth to the pixel
        ((639, 480), Preprocessing(20, 15)),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_odd_jpeg_files_are_reduced_alike(size: tuple[int, int], contract: Preprocessing, mode: str) -> None:
    content = encoded(photo(*size).convert(mode), "JPEG", quality=90)
    assert difference(content, contract).mean() <= LOSSY_TOLERANCE


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_damaged_orientation_counts_as_none(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    content = encoded(noisy(40, 30), "JPEG", exif=exif.tobytes(), quality=95)
    assert difference(content, Preprocessing(40, 30)).mean() <= LOSSY_TOLERANCE


def test_drawn_pictures_are_prepared_alike() -> None:
    contract = Preprocessing(40, 32, background=(200, 100, 0))
    for content in drawn_pictures(contract):
        if content[8:12] != b"WEBP":  # which only newer versions read
            assert difference(content, contract).mean() <= LOSSY_TOLERANCE


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff", b"\x89PNG", b"II*\0"])
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        prepared(content, Preprocessing(8, 8))


# The export ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(finished_run: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    """A run with a SavedModel, and its folder."""
    copied = finished_run.copy(tmp_path_factory.mktemp("saved") / "run")
    return copied, workflow.export(copied.run, data_config=copied.config, config=ExportConfig(format="saved-model"))


@pytest.fixture(scope="module")
def engine(written: tuple[Finished, Path]) -> Iterator[SavedModelEngine]:
    """It, loaded."""
    with SavedModelEngine.load(written[1], BundleInfo.read(written[1] / "bundle.json")) as opened:
        yield opened


def test_it_lies_where_a_server_looks(written: tuple[Finished, Path]) -> None:
    finished, folder = written
    assert folder == finished.run.saved_model / "blobs-cnn" / "1"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found >= {"saved_model.pb", "bundle.json", "variables/variables.index"}
    assert "assets.extra/tf_serving_warmup_requests" in found
    assert [path.name for path in finished.run.saved_model.iterdir()] == ["blobs-cnn"], "nothing half-written is left"


def test_signatures_are_those_of_the_contract(engine: SavedModelEngine) -> None:
    taken = {"serving_default": ("pixels", tf.uint8, [None, 12, 12, 3]), "encoded": ("pictures", tf.string, [None])}
    for name, (given, dtype, shape) in taken.items():
        signature = engine._loaded.signatures[name]
        ((argument, specification),) = signature.structured_input_signature[1].items()
        assert (argument, specification.dtype, specification.shape.as_list()) == (given, dtype, shape)
        outputs = {key: (value.dtype, value.shape[1]) for key, value in signature.structured_outputs.items()}
        assert outputs == {"logits": (tf.float32, 3), "probabilities": (tf.float32, 3)}


def test_it_holds_plain_operators_only(written: tuple[Finished, Path]) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel.FromString((written[1] / "saved_model.pb").read_bytes())
    graph = content.meta_graphs[0].graph_def
    found = {node.op for node in graph.node} | {node.op for one in graph.library.function for node in one.node_def}
    assert {"Conv2D", "MaxPool", "MatMul", "Softmax", "DecodeJpeg", "ScaleAndTranslate"} <= found
    assert not [name for name in found if any(part in name for part in FORBIDDEN)]


@pytest.mark.parametrize("count", [1, 2, 3, 17, 40])
def test_it_answers_as_the_network(written: tuple[Finished, Path], engine: SavedModelEngine, count: int) -> None:
    pixels = np.random.default_rng(count).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    logits, probabilities = answers_of_network(written[0].run, pixels)
    answers = engine.answer(pixels)
    np.testing.assert_allclose(answers.logits, logits, atol=1e-3)
    np.testing.assert_allclose(answers.probabilities, probabilities, atol=1e-4)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_its_accuracy_is_the_networks(written: tuple[Finished, Path], engine: SavedModelEngine, split: str) -> None:
    finished, folder = written
    dataset = finished.dataset()
    ids = dataset.manifest.indices(split)
    predicted = engine.predict(np.array(dataset.pixels[ids])).argmax(axis=1)
    accuracy = float((predicted == dataset.manifest.labels()[ids]).mean())
    assert accuracy == finished.run.read_metrics()[split]["accuracy"]["value"]
    assert BundleInfo.read(folder / "bundle.json").parity[split]["accuracy"] == accuracy


def test_bundle_json_tells_classes_proof_and_hashes(written: tuple[Finished, Path]) -> None:
    finished, folder = written
    info, bundle = BundleInfo.read(folder / "bundle.json"), BundleInfo.read(finished.run.bundle / "bundle.json")
    assert (info.classes, info.preprocessing, info.temperature) == (
        bundle.classes,
        bundle.preprocessing,
        bundle.temperature,
    )
    assert info.parity["batch_sizes"] == [1, 3, 17]
    assert 0 <= info.parity["largest_difference"] <= 1e-4
    for split in ("validation", "test"):
        assert info.parity[split]["other_answers"] == 0
    assert info.provenance["tensorflow"] == tf.__version__
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"bundle.json"}
    assert set(info.files) == present
    for name, sha256 in info.files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256


def test_the_signature_for_files_is_measured(written: tuple[Finished, Path]) -> None:
    measured = BundleInfo.read(written[1] / "bundle.json").parity["encoded"]
    assert measured["offered"] is True
    assert (measured["pictures"], measured["not_read"]) == (27, 0)
    assert measured["largest_grey_levels"] == 0, "PNG files of the size that the network takes"
    assert measured["largest_difference"] <= 1e-5
    assert measured["drawn"]["PNG RGB 2×1.5"]["mean_grey_levels"] < 0.1
    assert measured["drawn"]["JPEG RGB 1.25×3 turned"]["read"] is True


def test_files_are_answered_as_their_pixels(written: tuple[Finished, Path], engine: SavedModelEngine) -> None:
    dataset = written[0].dataset()
    ids = dataset.manifest.indices("test")[:20]
    contents = [dataset.manifest.content(int(id)) for id in ids]
    found = engine.run_files(contents).probabilities
    np.testing.assert_allclose(found, engine.predict(np.array(dataset.pixels[ids])), atol=1e-5)
    with pytest.raises(EngineError, match="TensorFlow cannot answer"):
        engine.run_files([b"no picture"])


def test_pixels_of_another_size_are_refused_by_the_graph(engine: SavedModelEngine) -> None:
    with pytest.raises(EngineError, match="TensorFlow cannot answer"):
        engine.run(np.zeros((1, 13, 12, 3), np.uint8))


def test_warm_up_requests_are_answered(written: tuple[Finished, Path]) -> None:
    folder = written[1]
    answer = answers_of(folder)
    signatures = []
    for record in tf.data.TFRecordDataset(str(folder / "assets.extra/tf_serving_warmup_requests")).as_numpy_iterator():
        request = messages.PredictionLog.FromString(record).predict_log.request
        ((name, tensor),) = request.inputs.items()
        shape = [dimension.size for dimension in tensor.tensor_shape.dim]
        if tensor.dtype == messages.DT_STRING:
            value: Any = list(tensor.string_val)
        else:
            value = np.frombuffer(tensor.tensor_content, np.uint8).reshape(shape)
        assert len(answer(request.model_spec.signature_name, name, value)["logits"]) == shape[0]
        signatures.append((request.model_spec.name, request.model_spec.signature_name, shape[0]))
    assert signatures == [
        ("blobs-cnn", "serving_default", 1),
        ("blobs-cnn", "serving_default", 8),
        ("blobs-cnn", "encoded", 1),
    ]


def test_versions_count_on(finished_run: Finished, tmp_path: Path) -> None:
    copied = finished_run.copy(tmp_path / "run")
    base = copied.run.saved_model / "blobs-cnn"
    for name in ("3", "12", "notes", "0004"):
        (base / name).mkdir(parents=True)
    assert next_version(base) == 13
    assert export_saved_model(copied.run, copied.dataset()) == base / "13"
    copied.run.clear()
    assert not copied.run.saved_model.exists()


def refuse(copied: Finished, message: str) -> None:
    """Export must fail in one line and leave nothing."""
    with pytest.raises(ExportError, match=message) as caught:
        export_saved_model(copied.run, copied.dataset())
    assert "\n" not in str(caught.value)
    left = copied.run.saved_model
    assert not left.exists() or not list(left.iterdir())


def test_other_weights_than_those_evaluated_are_refused(finished_run: Finished, tmp_path: Path) -> None:
    copied = finished_run.copy(tmp_path / "run")
    scale_weights(copied.run, -1.0)
    refuse(copied, "probabilities on validation differ")


def test_a_graph_that_answers_otherwise_is_refused(
    finished_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = finished_run.copy(tmp_path / "run")
    right = tensorflow_network.OPERATORS["gelu.default"]

    def rough(site: Any, x: Any, **_: Any) -> Any:
        return right(site, x.like(x.tensor * 1.01))

    monkeypatch.setitem(tensorflow_network.OPERATORS, "gelu.default", rough)
    refuse(copied, r"probabilities differ by .*, 0.0001 allowed")


def test_an_operator_that_is_not_known_is_named(
    finished_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(tensorflow_network.OPERATORS, "gelu.default")
    refuse(finished_run.copy(tmp_path / "run"), r"aten\.gelu\.default")


def test_files_that_tensorflow_cannot_read_cost_the_signature_only(
    finished_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = finished_run.copy(tmp_path / "run")
    monkeypatch.setattr(saved_model, "_some_files", lambda _: [encoded(noisy(20, 20), "TIFF"), encoded(noisy(20, 20))])
    folder = export_saved_model(copied.run, copied.dataset())
    measured = BundleInfo.read(folder / "bundle.json").parity["encoded"]
    assert measured["offered"] is False
    assert "cannot read 1 of 2" in measured["why"]
    assert list(tf.saved_model.load(str(folder)).signatures) == ["serving_default"]


def test_int8_is_not_for_it() -> None:
    with pytest.raises(UsageError, match="contradict each other"):
        ExportConfig(format="saved-model", int8=True)


# Behind a server -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(written: tuple[Finished, Path]) -> FakeServing:
    """The double with the real SavedModel."""
    return FakeServing({1: answers_of(written[1])}, name="blobs-cnn")


@pytest.mark.parametrize("face", list(FACES))
def test_a_server_answers_as_onnx_runtime(written: tuple[Finished, Path], served: FakeServing, face: str) -> None:
    bundle = written[0].run.bundle
    served.closing.clear()
    with FACES[face](served) as url:
        settings = EngineConfig(engine="tf-serving", tf_serving_url=url)
        with OnnxRuntimeEngine.open(bundle) as local, open_engine(bundle, settings) as remote:
            for count in (1, 3, 17, 50):
                pixels = np.random.default_rng(count).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
                np.testing.assert_allclose(remote.predict(pixels), local.predict(pixels), atol=1e-4)


def test_a_client_without_darkroom_sends_files(written: tuple[Finished, Path], served: FakeServing) -> None:
    dataset = written[0].dataset()
    served.closing.clear()
    ids = dataset.manifest.indices("test")[:3]
    contents = [dataset.manifest.content(int(id)) for id in ids]
    body = {"signature_name": "encoded", "instances": [{"b64": base64.b64encode(one).decode()} for one in contents]}
    with FACES["http"](served) as url, OnnxRuntimeEngine.open(written[0].run.bundle) as local:
        with urllib.request.urlopen(f"{url}/v1/models/blobs-cnn:predict", json.dumps(body).encode()) as response:  # noqa: S310
            rows = json.load(response)["predictions"]
        expected = local.predict(np.array(dataset.pixels[ids]))
    np.testing.assert_allclose([row["probabilities"] for row in rows], expected, atol=1e-4)


def test_the_check_of_a_real_server_passes_on_it(written: tuple[Finished, Path], served: FakeServing) -> None:
    check = Path(__file__).parents[1] / "deploy" / "tensorflow-serving" / "check.py"
    served.closing.clear()
    with FACES["grpc"](served) as one, FACES["http"](served) as other:
        command = [sys.executable, check, written[0].run.folder, one, other, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = json.loads(done.stdout)
    assert all(one["passed"] for url in answers for one in answers[url])
    assert "largest difference" in answers[other][-1]["said"], "files are answered too"
