"""MobileNetV4, the convolutional networks (Qin et al. 2024, arXiv:2404.10518).

A universal inverted bottleneck may filter each channel before it expands and after; the first filter has no activation,
and strides only where there is no second. The last convolution and its normalisation come after the average. Scopes
are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.mbconv import make_divisible
from zoo.network import Net, Tensor
from zoo.ops import add, conv_bn, flatten, global_avg_pool, linear, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

Block = tuple[int, int, int, int, int]  # first kernel, second kernel, stride, expansion, channels; 0 is no filter
Stage = tuple[Block, ...]
Conv = tuple[int, int, int]  # kernel, stride, channels

SMALL_STEM: tuple[tuple[Conv, Conv], ...] = (((3, 2, 32), (1, 1, 32)), ((3, 2, 96), (1, 1, 64)))
SMALL: tuple[Stage, ...] = (
    ((5, 5, 2, 3, 96), *((0, 3, 1, 2, 96),) * 4, (3, 0, 1, 4, 96)),
    (
        (3, 3, 2, 6, 128),
        (5, 5, 1, 4, 128),
        (0, 5, 1, 4, 128),
        (0, 5, 1, 3, 128),
        *((0, 3, 1, 4, 128),) * 2,
    ),
)
MEDIUM: tuple[Stage, ...] = (
    ((3, 5, 2, 4, 80), (3, 3, 1, 2, 80)),
    (
        (3, 5, 2, 6, 160),
        *((3, 3, 1, 4, 160),) * 2,
        (3, 5, 1, 4, 160),
        (3, 3, 1, 4, 160),
        (3, 0, 1, 4, 160),
        (0, 0, 1, 2, 160),
        (3, 0, 1, 4, 160),
    ),
    (
        (5, 5, 2, 6, 256),
        (5, 5, 1, 4, 256),
        *((3, 5, 1, 4, 256),) * 2,
        (0, 0, 1, 4, 256),
        (3, 0, 1, 4, 256),
        (3, 5, 1, 2, 256),
        (5, 5, 1, 4, 256),
        *((0, 0, 1, 4, 256),) * 2,
        (5, 0, 1, 2, 256),
    ),
)
LARGE: tuple[Stage, ...] = (
    ((3, 5, 2, 4, 96), (3, 3, 1, 4, 96)),
    (
        (3, 5, 2, 4, 192),
        *((3, 3, 1, 4, 192),) * 3,
        (3, 5, 1, 4, 192),
        *((5, 3, 1, 4, 192),) * 5,
        (3, 0, 1, 4, 192),
    ),
    (
        (5, 5, 2, 4, 512),
        *((5, 5, 1, 4, 512),) * 3,
        (5, 0, 1, 4, 512),
        (5, 3, 1, 4, 512),
        *((5, 0, 1, 4, 512),) * 2,
        (5, 3, 1, 4, 512),
        (5, 5, 1, 4, 512),
        *((5, 0, 1, 4, 512),) * 3,
    ),
)


@dataclass(frozen=True)
class Config:
    """`convolutions`: the first stages of the small network; the others have one fused bottleneck there."""

    stages: tuple[Stage, ...]
    stem: int = 32
    convolutions: tuple[tuple[Conv, Conv], ...] = ()
    num_classes: int = 1000


def universal(net: Net, x: Tensor, first: int, second: int, stride: int, expansion: int, out: int) -> Tensor:
    y, width = x, x.shape[1]
    hidden = make_divisible(expansion * width)
    if first:
        y = conv_bn(net / "dw_start", y, width, first, 1 if second else stride, groups=width)
    y = conv_bn(net / "pw_exp", y, hidden, 1, activation=relu)
    if second:
        y = conv_bn(net / "dw_mid", y, hidden, second, stride, groups=hidden, activation=relu)
    y = conv_bn(net / "pw_proj", y, out, 1)
    return net.tap(add(net, y, x)) if stride == 1 and out == width else y


def fused(net: Net, x: Tensor, out: int) -> Tensor:
    x = conv_bn(net, x, 4 * x.shape[1], 3, 2, conv="conv_exp", bn="bn1", activation=relu)
    return conv_bn(net, x, out, 1, conv="conv_pwl", bn="bn2")


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic"),
    paper="arXiv:2404.10518",
    configure=classes_from("classifier.bias"),
    mobilenetv4_conv_small=Variant(Config(SMALL, convolutions=SMALL_STEM), params=3_774_024),
    mobilenetv4_conv_medium=Variant(
        Config(MEDIUM), params=9_715_512, preprocess=imagenet(size=256, share=0.95, interpolation="pillow:bicubic")
    ),
    mobilenetv4_conv_large=Variant(
        Config(LARGE, stem=24),
        params=32_590_864,
        preprocess=imagenet(size=384, share=0.95, interpolation="pillow:bicubic"),
    ),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    blocks = net / "blocks"
    x = conv_bn(net, x, cfg.stem, 3, 2, conv="conv_stem", bn="bn1", activation=relu)
    for stage, convolutions in enumerate(cfg.convolutions):
        for i, (k, stride, out) in enumerate(convolutions):
            x = conv_bn(blocks / stage / i, x, out, k, stride, bn="bn1", activation=relu)
    if not cfg.convolutions:
        x = fused(blocks / 0 / 0, x, 48)
    first = len(cfg.convolutions) or 1
    for stage, rows in enumerate(cfg.stages, start=first):
        for i, row in enumerate(rows):
            x = universal(blocks / stage / i, x, *row)
    x = conv_bn(blocks / (first + len(cfg.stages)) / 0, x, 960, 1, bn="bn1", activation=relu)
    x = global_avg_pool(net / "global_pool" / "pool", x)
    x = conv_bn(net, x, 1280, 1, conv="conv_head", bn="norm_head", activation=relu)
    return linear(net / "classifier", flatten(net, x), cfg.num_classes)
