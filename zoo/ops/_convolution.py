"""TensorRT's convolution layer, for ops that come by its weights in their own ways."""

from __future__ import annotations

import math

import numpy as np

from zoo.network import Layer, Net, Tensor, configured
from zoo.ops._quantize import quantised, quantised_kernel
from zoo.ops._window import Padding, Pair, padding_of, pair, symmetric


def convolution(
    net: Net,
    name: str,
    x: Tensor,
    kernel: np.ndarray,
    shift: np.ndarray | None,
    stride: Pair = 1,
    pad: Padding | None = None,
    dilation: Pair = 1,
    groups: int = 1,
    scale: np.ndarray | None = None,
) -> Layer:
    """The TensorRT layer, to be named `name`; `kernel` is (out, in / groups, kh, kw), `shift` is (out,) or None.

    `scale` (out,) is multiplied into the kernel.
    """
    out, _, *k = kernel.shape
    dilation = pair(dilation)
    if pad is None:
        pad = tuple(d * (size // 2) for d, size in zip(dilation, k))
    bias = net.empty() if shift is None else net.pack(shift, name, "bias")
    rounded = quantised_kernel(net, kernel, scale, name)
    if scale is not None and rounded is None:
        kernel = kernel * scale[:, None, None, None]
    packed = net.empty() if rounded is not None else net.pack(kernel, name, "kernel")
    layer = net.network.add_convolution_nd(quantised(net, x, name), out, tuple(k), packed, bias)
    if rounded is not None and layer is not None:
        layer.set_input(1, rounded)
    padding = padding_of(net, x, pad, tuple(k), stride, dilation)
    net.state(stride=pair(stride), groups=groups, **symmetric(padding))
    if math.prod(k) > 1:
        net.state(dilation=dilation)
    return configured(layer, stride_nd=pair(stride), dilation_nd=dilation, num_groups=groups, **padding)
