"""Pooling. Source of the semantics: torch.nn.MaxPool2d, AvgPool2d, AdaptiveAvgPool2d."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.network import Net, Tensor, configured
from zoo.ops.shape import fixed_size


def max_pool(
    net: Net, x: Tensor, k: int, stride: int | None = None, pad: int = 0, *, ceil_mode: bool = False
) -> Tensor:
    """MaxPool2d: (N, C, H, W) -> (N, C, H', W'); `stride` defaults to `k`."""
    return net.done(_pooling(net, x, net.trt.PoolingType.MAX, k, stride, pad, ceil_mode), "max_pool", x)


def avg_pool(
    net: Net, x: Tensor, k: int, stride: int | None = None, pad: int = 0, *, ceil_mode: bool = False
) -> Tensor:
    """AvgPool2d with count_include_pad=True, PyTorch's default and the opposite of TensorRT's."""
    layer = _pooling(net, x, net.trt.PoolingType.AVERAGE, k, stride, pad, ceil_mode)
    return net.done(configured(layer, average_count_excludes_padding=False), "avg_pool", x)


def _pooling(net: Net, x: Tensor, kind: Any, k: int, stride: int | None, pad: int, ceil_mode: bool):  # noqa: ANN202
    trt = net.trt
    height, width = x.shape[2:]
    if any(0 <= side < k - 2 * pad for side in (height, width)) and not ceil_mode:  # it would give an empty tensor
        left = f"{height}x{width} is left of it at '{net.scope}', which pools {k}x{k}"
        raise ZooError(f"the image is too small: {left}; use a larger one")
    stride = k if stride is None else stride
    rounding = trt.PaddingMode.EXPLICIT_ROUND_UP if ceil_mode else trt.PaddingMode.EXPLICIT_ROUND_DOWN
    layer = net.network.add_pooling_nd(net.enter(x), kind, (k, k))
    return configured(layer, stride_nd=(stride, stride), padding_nd=(pad, pad), padding_mode=rounding)


def global_avg_pool(net: Net, x: Tensor) -> Tensor:
    """AdaptiveAvgPool2d(1): (N, C, H, W) -> (N, C, 1, 1)."""
    x = net.enter(x)
    return net.done(net.network.add_reduce(x, net.trt.ReduceOperation.AVG, 1 << 2 | 1 << 3, True), "global_avg_pool", x)


def adaptive_avg_pool(net: Net, x: Tensor, out: int) -> Tensor:
    """AdaptiveAvgPool2d(out): (N, C, H, W) -> (N, C, out, out), with PyTorch's overlapping windows.

    Nothing at all where the input has that size already; otherwise two products with constant averaging matrices,
    rows @ x @ columns, since TensorRT has no pooling whose windows vary in size.
    """
    trt, network = net.trt, net.network
    x = net.enter(x)
    height, width = fixed_size(net, x, 1)
    if (height, width) == (out, out):
        return net.done(network.add_identity(x), "adaptive_avg_pool", x)
    rows = net.constant(_averaging(height, out)[None, None], "rows")
    columns = net.constant(_averaging(width, out)[None, None], "columns")
    none, transposed = trt.MatrixOperation.NONE, trt.MatrixOperation.TRANSPOSE
    x = net.step(network.add_matrix_multiply(rows, none, x, none), "over_rows", rows, x)
    return net.done(network.add_matrix_multiply(x, none, columns, transposed), "adaptive_avg_pool", x, columns)


def _averaging(size: int, out: int) -> np.ndarray:
    """(out, size): row i averages the inputs floor(i * size / out) … ceil((i + 1) * size / out) - 1."""
    matrix = np.zeros((out, size), np.float32)
    for i in range(out):
        start, stop = i * size // out, -(-(i + 1) * size // out)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix
