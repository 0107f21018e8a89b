"""Convolutions. Source of the semantics: torch.nn.Conv2d, ConvTranspose2d and BatchNorm2d.

Kernels, strides and dilations are one number or (height, width); `zoo.ops._window` says what a padding may be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from zoo.errors import ZooError
from zoo.network import Net, Tensor, configured
from zoo.ops._affine import batch_norm_affine
from zoo.ops._convolution import convolution
from zoo.ops._window import Padding, Pair, pair


def conv2d(
    net: Net,
    x: Tensor,
    out: int,
    k: Pair,
    stride: Pair = 1,
    pad: Padding | None = None,
    *,
    dilation: Pair = 1,
    groups: int = 1,
    bias: bool = True,
    order: Sequence[int] | None = None,
) -> Tensor:
    """Conv2d: (N, C, H, W) -> (N, out, H', W').

    `pad` defaults to dilation * (k // 2), which keeps the size at stride 1. With `order`, channel i of the result is
    PyTorch's channel order[i]; PyTorch has no such tensor to compare with, so it is no tap then.
    """
    x = net.enter(x)
    kernel = net.weight("weight", out, x.shape[1] // groups, *pair(k))
    shift = net.weight("bias", out) if bias else None
    if order is not None:
        kernel, shift = kernel[order], None if shift is None else shift[order]
        net.fold("conv2d")
        net = net.functional
    layer = convolution(net, net.peek("conv2d"), x, kernel, shift, stride, pad, dilation, groups)
    return net.done(layer, "conv2d", x)


def standardised_conv2d(
    net: Net,
    x: Tensor,
    out: int,
    k: Pair,
    stride: Pair = 1,
    pad: Padding | None = None,
    *,
    groups: int = 1,
    bias: bool = False,
    eps: float = 1e-6,
    gain: float | None = None,
) -> Tensor:
    """A Conv2d whose filters have a mean of 0 and a variance of 1, made so on the host (arXiv:1903.10520).

    With `gain` they are scaled as networks without normalisation are (arXiv:2101.08692): by it, by the parameter `gain`
    of each filter, and by the root of its size. Source: timm's StdConv2d and ScaledStdConv2d.
    """
    x = net.enter(x)
    fan_in = x.shape[1] // groups * pair(k)[0] * pair(k)[1]
    kernel = net.weight("weight", out, x.shape[1] // groups, *pair(k)).astype(np.float64)
    filters = kernel.reshape(out, -1)
    scale = 1 / np.sqrt(filters.var(axis=1) + eps)
    if gain is not None:
        scale = scale * net.weight("gain", out, 1, 1, 1).reshape(out) * gain * fan_in**-0.5
    kernel = (kernel - filters.mean(axis=1)[:, None, None, None]) * scale[:, None, None, None]
    shift = net.weight("bias", out) if bias else None
    name = net.peek("conv2d")
    net.state(eps=eps)
    return net.done(
        convolution(net, name, x, kernel.astype(np.float32), shift, stride, pad, groups=groups), "conv2d", x
    )


def conv2d_each(net: Net, x: Tensor, groups: int) -> Tensor:
    """One filter, Conv2d(C, 1, 1, bias=False), on each group of channels: (N, groups * C, H, W) -> (N, groups, H, W).

    No tap: PyTorch moves the groups to another axis instead.
    """
    net = net.functional
    x = net.enter(x)
    channels = x.shape[1] // groups
    filters = np.kron(np.eye(groups, dtype=np.float32), net.weight("weight", 1, channels, 1, 1).reshape(1, channels))
    return net.done(convolution(net, net.peek("conv2d"), x, filters[:, :, None, None], None), "conv2d", x)


def conv_bn(
    net: Net,
    x: Tensor,
    out: int,
    k: Pair,
    stride: Pair = 1,
    pad: Padding | None = None,
    *,
    dilation: Pair = 1,
    groups: int = 1,
    bias: bool = False,
    eps: float | None = None,
    conv: str | int = "conv",
    bn: str | int = "bn",
    activation: Callable[[Net, Tensor], Tensor] | None = None,
    merge: bool = True,
) -> Tensor:
    """A `conv2d` and the BatchNorm2d after it, folded on the host into one convolution.

    Folding costs no accuracy in half precision: the product is rounded once, and an intermediate that fp16 could not
    hold never exists. `eps` is 1e-5, or what `net.having(eps=…)` says. `conv` and `bn` name the two modules below
    `net`; the precision is that of `conv`.

    With `activation` the module `bn` is timm's BatchNormAct2d: the activation is its module `act`, and a part of it.

    TensorRT 8 merges 1x1 convolutions of the same input, and then no longer fuses activations such as SiLU into them.
    Without `merge` it leaves this one alone.
    """
    at, norm = net / conv, net / bn
    x = at.enter(x)
    scale, shift = batch_norm_affine(norm, out, net.setting("eps", 1e-5) if eps is None else eps)
    kernel = at.weight("weight", out, x.shape[1] // groups, *pair(k))
    if bias:
        shift = shift + at.weight("bias", out) * scale
    if not merge and pair(k) == (1, 1) and not net.definition.api.strong:
        dilation = 2  # means nothing to a 1x1 kernel, but only equals are merged
    if activation is not None:  # what BatchNorm alone gives is no tensor of PyTorch's
        at.fold("conv2d")
        at = at.functional
    layer = convolution(at, at.peek("conv2d"), x, kernel, shift, stride, pad, dilation, groups, scale)
    if activation is None:
        return norm.done(layer, "conv2d", x, folded=at)
    return norm.tap(activation(norm / "act", at.done(layer, "conv2d", x)))


def conv_transpose2d(
    net: Net,
    x: Tensor,
    out: int,
    k: Pair,
    stride: Pair = 1,
    pad: Pair = 0,
    *,
    output_pad: Pair = 0,
    groups: int = 1,
    bias: bool = True,
) -> Tensor:
    """ConvTranspose2d: (N, C, H, W) -> (N, out, H', W'), H' = (H - 1) * stride - 2 * pad + k + output_pad."""
    if net.definition.api.rtx and net.definition.precision.name == "bf16":  # TensorRT-RTX 1.7 compiles none in bf16
        net = net.fp32
    x = net.enter(x)
    before, extra = pair(pad), pair(output_pad)
    after = tuple(p - e for p, e in zip(before, extra))
    if min(after) < 0:  # the rows and columns that PyTorch adds have their own sums, which no padding gives
        raise ZooError(f"'{net.scope}' has an output_pad of {extra}, which must not be more than its pad {before}")
    name = net.peek("conv_transpose2d")
    kernel = net.pack(net.weight("weight", x.shape[1], out // groups, *pair(k)), name, "kernel")
    shift = net.pack(net.weight("bias", out), name, "bias") if bias else net.empty()
    layer = net.network.add_deconvolution_nd(x, out, pair(k), kernel, shift)
    configured(layer, stride_nd=pair(stride), pre_padding=before, post_padding=after, num_groups=groups)
    return net.done(layer, "conv_transpose2d", x)
