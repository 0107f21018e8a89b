"""GhostNet (Han et al. 2020, arXiv:1911.11907).

A ghost module makes half of its channels by a convolution and the other half by cheap ones of single channels; the
first of a block ends in ReLU, the second does not. The last convolution comes after the average, has a bias and is not
normalised. Gates are hard sigmoids. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.mbconv import Activation, conv, make_divisible
from zoo.blocks.timm_layers import squeeze_excite
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, conv_bn, flatten, global_avg_pool, hardsigmoid, linear, narrow, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

Row = tuple[int, int, int, bool, int]  # kernel, expanded, out, squeeze-and-excite, stride

STAGES: tuple[tuple[Row, ...], ...] = (  # table 1
    ((3, 16, 16, False, 1),),
    ((3, 48, 24, False, 2),),
    ((3, 72, 24, False, 1),),
    ((5, 72, 40, True, 2),),
    ((5, 120, 40, True, 1),),
    ((3, 240, 80, False, 2),),
    (
        (3, 200, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 480, 112, True, 1),
        (3, 672, 112, True, 1),
    ),
    ((5, 672, 160, True, 2),),
    ((5, 960, 160, False, 1), (5, 960, 160, True, 1), (5, 960, 160, False, 1), (5, 960, 160, True, 1)),
)
SQUEEZE = ("conv_reduce", "act1", "conv_expand", "gate")


@dataclass(frozen=True)
class Config:
    width: float = 1.0
    num_classes: int = 1000


def ghost(net: Net, x: Tensor, out: int, activation: Activation | None) -> Tensor:
    made = -(-out // 2)
    x = conv(net / "primary_conv", x, made, 1, activation=activation)
    cheap = conv(net / "cheap_operation", x, made, 3, groups=made, activation=activation)
    return net.tap(narrow(net, concat(net, [x, cheap]), 1, 0, out))


def bottleneck(net: Net, x: Tensor, k: int, hidden: int, out: int, squeeze: bool, stride: int) -> Tensor:
    y = ghost(net / "ghost1", x, hidden, relu)
    if stride > 1:
        y = conv_bn(net, y, hidden, k, stride, groups=hidden, conv="conv_dw", bn="bn_dw")
    if squeeze:
        y = squeeze_excite(net / "se", y, make_divisible(hidden / 4, 4), gate=hardsigmoid, names=SQUEEZE)
    y = ghost(net / "ghost2", y, out, None)
    if stride > 1 or x.shape[1] != out:
        x = conv_bn(net / "shortcut", x, x.shape[1], k, stride, groups=x.shape[1], conv=0, bn=1)
        x = conv_bn(net / "shortcut", x, out, 1, conv=2, bn=3)
    return net.tap(add(net, y, x))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic"),
    paper="arXiv:1911.11907",
    configure=classes_from("classifier.bias"),
    ghostnet_050=Variant(Config(0.5), params=2_587_292),
    ghostnet_100=Variant(Config(), params=5_182_508),
    ghostnet_130=Variant(Config(1.3), params=7_358_820),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    width = lambda channels: make_divisible(channels * cfg.width, 4)  # noqa: E731
    x = relu(net / "act1", conv_bn(net, x, width(16), 3, 2, conv="conv_stem", bn="bn1"))
    for stage, rows in enumerate(STAGES):
        for i, (k, hidden, out, squeeze, stride) in enumerate(rows):
            x = bottleneck(net / "blocks" / stage / i, x, k, width(hidden), width(out), squeeze, stride)
    x = conv_bn(net / "blocks" / len(STAGES) / 0, x, width(960), 1, bn="bn1", activation=relu)
    x = conv2d(net / "conv_head", global_avg_pool(net / "global_pool" / "pool", x), 1280, 1)
    return linear(net / "classifier", flatten(net, relu(net / "act2", x)), cfg.num_classes)
