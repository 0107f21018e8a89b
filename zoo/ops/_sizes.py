"""Sizes that are known only when the network runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from zoo.network import Net, Tensor


@dataclass(frozen=True)
class Extent:
    """The size of `tensor` along `axis`, times a number, over another (rounded down), plus a third.

    Arithmetic with whole numbers gives another one, so that definitions need not know whether a size is open.
    """

    tensor: Tensor
    axis: int
    times: int = 1
    over: int = 1
    plus: int = 0

    def __mul__(self, number: int) -> Extent:
        return replace(self, times=self.times * number)

    __rmul__ = __mul__

    def __floordiv__(self, number: int) -> Extent:
        return replace(self, over=self.over * number)

    def __add__(self, number: int) -> Extent:
        return replace(self, plus=self.plus + number)


Size = int | Extent


def size_of(x: Tensor, axis: int) -> Size:
    """The size of x along `axis`, open or not."""
    return Extent(x, axis) if x.shape[axis] == -1 else x.shape[axis]


def is_open(*sizes: Size) -> bool:
    return any(isinstance(size, Extent) for size in sizes)


def as_tensor(net: Net, sizes: Sequence[Size]) -> Tensor:
    """The sizes as a tensor of one axis: shape[axes] * times / over + plus. Those that are open are of one tensor."""
    network, ops = net.network, net.trt.ElementWiseOperation
    x = next(size.tensor for size in sizes if isinstance(size, Extent))
    parts = [size if isinstance(size, Extent) else Extent(x, 0, times=0, plus=size) for size in sizes]
    assert all(part.tensor is x for part in parts)
    found = net.step(network.add_shape(x), "shape", x)
    if [part.axis for part in parts] != list(range(len(x.shape))):
        found = net.step(network.add_gather(found, net.index([part.axis for part in parts], "axes"), 0), "sizes", found)
    for name, neutral, kind in (("times", 1, ops.PROD), ("over", 1, ops.FLOOR_DIV), ("plus", 0, ops.SUM)):
        values = [getattr(part, name) for part in parts]
        if any(value != neutral for value in values):
            found = net.step(network.add_elementwise(found, net.index(values, f"{name}_by"), kind), name, found)
    return found


def shape_with(net: Net, x: Tensor, sizes: Mapping[int, Size]) -> Tensor:
    """The run-time shape of x with other sizes along some axes, as a tensor."""
    return as_tensor(net, [sizes.get(axis, Extent(x, axis)) for axis in range(len(x.shape))])
