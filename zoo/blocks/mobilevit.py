"""The frame of MobileViT and MobileViTv2 (arXiv:2110.02178, 2206.02680), with timm's scopes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zoo.blocks.mbconv import make_divisible
from zoo.network import Net, Tensor
from zoo.ops import add, conv_bn, silu

Block = Callable[[Net, Tensor, int], Tensor]  # net, x, how many transformer layers
SIDE = 2  # of a patch
DEPTHS = (2, 4, 3)  # transformer layers of the last three stages


def conv(net: Net, x: Tensor, out: int, k: int = 1, stride: int = 1, groups: int = 1) -> Tensor:
    """Convolution, normalisation and SiLU."""
    return conv_bn(net, x, out, k, stride, groups=groups, activation=silu)


def inverted_residual(net: Net, x: Tensor, out: int, stride: int, expansion: int) -> Tensor:
    width = x.shape[1]
    hidden = make_divisible(expansion * width)
    y = conv(net / "conv1_1x1", x, hidden)
    y = conv(net / "conv2_kxk", y, hidden, 3, stride, hidden)
    y = conv_bn(net / "conv3_1x1", y, out, 1)
    return net.tap(add(net, y, x)) if stride == 1 and width == out else y


def patches(x: Tensor) -> tuple[int, int]:
    """How many patches a map (N, C, H, W) has, down and across; a last one may reach beyond it."""
    return -(-x.shape[2] // SIDE), -(-x.shape[3] // SIDE)


def features(net: Net, x: Tensor, stem: int, widths: Sequence[int], depth: int, expansion: int, block: Block) -> Tensor:
    """The stem, two stages of convolutions, `depth` of them in the second, and three stages that end in a `block`."""
    x = conv(net / "stem", x, stem, 3, 2)
    at = net / "stages"
    x = inverted_residual(at / 0 / 0, x, widths[0], 1, expansion)
    for i in range(depth):
        x = inverted_residual(at / 1 / i, x, widths[1], 2 if i == 0 else 1, expansion)
    for stage, (width, layers) in enumerate(zip(widths[2:], DEPTHS), start=2):
        x = inverted_residual(at / stage / 0, x, width, 2, expansion)
        x = block(at / stage / 1, x, layers)
    return x
