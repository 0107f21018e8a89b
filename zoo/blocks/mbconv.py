"""Inverted residuals of MobileNet and EfficientNet (arXiv:1801.04381, 1905.02244, 1905.11946); torchvision scopes."""

from __future__ import annotations

from collections.abc import Callable

from zoo.network import Net, Tensor
from zoo.ops import add, conv2d, conv_bn, global_avg_pool, mul, relu

Activation = Callable[[Net, Tensor], Tensor]
Squeeze = Callable[[Net, Tensor], Tensor]

EFFICIENTNET = (  # of B0, table 1: expansion, kernel, stride of the first, channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def make_divisible(channels: float, by: int = 8) -> int:
    """The multiple of `by` nearest to `channels`, but not less than nine tenths of it."""
    nearest = max(by, int(channels + by / 2) // by * by)
    return nearest if nearest >= 0.9 * channels else nearest + by


def conv(
    net: Net,
    x: Tensor,
    out: int,
    k: int,
    stride: int | tuple[int, int] = 1,
    groups: int = 1,
    activation: Activation | None = None,
    eps: float = 1e-5,
    dilation: int = 1,
) -> Tensor:
    """Convolution, normalisation and, if any, activation: the modules 0, 1 and 2."""
    x = conv_bn(net, x, out, k, stride, dilation=dilation, groups=groups, eps=eps, conv=0, bn=1)
    return activation(net / 2, x) if activation else x


def squeeze_excite(net: Net, x: Tensor, squeezed: int, gate: Activation, activation: Activation = relu) -> Tensor:
    """x times a gate per channel, which the channels' means decide through `squeezed` of them."""
    y = activation(net / "activation", conv2d(net / "fc1", global_avg_pool(net / "avgpool", x), squeezed, 1))
    y = gate(net / "scale_activation", conv2d(net / "fc2", y, x.shape[1], 1))
    return net.tap(mul(net, y, x))


def inverted_residual(
    net: Net,
    x: Tensor,
    hidden: int,
    out: int,
    k: int,
    stride: int | tuple[int, int],
    activation: Activation,
    squeeze: Squeeze | None = None,
    eps: float = 1e-5,
    dilation: int = 1,
) -> Tensor:
    """Expand (where `hidden` is another width), filter each channel, squeeze and excite, project: below `block`."""
    block, y, i = net / "block", x, 0
    if hidden != x.shape[1]:
        y, i = conv(block / i, y, hidden, 1, activation=activation, eps=eps), i + 1
    y = conv(block / i, y, hidden, k, stride, groups=hidden, activation=activation, eps=eps, dilation=dilation)
    i += 1
    if squeeze:
        y, i = squeeze(block / i, y), i + 1
    y = conv(block / i, y, out, 1, eps=eps)
    return net.tap(add(net, y, x)) if stride == 1 and x.shape[1] == out else y
