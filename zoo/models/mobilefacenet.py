"""MobileFaceNet (Chen et al. 2018, arXiv:1804.07573): MobileNetV2's blocks for faces, with PReLU.

The last map of 7x7 cells becomes a vector by a depthwise convolution of its size, not by a mean. The embedding is of
length 1. Scopes are facexlib's, which are TreB1eN's.
"""

from __future__ import annotations

from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import add, batch_norm1d, conv_bn, fixed_size, flatten, l2_normalize, linear, prelu
from zoo.preprocess import Resize
from zoo.registry import Variant, register

SIDE = 112


def conv(net: Net, x: Tensor, out: int, k: int = 1, stride: int = 1, *, groups: int = 1) -> Tensor:
    return net.tap(prelu(net / "prelu", conv_bn(net, x, out, k, stride, groups=groups), out))


def projected(net: Net, x: Tensor, out: int, k: int = 1, *, pad: int | None = None, groups: int = 1) -> Tensor:
    """A convolution with nothing after its normalisation."""
    return net.tap(conv_bn(net, x, out, k, 1, pad, groups=groups))


def bottleneck(net: Net, x: Tensor, out: int, hidden: int, stride: int = 1) -> Tensor:
    """Widened, filtered channel by channel and narrowed again; with a shortcut where it does not stride."""
    y = conv(net / "conv_dw", conv(net / "conv", x, hidden), hidden, 3, stride, groups=hidden)
    y = projected(net / "project", y, out)
    return net.tap(add(net, x, y) if stride == 1 else y)


def stage(net: Net, x: Tensor, depth: int, hidden: int) -> Tensor:
    for i in range(depth):
        x = bottleneck(net / "model" / i, x, x.shape[1], hidden)
    return net.tap(x)


@register(
    task="embed",
    reference="facexlib:{name}",
    preprocess=Resize(SIDE, mean=(0.5,), std=(0.5,)),
    paper="arXiv:1804.07573",
    mobilefacenet=Variant(None, params=1_200_512),
)
def build(net: Net, x: Tensor, cfg: None) -> Tensor:
    height, width = fixed_size(net, x, 1)
    if (height, width) != (SIDE, SIDE):
        raise ZooError(f"images of {height}x{width} do not fit the convolution over 7x7 cells; use {SIDE}x{SIDE}")
    x = conv(net / "conv2_dw", conv(net / "conv1", x, 64, 3, 2), 64, 3, groups=64)
    x = stage(net / "conv_3", bottleneck(net / "conv_23", x, 64, 128, 2), 4, 128)
    x = stage(net / "conv_4", bottleneck(net / "conv_34", x, 128, 256, 2), 6, 256)
    x = stage(net / "conv_5", bottleneck(net / "conv_45", x, 128, 512, 2), 2, 256)
    x = projected(net / "conv_6_dw", conv(net / "conv_6_sep", x, 512), 512, 7, pad=0, groups=512)
    return l2_normalize(net, batch_norm1d(net / "bn", linear(net / "linear", flatten(net, x), 512, bias=None)))
