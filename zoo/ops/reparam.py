"""Re-parameterisation: branches of convolutions and BatchNorms whose sum is one convolution, made on the host.

    kernel = conv_bn_kernel(net / "large", x, 64, 3) + batch_norm_kernel(net / "skip", x)
    x = conv2d_of(net, x, kernel)

The branches' modules exist in PyTorch alone; what follows their sum is compared. Source: RepVGG, arXiv:2101.03697.
"""

from __future__ import annotations

import numpy as np

from zoo.network import Net, Tensor
from zoo.ops._affine import batch_norm_affine
from zoo.ops._convolution import convolution
from zoo.ops._kernel import Kernel, unit


def conv2d_kernel(net: Net, x: Tensor, out: int, k: int, *, groups: int = 1, bias: bool = True) -> Kernel:
    """The Conv2d of this scope, for x (N, C, H, W)."""
    net.definition.folded.add(net.scope)
    weight = net.weight("weight", out, x.shape[1] // groups, k, k).astype(np.float64)
    return Kernel(weight, net.weight("bias", out).astype(np.float64) if bias else np.zeros(out))


def conv_bn_kernel(
    net: Net,
    x: Tensor,
    out: int,
    k: int,
    *,
    groups: int = 1,
    bias: bool = False,
    eps: float = 1e-5,
    conv: str = "conv",
    bn: str = "bn",
) -> Kernel:
    """The Conv2d `conv` below this scope and the BatchNorm2d `bn` after it."""
    return batch_norm_of(net / bn, conv2d_kernel(net / conv, x, out, k, groups=groups, bias=bias), eps)


def identity_kernel(net: Net, x: Tensor, *, groups: int = 1) -> Kernel:
    """x (N, C, H, W) itself, as a convolution of it."""
    return unit(x.shape[1], groups)


def batch_norm_kernel(net: Net, x: Tensor, *, groups: int = 1, eps: float = 1e-5) -> Kernel:
    """The BatchNorm2d of this scope as a convolution of x (N, C, H, W)."""
    return batch_norm_of(net, unit(x.shape[1], groups), eps)


def batch_norm_of(net: Net, kernel: Kernel, eps: float = 1e-5) -> Kernel:
    """`kernel` and the BatchNorm2d of this scope after it."""
    net.definition.folded.add(net.scope)
    scale, shift = batch_norm_affine(net, len(kernel.bias), eps)
    scaled = kernel.scaled(scale)
    return Kernel(scaled.weight, scaled.bias + shift)


def conv2d_of(net: Net, x: Tensor, kernel: Kernel, stride: int = 1, *, groups: int = 1) -> Tensor:
    """`kernel` on x (N, C, H, W), padded by half its window. No tap: it is no module of PyTorch's."""
    net = net.functional
    x = net.enter(x)
    weight, bias = (array.astype(np.float32) for array in (kernel.weight, kernel.bias))
    return net.done(convolution(net, net.peek("conv2d"), x, weight, bias, stride, groups=groups), "conv2d", x)
