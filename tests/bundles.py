"""Small real bundles, made with onnx.helper: a network that tells which colour a picture mostly has."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pillow_heif
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from darkroom.bundle import Bundle, BundleInfo, Golden, write_bundle
from darkroom.preprocess import Preprocessing, load

CLASSES = ("red", "green", "blue", "dark", "bright")
WEIGHTS = np.array([[9, -4, -4, -4, 4], [-4, 9, -4, -4, 4], [-4, -4, 9, -4, 4]], np.float32)  # (3, K)
BIAS = np.array([0, 0, 0, 4, -6], np.float32)
TEMPERATURE = 1.25
CONTRACT = Preprocessing(24, 16)

Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float32]


def expected_logits(pixels: Pixels) -> Numbers:
    """What the network computes, in numpy."""
    means = (pixels.astype(np.float32) / 255).mean(axis=(1, 2))
    return means @ WEIGHTS + BIAS


def expected_probabilities(pixels: Pixels) -> Numbers:
    """Softmax of the tempered logits."""
    tempered = expected_logits(pixels) / TEMPERATURE
    powers = np.exp(tempered - tempered.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def colour_model(*, temperature: float = TEMPERATURE, input_name: str = "pixels") -> bytes:
    """The network as a serialised ONNX graph."""
    constants = {"scale": np.float32(255), "weights": WEIGHTS, "bias": BIAS, "temperature": np.float32(temperature)}
    nodes = [
        helper.make_node("Cast", [input_name], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "scale"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["weighted"]),
        helper.make_node("Add", ["weighted", "bias"], ["logits"]),
        helper.make_node("Div", ["logits", "temperature"], ["tempered"]),
        helper.make_node("Softmax", ["tempered"], ["probabilities"], axis=1),
    ]
    outputs = {"logits": ["N", len(CLASSES)], "probabilities": ["N", len(CLASSES)]}
    shape = ["N", CONTRACT.height, CONTRACT.width, 3]
    graph = helper.make_graph(
        nodes,
        "colour",
        [helper.make_tensor_value_info(input_name, TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def encoded(colour: tuple[int, ...], kind: str = "PNG", *, size: tuple[int, int] = (48, 32)) -> bytes:
    """A picture of one colour with a soft gradient over it, as the bytes of a file."""
    columns = np.linspace(0.8, 1.0, size[0])[None, :, None] * np.linspace(0.9, 1.0, size[1])[:, None, None]
    pixels = (columns * np.array(colour[:3])).astype(np.uint8)  # (H, W, 3)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def golden(pictures: Sequence[bytes] | None = None) -> Golden:
    """Golden pictures, a lossless and two lossy ones unless given, with answers computed by numpy."""
    pictures = pictures or (encoded((220, 20, 20)), encoded((10, 200, 30), "JPEG"), encoded((20, 30, 210), "WEBP"))
    pixels = np.stack([load(picture, CONTRACT) for picture in pictures])
    return Golden(tuple(pictures), pixels, expected_logits(pixels), expected_probabilities(pixels))


def bundle_info(**changes: Any) -> BundleInfo:
    """What a colour bundle says of itself."""
    validation: Mapping[str, Any] = {"accuracy": {"value": 0.953, "low": 0.938, "high": 0.965}, "n": 900}
    facts: dict[str, Any] = {
        "name": "colours",
        "classes": CLASSES,
        "preprocessing": CONTRACT,
        "temperature": TEMPERATURE,
        "threshold": 0.6,
        "model": {"architecture": "mean colour", "parameters": 20, "multiply_adds": 1152},
        "provenance": {"weights_sha256": "ab" * 32, "seed": 0},
        "metrics": {"validation": validation},
    }
    return BundleInfo(**facts | changes)


def make_bundle(
    folder: Path,
    *,
    onnx: bytes | None = None,
    examples: Golden | None = None,
    card: str | None = None,
    **changes: Any,
) -> Bundle:
    """A bundle in `folder`; `changes` replace fields of its info."""
    info, graph = bundle_info(**changes), onnx or colour_model()
    return write_bundle(folder, info=info, onnx=graph, golden=examples or golden(), card=card)


def mixed_pictures() -> list[tuple[str, bytes]]:
    """Twenty uploads (name, bytes): 17 readable ones of mixed formats and modes, and 3 broken."""
    red, green, blue = (230, 20, 20), (20, 220, 30), (25, 25, 235)
    whole = {
        "red.png": encoded(red),
        "green.jpg": encoded(green, "JPEG"),
        "blue.webp": encoded(blue, "WEBP"),
        "red.gif": encoded(red, "GIF"),
        "green.bmp": encoded(green, "BMP"),
        "blue.tif": encoded(blue, "TIFF"),
        "red.ppm": encoded(red, "PPM"),
        "green.jp2": encoded(green, "JPEG2000"),
        "blue.avif": encoded(blue, "AVIF"),
        "red.heic": _heic(red),
        "green cmyk.jpg": _converted(green, "CMYK", "JPEG"),
        "blue palette.png": _converted(blue, "P", "PNG"),
        "red alpha.png": _converted(red, "RGBA", "PNG"),
        "grey.png": _converted((120, 120, 120), "L", "PNG"),
        "bits.png": _converted((250, 250, 250), "1", "PNG"),
        "really a png.jpg": encoded(green),
        "große Höhe 猫.png": encoded(blue, size=(3, 200)),
    }
    broken = {
        "cut off.jpg": encoded(green, "JPEG", size=(300, 200))[:700],
        "text.png": b"not a picture at all",
        "empty.png": b"",
    }
    mixed = list(whole.items())
    for place, upload in zip((4, 9, 17), broken.items(), strict=True):
        mixed.insert(place, upload)
    return mixed


def _converted(colour: tuple[int, ...], mode: str, kind: str) -> bytes:
    stream = io.BytesIO()
    with Image.open(io.BytesIO(encoded(colour))) as image:
        image.convert(mode).save(stream, kind)
    return stream.getvalue()


def _heic(colour: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    with Image.open(io.BytesIO(encoded(colour))) as image:
        pillow_heif.from_pillow(image).save(stream, quality=90)
    return stream.getvalue()
