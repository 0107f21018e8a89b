"""ShuffleNet V2 (Ma et al. 2018, arXiv:1807.11164).

A block of stride 1 leaves the first half of its channels alone; then both halves are shuffled into each other. No ReLU
follows a depthwise convolution. Scopes are torchvision's; preprocessing and parameter counts are those of its
IMAGENET1K_V1 weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.network import Net, Tensor
from zoo.ops import channel_shuffle, concat, conv_bn, linear, max_pool, reduce_mean, relu, split
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    channels: tuple[int, int, int, int]  # of the three stages and the last convolution (table 5)
    num_classes: int = 1000


def pass_by(net: Net, x: Tensor, out: int) -> Tensor:
    """The branch beside the main one, where the size is halved."""
    x = conv_bn(net, x, x.shape[1], 3, 2, groups=x.shape[1], conv=0, bn=1)
    return relu(net / 4, conv_bn(net, x, out, 1, conv=2, bn=3))


def main_branch(net: Net, x: Tensor, out: int, stride: int) -> Tensor:
    x = relu(net / 2, conv_bn(net, x, out, 1, conv=0, bn=1))
    x = conv_bn(net, x, out, 3, stride, groups=out, conv=3, bn=4)
    return relu(net / 7, conv_bn(net, x, out, 1, conv=5, bn=6))


def block(net: Net, x: Tensor, out: int, stride: int) -> Tensor:
    width = out // 2
    if stride == 1:
        kept, x = split(net, x, (width, width))
    else:
        kept = pass_by(net / "branch1", x, width)
    x = main_branch(net / "branch2", x, width, stride)
    return net.tap(channel_shuffle(net.functional, concat(net, [kept, x]), 2))


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(),
    paper="arXiv:1807.11164",
    configure=classes_from("fc.bias"),
    shufflenet_v2_x0_5=Variant(Config((48, 96, 192, 1024)), params=1_366_792),
    shufflenet_v2_x1_0=Variant(Config((116, 232, 464, 1024)), params=2_278_604),
    shufflenet_v2_x1_5=Variant(Config((176, 352, 704, 1024)), params=3_503_624, preprocess=imagenet(resize=232)),
    shufflenet_v2_x2_0=Variant(Config((244, 488, 976, 2048)), params=7_393_996, preprocess=imagenet(resize=232)),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = relu(net / "conv1" / 2, conv_bn(net / "conv1", x, 24, 3, 2, conv=0, bn=1))
    x = max_pool(net / "maxpool", x, 3, 2, pad=1)
    for stage, (out, depth) in enumerate(zip(cfg.channels, (4, 8, 4)), start=2):
        for i in range(depth):
            x = block(net / f"stage{stage}" / i, x, out, 2 if i == 0 else 1)
    x = relu(net / "conv5" / 2, conv_bn(net / "conv5", x, cfg.channels[-1], 1, conv=0, bn=1))
    return linear(net / "fc", reduce_mean(net, x, (2, 3)), cfg.num_classes)
