"""Inception v4 (Szegedy et al. 2016, arXiv:1602.07261).

Averages within a block leave the padding out; what halves a map is not padded at all. The epsilon of all normalisations
is 1e-3. Of the last blocks' branches two end in a fork, 1x3 before 3x1. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.inception_v4 import averaged, branch, conv
from zoo.blocks.timm_layers import pooled
from zoo.network import Net, Tensor
from zoo.ops import concat, linear, max_pool
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

ROW, COLUMN = (1, 7), (7, 1)


@dataclass(frozen=True)
class Config:
    num_classes: int = 1000


def stem(net: Net, x: Tensor) -> Tensor:
    x = conv(net / 0, x, 32, 3, stride=2, padded=False)
    x = conv(net / 2, conv(net / 1, x, 32, 3, padded=False), 64, 3)
    at = net / 3
    x = concat(at, [max_pool(at / "maxpool", x, 3, 2), conv(at / "conv", x, 96, 3, stride=2, padded=False)])
    at = net / 4
    first = branch(at / "branch0", x, ((64, 1), (96, 3)), padded=False)
    second = branch(at / "branch1", x, ((64, 1), (64, ROW), (64, COLUMN), (96, 3)), padded=False)
    x, at = concat(at, [first, second]), net / 5
    return concat(at, [conv(at / "conv", x, 192, 3, stride=2, padded=False), max_pool(at / "maxpool", x, 3, 2)])


def inception_a(net: Net, x: Tensor) -> Tensor:
    first = conv(net / "branch0", x, 96, 1)
    second = branch(net / "branch1", x, ((64, 1), (96, 3)))
    third = branch(net / "branch2", x, ((64, 1), (96, 3), (96, 3)))
    return net.tap(concat(net, [first, second, third, averaged(net / "branch3", x, 96)]))


def reduction_a(net: Net, x: Tensor) -> Tensor:
    first = conv(net / "branch0", x, 384, 3, stride=2, padded=False)
    second = branch(net / "branch1", x, ((192, 1), (224, 3), (256, 3)), stride=2, padded=False)
    return net.tap(concat(net, [first, second, max_pool(net / "branch2", x, 3, 2)]))


def inception_b(net: Net, x: Tensor) -> Tensor:
    first = conv(net / "branch0", x, 384, 1)
    second = branch(net / "branch1", x, ((192, 1), (224, ROW), (256, COLUMN)))
    third = branch(net / "branch2", x, ((192, 1), (192, COLUMN), (224, ROW), (224, COLUMN), (256, ROW)))
    return net.tap(concat(net, [first, second, third, averaged(net / "branch3", x, 128)]))


def reduction_b(net: Net, x: Tensor) -> Tensor:
    first = branch(net / "branch0", x, ((192, 1), (192, 3)), stride=2, padded=False)
    second = branch(net / "branch1", x, ((256, 1), (256, ROW), (320, COLUMN), (320, 3)), stride=2, padded=False)
    return net.tap(concat(net, [first, second, max_pool(net / "branch2", x, 3, 2)]))


def inception_c(net: Net, x: Tensor) -> Tensor:
    first = conv(net / "branch0", x, 256, 1)
    y = conv(net / "branch1_0", x, 384, 1)
    second = [conv(net / "branch1_1a", y, 256, (1, 3)), conv(net / "branch1_1b", y, 256, (3, 1))]
    y = conv(net / "branch2_1", conv(net / "branch2_0", x, 384, 1), 448, (3, 1))
    y = conv(net / "branch2_2", y, 512, (1, 3))
    third = [conv(net / "branch2_3a", y, 256, (1, 3)), conv(net / "branch2_3b", y, 256, (3, 1))]
    return net.tap(concat(net, [first, *second, *third, averaged(net / "branch3", x, 256)]))


BLOCKS = (*(inception_a,) * 4, reduction_a, *(inception_b,) * 7, reduction_b, *(inception_c,) * 3)


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(size=299, interpolation="pillow:bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    paper="arXiv:1602.07261",
    configure=classes_from("last_linear.bias"),
    inception_v4=Variant(Config(), params=42_679_816),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = stem(net / "features", x)
    for i, block in enumerate(BLOCKS, start=6):
        x = block(net / "features" / i, x)
    return linear(net / "last_linear", pooled(net / "global_pool", x), cfg.num_classes)
