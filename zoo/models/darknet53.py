"""Darknet-53 for classification (Redmon and Farhadi 2018, arXiv:1804.02767).

The slope of the leaky ReLU is 0.01, where Darknet itself has 0.1. Scopes are timm's.
"""

from __future__ import annotations

from zoo.blocks.timm_darknet import Config, block, conv, darknet53
from zoo.network import Net, Tensor
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


def stage(net: Net, x: Tensor, width: int, depth: int) -> Tensor:
    x = conv(net / "conv_down", x, width, 3, 2)
    for i in range(depth):
        x = block(net / "blocks" / i, x, width // 2)
    return x


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(size=256, share=0.887, interpolation="pillow:bicubic"),
    paper="arXiv:1804.02767",
    configure=classes_from("head.fc.bias"),
    darknet53=Variant(Config(), params=41_609_928),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    return darknet53(net, x, cfg, stage)
