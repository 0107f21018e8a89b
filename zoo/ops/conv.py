"""Convolutions. Source of the semantics: torch.nn.Conv2d and torch.nn.BatchNorm2d."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo.network import Net, Tensor, configured
from zoo.ops.norm import batch_norm_affine


def conv2d(
    net: Net,
    x: Tensor,
    out: int,
    k: int,
    stride: int = 1,
    pad: int | None = None,
    groups: int = 1,
    *,
    bias: bool = True,
    order: Sequence[int] | None = None,
) -> Tensor:
    """Conv2d with a square kernel: (N, C, H, W) -> (N, out, H', W').

    `pad` defaults to k // 2, which keeps the size at stride 1. With `order`, channel i of the result is PyTorch's
    channel order[i]; PyTorch has no such tensor to compare with, so it is no tap then.
    """
    x = net.enter(x)
    kernel = net.weight("weight", out, x.shape[1] // groups, k, k)
    shift = net.weight("bias", out) if bias else None
    pad = k // 2 if pad is None else pad
    if order is None:
        return net.done(_convolution(net, net.peek(), x, kernel, shift, stride, pad, groups), "conv2d", x)
    kernel, shift = kernel[order], None if shift is None else shift[order]
    net.definition.folded.add(net.scope)
    return net.step(_convolution(net, net.peek("conv2d"), x, kernel, shift, stride, pad, groups), "conv2d", x)


def conv2d_each(net: Net, x: Tensor, groups: int) -> Tensor:
    """One filter, Conv2d(C, 1, 1, bias=False), on each group of channels: (N, groups * C, H, W) -> (N, groups, H, W).

    No tap: PyTorch moves the groups to another axis instead.
    """
    x = net.enter(x)
    channels = x.shape[1] // groups
    filters = np.kron(np.eye(groups, dtype=np.float32), net.weight("weight", 1, channels, 1, 1).reshape(1, channels))
    layer = _convolution(net, net.peek("conv2d"), x, filters[:, :, None, None], None, 1, 0, 1)
    return net.step(layer, "conv2d", x)


def conv_bn(
    net: Net,
    x: Tensor,
    out: int,
    k: int,
    stride: int = 1,
    pad: int | None = None,
    groups: int = 1,
    *,
    bias: bool = False,
    eps: float = 1e-5,
    conv: str | int = "conv",
    bn: str | int = "bn",
    merge: bool = True,
) -> Tensor:
    """A Conv2d and the BatchNorm2d after it, folded on the host into one convolution.

    Folding costs no accuracy in half precision: the product is rounded once, and an intermediate that fp16 could not
    hold never exists. `conv` and `bn` name the two modules below `net`; the precision is that of `conv`.

    TensorRT 8 merges 1x1 convolutions of the same input, and then no longer fuses activations such as SiLU into them.
    Without `merge` it leaves this one alone.
    """
    at, norm = net / conv, net / bn
    x = at.enter(x)
    scale, shift = batch_norm_affine(norm, out, eps)
    kernel = at.weight("weight", out, x.shape[1] // groups, k, k) * scale[:, None, None, None]
    if bias:
        shift = shift + at.weight("bias", out) * scale
    layer = _convolution(at, at.peek(), x, kernel, shift, stride, k // 2 if pad is None else pad, groups)
    if not merge and k == 1 and not net.definition.api.strong:
        layer = configured(layer, dilation_nd=(2, 2))  # means nothing to a 1x1 kernel, but only equals are merged
    return norm.done(layer, "conv2d", x, folded=at)


def _convolution(net: Net, name: str, x: Tensor, kernel, shift, stride: int, pad: int, groups: int):  # noqa: ANN001, ANN202
    """The TensorRT layer, to be named `name`; `kernel` is (out, in / groups, k, k), `shift` is (out,) or None."""
    out, _, *k = kernel.shape
    bias = net.empty() if shift is None else net.pack(shift, name, "bias")
    layer = net.network.add_convolution_nd(x, out, tuple(k), net.pack(kernel, name, "kernel"), bias)
    return configured(layer, stride_nd=(stride, stride), padding_nd=(pad, pad), num_groups=groups)
