"""What Inception v4 and Inception-ResNet v2 share (Szegedy et al. 2016, arXiv:1602.07261), with timm's scopes."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.network import Net, Tensor
from zoo.ops import avg_pool, conv_bn, relu

Step = tuple[int, int | tuple[int, int]]  # channels, kernel


def conv(net: Net, x: Tensor, out: int, k: int | tuple[int, int], *, stride: int = 1, padded: bool = True) -> Tensor:
    """Convolution, normalisation with an epsilon of 1e-3, and ReLU."""
    return conv_bn(net, x, out, k, stride, None if padded else 0, eps=1e-3, activation=relu)


def branch(
    net: Net, x: Tensor, steps: Sequence[Step], *, stride: int = 1, padded: bool = True, first: int = 0
) -> Tensor:
    """Convolutions one after the other; `stride` and `padded` are the last one's."""
    for i, (out, k) in enumerate(steps, start=first):
        last = i == first + len(steps) - 1
        x = conv(net / i, x, out, k, stride=stride if last else 1, padded=padded or not last)
    return x


def averaged(net: Net, x: Tensor, out: int) -> Tensor:
    """The average of 3x3 places, which leaves the padding out, and a convolution."""
    return conv(net / 1, avg_pool(net / 0, x, 3, 1, 1, count_include_pad=False), out, 1)
