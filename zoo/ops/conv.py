"""Convolutions. Source of the semantics: torch.nn.Conv2d and torch.nn.BatchNorm2d."""

from __future__ import annotations

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
) -> Tensor:
    """Conv2d with a square kernel: (N, C, H, W) -> (N, out, H', W').

    `pad` defaults to k // 2, which keeps the size at stride 1.
    """
    x = net.enter(x)
    kernel = net.weight("weight", out, x.shape[1] // groups, k, k)
    shift = net.weight("bias", out) if bias else None
    return net.done(_convolution(net, x, kernel, shift, stride, k // 2 if pad is None else pad, groups), "conv2d", x)


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
) -> Tensor:
    """A Conv2d and the BatchNorm2d after it, folded on the host into one convolution.

    Folding costs no accuracy in half precision: the product is rounded once, and an intermediate that fp16 could not
    hold never exists. `conv` and `bn` name the two modules below `net`; the precision is that of `conv`.
    """
    at, norm = net / conv, net / bn
    x = at.enter(x)
    scale, shift = batch_norm_affine(norm, out, eps)
    kernel = at.weight("weight", out, x.shape[1] // groups, k, k) * scale[:, None, None, None]
    if bias:
        shift = shift + at.weight("bias", out) * scale
    return norm.done(
        _convolution(at, x, kernel, shift, stride, k // 2 if pad is None else pad, groups), "conv2d", x, folded=at
    )


def _convolution(net: Net, x: Tensor, kernel, shift, stride: int, pad: int, groups: int):  # noqa: ANN001, ANN202
    """The TensorRT layer; `kernel` is (out, in / groups, k, k), `shift` is (out,) or None."""
    out, _, *k = kernel.shape
    name = net.peek()
    bias = net.empty() if shift is None else net.pack(shift, name, "bias")
    layer = net.network.add_convolution_nd(x, out, tuple(k), net.pack(kernel, name, "kernel"), bias)
    return configured(layer, stride_nd=(stride, stride), padding_nd=(pad, pad), num_groups=groups)
