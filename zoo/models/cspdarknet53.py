"""CSPDarknet-53 for classification (Wang et al. 2019, arXiv:1911.11929).

A stage divides the channels after its first 1x1 convolution: the first half passes the blocks by, and is joined before
what they made. The first stage has halves as wide as its result. The slope of the leaky ReLU is 0.01, where Darknet
itself has 0.1. Scopes are timm's.
"""

from __future__ import annotations

from zoo.blocks.timm_darknet import WIDTHS, Config, block, conv, darknet53
from zoo.network import Net, Tensor
from zoo.ops import concat, split
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


def cross_stage(net: Net, x: Tensor, width: int, depth: int) -> Tensor:
    part = width if width == WIDTHS[0] else width // 2
    x = conv(net / "conv_exp", conv(net / "conv_down", x, width, 3, 2), 2 * part, 1)
    aside, x = split(net, x, [part, part])
    for i in range(depth):
        x = block(net / "blocks" / i, x, width // 2)
    x = conv(net / "conv_transition_b", x, part, 1)
    return net.tap(conv(net / "conv_transition", concat(net, [aside, x]), width, 1))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(size=256, share=0.887),
    paper="arXiv:1911.11929",
    configure=classes_from("head.fc.bias"),
    cspdarknet53=Variant(Config(), params=27_642_184),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    return darknet53(net, x, cfg, cross_stage)
