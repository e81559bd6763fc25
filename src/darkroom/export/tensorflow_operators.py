"""From ATen to TensorFlow: a function for each operator, with the operator's own parameters, found in `OPERATORS`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from darkroom.export.tensorflow_runtime import tf
from darkroom.export.tensorflow_values import (
    DTYPES,
    Held,
    Site,
    held,
    known,
    laid,
    normalisation,
    require,
    together,
    without,
)
from darkroom.export.tensorflow_windows import (
    adaptive_average_pool,
    adaptive_max_pool,
    average_pool,
    conv2d,
    convolution,
    max_pool,
)

Function = Callable[[Any], Any]


# What is done to each number -----------------------------------------------------------------------------------------


def _unary(function: Function) -> Callable[..., Held]:
    return lambda site, x: x.like(function(x.tensor))


def _binary(function: Callable[[Any, Any], Any]) -> Callable[..., Held]:
    def emit(site: Site, left: Any, right: Any, *, alpha: float = 1) -> Held:
        (left, right), order = together(left, right)
        return Held(function(left, right if alpha == 1 else right * alpha), order)

    return emit


def _reversed_subtraction(site: Site, left: Any, right: Any, alpha: float = 1) -> Held:
    (left, right), order = together(left, right)
    minuend = tf.cast(right, left.dtype)  # a number, of which TensorFlow would take the type
    return Held(tf.subtract(minuend, left if alpha == 1 else left * alpha), order)


def _add_product(site: Site, x: Any, left: Any, right: Any, *, value: float = 1) -> Held:
    (x, left, right), order = together(x, left, right)
    return Held(x + left * right * value, order)


def _gelu(site: Site, x: Held, *, approximate: str = "none") -> Held:
    return x.like(tf.nn.gelu(x.tensor, approximate=approximate == "tanh"))


def _clamp(site: Site, x: Held, low: float | None = None, high: float | None = None) -> Held:
    tensor = x.tensor if low is None else tf.maximum(x.tensor, tf.constant(low, x.tensor.dtype))
    return x.like(tensor if high is None else tf.minimum(tensor, tf.constant(high, x.tensor.dtype)))


def _hard_tanh(site: Site, x: Held, low: float = -1, high: float = 1) -> Held:
    return _clamp(site, x, low, high)


def _leaky_relu(site: Site, x: Held, slope: float = 0.01) -> Held:
    return x.like(tf.nn.leaky_relu(x.tensor, alpha=slope))


def _elu(site: Site, x: Held, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Held:
    require((alpha, scale, input_scale) == (1, 1, 1), "elu with other factors than 1")
    return x.like(tf.nn.elu(x.tensor))


def _power(site: Site, x: Held, exponent: float) -> Held:
    return x.like(tf.square(x.tensor) if exponent == 2 else tf.pow(x.tensor, tf.constant(exponent, x.tensor.dtype)))


def _convert(site: Site, x: Held, dtype: torch.dtype | None = None, *_: Any, **__: Any) -> Held:
    return x if dtype is None else x.like(tf.cast(x.tensor, DTYPES[dtype]))


def _same(site: Site, x: Held, *_: Any, **__: Any) -> Held:
    return x


def _dropout(site: Site, x: Held, probability: float, train: bool) -> Held:
    require(not train, "dropout that is active")
    return x


# Sums over dimensions ------------------------------------------------------------------------------------------------


def _reduction(function: Callable[..., Any]) -> Callable[..., Held]:
    def emit(site: Site, x: Held, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Held:
        dimensions = _dimensions(x, dim)
        result = function(x.tensor, axis=[x.axis(d) for d in dimensions], keepdims=keepdim)
        return x.like(result) if keepdim else Held(result, without(x.order, dimensions))

    return emit


def _dimensions(x: Held, dim: Any) -> list[int]:
    rank = len(x.order)
    given = [dim] if isinstance(dim, int) else list(dim or range(rank))
    return [d % rank for d in given]


def _norm(site: Site, x: Held, order: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Held:
    require(order == 2, f"norm of order {order}")
    return _reduction(lambda tensor, **where: tf.sqrt(tf.reduce_sum(tf.square(tensor), **where)))(site, x, dim, keepdim)


def _softmax(site: Site, x: Held, dim: int, *_: Any, **__: Any) -> Held:
    return x.like(tf.nn.softmax(x.tensor, axis=x.axis(dim)))


def _layer_norm(
    site: Site,
    x: Held,
    normalised: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    epsilon: float = 1e-5,
    *_: Any,
) -> Held:
    axes = [x.axis(-place) for place in range(1, len(normalised) + 1)]
    centred = x.tensor - tf.reduce_mean(x.tensor, axis=axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=axes, keepdims=True)
    result = centred * tf.math.rsqrt(variance + epsilon)
    if weight is not None:
        result = result * laid(known(weight, "weights of layer_norm"), x.order, result.dtype)
    if bias is not None:
        result = result + laid(known(bias, "biases of layer_norm"), x.order, result.dtype)
    return x.like(result)


def _batch_norm(site: Site, x: Held, weight: Any, bias: Any, mean: Any, variance: Any, *rest: Any) -> Held:
    """What could not be folded into a convolution, as a scale and a shift of each channel."""
    epsilon = rest[2] if isinstance(rest[0], bool) else rest[1]  # a flag for training comes first, in some variants
    require(rest[0] is not True, "batch normalisation by the statistics of a batch")
    what = "the statistics of a batch normalisation"
    factors = normalisation(weight, bias, mean=known(mean, what), variance=known(variance, what), epsilon=epsilon)
    ones = (1,) * (len(x.order) - 2)
    scale, shift = (
        laid(torch.from_numpy(values.astype(np.float32)).reshape(-1, *ones), x.order, x.tensor.dtype)
        for values in factors
    )
    return x.like(x.tensor * scale + shift)


# Products with weights -----------------------------------------------------------------------------------------------


def _linear(site: Site, x: Held, weight: Any, bias: Any = None) -> Held:
    matrix = site.weight("matrix", known(weight, "the weights of a linear layer").numpy().T)
    tensor = x.in_order()
    result = tf.matmul(tensor, matrix) if len(x.order) == 2 else tf.tensordot(tensor, matrix, axes=1)
    if bias is not None:
        result = tf.nn.bias_add(result, site.weight("biases", known(bias, "the biases of a linear layer").numpy()))
    return Held.plain(result)


def _matmul(site: Site, left: Any, right: Any) -> Held:
    left, right = held(site, left), held(site, right)
    require(min(len(left.order), len(right.order)) >= 2, "product with a vector")
    return Held.plain(tf.matmul(left.in_order(), right.in_order()))


def _add_matmul(site: Site, bias: Any, left: Any, right: Any, *, beta: float = 1, alpha: float = 1) -> Held:
    require((beta, alpha) == (1, 1), "addmm with factors")
    return _binary(tf.add)(site, _matmul(site, left, right), bias)


def _attention(
    site: Site,
    query: Held,
    key: Held,
    value: Held,
    mask: Any = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Held:
    """Scaled dot products (Vaswani et al. 2017) of (…, L, E), written out."""
    require(mask is None and not causal and not enable_gqa and dropout == 0, "masked attention")
    depth = query.tensor.shape[query.axis(-1)]
    scores = tf.matmul(query.in_order(), key.in_order(), transpose_b=True) * (scale or 1 / math.sqrt(depth))
    return Held.plain(tf.matmul(tf.nn.softmax(scores, axis=-1), value.in_order()))


# Dimensions and places -----------------------------------------------------------------------------------------------


def _permute(site: Site, x: Held, dims: Sequence[int]) -> Held:
    dimensions = [d % len(x.order) for d in dims]
    return Held(x.tensor, tuple(dimensions.index(d) for d in x.order))


def _transpose(site: Site, x: Held, first: int, second: int) -> Held:
    dims = list(range(len(x.order)))
    dims[first], dims[second] = dims[second], dims[first]
    return _permute(site, x, dims)


def _view(site: Site, x: Held, *_: Any) -> Held:
    require(site.shape.count(None) <= 1, "shape with two open sizes")
    return Held.plain(tf.reshape(x.in_order(), [-1 if size is None else size for size in site.shape]))


def _expand(site: Site, x: Any, *_: Any, **__: Any) -> Held:
    return Held.plain(tf.broadcast_to(held(site, x).in_order(), tf.stack(site.extents())))


def _unsqueeze(site: Site, x: Held, dim: int) -> Held:
    return Held.plain(tf.expand_dims(x.in_order(), dim))


def _squeeze(site: Site, x: Held, dim: Any = None) -> Held:
    gone = [d for d in _dimensions(x, dim) if x.tensor.shape[x.axis(d)] == 1]
    return Held(tf.squeeze(x.tensor, axis=[x.axis(d) for d in gone]), without(x.order, gone)) if gone else x


def _concatenate(site: Site, tensors: Sequence[Any], dim: int = 0) -> Held:
    values, order = together(*tensors)
    return Held(tf.concat(values, axis=order.index(dim % len(order))), order)


def _flip(site: Site, x: Held, dims: Sequence[int]) -> Held:
    return x.like(tf.reverse(x.tensor, axis=[x.axis(d) for d in dims]))


def _slice(site: Site, x: Held, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Held:
    return x.like(x.tensor[_at(x, dim, slice(start, end, step))])


def _select(site: Site, x: Held, dim: int, index: int) -> Held:
    return Held(x.tensor[_at(x, dim, index)], without(x.order, [dim % len(x.order)]))


def _at(x: Held, dim: int, place: Any) -> tuple[Any, ...]:
    bounds = (place.start, place.stop, place.step) if isinstance(place, slice) else (place,)
    require(all(bound is None or isinstance(bound, int) for bound in bounds), "cut that depends on the batch")
    if isinstance(place, slice) and place.stop is not None and place.stop >= 2**31:  # PyTorch's way to say: to the end
        place = slice(place.start, None, place.step)
    where: list[Any] = [slice(None)] * len(x.order)
    where[x.axis(dim)] = place
    return tuple(where)


def _unbind(site: Site, x: Held, dim: int = 0) -> list[Held]:
    order = without(x.order, [dim % len(x.order)])
    return [Held(part, order) for part in tf.unstack(x.tensor, num=len(site.shapes), axis=x.axis(dim))]


def _split(site: Site, x: Held, sizes: Any, dim: int = 0) -> list[Held]:
    dimension = dim % len(x.order)
    sizes = [shape[dimension] for shape in site.shapes]
    return [x.like(part) for part in tf.split(x.tensor, sizes, axis=x.axis(dim))]


def _pad(site: Site, x: Held, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Held:
    """`pad` counts from the last dimension, before and behind in turn."""
    require(mode in ("constant", "reflect"), f"padding by {mode}")
    require(min(pad, default=0) >= 0, "padding that cuts off")
    last = len(x.order) - 1
    pads = {last - place // 2: (pad[place], pad[place + 1]) for place in range(0, len(pad), 2)}
    along = [pads.get(d, (0, 0)) for d in x.order]
    return x.like(tf.pad(x.tensor, along, mode=mode.upper(), constant_values=value or 0))


def _reflect(site: Site, x: Held, pad: Sequence[int]) -> Held:
    return _pad(site, x, pad, "reflect")


def _first_of(function: Callable[..., Held]) -> Callable[..., tuple[Any, ...]]:
    """An operator with further results, which inference has no use for."""
    return lambda site, *values, **options: (function(site, *values, **options), *[None] * (len(site.shapes) - 1))


OPERATORS: dict[str, Callable[..., Any]] = {
    # convolutions, products
    "conv2d.default": conv2d,
    "conv2d.padding": conv2d,
    "convolution.default": convolution,
    "linear.default": _linear,
    "matmul.default": _matmul,
    "mm.default": _matmul,
    "bmm.default": _matmul,
    "addmm.default": _add_matmul,
    "scaled_dot_product_attention.default": _attention,
    # normalisation
    "batch_norm.default": _batch_norm,
    "_native_batch_norm_legit_no_training.default": _first_of(_batch_norm),
    "layer_norm.default": _layer_norm,
    "native_layer_norm.default": _first_of(_layer_norm),
    "softmax.int": _softmax,
    "_softmax.default": _softmax,
    # pooling
    "max_pool2d.default": max_pool,
    "max_pool2d_with_indices.default": _first_of(max_pool),
    "avg_pool2d.default": average_pool,
    "adaptive_avg_pool2d.default": adaptive_average_pool,
    "_adaptive_avg_pool2d.default": adaptive_average_pool,
    "adaptive_max_pool2d.default": adaptive_max_pool,
    # activations
    "relu.default": _unary(tf.nn.relu),
    "relu6.default": _unary(tf.nn.relu6),
    "gelu.default": _gelu,
    "silu.default": _unary(lambda x: x * tf.sigmoid(x)),
    "hardswish.default": _unary(lambda x: x * tf.nn.relu6(x + 3) * (1 / 6)),
    "hardsigmoid.default": _unary(lambda x: tf.nn.relu6(x + 3) * (1 / 6)),
    "hardtanh.default": _hard_tanh,
    "leaky_relu.default": _leaky_relu,
    "elu.default": _elu,
    "mish.default": _unary(lambda x: x * tf.tanh(tf.nn.softplus(x))),
    "sigmoid.default": _unary(tf.sigmoid),
    "tanh.default": _unary(tf.tanh),
    # arithmetic
    "add.Tensor": _binary(tf.add),
    "add.Scalar": _binary(tf.add),
    "sub.Tensor": _binary(tf.subtract),
    "sub.Scalar": _binary(tf.subtract),
    "rsub.Scalar": _reversed_subtraction,
    "mul.Tensor": _binary(tf.multiply),
    "mul.Scalar": _binary(tf.multiply),
    "div.Tensor": _binary(tf.divide),
    "div.Scalar": _binary(tf.divide),
    "maximum.default": _binary(tf.maximum),
    "minimum.default": _binary(tf.minimum),
    "addcmul.default": _add_product,
    "pow.Tensor_Scalar": _power,
    "clamp.default": _clamp,
    "neg.default": _unary(tf.negative),
    "abs.default": _unary(tf.abs),
    "exp.default": _unary(tf.exp),
    "erf.default": _unary(tf.math.erf),
    "sqrt.default": _unary(tf.sqrt),
    "rsqrt.default": _unary(tf.math.rsqrt),
    # sums
    "mean.dim": _reduction(tf.reduce_mean),
    "mean.default": _reduction(tf.reduce_mean),
    "sum.dim_IntList": _reduction(tf.reduce_sum),
    "amax.default": _reduction(tf.reduce_max),
    "amin.default": _reduction(tf.reduce_min),
    "linalg_vector_norm.default": _norm,
    # dimensions and places
    "permute.default": _permute,
    "transpose.int": _transpose,
    "t.default": lambda site, x: _permute(site, x, range(len(x.order))[::-1]),
    "view.default": _view,
    "_unsafe_view.default": _view,
    "reshape.default": _view,
    "expand.default": _expand,
    "unsqueeze.default": _unsqueeze,
    "squeeze.default": _squeeze,
    "squeeze.dim": _squeeze,
    "squeeze.dims": _squeeze,
    "cat.default": _concatenate,
    "flip.default": _flip,
    "slice.Tensor": _slice,
    "select.int": _select,
    "unbind.int": _unbind,
    "split.Tensor": _split,
    "split_with_sizes.default": _split,
    "pad.default": _pad,
    "constant_pad_nd.default": lambda site, x, pad, value=0: _pad(site, x, pad, "constant", value),
    "reflection_pad2d.default": _reflect,
    # no arithmetic at all
    "_to_copy.default": _convert,
    "to.dtype": _convert,
    "clone.default": _same,
    "alias.default": _same,
    "detach.default": _same,
    "contiguous.default": _same,
    "dropout.default": _dropout,
}
"""By the name of the operator and its overload, without `aten.`"""
