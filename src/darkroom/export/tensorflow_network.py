"""A network of PyTorch as a function of TensorFlow: the graph of `torch.export`, rewritten operator by operator.

What does not depend on the pictures is computed once, by PyTorch. Batch normalisation right behind a convolution is
folded into its filters. Weights are stored in TensorFlow's layout, large ones as variables, which all signatures share
and which no limit on the size of a graph concerns; small ones are part of the graph.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg

from darkroom.errors import ExportError
from darkroom.export.tensorflow_operators import OPERATORS
from darkroom.export.tensorflow_runtime import quiet, tf
from darkroom.export.tensorflow_values import DTYPES, Held, Site, normalisation

LARGE = 1024
"""Numbers from which on a weight is a variable."""

INPUT = "pixels"
OUTPUTS = ("logits", "probabilities")

CONVOLUTIONS = ("conv2d.default", "conv2d.padding", "convolution.default")
BATCH_NORMS = {"batch_norm.default": 7, "_native_batch_norm_legit_no_training.default": 6}
"""Those with fixed statistics, and where their epsilon stands."""

Known = Mapping[Node, Any]


class Network:
    """`deployed`, which takes pixels (N, H, W, 3) uint8 and gives logits and probabilities (N, K), in TensorFlow.

    Calling it writes the operators; `weights` is complete after the first call, which is made here.

    Raises:
        ExportError: the network holds an operator that darkroom cannot express, or PyTorch cannot trace it.
    """

    def __init__(self, deployed: nn.Module, *, height: int, width: int) -> None:
        self.weights: dict[str, Any] = {}
        self._graph = _traced(deployed, height=height, width=width)
        self._known = _known_values(self._graph)
        self._folded = _folded_batch_norms(self._graph, self._known)
        with quiet():  # outside of any function of TensorFlow: only there may variables be made
            self(tf.zeros((2, height, width, 3), tf.uint8))

    def __call__(self, pixels: Any) -> dict[str, Any]:
        """Logits and probabilities by name."""
        values: dict[Node, Any] = dict(self._known)
        batch = tf.shape(pixels)[0]
        results: Any = ()
        for node in self._graph.graph.nodes:
            if node.op == "placeholder" and node not in values:
                values[node] = Held.plain(pixels)
            elif node.op == "call_function" and node not in values:
                values[node] = self._write(node, values, batch)
            elif node.op == "output":
                results = node.args[0]
        return {name: values[node].in_order() for name, node in zip(OUTPUTS, results, strict=True)}

    def _write(self, node: Node, values: Mapping[Node, Any], batch: Any) -> Any:
        """The value of one node, checked against what PyTorch says of its shape and type."""
        given: Any = self._folded.arguments.get(node, node.args)
        if node.target is operator.getitem:
            return values[given[0]][given[1]]
        expected = node.meta.get("val")
        if not isinstance(expected, Tensor | list | tuple):  # a size, which is read where it is used, or an assertion
            return expected
        if node in self._folded.passed:
            return values[given[0]] if isinstance(expected, Tensor) else (values[given[0]], None, None)
        name = _name(node)
        if name not in OPERATORS:
            raise ExportError(
                f"the network uses {node.target}, which darkroom's converter to TensorFlow does not know: "
                "serve its bundle with ONNX Runtime, and please report this"
            )
        arguments, options = _filled(node, given, values)
        site = Site(node.name, _shapes(expected), partial(self._extents, expected, batch), self._keep)
        try:
            result = OPERATORS[name](site, *arguments, **options)
            _check(result, expected)
        except ExportError as error:
            raise ExportError(f"{node.target}: {error}") from error
        except Exception as error:  # TensorFlow's own are of many kinds
            raise ExportError(f"{node.target} cannot be expressed in TensorFlow ({_one_line(error)})") from error
        return result

    def _keep(self, name: str, values: npt.NDArray[Any]) -> Any:
        """An array for the graph: a variable, made once, where it is large."""
        if values.size < LARGE:
            return tf.constant(values)
        if name not in self.weights:
            self.weights[name] = tf.Variable(values, trainable=False, name=name)
        return self.weights[name]

    def _extents(self, expected: Any, batch: Any) -> list[Any]:
        """Sizes of a result, the open one as a multiple of the number of pictures."""
        first = expected if isinstance(expected, Tensor) else expected[0]
        (pixels,) = (node for node in self._graph.graph.nodes if node.name in self._graph.graph_signature.user_inputs)
        symbol: Any = pixels.meta["val"].shape[0].node.expr
        extents: list[Any] = []
        for size in first.shape:
            factor: Any = size if isinstance(size, int) else size.node.expr / symbol
            if not isinstance(size, int) and not factor.is_Integer:
                raise ExportError(f"a size of {size} pictures, which darkroom's converter to TensorFlow cannot express")
            extents.append(size if isinstance(size, int) else batch * int(factor))
        return extents


@dataclass(frozen=True)
class _Folded:
    """Convolutions with other arguments, and the batch normalisations that therefore pass on what they get."""

    arguments: Mapping[Node, tuple[Any, ...]]
    passed: frozenset[Node]


def _traced(deployed: nn.Module, *, height: int, width: int) -> ExportedProgram:
    """The graph for any number of pictures, without operators that change their input."""
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    try:
        with quiet():
            program = torch.export.export(deployed, (example,), dynamic_shapes={INPUT: {0: Dim("batch", min=1)}})
            decomposed: ExportedProgram = program.run_decompositions({})
            return decomposed
    except Exception as error:  # PyTorch's own are of many kinds
        raise ExportError(f"PyTorch cannot trace the network ({_one_line(error)})") from error


@torch.no_grad()
def _known_values(program: ExportedProgram) -> dict[Node, Any]:
    """Weights, and all that is computed from nothing else."""
    signature = program.graph_signature
    stored = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    tensors: dict[str, Any] = {**program.constants, **program.state_dict}
    values: dict[Node, Any] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in stored:
            values[node] = tensors[stored[node.name]].detach().cpu()
        elif node.op == "call_function" and all(source in values for source in node.all_input_nodes):
            arguments, options = _filled(node, node.args, values)
            function: Any = node.target
            values[node] = function(*arguments, **options)
    return values


def _folded_batch_norms(program: ExportedProgram, values: Known) -> _Folded:
    arguments: dict[Node, tuple[Any, ...]] = {}
    passed = set()
    for node in program.graph.nodes:
        convolution = node.args[0] if _name(node) in BATCH_NORMS else None
        if isinstance(convolution, Node) and _may_take_in(convolution, node, values):
            arguments[convolution] = _with_batch_norm(convolution, node, values)
            passed.add(node)
    return _Folded(arguments, frozenset(passed))


def _may_take_in(convolution: Node, node: Node, values: Known) -> bool:
    """Whether nothing else looks at the convolution, and all weights of both are known."""
    name = _name(convolution)
    if name not in CONVOLUTIONS or len(convolution.users) != 1:
        return False
    if name == "convolution.default" and convolution.args[6]:  # transposed
        return False
    if _name(node) == "batch_norm.default" and node.args[5]:  # by the statistics of the batch
        return False
    weights: Any = [*convolution.args[1:3], *node.args[1:5]]
    return all(weight is None or weight in values for weight in weights)


def _with_batch_norm(convolution: Node, node: Node, values: Known) -> tuple[Any, ...]:
    """The arguments of the convolution with other filters and biases, computed in float64."""
    statistics: Any = node.args
    weight, bias = (values.get(argument) for argument in statistics[1:3])
    mean, variance = (values[argument] for argument in statistics[3:5])
    epsilon = statistics[BATCH_NORMS[_name(node)]]
    scale, shift = normalisation(weight, bias, mean=mean, variance=variance, epsilon=epsilon)
    given: Any = convolution.args
    source, filters, *rest = given
    kernel = values[filters].numpy().astype(np.float64) * scale[:, None, None, None]
    offset = values[rest[0]].numpy() * scale + shift if rest and rest[0] is not None else shift
    folded = (torch.from_numpy(array.astype(np.float32)) for array in (kernel, offset))
    return source, *folded, *rest[1:]


def _name(node: Node) -> str:
    """An operator and its overload, as in conv2d.default; empty for what is no operator of ATen."""
    text = str(node.target)
    return text.removeprefix("aten.") if node.op == "call_function" and text.startswith("aten.") else ""


def _shapes(expected: Any) -> tuple[tuple[int | None, ...], ...]:
    results = [expected] if isinstance(expected, Tensor) else expected
    return tuple(tuple(_static(size) for size in result.shape) for result in results)


def _static(size: Any) -> int | None:
    return size if isinstance(size, int) else None


def _check(result: Any, expected: Any) -> None:
    """Raise `ValueError` unless a result has PyTorch's shape and type; open sizes are filled in."""
    if isinstance(expected, list | tuple):
        for one, other in zip(result, expected, strict=True):
            _check(one, other)
    elif result is not None:
        result.tensor.set_shape([_static(expected.shape[dimension]) for dimension in result.order])
        if result.tensor.dtype != DTYPES[expected.dtype]:
            raise ValueError(f"{result.tensor.dtype.name} where {expected.dtype} belongs")


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def _filled(node: Node, arguments: Any, values: Known) -> tuple[Any, Any]:
    """Positional arguments and options with values in the place of nodes."""
    filled: Any = map_arg((arguments, node.kwargs), values.__getitem__)
    return filled[0], filled[1]
