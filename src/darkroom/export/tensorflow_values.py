"""What the operators of TensorFlow are written with: tensors that know how their dimensions lie, and weights.

Layout. PyTorch counts dimensions as N, C, H, W; TensorFlow's convolutions and pools want N, H, W, C in memory. So each
tensor is held with the order in which PyTorch's dimensions lie in it, and most operators take it as it lies: what is
done to each number needs no order, and what names a dimension looks up its axis. `permute` moves nothing then, pictures
that arrive as N, H, W, C stay that way from the first convolution to the last pool, and a transposition is written only
where numbers are regrouped across dimensions (`view`) or where two orders meet. The alternative, a transposition before
and behind each convolution, leaves it to an optimiser to find out that they cancel, also where branches join.

Sizes are those that PyTorch inferred for each result; at most one of them, the number of pictures, is open.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from darkroom.errors import ExportError
from darkroom.export.tensorflow_runtime import tf

DTYPES = {
    torch.float32: tf.float32,
    torch.float64: tf.float64,
    torch.uint8: tf.uint8,
    torch.int32: tf.int32,
    torch.int64: tf.int64,
    torch.bool: tf.bool,
}

Order = tuple[int, ...]


@dataclass(frozen=True)
class Held:
    """A tensor of TensorFlow whose axis i holds the dimension `order[i]` of PyTorch's."""

    tensor: Any
    order: Order

    @classmethod
    def plain(cls, tensor: Any) -> "Held":
        """A tensor whose axes are in PyTorch's order."""
        return cls(tensor, tuple(range(len(tensor.shape))))

    def arranged(self, order: Order) -> Any:
        """The tensor with its axes in that order, transposed where they are in another."""
        return self.tensor if order == self.order else tf.transpose(self.tensor, [self.order.index(d) for d in order])

    def in_order(self) -> Any:
        """The tensor with its axes as PyTorch counts them."""
        return self.arranged(tuple(range(len(self.order))))

    def axis(self, dimension: int) -> int:
        """Where a dimension lies; negative ones count from the end."""
        return self.order.index(dimension % len(self.order))

    def like(self, tensor: Any) -> "Held":
        """Another tensor whose axes lie as here."""
        return Held(tensor, self.order)


@dataclass(frozen=True)
class Site:
    """Where an operator is written: its name, the shapes of its results (None where open), and what the graph keeps."""

    name: str
    shapes: tuple[tuple[int | None, ...], ...]
    extents: Callable[[], list[Any]]
    """The sizes of the first result, the open one as a tensor."""
    keep: Callable[[str, Any], Any]
    """Stores an array under a name, as a variable where it is large."""

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of the first result."""
        return self.shapes[0]

    def weight(self, kind: str, values: Any) -> Any:
        """An array that belongs to this operator."""
        return self.keep(f"{self.name}_{kind}", np.ascontiguousarray(values, dtype=np.float32))


def normalisation(weight: Any, bias: Any, *, mean: Tensor, variance: Tensor, epsilon: float) -> tuple[Any, Any]:
    """Batch normalisation with fixed statistics as scale and shift, each (C,) in float64."""
    scale = 1 / np.sqrt(_array(variance) + epsilon)
    scale = scale if weight is None else scale * _array(weight)
    shift = -_array(mean) * scale
    return scale, shift if bias is None else shift + _array(bias)


def _array(values: Tensor) -> npt.NDArray[np.float64]:
    return values.detach().numpy().astype(np.float64)


def known(value: Any, what: str) -> Tensor:
    """A value that does not depend on the pictures; raises `ExportError` for others."""
    if not isinstance(value, Tensor):
        raise ExportError(f"{what} depend on the picture, which darkroom's converter to TensorFlow cannot express")
    return value


def require(condition: bool, what: str) -> None:
    """Raise `ExportError` that names `what` unless `condition` holds."""
    if not condition:
        raise ExportError(f"darkroom's converter to TensorFlow knows no {what}")


def held(site: Site, value: Any) -> Held:
    """A value as a tensor of TensorFlow, be it one that does not depend on the pictures."""
    if isinstance(value, Held):
        return value
    return Held.plain(site.keep(f"{site.name}_constant", value.numpy()) if isinstance(value, Tensor) else value)


def together(*values: Any) -> tuple[list[Any], Order]:
    """Tensors, arrays and numbers brought to as many axes in one order, that of the first tensor which has so many."""
    rank = max(_rank(value) for value in values)
    order = next((value.order for value in values if isinstance(value, Held) and len(value.order) == rank), None)
    order = order or tuple(range(rank))
    dtype = next(value.tensor.dtype for value in values if isinstance(value, Held))
    return [laid(value, order, dtype) for value in values], order


def _rank(value: Any) -> int:
    if isinstance(value, Held):
        return len(value.order)
    return value.ndim if isinstance(value, Tensor) else 0


def laid(value: Any, order: Order, dtype: Any) -> Any:
    """A value with axes of size 1 put in front where it has fewer, then in that order."""
    if isinstance(value, Tensor):
        array = value.numpy()
        array = array.reshape((1,) * (len(order) - array.ndim) + array.shape)
        return tf.constant(np.ascontiguousarray(array.transpose(order)), dtype)
    if not isinstance(value, Held):
        return value
    tensor = value.tensor
    if len(value.order) == len(order):
        return value.arranged(order)
    tensor = value.in_order()
    for _ in range(len(order) - len(value.order)):
        tensor = tf.expand_dims(tensor, 0)
    return Held.plain(tensor).arranged(order)


def without(order: Order, dimensions: Iterable[int]) -> Order:
    """The order of what is left, counted anew."""
    gone = set(dimensions)
    return tuple(d - sum(other < d for other in gone) for d in order if d not in gone)
