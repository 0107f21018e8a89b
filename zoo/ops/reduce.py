"""Reductions. Source of the semantics: torch.sum, torch.mean, torch.amax. Axes are not negative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoo.network import Net, Tensor


def _reduce(net: Net, x: Tensor, axes: int | Sequence[int], keepdims: bool, kind: Any, op: str) -> Tensor:
    x = net.enter(x)
    mask = sum(1 << axis for axis in ([axes] if isinstance(axes, int) else axes))
    return net.step(net.network.add_reduce(x, kind, mask, keepdims), op, x)


def reduce_sum(net: Net, x: Tensor, axes: int | Sequence[int], *, keepdims: bool = False) -> Tensor:
    """Sum over one axis or several, which disappear or keep a size of 1."""
    return _reduce(net, x, axes, keepdims, net.trt.ReduceOperation.SUM, "sum")


def reduce_mean(net: Net, x: Tensor, axes: int | Sequence[int], *, keepdims: bool = False) -> Tensor:
    """Mean over one axis or several, which disappear or keep a size of 1."""
    return _reduce(net, x, axes, keepdims, net.trt.ReduceOperation.AVG, "mean")


def reduce_max(net: Net, x: Tensor, axes: int | Sequence[int], *, keepdims: bool = False) -> Tensor:
    """Largest value over one axis or several, which disappear or keep a size of 1."""
    return _reduce(net, x, axes, keepdims, net.trt.ReduceOperation.MAX, "max")
