"""Reductions. Source of the semantics: torch.sum."""

from __future__ import annotations

from zoo.network import Net, Tensor


def reduce_sum(net: Net, x: Tensor, axis: int) -> Tensor:
    """Sum over one axis (not negative), which disappears."""
    x = net.enter(x)
    return net.step(net.network.add_reduce(x, net.trt.ReduceOperation.SUM, 1 << axis, False), "sum", x)
