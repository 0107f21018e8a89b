"""What GhostNet and GhostNetV2 share (arXiv:1911.11907, 2211.12905), with timm's scopes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zoo.blocks.mbconv import Activation, conv, make_divisible
from zoo.blocks.timm_layers import squeeze_excite
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, conv_bn, flatten, global_avg_pool, hardsigmoid, linear, narrow, relu

Ghost = Callable[[Net, Tensor, int, Activation], Tensor]  # net, x, channels, activation
Row = tuple[int, int, int, bool, int]  # kernel, expanded, out, squeeze-and-excite, stride

STAGES: tuple[tuple[Row, ...], ...] = (  # table 1 of GhostNet
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


def halves(net: Net, x: Tensor, out: int, activation: Activation | None) -> Tensor:
    """Half of the channels by a convolution, the others by cheap ones of those; of an odd number one is cut off."""
    made = -(-out // 2)
    x = conv(net / "primary_conv", x, made, 1, activation=activation)
    cheap = conv(net / "cheap_operation", x, made, 3, groups=made, activation=activation)
    return narrow(net, concat(net, [x, cheap]), 1, 0, out)


def ghost(net: Net, x: Tensor, out: int, activation: Activation | None) -> Tensor:
    return net.tap(halves(net, x, out, activation))


def bottleneck(net: Net, x: Tensor, k: int, hidden: int, out: int, squeeze: bool, stride: int, first: Ghost) -> Tensor:
    y = first(net / "ghost1", x, hidden, relu)
    if stride > 1:
        y = conv_bn(net, y, hidden, k, stride, groups=hidden, conv="conv_dw", bn="bn_dw")
    if squeeze:
        y = squeeze_excite(net / "se", y, make_divisible(hidden / 4, 4), gate=hardsigmoid, names=SQUEEZE)
    y = ghost(net / "ghost2", y, out, None)
    if stride > 1 or x.shape[1] != out:
        x = conv_bn(net / "shortcut", x, x.shape[1], k, stride, groups=x.shape[1], conv=0, bn=1)
        x = conv_bn(net / "shortcut", x, out, 1, conv=2, bn=3)
    return net.tap(add(net, y, x))


def ghostnet(net: Net, x: Tensor, cfg: Config, later: Ghost) -> Tensor:
    """The whole network; from the third stage on, blocks begin with `later` in the place of the first ghost module."""
    width = lambda channels: make_divisible(channels * cfg.width, 4)  # noqa: E731
    x = relu(net / "act1", conv_bn(net, x, width(16), 3, 2, conv="conv_stem", bn="bn1"))
    for stage, rows in enumerate(STAGES):
        for i, (k, hidden, out, squeeze, stride) in enumerate(rows):
            first = later if stage > 1 else ghost
            x = bottleneck(net / "blocks" / stage / i, x, k, width(hidden), width(out), squeeze, stride, first)
    x = conv_bn(net / "blocks" / len(STAGES) / 0, x, width(960), 1, bn="bn1", activation=relu)
    x = conv2d(net / "conv_head", global_avg_pool(net / "global_pool" / "pool", x), 1280, 1)
    return linear(net / "classifier", flatten(net, relu(net / "act2", x)), cfg.num_classes)
