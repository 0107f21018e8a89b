"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381).

The last convolution of a block is linear: nothing follows its normalisation, and nothing follows the sum either. Scopes
are torchvision's; preprocessing and parameter count are those of its IMAGENET1K_V1 weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.mbconv import conv
from zoo.network import Net, Tensor
from zoo.ops import add, conv_bn, flatten, global_avg_pool, linear, relu6
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    stages: tuple[tuple[int, int, int, int], ...] = (  # table 2: expansion, channels, blocks, stride of the first
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    num_classes: int = 1000


def inverted_residual(net: Net, x: Tensor, expansion: int, out: int, stride: int) -> Tensor:
    at, y, hidden, i = net / "conv", x, x.shape[1] * expansion, 0
    if expansion != 1:
        y, i = conv(at / 0, y, hidden, 1, activation=relu6), 1
    y = conv(at / i, y, hidden, 3, stride, hidden, relu6)
    y = conv_bn(at, y, out, 1, conv=i + 1, bn=i + 2)
    return net.tap(add(net, x, y)) if stride == 1 and x.shape[1] == out else y


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(),
    paper="arXiv:1801.04381",
    configure=classes_from("classifier.1.bias"),
    mobilenet_v2=Variant(Config(), params=3_504_872),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    features, i = net / "features", 1
    x = conv(features / 0, x, 32, 3, 2, activation=relu6)
    for expansion, out, depth, stride in cfg.stages:
        for block in range(depth):
            x = inverted_residual(features / i, x, expansion, out, stride if block == 0 else 1)
            i += 1
    x = conv(features / i, x, 1280, 1, activation=relu6)
    return linear(net / "classifier" / 1, flatten(net, global_avg_pool(net / "pool", x)), cfg.num_classes)
