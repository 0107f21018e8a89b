"""MobileViTv2 (Mehta and Rastegari 2022, arXiv:2206.02680).

A softmax over the patches weighs one query channel; the sum of the keys so weighed multiplies the values, of which ReLU
is taken. Normalisation is over all channels and pixels of an image. A map of an odd side is resized to whole patches
corner to corner before the block, and stays so large. Pixels are from 0 to 1. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.mbconv import make_divisible
from zoo.blocks.mobilevit import SIDE, conv, features, patches
from zoo.blocks.timm_layers import classifier
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    conv2d,
    conv_bn,
    group_norm,
    mul,
    reduce_sum,
    relu,
    reshape,
    silu,
    softmax,
    split,
    transpose,
    upsample,
)
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    width: float = 1.0
    num_classes: int = 1000


def linear_attention(net: Net, x: Tensor) -> Tensor:
    """Attention of (N, C, places, patches) over the patches."""
    width = x.shape[1]
    query, key, value = split(net, conv2d(net / "qkv_proj", x, 1 + 2 * width, 1), [1, width, width])
    context = reduce_sum(net, mul(net, key, softmax(net.functional, query, 3)), 3, keepdims=True)
    return net.tap(conv2d(net / "out_proj", mul(net, relu(net.functional, value), context), width, 1))


def layer(net: Net, x: Tensor) -> Tensor:
    x = add(net, x, linear_attention(net / "attn", group_norm(net / "norm1", x, 1)))
    at, width = net / "mlp", x.shape[1]
    y = silu(at / "act", conv2d(at / "fc1", group_norm(net / "norm2", x, 1), 2 * width, 1))
    return net.tap(add(net, x, conv2d(at / "fc2", y, width, 1)))


def block(net: Net, x: Tensor, layers: int) -> Tensor:
    out, (rows, columns) = x.shape[1], patches(x)
    whole = (SIDE * rows, SIDE * columns)
    if tuple(x.shape[2:]) != whole:
        x = upsample(net.functional, x, size=whole, mode="bilinear", align_corners=True)
    width = make_divisible(0.5 * out)
    x = conv2d(net / "conv_1x1", conv(net / "conv_kxk", x, out, 3, groups=out), width, 1, bias=False)
    x = transpose(net, reshape(net, x, (0, width, rows, SIDE, columns, SIDE)), (0, 1, 3, 5, 2, 4))
    x = reshape(net, x, (0, width, SIDE**2, rows * columns))
    for i in range(layers):
        x = layer(net / "transformer" / i, x)
    x = reshape(net, group_norm(net / "norm", x, 1), (0, width, SIDE, SIDE, rows, columns))
    x = reshape(net, transpose(net, x, (0, 1, 4, 2, 5, 3)), (0, width, *whole))
    return net.tap(conv_bn(net / "conv_proj", x, out, 1))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(size=256, share=0.888, interpolation="pillow:bicubic", mean=(0.0,) * 3, std=(1.0,) * 3),
    paper="arXiv:2206.02680",
    configure=classes_from("head.fc.bias"),
    mobilevitv2_050=Variant(Config(0.5), params=1_370_593),
    mobilevitv2_075=Variant(Config(0.75), params=2_866_009),
    mobilevitv2_100=Variant(Config(), params=4_901_841),
    mobilevitv2_125=Variant(Config(1.25), params=7_478_089),
    mobilevitv2_150=Variant(Config(1.5), params=10_594_753),
    mobilevitv2_175=Variant(Config(1.75), params=14_251_833),
    mobilevitv2_200=Variant(Config(2.0), params=18_449_329),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    widths = [int(width * cfg.width) for width in (64, 128, 256, 384, 512)]
    x = features(net, x, int(32 * cfg.width), widths, 2, 2, block)
    return classifier(net / "head", x, cfg.num_classes)
