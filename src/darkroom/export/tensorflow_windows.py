"""Operators that look at windows of a picture: convolutions and pools, always on (N, H, W, C)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from darkroom.export.tensorflow_runtime import tf
from darkroom.export.tensorflow_values import Held, Site, known, require

CHANNELS_LAST = (0, 2, 3, 1)

Pair = tuple[int, int]
Numbers = npt.NDArray[np.float32]


def convolution(
    site: Site,
    x: Held,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Held:
    """The general form of `conv2d`."""
    require(not transposed, "transposed convolution")
    return conv2d(site, x, weight, bias, stride, padding, dilation, groups)


def conv2d(
    site: Site,
    x: Held,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Held:
    """Filters come as (out, in / groups, kh, kw) and are stored as TensorFlow wants them."""
    filters = known(weight, "the filters of a convolution").numpy()
    require(filters.ndim == 4 and len(x.order) == 4, "convolution but over two dimensions")
    strides, dilations = _pair(stride), _pair(dilation)
    reach = [d * (size - 1) for size, d in zip(filters.shape[2:], dilations, strict=True)]
    pads = _pads(padding, reach)
    tensor, mode = x.arranged(CHANNELS_LAST), "VALID"
    if strides == (1, 1) and pads == _pads("same", reach):
        mode = "SAME"  # which at this stride pads alike, and saves a copy
    elif any(map(any, pads)):
        tensor = tf.pad(tensor, [(0, 0), *pads, (0, 0)])
    if groups == 1:
        kernel = site.weight("filters", filters.transpose(2, 3, 1, 0))
        result = tf.nn.conv2d(tensor, kernel, strides=strides, padding=mode, dilations=dilations)
    elif filters.shape[1] == 1:
        result = _depthwise(site, tensor, filters, groups, strides=strides, mode=mode, dilations=dilations)
    else:
        parts = zip(tf.split(tensor, groups, axis=3), np.split(filters, groups), strict=True)
        results = [
            tf.nn.conv2d(
                part,
                site.weight(f"filters_{number}", kernel.transpose(2, 3, 1, 0)),
                strides=strides,
                padding=mode,
                dilations=dilations,
            )
            for number, (part, kernel) in enumerate(parts)
        ]
        result = tf.concat(results, axis=3)
    if bias is not None:
        result = tf.nn.bias_add(result, site.weight("biases", known(bias, "the biases of a convolution").numpy()))
    return Held(result, CHANNELS_LAST)


def _depthwise(
    site: Site, tensor: Any, filters: Numbers, groups: int, *, strides: Pair, mode: str, dilations: Pair
) -> Any:
    """Filters (in · m, 1, kh, kw), of which m look at each channel, become (kh, kw, in, m)."""
    require(strides[0] == strides[1], "depthwise convolution whose strides differ")
    kernel = filters.reshape(groups, -1, *filters.shape[2:]).transpose(2, 3, 0, 1)
    return tf.nn.depthwise_conv2d(
        tensor,
        site.weight("filters", kernel),
        strides=(1, *strides, 1),
        padding=mode,
        dilations=None if dilations == (1, 1) else list(dilations),
    )


def _pair(value: Any) -> Pair:
    """Height and width of what PyTorch lets one number stand for."""
    values = [value] * 2 if isinstance(value, int) else list(value) * (2 if len(value) == 1 else 1)
    return int(values[0]), int(values[1])


def _pads(padding: Any, reach: Sequence[int]) -> tuple[Pair, Pair]:
    """Rows before and behind, columns before and behind."""
    if padding == "same":
        return (reach[0] // 2, reach[0] - reach[0] // 2), (reach[1] // 2, reach[1] - reach[1] // 2)
    rows, columns = (0, 0) if padding == "valid" else _pair(padding)
    return (rows, rows), (columns, columns)


def max_pool(
    site: Site, x: Held, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Held:
    """The edge is padded with what never is the largest."""
    require(_pair(dilation) == (1, 1), "max pooling with dilation")
    size, step = _pair(kernel), _pair(stride or kernel)
    tensor = x.arranged(CHANNELS_LAST)
    pads = _pool_pads(tensor.shape[1:3], site.shape[2:], size=size, step=step, before=_pair(padding))
    if any(map(any, pads)):
        tensor = tf.pad(tensor, [(0, 0), *pads, (0, 0)], constant_values=float("-inf"))
    return Held(tf.nn.max_pool2d(tensor, size, step, "VALID"), CHANNELS_LAST)


def average_pool(
    site: Site,
    x: Held,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Held:
    """TensorFlow divides by the size of the window; where PyTorch counts less than that, the result is scaled up."""
    require(divisor is None, "average pooling with a divisor")
    size, step, before = _pair(kernel), _pair(stride or kernel), _pair(padding)
    tensor = x.arranged(CHANNELS_LAST)
    inside: Any = tensor.shape[1:3]
    wanted: Any = site.shape[2:]
    pads = _pool_pads(inside, wanted, size=size, step=step, before=before)
    if any(map(any, pads)):
        tensor = tf.pad(tensor, [(0, 0), *pads, (0, 0)])
    result = tf.nn.avg_pool2d(tensor, size, step, "VALID")
    counts = [
        _counted(*sides, count_padding=count_padding) for sides in zip(inside, wanted, size, step, before, strict=True)
    ]
    share = size[0] * size[1] / np.outer(*counts)[None, :, :, None]
    return Held(result if (share == 1).all() else result * share.astype(np.float32), CHANNELS_LAST)


def _pool_pads(inside: Any, wanted: Any, *, size: Pair, step: Pair, before: Pair) -> list[Pair]:
    """Rows and columns to add before and behind, so that exactly the wanted windows fit; `ceil_mode` adds some."""
    return [
        (before[i], max(0, (int(wanted[i]) - 1) * step[i] + size[i] - int(inside[i]) - before[i])) for i in range(2)
    ]


def _counted(
    inside: int, wanted: int, size: int, step: int, padding: int, *, count_padding: bool
) -> npt.NDArray[np.int64]:
    """What each window along one side (wanted,) is divided by."""
    first = np.arange(wanted) * step - padding
    last = np.minimum(first + size, inside + padding)
    return last - first if count_padding else np.minimum(last, inside) - np.maximum(first, 0)


def adaptive_average_pool(site: Site, x: Held, *_: Any) -> Held:
    """To one number a channel, or to any size by a matrix for each side."""
    tensor = x.arranged(CHANNELS_LAST)
    (height, width), wanted = tensor.shape[1:3], site.shape[2:]
    if wanted == (1, 1):
        tensor = tf.reduce_mean(tensor, axis=[1, 2], keepdims=True)
    elif wanted != (height, width):
        rows, columns = _averages(height, wanted[0]), _averages(width, wanted[1])
        tensor = tf.einsum("pw,nowc->nopc", columns, tf.einsum("oh,nhwc->nowc", rows, tensor))
    return Held(tensor, CHANNELS_LAST)


def _averages(inside: int, wanted: int | None) -> Numbers:
    """The matrix (wanted, inside) that averages as adaptive pooling does, whose windows may overlap."""
    matrix = np.zeros((wanted or 0, inside), np.float32)
    for place, row in enumerate(matrix):
        first, last = place * inside // len(matrix), -(-(place + 1) * inside // len(matrix))
        row[first:last] = 1 / (last - first)
    return matrix


def adaptive_max_pool(site: Site, x: Held, *_: Any) -> tuple[Held, None]:
    """To one number a channel, or where all windows have one size."""
    tensor = x.arranged(CHANNELS_LAST)
    (height, width), wanted = tensor.shape[1:3], _pair(site.shape[2:])
    if wanted == (1, 1):
        return Held(tf.reduce_max(tensor, axis=[1, 2], keepdims=True), CHANNELS_LAST), None
    require(height % wanted[0] == 0 and width % wanted[1] == 0, "adaptive max pooling over windows of unequal size")
    size = height // wanted[0], width // wanted[1]
    return Held(tf.nn.max_pool2d(tensor, size, size, "VALID"), CHANNELS_LAST), None
