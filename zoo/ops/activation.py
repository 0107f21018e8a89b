"""Activations. Source of the semantics: torch.nn.functional."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.network import Net, Tensor, configured
from zoo.ops.elementwise import add, mul


def _activation(net: Net, x: Tensor, kind: Any, op: str, **attributes: float) -> Tensor:
    x = net.enter(x)
    return net.done(configured(net.network.add_activation(x, kind), **attributes), op, x)


def relu(net: Net, x: Tensor) -> Tensor:
    """max(x, 0)."""
    return _activation(net, x, net.trt.ActivationType.RELU, "relu")


def relu6(net: Net, x: Tensor) -> Tensor:
    """min(max(x, 0), 6)."""
    return _activation(net, x, net.trt.ActivationType.CLIP, "relu6", alpha=0.0, beta=6.0)


def hardtanh(net: Net, x: Tensor, low: float = -1.0, high: float = 1.0) -> Tensor:
    """min(max(x, low), high), which is also torch.clamp between two numbers."""
    return _activation(net, x, net.trt.ActivationType.CLIP, "hardtanh", alpha=low, beta=high)


def leaky_relu(net: Net, x: Tensor, slope: float = 0.01) -> Tensor:
    """x where it is positive, slope * x elsewhere."""
    net.state(negative_slope=slope)
    return _activation(net, x, net.trt.ActivationType.LEAKY_RELU, "leaky_relu", alpha=slope)


def prelu(net: Net, x: Tensor, slopes: int = 1) -> Tensor:
    """PReLU of (N, C, …): x where it is positive, weight * x elsewhere; one weight for all (`slopes` 1) or C."""
    x = net.enter(x)
    slope = net.weight("weight", slopes).reshape(1, slopes, *(1,) * (len(x.shape) - 2))
    return net.done(net.network.add_parametric_relu(x, net.constant(slope, "weight")), "prelu", x)


def elu(net: Net, x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where it is positive, alpha * (exp(x) - 1) elsewhere."""
    return _activation(net, x, net.trt.ActivationType.ELU, "elu", alpha=alpha)


def softplus(net: Net, x: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    return _activation(net, x, net.trt.ActivationType.SOFTPLUS, "softplus", alpha=1.0, beta=1.0)


def mish(net: Net, x: Tensor) -> Tensor:
    """x * tanh(softplus(x))."""
    x = net.enter(x)
    gate = tanh(net.functional, softplus(net.functional, x))
    return net.done(net.network.add_elementwise(x, gate, net.trt.ElementWiseOperation.PROD), "mish", x)


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


def gelu_tanh(net: Net, x: Tensor) -> Tensor:
    """GELU(approximate="tanh"): x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))."""
    trt = net.trt
    if hasattr(trt.ActivationType, "GELU_TANH"):
        return _activation(net, x, trt.ActivationType.GELU_TANH, "gelu_tanh")
    x = net.enter(x)
    inner = mul(net, x, add(net, mul(net, mul(net, x, x), 0.044715 * (2 / np.pi) ** 0.5), (2 / np.pi) ** 0.5))
    half, gate = mul(net, x, 0.5), add(net, tanh(net.functional, inner), 1.0)
    return net.done(net.network.add_elementwise(half, gate, trt.ElementWiseOperation.PROD), "gelu_tanh", half, gate)


def quick_gelu(net: Net, x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), which CLIP was trained with."""
    x = net.enter(x)
    gate = sigmoid(net.functional, mul(net, x, 1.702))
    return net.done(net.network.add_elementwise(x, gate, net.trt.ElementWiseOperation.PROD), "quick_gelu", x)


def softmax(net: Net, x: Tensor, axis: int) -> Tensor:
    """Softmax over one axis (not negative)."""
    x = net.enter(x)
    return net.done(configured(net.network.add_softmax(x), axes=1 << axis), "softmax", x)
