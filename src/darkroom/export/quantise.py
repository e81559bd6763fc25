"""A graph in 8-bit integers: what is quantised and how, whether it is computed right, and what it gains in speed.

Convolutions get weights of 7 bits with a scale a channel, and activations of 8 bits (uint8). These range from the
smallest to the largest value that a batch of training pictures leads to, both averaged over batches: the extremes of
all pictures together would make the 256 levels coarser for the sake of a few outliers. ONNX Runtime stays in integers
from a convolution over the max pooling behind it; normalisation, GELU and the last layer are computed in fp32, and cost
little.

7 bits, since processors without dot-product instructions (AVX-VNNI, AVX-512 VNNI, those of Arm) add pairs of products
in 16 bits, which full 8 bits overflow: a bundle has to answer alike on all of them.
"""

import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from darkroom.engines.onnx_runtime import INPUT, OUTPUTS, open_session
from darkroom.errors import DarkroomError, ExportError
from darkroom.provenance import available_cores

Pixels = npt.NDArray[np.uint8]

COLOURS = 3
ROUNDS = 5


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Batches of pixels (N, H, W, 3) as ONNX Runtime wants them."""

    def __init__(self, batches: Iterable[Pixels]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Pixels] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: np.ascontiguousarray(batch)}


def quantise(graph: bytes, batches: Iterable[Pixels]) -> bytes:
    """The graph with int8 convolutions, calibrated on batches (N, H, W, 3) of training pictures, each of mixed classes.

    Raises:
        ExportError: the graph has no convolution to quantise, or ONNX Runtime cannot.
    """
    chosen, _ = convolutions(graph)
    if not chosen:
        raise ExportError("--int8 finds no convolution to quantise in the network: export it without --int8")
    with tempfile.TemporaryDirectory(prefix="darkroom-int8-") as folder:
        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        try:
            # PyTorch's exporter has folded what can be folded: what is left to prepare are the shapes.
            quant_pre_process(onnx.load_from_string(graph), prepared, skip_optimization=True, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                quantised,
                _Reader(batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_quantize=chosen,
                per_channel=True,
                reduce_range=True,
                extra_options={"CalibMovingAverage": True},
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except DarkroomError:  # out of `batches`
            raise
        except Exception as error:  # onnx's and ONNX Runtime's own share no base but Exception
            reason = " ".join(str(error).split())[:300]
            raise ExportError(f"ONNX Runtime cannot quantise the graph ({reason}): export without --int8") from error
        return quantised.read_bytes()


def convolutions(graph: bytes) -> tuple[list[str], list[str]]:
    """Names of the convolutions that int8 is for, and of the others: those that read the picture itself.

    With three channels these have little to multiply; in fp32 they are faster, and the picture is not rounded.
    """
    model = onnx.load_from_string(graph)
    shapes = {weight.name: weight.dims for weight in model.graph.initializer}
    quantised: list[str] = []
    others: list[str] = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            deep = node.input[1] in shapes and shapes[node.input[1]][1] * _groups(node) > COLOURS
            (quantised if deep else others).append(node.name)
    return quantised, others


def _groups(convolution: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in convolution.attribute if attribute.name == "group"), 1)


def with_constant(graph: bytes, name: str, value: float) -> bytes:
    """The graph with another value for a constant; raises `ExportError` where it has none of that name."""
    model = onnx.load_from_string(graph)
    for constant in model.graph.initializer:
        if constant.name == name:
            constant.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(constant), value), name))
            return bytes(model.SerializeToString())
    raise ExportError(f"the exported graph has no constant {name}: install the versions of constraints.txt")


def compare_throughput(
    graphs: Mapping[str, bytes | Path],
    pixels: Pixels,
    *,
    batch_size: int,
    threads: int | None = None,
    seconds: float = 2.0,
) -> dict[str, Any]:
    """Pictures a second of each graph, on batches out of `pixels` (N, H, W, 3), and their ratios to the first graph.

    The graphs take turns, as the engine runs them, for about `seconds` and at least five rounds, so that what else the
    machine does falls on all alike; rates are those of the median round.
    """
    threads = threads or available_cores()
    batch = np.ascontiguousarray(np.resize(pixels, (batch_size, *pixels.shape[1:])))
    sessions = {name: open_session(graph, threads) for name, graph in graphs.items()}
    for session in sessions.values():
        _seconds(session, batch)  # the first run allocates memory
    rounds = list(_rounds(sessions, batch, seconds))
    rates = {name: batch_size / statistics.median(row[name] for row in rounds) for name in graphs}
    first, *others = rates
    return {
        "batch_size": batch_size,
        "threads": threads,
        "rounds": len(rounds),
        "pictures_a_second": rates,
        "ratio": {name: rates[name] / rates[first] for name in others},
    }


def _rounds(
    sessions: Mapping[str, onnxruntime.InferenceSession], batch: Pixels, seconds: float
) -> Iterator[dict[str, float]]:
    """Each session's seconds for the batch, round after round."""
    start, done = time.perf_counter(), 0
    while done < ROUNDS or time.perf_counter() - start < seconds:
        yield {name: _seconds(session, batch) for name, session in sessions.items()}
        done += 1


def _seconds(session: onnxruntime.InferenceSession, batch: Pixels) -> float:
    start = time.perf_counter()
    session.run(OUTPUTS, {INPUT: batch})
    return time.perf_counter() - start
