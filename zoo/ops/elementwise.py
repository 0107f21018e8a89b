"""Element-wise arithmetic on two tensors of equal rank (axes of size 1 broadcast)."""

from __future__ import annotations

from typing import Any

from zoo.network import Net, Tensor


def _elementwise(net: Net, x: Tensor, y: Tensor, kind: Any, op: str) -> Tensor:
    x, y = net.enter(x), net.enter(y)
    return net.step(net.network.add_elementwise(x, y, kind), op, x, y)


def add(net: Net, x: Tensor, y: Tensor) -> Tensor:
    """x + y."""
    return _elementwise(net, x, y, net.trt.ElementWiseOperation.SUM, "add")


def sub(net: Net, x: Tensor, y: Tensor) -> Tensor:
    """x - y."""
    return _elementwise(net, x, y, net.trt.ElementWiseOperation.SUB, "sub")


def mul(net: Net, x: Tensor, y: Tensor) -> Tensor:
    """x * y."""
    return _elementwise(net, x, y, net.trt.ElementWiseOperation.PROD, "mul")


def div(net: Net, x: Tensor, y: Tensor) -> Tensor:
    """x / y."""
    return _elementwise(net, x, y, net.trt.ElementWiseOperation.DIV, "div")


def exp(net: Net, x: Tensor) -> Tensor:
    """e to the x."""
    x = net.enter(x)
    return net.step(net.network.add_unary(x, net.trt.UnaryOperation.EXP), "exp", x)
