"""Activations. Source of the semantics: torch.nn.functional."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.network import Net, Tensor, configured


def _activation(net: Net, x: Tensor, kind: Any, op: str, **attributes: float) -> Tensor:
    x = net.enter(x)
    return net.done(configured(net.network.add_activation(x, kind), **attributes), op, x)


def relu(net: Net, x: Tensor) -> Tensor:
    """max(x, 0)."""
    return _activation(net, x, net.trt.ActivationType.RELU, "relu")


def relu6(net: Net, x: Tensor) -> Tensor:
    """min(max(x, 0), 6)."""
    return _activation(net, x, net.trt.ActivationType.CLIP, "relu6", alpha=0.0, beta=6.0)


def sigmoid(net: Net, x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return _activation(net, x, net.trt.ActivationType.SIGMOID, "sigmoid")


def tanh(net: Net, x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return _activation(net, x, net.trt.ActivationType.TANH, "tanh")


def hardsigmoid(net: Net, x: Tensor) -> Tensor:
    """min(max(x / 6 + 1 / 2, 0), 1): the slope is 1/6, where TensorRT and ONNX default to 0.2."""
    return _activation(net, x, net.trt.ActivationType.HARD_SIGMOID, "hardsigmoid", alpha=1 / 6, beta=0.5)


def hardswish(net: Net, x: Tensor) -> Tensor:
    """x * hardsigmoid(x)."""
    return _gated(net, x, net.trt.ActivationType.HARD_SIGMOID, "hardswish", alpha=1 / 6, beta=0.5)


def silu(net: Net, x: Tensor) -> Tensor:
    """x * sigmoid(x), also called swish."""
    return _gated(net, x, net.trt.ActivationType.SIGMOID, "silu")


def _gated(net: Net, x: Tensor, kind: Any, op: str, **attributes: float) -> Tensor:
    """x * activation(x)."""
    x = net.enter(x)
    gate = net.step(configured(net.network.add_activation(x, kind), **attributes), "gate", x)
    return net.done(net.network.add_elementwise(x, gate, net.trt.ElementWiseOperation.PROD), op, x)


def gelu(net: Net, x: Tensor) -> Tensor:
    """x * Phi(x) with the exact erf; TensorRT 8 has no such activation and gets it in five layers."""
    trt = net.trt
    if hasattr(trt.ActivationType, "GELU_ERF"):
        return _activation(net, x, trt.ActivationType.GELU_ERF, "gelu")
    x = net.enter(x)
    ones = (1,) * len(x.shape)
    ops, network = trt.ElementWiseOperation, net.network
    scaled = net.step(
        network.add_elementwise(x, net.constant(np.full(ones, 0.5**0.5), "rsqrt2"), ops.PROD), "scaled", x
    )
    erf = net.step(network.add_unary(scaled, trt.UnaryOperation.ERF), "erf", scaled)
    cdf2 = net.step(network.add_elementwise(erf, net.constant(np.ones(ones), "one"), ops.SUM), "cdf2", erf)
    half = net.step(network.add_elementwise(x, net.constant(np.full(ones, 0.5), "half"), ops.PROD), "halved", x)
    return net.done(network.add_elementwise(half, cdf2, ops.PROD), "gelu", half, cdf2)


def softmax(net: Net, x: Tensor, axis: int) -> Tensor:
    """Softmax over one axis (not negative)."""
    x = net.enter(x)
    return net.step(configured(net.network.add_softmax(x), axes=1 << axis), "softmax", x)
