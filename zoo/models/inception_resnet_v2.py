"""Inception-ResNet v2 (Szegedy et al. 2016, arXiv:1602.07261).

What a block's branches make is scaled down, by a factor of the stage, before its input is added; the last block has no
ReLU. The average leaves the padding out; what halves a map is not padded. The epsilon of all normalisations is 1e-3.
Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.inception_v4 import averaged, branch, conv
from zoo.blocks.timm_layers import pooled
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, linear, max_pool, mul, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    num_classes: int = 1000


def mixed_5b(net: Net, x: Tensor) -> Tensor:
    first = conv(net / "branch0", x, 96, 1)
    second = branch(net / "branch1", x, ((48, 1), (64, 5)))
    third = branch(net / "branch2", x, ((64, 1), (96, 3), (96, 3)))
    return net.tap(concat(net, [first, second, third, averaged(net / "branch3", x, 64)]))


def residual(net: Net, x: Tensor, branches: list[Tensor], scale: float) -> Tensor:
    """x and `scale` times the branches, which are brought back to its channels."""
    y = conv2d(net / "conv2d", concat(net, branches), x.shape[1], 1)
    return add(net, mul(net, y, scale), x)


def block35(net: Net, x: Tensor) -> Tensor:
    first = conv(net / "branch0", x, 32, 1)
    second = branch(net / "branch1", x, ((32, 1), (32, 3)))
    third = branch(net / "branch2", x, ((32, 1), (48, 3), (64, 3)))
    return net.tap(relu(net / "act", residual(net, x, [first, second, third], 0.17)))


def mixed_6a(net: Net, x: Tensor) -> Tensor:
    first = conv(net / "branch0", x, 384, 3, stride=2, padded=False)
    second = branch(net / "branch1", x, ((256, 1), (256, 3), (384, 3)), stride=2, padded=False)
    return net.tap(concat(net, [first, second, max_pool(net / "branch2", x, 3, 2)]))


def block17(net: Net, x: Tensor) -> Tensor:
    first = conv(net / "branch0", x, 192, 1)
    second = branch(net / "branch1", x, ((128, 1), (160, (1, 7)), (192, (7, 1))))
    return net.tap(relu(net / "act", residual(net, x, [first, second], 0.1)))


def mixed_7a(net: Net, x: Tensor) -> Tensor:
    first = branch(net / "branch0", x, ((256, 1), (384, 3)), stride=2, padded=False)
    second = branch(net / "branch1", x, ((256, 1), (288, 3)), stride=2, padded=False)
    third = branch(net / "branch2", x, ((256, 1), (288, 3), (320, 3)), stride=2, padded=False)
    return net.tap(concat(net, [first, second, third, max_pool(net / "branch3", x, 3, 2)]))


def block8(net: Net, x: Tensor, scale: float) -> Tensor:
    """Without the ReLU that follows all but the last."""
    first = conv(net / "branch0", x, 192, 1)
    second = branch(net / "branch1", x, ((192, 1), (224, (1, 3)), (256, (3, 1))))
    return residual(net, x, [first, second], scale)


def stem(net: Net, x: Tensor) -> Tensor:
    x = conv(net / "conv2d_1a", x, 32, 3, stride=2, padded=False)
    x = conv(net / "conv2d_2b", conv(net / "conv2d_2a", x, 32, 3, padded=False), 64, 3)
    x = conv(net / "conv2d_3b", max_pool(net / "maxpool_3a", x, 3, 2), 80, 1)
    return max_pool(net / "maxpool_5a", conv(net / "conv2d_4a", x, 192, 3, padded=False), 3, 2)


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(
        size=299, share=0.8975, interpolation="pillow:bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    ),
    paper="arXiv:1602.07261",
    configure=classes_from("classif.bias"),
    inception_resnet_v2=Variant(Config(), params=55_843_464),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = mixed_5b(net / "mixed_5b", stem(net, x))
    for i in range(10):
        x = block35(net / "repeat" / i, x)
    x = mixed_6a(net / "mixed_6a", x)
    for i in range(20):
        x = block17(net / "repeat_1" / i, x)
    x = mixed_7a(net / "mixed_7a", x)
    for at in (net / "repeat_2" / i for i in range(9)):
        x = at.tap(relu(at / "relu", block8(at, x, 0.2)))
    x = (net / "block8").tap(block8(net / "block8", x, 1.0))
    return linear(net / "classif", pooled(net / "global_pool", conv(net / "conv2d_7b", x, 1536, 1)), cfg.num_classes)
