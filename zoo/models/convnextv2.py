"""ConvNeXt V2 (Woo et al. 2023, arXiv:2301.00808).

Global response normalisation divides each channel's length over all pixels by the mean of all channels' lengths (not
by their sum), and what it scales is added to its input. There is no layer scale. Scopes are timm's, which has
convolutions of 1x1 in the blocks of the small networks and linear layers in the others.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    conv2d,
    div,
    flatten,
    gelu,
    global_avg_pool,
    layer_norm,
    linear,
    mul,
    reduce_mean,
    reduce_sum,
    reshape,
    sqrt,
    transpose,
)
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

EPS = 1e-6
SMALL = (2, 2, 6, 2)


@dataclass(frozen=True)
class Config:
    """`convolutions`: whether the blocks keep the channels in front."""

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    convolutions: bool = False
    num_classes: int = 1000


def response_norm(net: Net, x: Tensor, channels: int) -> Tensor:
    """GRN of (N, C, H, W), or of (N, H, W, C) where C is last. In fp32, since half cannot hold the squares."""
    at = net.fp32
    pixels = tuple(axis for axis in (1, 2, 3) if axis != channels)
    shape = tuple(-1 if axis == channels else 1 for axis in range(4))
    weight, bias = (
        net.constant(net.weight(name, x.shape[channels]).reshape(shape), name) for name in ("weight", "bias")
    )
    length = sqrt(at, reduce_sum(at, mul(at, x, x), pixels, keepdims=True))
    row = reshape(at, length, (0, 1, 1, x.shape[channels]))  # numbers that lie side by side are added up more exactly
    share = div(at, length, add(at, reduce_mean(at, row, 3, keepdims=True), EPS))
    return net.tap(add(net, x, add(net, bias, mul(net, weight, mul(at, x, share)))))


def block(net: Net, x: Tensor, convolutions: bool) -> Tensor:
    at, width = net / "mlp", x.shape[1]
    y = conv2d(net / "conv_dw", x, width, 7, groups=width)
    if convolutions:
        y = gelu(at / "act", conv2d(at / "fc1", layer_norm(net / "norm", y, EPS, axis=1), 4 * width, 1))
        y = conv2d(at / "fc2", response_norm(at / "grn", y, 1), width, 1)
    else:
        y = layer_norm(net / "norm", transpose(net, y, (0, 2, 3, 1)), EPS)
        y = gelu(at / "act", linear(at / "fc1", y, 4 * width))
        y = transpose(net, linear(at / "fc2", response_norm(at / "grn", y, 3), width), (0, 3, 1, 2))
    return net.tap(add(net, y, x))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic"),
    paper="arXiv:2301.00808",
    configure=classes_from("head.fc.bias"),
    convnextv2_atto=Variant(Config(SMALL, (40, 80, 160, 320), True), params=3_708_400),
    convnextv2_femto=Variant(Config(SMALL, (48, 96, 192, 384), True), params=5_233_240),
    convnextv2_pico=Variant(Config(SMALL, (64, 128, 256, 512), True), params=9_066_280),
    convnextv2_nano=Variant(Config((2, 2, 8, 2), (80, 160, 320, 640), True), params=15_623_800),
    convnextv2_tiny=Variant(Config((3, 3, 9, 3), (96, 192, 384, 768)), params=28_635_496),
    convnextv2_base=Variant(Config((3, 3, 27, 3), (128, 256, 512, 1024)), params=88_717_800),
    convnextv2_large=Variant(Config((3, 3, 27, 3), (192, 384, 768, 1536)), params=197_956_840),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = layer_norm(net / "stem" / 1, conv2d(net / "stem" / 0, x, cfg.widths[0], 4, 4, pad=0), EPS, axis=1)
    for stage, (depth, width) in enumerate(zip(cfg.depths, cfg.widths)):
        at = net / "stages" / stage
        if stage > 0:
            halve = at / "downsample"
            x = conv2d(halve / 1, layer_norm(halve / 0, x, EPS, axis=1), width, 2, 2, pad=0)
        for i in range(depth):
            x = block(at / "blocks" / i, x, cfg.convolutions)
    head = net / "head"
    x = layer_norm(head / "norm", global_avg_pool(head / "global_pool" / "pool", x), EPS, axis=1)
    return linear(head / "fc", flatten(head, x), cfg.num_classes)
