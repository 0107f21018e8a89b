"""ResNeSt (Zhang et al. 2020, arXiv:2004.08955).

A softmax over the splits of each channel weighs them; one split alone has a sigmoid. A map is halved by averaging 3x3
places, after the split attention, but before it in the two variants whose names end in their splits. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.mbconv import make_divisible
from zoo.blocks.timm_resnet import resnet, shortcut
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    avg_pool,
    conv2d,
    conv_bn,
    mul,
    open_size,
    reduce_mean,
    reduce_sum,
    relu,
    reshape,
    sigmoid,
    softmax,
    transpose,
)
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    deep: int = 32
    radix: int = 2
    groups: int = 1
    base_width: int = 64
    average_first: bool = False
    num_classes: int = 1000


def radix_softmax(net: Net, x: Tensor, radix: int, groups: int) -> Tensor:
    """(N, groups * radix * C, 1, 1) -> (N, radix * groups * C): over the splits; of one only, a sigmoid."""
    if radix == 1:
        return net.tap(sigmoid(net.functional, x))
    x = transpose(net, reshape(net, x, (0, groups, radix, x.shape[1] // groups // radix)), (0, 2, 1, 3))
    x = softmax(net.functional, x, 1)
    return net.tap(reshape(net, x, (0, radix * groups * x.shape[3])))


def split_attention(net: Net, x: Tensor, cfg: Config) -> Tensor:
    channels, radix = x.shape[1], cfg.radix
    height, width = open_size(net, x)
    squeezed = max(32, make_divisible(channels * radix / 4))
    x = conv_bn(net, x, channels * radix, 3, groups=cfg.groups * radix, bn="bn0")
    x = reshape(net, relu(net / "act0", x), (0, radix, channels, height, width))
    y = reduce_mean(net, reduce_sum(net, x, 1), (2, 3), keepdims=True)
    y = conv_bn(net, y, squeezed, 1, groups=cfg.groups, bias=True, conv="fc1", bn="bn1")
    y = conv2d(net / "fc2", relu(net / "act1", y), channels * radix, 1, groups=cfg.groups)
    y = reshape(net, radix_softmax(net / "rsoftmax", y, radix, cfg.groups), (0, radix, channels, 1, 1))
    return net.tap(reduce_sum(net, mul(net, x, y), 1))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(),
    paper="arXiv:2004.08955",
    configure=classes_from("fc.bias"),
    resnest14d=Variant(Config((1, 1, 1, 1)), params=10_611_688),
    resnest26d=Variant(Config((2, 2, 2, 2)), params=17_069_448),
    resnest50d=Variant(Config(), params=27_483_240),
    resnest101e=Variant(Config((3, 4, 23, 3), deep=64), params=48_275_016, preprocess=imagenet(size=256)),
    resnest200e=Variant(
        Config((3, 24, 36, 3), deep=64),
        params=70_201_544,
        preprocess=imagenet(size=320, share=0.909, interpolation="pillow:bicubic"),
    ),
    resnest50d_1s4x24d=Variant(
        Config(radix=1, groups=4, base_width=24, average_first=True),
        params=25_677_000,
        preprocess=imagenet(interpolation="pillow:bicubic"),
    ),
    resnest50d_4s2x40d=Variant(
        Config(radix=4, groups=2, base_width=40, average_first=True),
        params=30_417_592,
        preprocess=imagenet(interpolation="pillow:bicubic"),
    ),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    def block(net: Net, x: Tensor, planes: int, stride: int) -> Tensor:
        y = conv_bn(net, x, planes * cfg.base_width // 64 * cfg.groups, 1, conv="conv1", bn="bn1")
        y = relu(net / "act1", y)
        if stride > 1 and cfg.average_first:
            y = avg_pool(net / "avd_first", y, 3, stride, 1)
        y = split_attention(net / "conv2", y, cfg)
        if stride > 1 and not cfg.average_first:
            y = avg_pool(net / "avd_last", y, 3, stride, 1)
        y = conv_bn(net, y, 4 * planes, 1, conv="conv3", bn="bn3")
        return relu(net / "act3", add(net, y, shortcut(net, x, 4 * planes, stride, average=True)))

    return resnet(net, x, cfg.depths, block, cfg.num_classes, deep=cfg.deep)
