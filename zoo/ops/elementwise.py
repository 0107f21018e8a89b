"""Arithmetic on two tensors of equal rank (axes of size 1 broadcast) or a tensor and a number, and functions of one."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.network import Net, Tensor
from zoo.ops._quantize import quantised_shortcut


def _elementwise(net: Net, x: Tensor | float, y: Tensor | float, kind: Any, op: str) -> Tensor:
    x, y = _operand(net, x, y), _operand(net, y, x)
    return net.step(net.network.add_elementwise(x, y, kind), op, x, y)


def _operand(net: Net, value: Tensor | float, other: Tensor | float) -> Tensor:
    """A tensor as it is; a number as a constant of the other's rank."""
    if isinstance(value, (int, float)):
        return net.constant(np.full((1,) * len(other.shape), value), "constant")
    return net.enter(value)


def add(net: Net, x: Tensor | float, y: Tensor | float) -> Tensor:
    """x + y. Of two maps of one shape, int8 rounds the shortcut."""
    if (
        not isinstance(x, (int, float))
        and not isinstance(y, (int, float))
        and len(x.shape) == 4
        and tuple(x.shape) == tuple(y.shape)
    ):
        x, y = quantised_shortcut(net, net.enter(x), net.enter(y))
    return _elementwise(net, x, y, net.trt.ElementWiseOperation.SUM, "add")


def sub(net: Net, x: Tensor | float, y: Tensor | float) -> Tensor:
    """x - y."""
    return _elementwise(net, x, y, net.trt.ElementWiseOperation.SUB, "sub")


def mul(net: Net, x: Tensor | float, y: Tensor | float) -> Tensor:
    """x * y."""
    return _elementwise(net, x, y, net.trt.ElementWiseOperation.PROD, "mul")


def div(net: Net, x: Tensor | float, y: Tensor | float) -> Tensor:
    """x / y."""
    return _elementwise(net, x, y, net.trt.ElementWiseOperation.DIV, "div")


def minimum(net: Net, x: Tensor | float, y: Tensor | float) -> Tensor:
    """The smaller of x and y, element by element."""
    return _elementwise(net, x, y, net.trt.ElementWiseOperation.MIN, "minimum")


def maximum(net: Net, x: Tensor | float, y: Tensor | float) -> Tensor:
    """The larger of x and y, element by element."""
    return _elementwise(net, x, y, net.trt.ElementWiseOperation.MAX, "maximum")


def pow(net: Net, x: Tensor, y: Tensor | float) -> Tensor:  # noqa: A001
    """x to the y, for x >= 0."""
    return _elementwise(net, x, y, net.trt.ElementWiseOperation.POW, "pow")


def _unary(net: Net, x: Tensor, kind: Any, op: str) -> Tensor:
    x = net.enter(x)
    return net.step(net.network.add_unary(x, kind), op, x)


def exp(net: Net, x: Tensor) -> Tensor:
    """e to the x."""
    return _unary(net, x, net.trt.UnaryOperation.EXP, "exp")


def log(net: Net, x: Tensor) -> Tensor:
    """Natural logarithm."""
    return _unary(net, x, net.trt.UnaryOperation.LOG, "log")


def sqrt(net: Net, x: Tensor) -> Tensor:
    """Square root."""
    return _unary(net, x, net.trt.UnaryOperation.SQRT, "sqrt")


def sin(net: Net, x: Tensor) -> Tensor:
    """Sine of radians."""
    return _unary(net, x, net.trt.UnaryOperation.SIN, "sin")


def cos(net: Net, x: Tensor) -> Tensor:
    """Cosine of radians."""
    return _unary(net, x, net.trt.UnaryOperation.COS, "cos")
