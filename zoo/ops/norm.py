"""Normalisation. Source of the semantics: torch.nn.BatchNorm2d (in eval mode), LayerNorm, GroupNorm, InstanceNorm2d,
RMSNorm and torch.nn.functional.normalize.
"""

from __future__ import annotations

import numpy as np

from zoo.network import Layer, Net, Tensor, configured
from zoo.ops._affine import batch_norm_affine
from zoo.ops.elementwise import add, div, mul, sqrt
from zoo.ops.reduce import reduce_mean, reduce_sum


def batch_norm(net: Net, x: Tensor, eps: float = 1e-5) -> Tensor:
    """BatchNorm2d that does not follow a convolution (otherwise `conv_bn`): (N, C, H, W) -> same."""
    x = net.enter(x)
    scale, shift = batch_norm_affine(net, x.shape[1], eps)
    name = net.peek("batch_norm")
    layer = net.network.add_scale(
        x, net.trt.ScaleMode.CHANNEL, net.pack(shift, name, "shift"), net.pack(scale, name, "scale"), net.empty()
    )
    return net.done(layer, "batch_norm", x)


def batch_norm1d(net: Net, x: Tensor, eps: float = 1e-5) -> Tensor:
    """BatchNorm1d of features: (N, C) -> same."""
    x = net.enter(x)
    scale, shift = batch_norm_affine(net, x.shape[1], eps)
    x = mul(net, x, net.constant(scale[None], "scale"))
    shift = net.constant(shift[None], "shift")
    return net.done(net.network.add_elementwise(x, shift, net.trt.ElementWiseOperation.SUM), "batch_norm1d", x)


def layer_norm(net: Net, x: Tensor, eps: float = 1e-5, *, axis: int = -1) -> Tensor:
    """LayerNorm over one axis, the last or e.g. the channels (axis 1) of (N, C, H, W): same shape."""
    x = net.enter(x)
    axis %= len(x.shape)
    broadcast = [1] * len(x.shape)
    broadcast[axis] = channels = x.shape[axis]
    scale, shift = (net.constant(net.weight(name, channels).reshape(broadcast), name) for name in ("weight", "bias"))
    return net.done(_normalization(net, x, scale, shift, 1 << axis, eps), "layer_norm", x)


def instance_norm(net: Net, x: Tensor, eps: float = 1e-5, *, affine: bool = False) -> Tensor:
    """InstanceNorm2d without running statistics: each channel of each image by itself, (N, C, H, W) -> same."""
    x = net.enter(x)
    channels = x.shape[1]
    scale, shift = (net.weight(name, channels) if affine else np.full(channels, value)
                    for name, value in (("weight", 1.0), ("bias", 0.0)))  # fmt: skip
    scale, shift = (net.constant(array.reshape(1, channels, 1, 1), name)
                    for array, name in ((scale, "weight"), (shift, "bias")))  # fmt: skip
    return net.done(_normalization(net, x, scale, shift, 1 << 2 | 1 << 3, eps), "instance_norm", x)


def group_norm(net: Net, x: Tensor, groups: int, eps: float = 1e-5) -> Tensor:
    """GroupNorm of (N, C, H, W): mean and variance over the channels of a group and all pixels."""
    x = net.enter(x)
    channels = x.shape[1]
    weight, bias = (net.constant(net.weight(name, channels).reshape(1, channels, 1, 1), name)
                    for name in ("weight", "bias"))  # fmt: skip
    # The first version of TensorRT's layer scales groups, not channels: the channels' own scale follows it.
    ones, zeros = (net.constant(np.full((1, groups, 1, 1), value), "unit") for value in (1.0, 0.0))
    axes = 1 << 2 | 1 << 3 if groups > 1 else 1 << 1 | 1 << 2 | 1 << 3  # a single group is no group to TensorRT
    net.state(eps=eps, num_groups=groups)
    layer = configured(net.network.add_normalization(x, ones, zeros, axes), num_groups=groups, epsilon=eps)
    x = mul(net, net.step(layer, "normalised", x), weight)
    return net.done(net.network.add_elementwise(x, bias, net.trt.ElementWiseOperation.SUM), "group_norm", x)


def _normalization(net: Net, x: Tensor, scale: Tensor, shift: Tensor, axes: int, eps: float) -> Layer:
    # v1 is deprecated from TensorRT 10.15 on; the two differ for group normalisation only
    normalize = getattr(net.network, "add_normalization_v2", None) or net.network.add_normalization
    net.state(eps=eps)
    return configured(normalize(x, scale, shift, axes), epsilon=eps)


def rms_norm(net: Net, x: Tensor, eps: float = 1e-6) -> Tensor:
    """RMSNorm over the last axis: x / sqrt(mean(x^2) + eps) * weight. In fp32, since half cannot hold the squares."""
    at, last = net.fp32, len(x.shape) - 1
    x = at.enter(x)
    root = sqrt(at, add(at, reduce_mean(at, mul(at, x, x), last, keepdims=True), eps))
    weight = at.constant(at.weight("weight", x.shape[-1]).reshape(*(1,) * last, -1), "weight")
    x = div(at, x, root)
    return at.done(net.network.add_elementwise(x, weight, net.trt.ElementWiseOperation.PROD), "rms_norm", x)


def l2_normalize(net: Net, x: Tensor, axis: int = 1) -> Tensor:
    """F.normalize: x / max(|x|, 1e-12) along one axis (not negative). In fp32, since half cannot hold the squares."""
    at = net.fp32
    x = at.enter(x)
    length = sqrt(at, reduce_sum(at, mul(at, x, x), axis, keepdims=True))
    floor = at.constant(np.full((1,) * len(x.shape), 1e-12), "floor")
    length = at.step(net.network.add_elementwise(length, floor, net.trt.ElementWiseOperation.MAX), "length", length)
    return div(at, x, length)
