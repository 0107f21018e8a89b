"""RepViT (Wang et al. 2023, arXiv:2307.09283).

A token mixer is trained as a depthwise 3x3 and a 1x1 convolution beside the identity, which the host makes one
convolution; only the 3x3 is normalised before the sum, the sum is normalised again. Every second block squeezes and
excites. The logits are the mean of two heads. Scopes are timm's, parameter counts those of its networks before folding.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_layers import squeeze_excite
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    batch_norm1d,
    batch_norm_of,
    conv2d_kernel,
    conv2d_of,
    conv_bn,
    conv_bn_kernel,
    gelu,
    identity_kernel,
    linear,
    mul,
    reduce_mean,
)
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    """`both`: the 1x1 of a token mixer is normalised too, and the sum is not (the first networks, m1 to m3)."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    both: bool = False
    num_classes: int = 1000


def conv(net: Net, x: Tensor, out: int, k: int, stride: int = 1, groups: int = 1) -> Tensor:
    return conv_bn(net, x, out, k, stride, groups=groups, conv="c")


def token_mixer(net: Net, x: Tensor, both: bool) -> Tensor:
    width = x.shape[1]
    kernel = conv_bn_kernel(net / "conv", x, width, 3, groups=width, conv="c")
    if both:
        kernel += conv_bn_kernel(net / "conv1", x, width, 1, groups=width, conv="c")
        kernel += identity_kernel(net, x, groups=width)
    else:
        kernel += conv2d_kernel(net / "conv1", x, width, 1, groups=width) + identity_kernel(net, x, groups=width)
        kernel = batch_norm_of(net / "bn", kernel)
    return net.tap(conv2d_of(net, x, kernel, groups=width))


def channel_mixer(net: Net, x: Tensor) -> Tensor:
    y = gelu(net / "act", conv(net / "conv1", x, 2 * x.shape[1], 1))
    return conv(net / "conv2", y, x.shape[1], 1)


def block(net: Net, x: Tensor, squeeze: bool, both: bool) -> Tensor:
    x = token_mixer(net / "token_mixer", x, both)
    if squeeze:
        x = squeeze_excite(net / "se", x, (x.shape[1] // 4 + 4) // 8 * 8)
    return net.tap(add(net, x, channel_mixer(net / "channel_mixer", x)))


def downsample(net: Net, x: Tensor, out: int, both: bool) -> Tensor:
    x = block(net / "pre_block", x, False, both)
    x = conv(net / "spatial_downsample", x, x.shape[1], 3, 2, x.shape[1])
    x = conv(net / "channel_downsample", x, out, 1)
    return net.tap(add(net, channel_mixer(net / "ffn", x), x))


def head(net: Net, x: Tensor, classes: int) -> Tensor:
    return linear(net / "l", batch_norm1d(net / "bn", x), classes)


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(share=0.95, interpolation="pillow:bicubic"),
    paper="arXiv:2307.09283",
    configure=classes_from("head.head.l.bias"),
    repvit_m0_9=Variant(Config((48, 96, 192, 384), (2, 2, 14, 2)), params=5_489_328),
    repvit_m1_0=Variant(Config((56, 112, 224, 448), (2, 2, 14, 2)), params=7_302_796),
    repvit_m1_1=Variant(Config((64, 128, 256, 512), (2, 2, 12, 2)), params=8_802_912),
    repvit_m1_5=Variant(Config((64, 128, 256, 512), (4, 4, 24, 4)), params=14_644_432),
    repvit_m2_3=Variant(Config((80, 160, 320, 640), (6, 6, 34, 2)), params=23_688_792),
    repvit_m1=Variant(Config((48, 96, 192, 384), (2, 2, 14, 2), both=True), params=5_485_248),
    repvit_m2=Variant(Config((64, 128, 256, 512), (2, 2, 12, 2), both=True), params=8_797_984),
    repvit_m3=Variant(Config((64, 128, 256, 512), (4, 4, 18, 2), both=True), params=10_682_832),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    stem = net / "stem"
    x = gelu(stem / "act1", conv(stem / "conv1", x, cfg.widths[0] // 2, 3, 2))
    x = conv(stem / "conv2", x, cfg.widths[0], 3, 2)
    for stage, (width, depth) in enumerate(zip(cfg.widths, cfg.depths)):
        at = net / "stages" / stage
        if stage > 0:
            x = downsample(at / "downsample", x, width, cfg.both)
        for i in range(depth):
            x = block(at / "blocks" / i, x, i % 2 == 0, cfg.both)
    x, last = reduce_mean(net, x, (2, 3)), net / "head"
    heads = add(net, head(last / "head", x, cfg.num_classes), head(last / "head_dist", x, cfg.num_classes))
    return last.tap(mul(net, heads, 0.5))
