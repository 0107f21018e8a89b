"""PoolFormer (Yu et al. 2021, arXiv:2111.11418).

A block mixes pixels by an average of 3x3, of which its input is taken off; the average does not count the padding.
Normalisation is over all channels and pixels of an image, but over the channels alone after the last average. The first
convolution pads 7x7 by 2. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    avg_pool,
    conv2d,
    flatten,
    gelu,
    global_avg_pool,
    group_norm,
    layer_norm,
    linear,
    mul,
    sub,
)
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

SMALL, MEDIUM = (64, 128, 320, 512), (96, 192, 384, 768)


@dataclass(frozen=True)
class Config:
    depths: tuple[int, int, int, int] = (6, 6, 18, 6)
    widths: tuple[int, int, int, int] = SMALL
    num_classes: int = 1000


def scaled(net: Net, x: Tensor) -> Tensor:
    scale = net.constant(net.weight("scale", x.shape[1]).reshape(1, -1, 1, 1), "scale")
    return net.tap(mul(net, x, scale))


def mix(net: Net, x: Tensor) -> Tensor:
    return net.tap(sub(net, avg_pool(net / "pool", x, 3, 1, 1, count_include_pad=False), x))


def block(net: Net, x: Tensor) -> Tensor:
    x = add(net, x, scaled(net / "layer_scale1", mix(net / "token_mixer", group_norm(net / "norm1", x, 1))))
    at, width = net / "mlp", x.shape[1]
    y = gelu(at / "act", conv2d(at / "fc1", group_norm(net / "norm2", x, 1), 4 * width, 1))
    return net.tap(add(net, x, scaled(net / "layer_scale2", conv2d(at / "fc2", y, width, 1))))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(share=0.9, interpolation="pillow:bicubic"),
    paper="arXiv:2111.11418",
    configure=classes_from("head.fc.bias"),
    poolformer_s12=Variant(Config((2, 2, 6, 2)), params=11_915_176),
    poolformer_s24=Variant(Config((4, 4, 12, 4)), params=21_388_968),
    poolformer_s36=Variant(Config(), params=30_862_760),
    poolformer_m36=Variant(
        Config(widths=MEDIUM), params=56_172_520, preprocess=imagenet(share=0.95, interpolation="pillow:bicubic")
    ),
    poolformer_m48=Variant(
        Config((8, 8, 24, 8), MEDIUM),
        params=73_473_448,
        preprocess=imagenet(share=0.95, interpolation="pillow:bicubic"),
    ),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = conv2d(net / "stem" / "conv", x, cfg.widths[0], 7, 4, pad=2)
    for stage, (depth, width) in enumerate(zip(cfg.depths, cfg.widths)):
        at = net / "stages" / stage
        if stage > 0:
            x = conv2d(at / "downsample" / "conv", x, width, 3, 2)
        for i in range(depth):
            x = block(at / "blocks" / i, x)
    head = net / "head"
    x = layer_norm(head / "norm", global_avg_pool(head / "global_pool" / "pool", x), 1e-6, axis=1)
    return linear(head / "fc", flatten(head, x), cfg.num_classes)
