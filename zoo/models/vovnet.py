"""VoVNet and its V2 with effective squeeze-and-excite (Lee et al. 2019, arXiv:1904.09730; 1911.06667).

A block joins its input and what each of its convolutions made, once, at its end. Poolings round up. V2's gate has one
layer and a hard sigmoid, in the last block of each stage only, and its shortcuts leave out each stage's first block.
Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_layers import classifier
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, conv_bn, hardsigmoid, max_pool, mul, reduce_mean, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

WIDTHS, OUT = (128, 160, 192, 224), (256, 512, 768, 1024)


@dataclass(frozen=True)
class Config:
    """`effective`: V2. `depthwise`: a convolution of each channel by itself and one of 1x1, in place of each 3x3."""

    depths: tuple[int, int, int, int] = (1, 1, 2, 2)
    layers: int = 5
    stem: int = 128
    effective: bool = False
    depthwise: bool = False
    num_classes: int = 1000


def conv(net: Net, x: Tensor, out: int, stride: int, depthwise: bool) -> Tensor:
    if not depthwise:
        return conv_bn(net, x, out, 3, stride, activation=relu)
    x = conv2d(net / "conv_dw", x, x.shape[1], 3, stride, groups=x.shape[1], bias=False)
    return conv_bn(net, x, out, 1, conv="conv_pw", activation=relu)


def one_shot_aggregation(net: Net, x: Tensor, width: int, out: int, cfg: Config) -> Tensor:
    made, y = [x], x
    if cfg.depthwise and x.shape[1] != width:
        y = conv_bn(net / "conv_reduction", x, width, 1, activation=relu)
    for i in range(cfg.layers):
        y = conv(net / "conv_mid" / i, y, width, 1, cfg.depthwise)
        made.append(y)
    return conv_bn(net / "conv_concat", concat(net, made), out, 1, activation=relu)


def effective_squeeze_excite(net: Net, x: Tensor) -> Tensor:
    y = conv2d(net / "fc", reduce_mean(net, x, (2, 3), keepdims=True), x.shape[1], 1)
    return net.tap(mul(net, x, hardsigmoid(net / "gate", y)))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic"),
    paper="arXiv:1904.09730",
    configure=classes_from("head.fc.bias"),
    vovnet39a=Variant(Config(), params=22_600_296),
    vovnet57a=Variant(Config((1, 1, 4, 3)), params=36_640_296),
    ese_vovnet19b_dw=Variant(
        Config((1, 1, 1, 1), 3, 64, effective=True, depthwise=True), params=6_543_080, paper="arXiv:1911.06667"
    ),
    ese_vovnet39b=Variant(Config(effective=True), params=24_568_936, paper="arXiv:1911.06667"),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = conv_bn(net / "stem" / 0, x, 64, 3, 2, activation=relu)
    x = conv(net / "stem" / 1, x, 64, 1, cfg.depthwise)
    x = conv(net / "stem" / 2, x, cfg.stem, 2, cfg.depthwise)
    for stage, (depth, width, out) in enumerate(zip(cfg.depths, WIDTHS, OUT)):
        at = net / "stages" / stage
        if stage > 0:
            x = max_pool(at / "pool", x, 3, 2, ceil_mode=True)
        for i in range(depth):
            y = one_shot_aggregation(at / "blocks" / i, x, width, out, cfg)
            if cfg.effective and i == depth - 1:
                y = effective_squeeze_excite(at / "blocks" / i / "attn", y)
            x = add(at / "blocks" / i, y, x) if cfg.effective and i > 0 else y
    return classifier(net / "head", x, cfg.num_classes)
