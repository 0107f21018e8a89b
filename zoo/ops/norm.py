"""Normalisation. Source of the semantics: torch.nn.BatchNorm2d (in eval mode) and torch.nn.LayerNorm."""

from __future__ import annotations

import numpy as np

from zoo.network import Net, Tensor, configured


def batch_norm_affine(net: Net, channels: int, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """BatchNorm in eval mode as y = x * scale + shift; float32 arrays (channels,), worked out in float64."""
    gamma, beta = (net.weight(name, channels).astype(np.float64) for name in ("weight", "bias"))
    mean, var = (net.buffer(name, channels).astype(np.float64) for name in ("running_mean", "running_var"))
    scale = gamma / np.sqrt(var + eps)
    return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)


def batch_norm(net: Net, x: Tensor, eps: float = 1e-5) -> Tensor:
    """BatchNorm2d that does not follow a convolution (otherwise `conv_bn`): (N, C, H, W) -> same."""
    x = net.enter(x)
    scale, shift = batch_norm_affine(net, x.shape[1], eps)
    name = net.peek()
    layer = net.network.add_scale(
        x, net.trt.ScaleMode.CHANNEL, net.pack(shift, name, "shift"), net.pack(scale, name, "scale"), net.empty()
    )
    return net.done(layer, "batch_norm", x)


def layer_norm(net: Net, x: Tensor, eps: float = 1e-5) -> Tensor:
    """LayerNorm over the last axis: (…, C) -> same."""
    x = net.enter(x)
    rank, channels = len(x.shape), x.shape[-1]
    broadcast = (1,) * (rank - 1) + (channels,)
    scale = net.constant(net.weight("weight", channels).reshape(broadcast), "weight")
    shift = net.constant(net.weight("bias", channels).reshape(broadcast), "bias")
    # v1 is deprecated from TensorRT 10.15 on; the two differ for group normalisation only
    add = getattr(net.network, "add_normalization_v2", None) or net.network.add_normalization
    return net.done(configured(add(x, scale, shift, 1 << (rank - 1)), epsilon=eps), "layer_norm", x)
