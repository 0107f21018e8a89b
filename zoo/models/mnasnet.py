"""MNASNet (Tan et al. 2018, arXiv:1807.11626).

The projection of a block is linear, and the first depthwise block scales its stem too. Scopes are torchvision's, where
everything is a number of `layers`; preprocessing and parameter counts are those of its IMAGENET1K_V1 weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.mbconv import make_divisible
from zoo.network import Net, Tensor
from zoo.ops import add, conv_bn, linear, reduce_mean, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

STACKS = (  # channels, kernel, stride of the first, expansion, blocks
    (24, 3, 2, 3, 3),
    (40, 5, 2, 3, 3),
    (80, 5, 2, 6, 3),
    (96, 3, 1, 6, 2),
    (192, 5, 2, 6, 4),
    (320, 3, 1, 6, 1),
)


@dataclass(frozen=True)
class Config:
    width: float
    num_classes: int = 1000


def inverted_residual(net: Net, x: Tensor, out: int, k: int, stride: int, expansion: int) -> Tensor:
    at, hidden = net / "layers", x.shape[1] * expansion
    y = relu(at / 2, conv_bn(at, x, hidden, 1, conv=0, bn=1))
    y = relu(at / 5, conv_bn(at, y, hidden, k, stride, groups=hidden, conv=3, bn=4))
    y = conv_bn(at, y, out, 1, conv=6, bn=7)
    return net.tap(add(net, y, x)) if stride == 1 and x.shape[1] == out else y


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(),
    paper="arXiv:1807.11626",
    configure=classes_from("classifier.1.bias"),
    mnasnet0_5=Variant(Config(0.5), params=2_218_512),
    mnasnet0_75=Variant(Config(0.75), params=3_170_208, preprocess=imagenet(resize=232)),
    mnasnet1_0=Variant(Config(1.0), params=4_383_312),
    mnasnet1_3=Variant(Config(1.3), params=6_282_256, preprocess=imagenet(resize=232)),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    at, stem = net / "layers", make_divisible(32 * cfg.width)
    x = relu(at / 2, conv_bn(at, x, stem, 3, 2, conv=0, bn=1))
    x = relu(at / 5, conv_bn(at, x, stem, 3, groups=stem, conv=3, bn=4))
    x = conv_bn(at, x, make_divisible(16 * cfg.width), 1, conv=6, bn=7)
    for i, (channels, k, stride, expansion, depth) in enumerate(STACKS, start=8):
        for j in range(depth):
            out = make_divisible(channels * cfg.width)
            x = inverted_residual(at / i / j, x, out, k, stride if j == 0 else 1, expansion)
    x = relu(at / 16, conv_bn(at, x, 1280, 1, conv=14, bn=15))
    return linear(net / "classifier" / 1, reduce_mean(net, x, (2, 3)), cfg.num_classes)
