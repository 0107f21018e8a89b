"""TensorRT layers for native forms: what no op of `zoo.ops` needs, since PyTorch modules are not made of it.

Each adds one unnamed step below the scope, and takes and gives tensors of any type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.network import Net, Tensor, configured


def binary(net: Net, a: Tensor, b: Tensor, operation: Any) -> Tensor:
    """An ElementWiseOperation, on tensors of one type whatever the scope's; axes of size 1 broadcast."""
    return net.step(net.network.add_elementwise(a, b, operation), operation.name.lower(), a, b)


def unary(net: Net, x: Tensor, operation: Any) -> Tensor:
    """A UnaryOperation: ABS, FLOOR, ROUND (half to even) …"""
    return net.step(net.network.add_unary(x, operation), operation.name.lower(), x)


def cast(net: Net, x: Tensor, dtype: Any) -> Tensor:
    """`x` as another type of TensorRT's."""
    return net.step(net.network.add_cast(x, dtype), "cast", x)


def scalar(net: Net, value: float, like: Tensor) -> Tensor:
    """A float32 or int32 constant of `like`'s type and rank, to broadcast against it."""
    whole = like.dtype == net.trt.int32
    return constant(net, np.full((1,) * len(like.shape), value, np.int32 if whole else np.float32))


def constant(net: Net, array: np.ndarray) -> Tensor:
    """A constant of the array's own type (float32 or int32), whatever the scope's precision."""
    array = np.require(array, None, "C")
    net.definition.keep.append(array)
    return net.step(net.network.add_constant(array.shape, array), "constant")


def gather(net: Net, x: Tensor, index: Tensor, axis: int, batched: bool = False) -> Tensor:
    """x at `index` along `axis`; `batched`: axis 0 of both is the picture, each with indices of its own."""
    layer = configured(net.network.add_gather(x, index, axis), num_elementwise_dims=int(batched))
    return net.step(layer, "gather", x, index)


def join(net: Net, tensors: Sequence[Tensor], axis: int = 1) -> Tensor:
    """Tensors of any one type, one after the other along `axis`."""
    return net.step(configured(net.network.add_concatenation(list(tensors)), axis=axis), "join", *tensors)


def select(net: Net, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a where `condition` holds, else b."""
    return net.step(net.network.add_select(condition, a, b), "select", condition, a, b)


def not_finite(net: Net, x: Tensor) -> Tensor:
    """1 where x is infinite or NaN, else 0. NaN is less than nothing, which no optimisation of x - x can hide."""
    size = unary(net, x, net.trt.UnaryOperation.ABS)
    finite = binary(net, size, scalar(net, float(np.finfo(np.float32).max), size), net.trt.ElementWiseOperation.LESS)
    one = cast(net, finite, net.trt.float32)
    return binary(net, scalar(net, 1, one), one, net.trt.ElementWiseOperation.SUB)


def matmul(net: Net, a: Tensor, b: Tensor) -> Tensor:
    """a @ b over the last two axes."""
    none = net.trt.MatrixOperation.NONE
    return net.step(net.network.add_matrix_multiply(a, none, b, none), "matmul", a, b)


def shuffle(net: Net, x: Tensor, axes: Sequence[int] | None = None, shape: Sequence[int] | None = None) -> Tensor:
    """Transposes to `axes`, then reshapes to `shape` (0 keeps an axis, one -1 is what is left)."""
    layer: Any = net.network.add_shuffle(x)
    if axes is not None:
        layer = configured(layer, first_transpose=net.trt.Permutation(list(axes)))
    if shape is not None:
        layer = configured(layer, reshape_dims=tuple(shape))
    return net.step(layer, "shuffle", x)


def grid_sample(net: Net, x: Tensor, grid: Tensor, border: str = "zeros") -> Tensor:
    """torch.nn.functional.grid_sample(x, grid, align_corners=False), bilinear; `border` is "zeros" or "border"."""
    modes = {"zeros": net.trt.SampleMode.FILL, "border": net.trt.SampleMode.CLAMP}
    layer = configured(
        net.network.add_grid_sample(x, grid),
        interpolation_mode=net.trt.InterpolationMode.LINEAR,
        sample_mode=modes[border],
        align_corners=False,
    )
    return net.step(layer, "grid_sample", x, grid)
