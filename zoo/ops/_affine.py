"""BatchNorm as a scale and a shift, for what it is folded into."""

from __future__ import annotations

import numpy as np

from zoo.network import Net


def batch_norm_affine(net: Net, channels: int, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """BatchNorm in eval mode as y = x * scale + shift; float32 arrays (channels,), worked out in float64."""
    net.state(eps=eps)
    gamma, beta = (net.weight(name, channels).astype(np.float64) for name in ("weight", "bias"))
    mean, var = (net.buffer(name, channels).astype(np.float64) for name in ("running_mean", "running_var"))
    scale = gamma / np.sqrt(var + eps)
    return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)
