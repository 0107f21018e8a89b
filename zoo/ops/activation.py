"""Activations. Source of the semantics: torch.nn.functional."""

from __future__ import annotations

import numpy as np

from zoo.network import Net, Tensor


def _activation(net: Net, x: Tensor, kind: str, op: str, alpha: float | None = None, beta: float | None = None) -> Tensor:
    x = net.enter(x)
    layer = net.network.add_activation(x, getattr(net.trt.ActivationType, kind))
    if alpha is not None:
        layer.alpha = alpha
    if beta is not None:
        layer.beta = beta
    return net.done(layer, op, x)


def relu(net: Net, x: Tensor) -> Tensor:
    """max(x, 0)."""
    return _activation(net, x, "RELU", "relu")


def relu6(net: Net, x: Tensor) -> Tensor:
    """min(max(x, 0), 6)."""
    return _activation(net, x, "CLIP", "relu6", 0.0, 6.0)


def sigmoid(net: Net, x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return _activation(net, x, "SIGMOID", "sigmoid")


def tanh(net: Net, x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return _activation(net, x, "TANH", "tanh")


def hardsigmoid(net: Net, x: Tensor) -> Tensor:
    """min(max(x / 6 + 1 / 2, 0), 1): the slope is 1/6, where TensorRT and ONNX default to 0.2."""
    return _activation(net, x, "HARD_SIGMOID", "hardsigmoid", 1 / 6, 0.5)


def hardswish(net: Net, x: Tensor) -> Tensor:
    """x * hardsigmoid(x)."""
    return _gated(net, x, "HARD_SIGMOID", "hardswish", 1 / 6, 0.5)


def silu(net: Net, x: Tensor) -> Tensor:
    """x * sigmoid(x), also called swish."""
    return _gated(net, x, "SIGMOID", "silu")


def _gated(net: Net, x: Tensor, kind: str, op: str, alpha: float | None = None, beta: float | None = None) -> Tensor:
    """x * activation(x)."""
    x = net.enter(x)
    gate = net.network.add_activation(x, getattr(net.trt.ActivationType, kind))
    if alpha is not None:
        gate.alpha, gate.beta = alpha, beta
    gate = net.step(gate, "gate", x)
    return net.done(net.network.add_elementwise(x, gate, net.trt.ElementWiseOperation.PROD), op, x)


def gelu(net: Net, x: Tensor) -> Tensor:
    """x * Phi(x) with the exact erf; TensorRT 8 has no such activation and gets it in five layers."""
    trt = net.trt
    if hasattr(trt.ActivationType, "GELU_ERF"):
        return _activation(net, x, "GELU_ERF", "gelu")
    x = net.enter(x)
    ones = (1,) * len(x.shape)
    ops, network = trt.ElementWiseOperation, net.network
    scaled = net.step(network.add_elementwise(x, net.constant(np.full(ones, 0.5**0.5), "rsqrt2"), ops.PROD), "scaled", x)
    erf = net.step(network.add_unary(scaled, trt.UnaryOperation.ERF), "erf", scaled)
    cdf2 = net.step(network.add_elementwise(erf, net.constant(np.ones(ones), "one"), ops.SUM), "cdf2", erf)
    half = net.step(network.add_elementwise(x, net.constant(np.full(ones, 0.5), "half"), ops.PROD), "halved", x)
    return net.done(network.add_elementwise(half, cdf2, ops.PROD), "gelu", half, cdf2)


def softmax(net: Net, x: Tensor, axis: int) -> Tensor:
    """Softmax over one axis (not negative)."""
    x = net.enter(x)
    layer = net.network.add_softmax(x)
    layer.axes = 1 << axis
    return net.step(layer, "softmax", x)
