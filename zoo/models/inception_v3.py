"""Inception v3 (Szegedy et al. 2015, arXiv:1512.00567).

Kernels of 1x7, 7x1, 1x3 and 3x1 with padding along one side only; averages over 3x3 count the padding; the epsilon of
the normalisations is 1e-3. The classifier beside the trunk served its training only. Scopes are torchvision's;
parameters are counted without that one. The preprocessing is what torchvision's `transform_input` makes of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.inception import conv
from zoo.network import Net, Tensor
from zoo.ops import avg_pool, concat, flatten, global_avg_pool, linear, max_pool
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

WIDE, TALL = {"k": (1, 7), "pad": (0, 3)}, {"k": (7, 1), "pad": (3, 0)}


@dataclass(frozen=True)
class Config:
    num_classes: int = 1000


def pooled(net: Net, x: Tensor, out: int) -> Tensor:
    return conv(net / "branch_pool", avg_pool(net.functional, x, 3, 1, pad=1), out)


def inception_a(net: Net, x: Tensor, pool: int) -> Tensor:
    """35x35: figure 5."""
    one = conv(net / "branch1x1", x, 64)
    five = conv(net / "branch5x5_2", conv(net / "branch5x5_1", x, 48), 64, 5, pad=2)
    three = conv(net / "branch3x3dbl_2", conv(net / "branch3x3dbl_1", x, 64), 96, 3, pad=1)
    three = conv(net / "branch3x3dbl_3", three, 96, 3, pad=1)
    return net.tap(concat(net, [one, five, three, pooled(net, x, pool)]))


def inception_b(net: Net, x: Tensor) -> Tensor:
    """35x35 to 17x17."""
    three = conv(net / "branch3x3", x, 384, 3, 2)
    twice = conv(net / "branch3x3dbl_2", conv(net / "branch3x3dbl_1", x, 64), 96, 3, pad=1)
    twice = conv(net / "branch3x3dbl_3", twice, 96, 3, 2)
    return net.tap(concat(net, [three, twice, max_pool(net.functional, x, 3, 2)]))


def inception_c(net: Net, x: Tensor, width: int) -> Tensor:
    """17x17: figure 6."""
    one = conv(net / "branch1x1", x, 192)
    seven = conv(net / "branch7x7_2", conv(net / "branch7x7_1", x, width), width, **WIDE)
    seven = conv(net / "branch7x7_3", seven, 192, **TALL)
    twice = conv(net / "branch7x7dbl_2", conv(net / "branch7x7dbl_1", x, width), width, **TALL)
    twice = conv(net / "branch7x7dbl_4", conv(net / "branch7x7dbl_3", twice, width, **WIDE), width, **TALL)
    twice = conv(net / "branch7x7dbl_5", twice, 192, **WIDE)
    return net.tap(concat(net, [one, seven, twice, pooled(net, x, 192)]))


def inception_d(net: Net, x: Tensor) -> Tensor:
    """17x17 to 8x8."""
    three = conv(net / "branch3x3_2", conv(net / "branch3x3_1", x, 192), 320, 3, 2)
    seven = conv(net / "branch7x7x3_2", conv(net / "branch7x7x3_1", x, 192), 192, **WIDE)
    seven = conv(net / "branch7x7x3_4", conv(net / "branch7x7x3_3", seven, 192, **TALL), 192, 3, 2)
    return net.tap(concat(net, [three, seven, max_pool(net.functional, x, 3, 2)]))


def fork(net: Net, x: Tensor, name: str) -> Tensor:
    """1x3 and 3x1 side by side."""
    wide = conv(net / f"{name}a", x, 384, (1, 3), pad=(0, 1))
    return concat(net, [wide, conv(net / f"{name}b", x, 384, (3, 1), pad=(1, 0))])


def inception_e(net: Net, x: Tensor) -> Tensor:
    """8x8: figure 7."""
    one = conv(net / "branch1x1", x, 320)
    three = fork(net, conv(net / "branch3x3_1", x, 384), "branch3x3_2")
    twice = conv(net / "branch3x3dbl_2", conv(net / "branch3x3dbl_1", x, 448), 384, 3, pad=1)
    twice = fork(net, twice, "branch3x3dbl_3")
    return net.tap(concat(net, [one, three, twice, pooled(net, x, 192)]))


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(342, 299, mean=(0.5,) * 3, std=(0.5,) * 3),
    paper="arXiv:1512.00567",
    configure=classes_from("fc.bias"),
    ignored=("AuxLogits.*",),
    inception_v3=Variant(Config(), params=23_834_568),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = conv(net / "Conv2d_2a_3x3", conv(net / "Conv2d_1a_3x3", x, 32, 3, 2), 32, 3)
    x = max_pool(net / "maxpool1", conv(net / "Conv2d_2b_3x3", x, 64, 3, pad=1), 3, 2)
    x = conv(net / "Conv2d_4a_3x3", conv(net / "Conv2d_3b_1x1", x, 80), 192, 3)
    x = max_pool(net / "maxpool2", x, 3, 2)
    for letter, pool in zip("bcd", (32, 64, 64)):
        x = inception_a(net / f"Mixed_5{letter}", x, pool)
    x = inception_b(net / "Mixed_6a", x)
    for letter, width in zip("bcde", (128, 160, 160, 192)):
        x = inception_c(net / f"Mixed_6{letter}", x, width)
    x = inception_d(net / "Mixed_7a", x)
    x = inception_e(net / "Mixed_7c", inception_e(net / "Mixed_7b", x))
    return linear(net / "fc", flatten(net, global_avg_pool(net / "avgpool", x)), cfg.num_classes)
