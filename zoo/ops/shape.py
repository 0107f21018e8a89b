"""Reshaping, joining and cutting. The batch axis may be dynamic (-1) everywhere; the others are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo.errors import ZooError
from zoo.network import Net, Tensor, configured


def fixed_size(net: Net, x: Tensor, multiple: int) -> tuple[int, int]:
    """(H, W) of an input (N, C, H, W) that must be known when the network is defined, in multiples of `multiple`.

    Raises ZooError that names the nearest sizes which fit.
    """
    height, width = x.shape[2:]
    if -1 in (height, width):
        raise ZooError("only the batch may vary here: the height and width are fixed; build one network for each size")
    if height % multiple or width % multiple:
        below, above = (f"{_fit(height, multiple, up)}x{_fit(width, multiple, up)}" for up in (False, True))
        nearest = below if below == above else f"{below} or {above}"
        raise ZooError(f"{height}x{width} does not fit: both sides must be multiples of {multiple}; use {nearest}")
    return height, width


def _fit(size: int, multiple: int, up: bool) -> int:
    """`size` rounded down or up to a multiple, at least one."""
    return max(-(-size // multiple) if up else size // multiple, 1) * multiple


def reshape(net: Net, x: Tensor, shape: Sequence[int], name: str = "reshape") -> Tensor:
    """View: `shape` may hold 0 (keep this axis of x) and one -1 (whatever is left)."""
    return net.step(configured(net.network.add_shuffle(x), reshape_dims=tuple(shape)), name, x)


def transpose(net: Net, x: Tensor, axes: Sequence[int], name: str = "transpose") -> Tensor:
    """Permutes all axes: axis i of the result is axis axes[i] of x."""
    return net.step(configured(net.network.add_shuffle(x), first_transpose=net.trt.Permutation(list(axes))), name, x)


def flatten(net: Net, x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C * H * W)."""
    return reshape(net, x, (0, int(np.prod(x.shape[1:]))), "flatten")


def concat(net: Net, tensors: Sequence[Tensor], axis: int = 1) -> Tensor:
    """Joins along `axis`."""
    tensors = [net.enter(x) for x in tensors]
    return net.step(configured(net.network.add_concatenation(tensors), axis=axis), "concat", *tensors)


def narrow(net: Net, x: Tensor, axis: int, start: int, size: int, name: str = "narrow") -> Tensor:
    """x[..., start : start + size, ...] along `axis`."""
    network, shape = net.network, list(x.shape)
    rank = len(shape)
    if start + size > shape[axis]:  # TensorRT says so only when it compiles, and onnxruntime shortens the slice
        raise ZooError(f"'{net.scope}' takes {start} to {start + size} of axis {axis}, which has {shape[axis]}")
    starts, sizes = [0] * rank, shape.copy()
    starts[axis], sizes[axis] = start, size
    if -1 not in sizes:
        return net.step(network.add_slice(x, starts, sizes, [1] * rank), name, x)
    if net.definition.api.strong:  # from TensorRT 10 on a slice can name its axes and leave the dynamic ones alone
        return net.step(configured(network.add_slice(x, (start,), (size,), (1,)), axes=(axis,)), name, x)
    layer = network.add_slice(x, starts, [0] * rank, [1] * rank)
    layer.set_input(2, _shape_with(net, x, axis, size))
    return net.step(layer, name, x)


def _shape_with(net: Net, x: Tensor, axis: int, size: int) -> Tensor:
    """The run-time shape of x with one axis replaced, as a tensor: shape * mask + offset."""
    network, ops = net.network, net.trt.ElementWiseOperation
    mask, offset = np.ones(len(x.shape)), np.zeros(len(x.shape))
    mask[axis], offset[axis] = 0, size
    shape = net.step(network.add_shape(x), "shape", x)
    kept = net.step(network.add_elementwise(shape, net.index(mask, "mask"), ops.PROD), "kept", shape)
    return net.step(network.add_elementwise(kept, net.index(offset, "offset"), ops.SUM), "size", kept)


def split(net: Net, x: Tensor, sizes: Sequence[int], axis: int = 1) -> list[Tensor]:
    """Cuts x along `axis` into pieces of these sizes, which must add up."""
    if sum(sizes) != x.shape[axis]:
        raise ValueError(f"split of '{net.scope}': sizes {list(sizes)} do not add up to {x.shape[axis]}")
    starts = np.cumsum([0, *sizes[:-1]])
    return [narrow(net, x, axis, int(start), size, "split") for start, size in zip(starts, sizes)]


def expand_batch(net: Net, x: Tensor, like: Tensor) -> Tensor:
    """Repeats x (1, …) along the batch axis to the batch of `like` (a slice of stride 0 there)."""
    network, shape = net.network, tuple(x.shape)
    stride = (0,) + (1,) * (len(shape) - 1)
    if like.shape[0] != -1:
        return net.step(network.add_slice(x, (0,) * len(shape), (like.shape[0], *shape[1:]), stride), "expand", x)
    layer = network.add_slice(x, (0,) * len(shape), (0,) * len(shape), stride)
    batch = net.step(network.add_shape(like), "shape", like)
    batch = net.step(network.add_slice(batch, (0,), (1,), (1,)), "batch", batch)
    rest = net.index(shape[1:], "rest")
    sizes = configured(network.add_concatenation([batch, rest]), axis=0)
    layer.set_input(2, net.step(sizes, "sizes", batch, rest))
    return net.step(layer, "expand", x)
