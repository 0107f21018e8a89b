"""MobileViT (Mehta and Rastegari 2021, arXiv:2110.02178).

The pixel of one place in all patches of 2x2 attends to those of the same place: places are another batch, not tokens.
A map of an odd side is resized to whole patches, and back. The block's input is joined before what it computed. Pixels
are from 0 to 1. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.mobilevit import SIDE, conv, features, patches
from zoo.blocks.timm_layers import classifier
from zoo.blocks.transformer import attend
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, layer_norm, linear, reshape, silu, transpose, upsample
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

HEADS = 4


@dataclass(frozen=True)
class Config:
    """`tokens`: the widths of the transformers in the last three stages; `last`: that of the last convolution."""

    widths: tuple[int, int, int, int, int]
    tokens: tuple[int, int, int]
    last: int
    expansion: int = 4
    num_classes: int = 1000


def layer(net: Net, x: Tensor) -> Tensor:
    width, at = x.shape[2], net / "attn"
    y = attend(at, linear(at / "qkv", layer_norm(net / "norm1", x), 3 * width), HEADS)
    x, at = add(net, x, linear(at / "proj", y, width)), net / "mlp"
    y = silu(at / "act", linear(at / "fc1", layer_norm(net / "norm2", x), 2 * width))
    return net.tap(add(net, x, linear(at / "fc2", y, width)))


def block(net: Net, x: Tensor, width: int, layers: int) -> Tensor:
    rows, columns = patches(x)
    size, whole = tuple(x.shape[2:]), (SIDE * rows, SIDE * columns)
    y = conv2d(net / "conv_1x1", conv(net / "conv_kxk", x, x.shape[1], 3), width, 1, bias=False)
    if size != whole:
        y = upsample(net.functional, y, size=whole, mode="bilinear")
    y = transpose(net, reshape(net, y, (0, width, rows, SIDE, columns, SIDE)), (0, 3, 5, 2, 4, 1))
    y = reshape(net, y, (-1, rows * columns, width))
    for i in range(layers):
        y = layer(net / "transformer" / i, y)
    y = reshape(net, layer_norm(net / "norm", y), (-1, SIDE, SIDE, rows, columns, width))
    y = reshape(net, transpose(net, y, (0, 5, 3, 1, 4, 2)), (0, width, *whole))
    if size != whole:
        y = upsample(net.functional, y, size=size, mode="bilinear")
    y = conv(net / "conv_proj", y, x.shape[1])
    return net.tap(conv(net / "conv_fusion", concat(net, [x, y]), x.shape[1], 3))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(size=256, share=0.9, interpolation="pillow:bicubic", mean=(0.0,) * 3, std=(1.0,) * 3),
    paper="arXiv:2110.02178",
    configure=classes_from("head.fc.bias"),
    mobilevit_xxs=Variant(Config((16, 24, 48, 64, 80), (64, 80, 96), 320, expansion=2), params=1_272_024),
    mobilevit_xs=Variant(Config((32, 48, 64, 80, 96), (96, 120, 144), 384), params=2_317_848),
    mobilevit_s=Variant(Config((32, 64, 96, 128, 160), (144, 192, 240), 640), params=5_578_632),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    tokens = iter(cfg.tokens)
    x = features(net, x, 16, cfg.widths, 3, cfg.expansion, lambda at, x, layers: block(at, x, next(tokens), layers))
    return classifier(net / "head", conv(net / "final_conv", x, cfg.last), cfg.num_classes)
