"""Reshaping, joining and cutting. The batch may be open (-1) everywhere, height and width where it is said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from zoo.errors import ZooError
from zoo.network import Layer, Net, Tensor, configured
from zoo.ops._sizes import Extent, Size, as_tensor, is_open, shape_with, size_of


def fixed_size(net: Net, x: Tensor, multiple: int, why: str = "") -> tuple[int, int]:
    """(H, W) of an input (N, C, H, W) that must be known when the network is defined, in multiples of `multiple`.

    Raises ZooError that names the nearest sizes which fit, and where one is open, with the reason `why` it may not be.
    """
    height, width = open_size(net, x, multiple)
    if is_open(height, width):
        reason = f", since {why}" if why else ""
        raise ZooError(f"only the batch may vary here{reason}: height and width are fixed, by --size")
    return height, width  # type: ignore[return-value]


def open_size(net: Net, x: Tensor, multiple: int = 1) -> tuple[Size, Size]:
    """(H, W) of a map (N, C, H, W); where one is known only when the network runs, a stand-in that `reshape`,
    `upsample` and the like take. Of the network's input both must be multiples of `multiple`.

    Raises ZooError that names the nearest sizes which fit.
    """
    height, width = x.shape[2:]
    net.definition.multiple = math.lcm(multiple, net.definition.multiple)
    if (height > 0 and height % multiple) or (width > 0 and width % multiple):
        below, above = (f"{_fit(height, multiple, up)}x{_fit(width, multiple, up)}" for up in (False, True))
        nearest = below if below == above else f"{below} or {above}"
        size = "x".join("?" if side == -1 else str(side) for side in (height, width))
        raise ZooError(f"{size} does not fit: both sides must be multiples of {multiple}; use {nearest}")
    return size_of(x, 2), size_of(x, 3)


def _fit(size: int, multiple: int, up: bool) -> int | str:
    """`size` rounded down or up to a multiple, at least one; "?" for one that is open."""
    return "?" if size == -1 else max(-(-size // multiple) if up else size // multiple, 1) * multiple


def reshape(net: Net, x: Tensor, shape: Sequence[Size], name: str = "reshape") -> Tensor:
    """View: `shape` may hold 0 (keep this axis of x) and one -1 (whatever is left)."""
    return net.step(_reshaped(net, net.network.add_shuffle(x), shape), name, x)


def _reshaped(net: Net, layer: Layer, shape: Sequence[Size]) -> Layer:
    if is_open(*shape):
        layer.set_input(1, as_tensor(net, shape))
        return layer
    return configured(layer, reshape_dims=tuple(shape))


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


def narrow(net: Net, x: Tensor, axis: int, start: int, size: Size, step: int = 1, name: str = "narrow") -> Tensor:
    """`size` values of x along `axis`, from `start` on, every `step`-th: x[..., start : start + size * step : step]."""
    if not isinstance(size, Extent) and start + (size - 1) * step >= x.shape[axis]:
        # TensorRT says so only when it compiles, and onnxruntime shortens the slice
        end = start + (size - 1) * step + 1
        raise ZooError(f"'{net.scope}' takes {start} to {end} of axis {axis}, which has {x.shape[axis]}")
    return net.step(_slice(net, x, {axis: (start, size, step)}), name, x)


def _slice(net: Net, x: Tensor, cuts: Mapping[int, tuple[int, Size, int]]) -> Layer:
    """The layer that takes (start, size, step) along some axes and all of the others, open ones included."""
    network, shape = net.network, list(x.shape)
    sized = not is_open(*(size for _, size, _ in cuts.values()))
    if -1 in shape and sized and net.definition.api.strong:  # from TensorRT 10 on a slice can name its axes
        layer = network.add_slice(x, *([cut[i] for cut in cuts.values()] for i in range(3)))
        return configured(layer, axes=tuple(cuts))
    starts, sizes, steps = [0] * len(shape), shape.copy(), [1] * len(shape)
    for axis, (start, size, step) in cuts.items():
        starts[axis], sizes[axis], steps[axis] = start, size if sized else -1, step
    if -1 not in sizes:
        return network.add_slice(x, starts, sizes, steps)
    layer = network.add_slice(x, starts, [0] * len(shape), steps)
    layer.set_input(2, shape_with(net, x, {axis: size for axis, (_, size, _) in cuts.items()}))
    return layer


def pad(
    net: Net,
    x: Tensor,
    sides: tuple[int, int, int, int],
    *,
    mode: Literal["constant", "reflect", "replicate"] = "constant",
    value: float = 0.0,
) -> Tensor:
    """F.pad of (N, C, H, W) by (left, right, top, bottom), where a negative number crops."""
    x = net.enter(x)
    left, right, top, bottom = sides
    height, width = open_size(net, x)
    cuts = {2: (-top, height + (top + bottom), 1), 3: (-left, width + (left + right), 1)}
    modes = net.trt.SampleMode
    kind = {"constant": modes.FILL, "reflect": modes.REFLECT, "replicate": modes.CLAMP}[mode]
    layer = configured(_slice(net, x, cuts), mode=kind)
    if mode == "constant" and value:
        layer.set_input(4, net.constant(np.full((), value), "value"))
    return net.done(layer, "pad", x)


def roll(net: Net, x: Tensor, shift: int, axis: int) -> Tensor:
    """torch.roll along one axis: what leaves at the end enters at the start."""
    size = x.shape[axis]
    shift %= size
    if shift == 0:
        return x
    end, start = (
        narrow(net, x, axis, size - shift, shift, name="roll"),
        narrow(net, x, axis, 0, size - shift, name="roll"),
    )
    return concat(net, [end, start], axis)


def pixel_shuffle(net: Net, x: Tensor, factor: int) -> Tensor:
    """PixelShuffle: (N, C * factor^2, H, W) -> (N, C, H * factor, W * factor)."""
    channels, (height, width) = x.shape[1], open_size(net, x)
    out = channels // factor**2
    x = reshape(net, x, (0, out, factor, factor, height, width))
    layer = net.network.add_shuffle(x)
    layer.first_transpose = net.trt.Permutation([0, 1, 4, 2, 5, 3])
    _reshaped(net, layer, (0, out, height * factor, width * factor))
    return net.done(layer, "pixel_shuffle", x)


def pixel_unshuffle(net: Net, x: Tensor, factor: int) -> Tensor:
    """PixelUnshuffle: (N, C, H * factor, W * factor) -> (N, C * factor^2, H, W)."""
    channels, (height, width) = x.shape[1], open_size(net, x)
    height, width = height // factor, width // factor
    x = reshape(net, x, (0, channels, height, factor, width, factor))
    layer = net.network.add_shuffle(x)
    layer.first_transpose = net.trt.Permutation([0, 1, 3, 5, 2, 4])
    _reshaped(net, layer, (0, channels * factor**2, height, width))
    return net.done(layer, "pixel_unshuffle", x)


def channel_shuffle(net: Net, x: Tensor, groups: int) -> Tensor:
    """ChannelShuffle of (N, C, H, W): the first channel of each group, then the second of each …"""
    channels, (height, width) = x.shape[1], open_size(net, x)
    x = reshape(net, x, (0, groups, channels // groups, height, width))
    layer = net.network.add_shuffle(x)
    layer.first_transpose = net.trt.Permutation([0, 2, 1, 3, 4])
    _reshaped(net, layer, (0, channels, height, width))
    return net.done(layer, "channel_shuffle", x)


def index_select(net: Net, x: Tensor, axis: int, indices: Sequence[int]) -> Tensor:
    """The values of x at constant places along `axis`, in this order."""
    places = net.index(list(indices), "indices")
    return net.step(net.network.add_gather(x, places, axis), "index_select", x)


def topk(net: Net, x: Tensor, k: int, axis: int) -> tuple[Tensor, Tensor]:
    """The k largest values along `axis` and their indices (int32), largest first."""
    layer = net.network.add_topk(net.enter(x), net.trt.TopKOperation.MAX, k, 1 << axis)
    values = net.step(layer, "topk", x)
    layer.get_output(1).name = f"{values.name}.indices"
    return values, layer.get_output(1)


def gather(net: Net, x: Tensor, axis: int, indices: Tensor) -> Tensor:
    """torch.gather: along `axis`, the value at the index that `indices`, of the result's shape, holds in each place."""
    layer = net.network.add_gather_v2(x, indices, net.trt.GatherMode.ELEMENT)
    return net.step(configured(layer, axis=axis), "gather", x, indices)


def take_rows(net: Net, x: Tensor, indices: Tensor) -> Tensor:
    """Each picture's rows of its own: x (N, S, C) at `indices` (N, K) -> (N, K, C)."""
    layer = net.network.add_gather(net.enter(x), indices, 1)
    return net.step(configured(layer, num_elementwise_dims=1), "take_rows", x, indices)


def split(net: Net, x: Tensor, sizes: Sequence[int], axis: int = 1) -> list[Tensor]:
    """Cuts x along `axis` into pieces of these sizes, which must add up."""
    if sum(sizes) != x.shape[axis]:
        raise ValueError(f"split of '{net.scope}': sizes {list(sizes)} do not add up to {x.shape[axis]}")
    starts = np.cumsum([0, *sizes[:-1]])
    return [narrow(net, x, axis, int(start), size, name="split") for start, size in zip(starts, sizes)]


def cell_grid(net: Net, x: Tensor, start: float = 0.0) -> tuple[Tensor, Tensor]:
    """(1, 1, 1, W) and (1, 1, H, 1) in float32: start, start + 1 … for the columns and rows of a map (N, C, H, W)."""
    at, trt = net.fp32, net.trt

    def counted(axis: int) -> Tensor:
        layer = net.network.add_fill((1, 1, 1, 1), trt.FillOperation.LINSPACE)
        layer.set_input(0, as_tensor(at, [Extent(x, i) if i == axis else 1 for i in range(4)]))
        layer.set_input(1, at.constant(np.array(start), "start"))
        layer.set_input(2, at.constant(np.eye(4)[axis], "step"))
        return at.step(layer, "counted", x)

    return counted(3), counted(2)


def ratio(net: Net, size: Size, x: Tensor, axis: int) -> Tensor:
    """How many times `size` holds that of x along `axis`, a whole number: (1, 1, 1, 1) in float32."""
    at, network = net.fp32, net.network
    if not isinstance(size, Extent):
        return at.constant(np.full((1,) * 4, size / x.shape[axis]), "ratio")
    whole, part = (as_tensor(at, [extent] * 4) for extent in (size, Extent(x, axis)))
    found = at.step(network.add_elementwise(whole, part, net.trt.ElementWiseOperation.FLOOR_DIV), "ratio", whole)
    found = at.step(network.add_cast(found, net.trt.float32), "cast", found)
    return reshape(at, at.step(network.add_slice(found, (0,), (1,), (1,)), "first", found), (1, 1, 1, 1))


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
