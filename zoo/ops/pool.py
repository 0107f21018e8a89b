"""Pooling. Source of the semantics: torch.nn.MaxPool2d, AvgPool2d, AdaptiveAvgPool2d."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.network import Layer, Net, Tensor, configured
from zoo.ops._sizes import Extent, as_tensor
from zoo.ops._window import Padding, Pair, padding_of, pair, sides, symmetric
from zoo.ops.elementwise import div
from zoo.ops.shape import cell_grid, reshape


def max_pool(
    net: Net, x: Tensor, k: Pair, stride: Pair | None = None, pad: Padding = 0, *, ceil_mode: bool = False
) -> Tensor:
    """MaxPool2d: (N, C, H, W) -> (N, C, H', W'); `stride` defaults to `k`, and the padding is no maximum."""
    return net.done(_pooling(net, x, net.trt.PoolingType.MAX, k, stride, pad, ceil_mode), "max_pool", x)


def avg_pool(
    net: Net,
    x: Tensor,
    k: Pair,
    stride: Pair | None = None,
    pad: Padding = 0,
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """AvgPool2d. The padding counts, which is PyTorch's default and the opposite of TensorRT's."""
    layer = _pooling(net, x, net.trt.PoolingType.AVERAGE, k, stride, pad, ceil_mode)
    net.state(count_include_pad=count_include_pad)
    return net.done(configured(layer, average_count_excludes_padding=not count_include_pad), "avg_pool", x)


def _pooling(net: Net, x: Tensor, kind: Any, k: Pair, stride: Pair | None, pad: Padding, ceil_mode: bool) -> Layer:
    trt, window = net.trt, pair(k)
    height, width = x.shape[2:]
    if pad != "same" and not ceil_mode:  # it would give an empty tensor
        left, right, top, bottom = sides(pad)
        if 0 <= height < window[0] - top - bottom or 0 <= width < window[1] - left - right:
            left_of_it = f"{height}x{width} is left of it at '{net.scope}', which pools {window[0]}x{window[1]}"
            raise ZooError(f"the image is too small: {left_of_it}; use a larger one")
    rounding = trt.PaddingMode.EXPLICIT_ROUND_UP if ceil_mode else trt.PaddingMode.EXPLICIT_ROUND_DOWN
    layer = net.network.add_pooling_nd(net.enter(x), kind, window)
    steps = window if stride is None else pair(stride)
    padding = padding_of(net, x, pad, window, steps)
    net.state(kernel_size=window, stride=steps, ceil_mode=ceil_mode, **symmetric(padding))
    return configured(layer, stride_nd=steps, **{"padding_mode": rounding, **padding})


def global_avg_pool(net: Net, x: Tensor) -> Tensor:
    """AdaptiveAvgPool2d(1): (N, C, H, W) -> (N, C, 1, 1)."""
    x = net.enter(x)
    return net.done(net.network.add_reduce(x, net.trt.ReduceOperation.AVG, 1 << 2 | 1 << 3, True), "global_avg_pool", x)


def adaptive_avg_pool(net: Net, x: Tensor, out: Pair) -> Tensor:
    """AdaptiveAvgPool2d(out): (N, C, H, W) -> (N, C, *out), with PyTorch's overlapping windows.

    Nothing at all where the input has that size already; otherwise two products with constant averaging matrices,
    rows @ x @ columns, since TensorRT has no pooling whose windows vary in size.
    """
    trt, network = net.trt, net.network
    x = net.enter(x)
    out = pair(out)
    if tuple(x.shape)[2:] == out:
        return net.done(network.add_identity(x), "adaptive_avg_pool", x)
    rows = _averages(net, x, 2, out[0], "rows")
    columns = _averages(net, x, 3, out[1], "columns")
    none, transposed = trt.MatrixOperation.NONE, trt.MatrixOperation.TRANSPOSE
    x = net.step(network.add_matrix_multiply(rows, none, x, none), "over_rows", rows, x)
    return net.done(network.add_matrix_multiply(x, none, columns, transposed), "adaptive_avg_pool", x, columns)


def _averages(net: Net, x: Tensor, axis: int, out: int, name: str) -> Tensor:
    """(1, 1, out, size): the matrix of `_averaging` for x along `axis`; layers where that is open."""
    if x.shape[axis] != -1:
        return net.constant(_averaging(x.shape[axis], out)[None, None], name)
    at, network, trt, ops = net / name, net.network, net.trt, net.trt.ElementWiseOperation

    def integer(a: Tensor, b: Tensor, kind: Any) -> Tensor:
        return at.step(network.add_elementwise(a, b, kind), "bound", a, b)

    def real(a: Tensor) -> Tensor:
        return at.step(network.add_cast(a, trt.float32), "cast", a)

    def bounds(first: int, rounding: int) -> Tensor:
        """(i + first) * size / out for each i, as a column."""
        found = integer(at.index(np.arange(out)[None, None, :, None] + first, "windows"), size, ops.PROD)
        found = integer(found, at.index(np.full((1,) * 4, rounding), "rounding"), ops.SUM)
        return integer(found, at.index(np.full((1,) * 4, out), "out"), ops.FLOOR_DIV)

    size = reshape(at, as_tensor(at, [Extent(x, axis)]), (1, 1, 1, 1))
    start, stop, grid = bounds(0, 0), bounds(1, out - 1), cell_grid(at, x)[3 - axis]
    place = reshape(at, at.step(network.add_cast(grid, size.dtype), "cast", grid), (1, 1, 1, -1))
    before = integer(place, start, ops.LESS)
    within = at.step(network.add_unary(before, trt.UnaryOperation.NOT), "not", before)
    inside = integer(within, integer(place, stop, ops.LESS), ops.AND)
    return net.enter(div(at.fp32, real(inside), real(integer(stop, start, ops.SUB))))


def _averaging(size: int, out: int) -> np.ndarray:
    """(out, size): row i averages the inputs floor(i * size / out) … ceil((i + 1) * size / out) - 1."""
    matrix = np.zeros((out, size), np.float32)
    for i in range(out):
        start, stop = i * size // out, -(-(i + 1) * size // out)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix
