"""ReXNet (Han et al. 2020, arXiv:2007.00992).

Channels grow by the same number from block to block. A block's input is added to its first channels only, since its
result is wider; ReLU6 comes after squeeze-and-excite, which is normalised between its layers. The first three blocks
have none. Scopes are timm's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zoo.blocks.timm_layers import classifier
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, conv_bn, mul, narrow, reduce_mean, relu, relu6, sigmoid, silu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (5, 2))  # blocks, stride of the first
BLOCKS = sum(blocks for blocks, _ in STAGES)
UNGATED = 3


@dataclass(frozen=True)
class Config:
    width: float = 1.0
    num_classes: int = 1000


def widths(cfg: Config) -> Iterator[int]:
    """The channels of each block: 16 and 180 / 16 more from one to the next, times the width."""
    return (round((16 + 180 / BLOCKS * i) * cfg.width) for i in range(BLOCKS))


def squeeze_excite(net: Net, x: Tensor) -> Tensor:
    width = x.shape[1]
    y = conv_bn(net, reduce_mean(net, x, (2, 3), keepdims=True), width // 12, 1, bias=True, conv="fc1", bn="bn")
    y = sigmoid(net / "gate", conv2d(net / "fc2", relu(net / "act", y), width, 1))
    return net.tap(mul(net, x, y))


def block(net: Net, x: Tensor, out: int, stride: int, *, expanded: bool, gated: bool) -> Tensor:
    y, width = x, x.shape[1]
    if expanded:
        y = conv_bn(net / "conv_exp", y, 6 * width, 1, activation=silu)
    y = conv_bn(net / "conv_dw", y, y.shape[1], 3, stride, groups=y.shape[1])
    if gated:
        y = squeeze_excite(net / "se", y)
    y = conv_bn(net / "conv_pwl", relu6(net / "act_dw", y), out, 1)
    if stride > 1 or width > out:
        return y
    first = add(net, narrow(net, y, 1, 0, width), x)
    return net.tap(concat(net, [first, narrow(net, y, 1, width, out - width)]) if out > width else first)


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic"),
    paper="arXiv:2007.00992",
    configure=classes_from("head.fc.bias"),
    rexnet_100=Variant(Config(), params=4_796_873),
    rexnet_130=Variant(Config(1.3), params=7_557_091),
    rexnet_150=Variant(Config(1.5), params=9_728_593),
    rexnet_200=Variant(Config(2.0), params=16_366_620),
    rexnet_300=Variant(Config(3.0), params=34_708_792),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = conv_bn(net / "stem", x, round(32 * cfg.width), 3, 2, activation=silu)
    strides = [stride if i == 0 else 1 for blocks, stride in STAGES for i in range(blocks)]
    for i, (out, stride) in enumerate(zip(widths(cfg), strides)):
        x = block(net / "features" / i, x, out, stride, expanded=i > 0, gated=i >= UNGATED)
    x = conv_bn(net / "features" / BLOCKS, x, round(1280 * cfg.width), 1, activation=silu)
    return classifier(net / "head", x, cfg.num_classes)
