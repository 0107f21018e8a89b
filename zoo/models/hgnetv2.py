"""PP-HGNetV2 (PaddlePaddle 2023), the backbone of RT-DETR's successors.

Zeros are added at the right and the bottom before each 2x2 window of the stem, the pooling's too, where they compete.
A block joins its input and what each of its layers made; the light ones of the last two stages are a 1x1 convolution
without activation and a depthwise one. In b0 to b3 two learned numbers follow each ReLU. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from zoo.blocks.hgnet import stem
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, conv_bn, flatten, global_avg_pool, linear, mul, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

Stage = tuple[int, int, int]  # width of the layers, width of the result, blocks


@dataclass(frozen=True)
class Config:
    """`affine`: each ReLU is scaled and shifted by two learned numbers."""

    stem: tuple[int, int]
    stages: tuple[Stage, Stage, Stage, Stage]
    layers: int
    affine: bool = False
    num_classes: int = 1000


def scaled(net: Net, x: Tensor) -> Tensor:
    """LearnableAffineBlock: one scale and one shift for all."""
    scale, shift = (net.constant(net.weight(name, 1).reshape(1, 1, 1, 1), name) for name in ("scale", "bias"))
    return net.tap(add(net, mul(net, x, scale), shift))


def conv(
    net: Net, x: Tensor, out: int, k: int, affine: bool, *, stride: int = 1, groups: int = 1, pad: int | None = None
) -> Tensor:
    x = relu(net / "act", conv_bn(net, x, out, k, stride, pad, groups=groups))
    return scaled(net / "lab", x) if affine else x


def light(net: Net, x: Tensor, out: int, affine: bool) -> Tensor:
    x = conv_bn(net / "conv1", x, out, 1)
    return conv(net / "conv2", x, out, 5, affine, groups=out)


def block(net: Net, x: Tensor, width: int, out: int, layers: int, is_light: bool, affine: bool) -> Tensor:
    made = [x]
    for i in range(layers):
        at = net / "layers" / i
        made.append(light(at, made[-1], width, affine) if is_light else conv(at, made[-1], width, 3, affine))
    at = net / "aggregation"
    return conv(at / 1, conv(at / 0, concat(net, made), out // 2, 1, affine), out, 1, affine)


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(share=0.965, interpolation="pillow:bicubic"),
    paper="https://github.com/PaddlePaddle/PaddleClas",
    configure=classes_from("head.fc.bias"),
    hgnetv2_b0=Variant(
        Config((16, 16), ((16, 64, 1), (32, 256, 1), (64, 512, 2), (128, 1024, 1)), 3, affine=True), params=5_996_550
    ),
    hgnetv2_b1=Variant(
        Config((24, 32), ((32, 64, 1), (48, 256, 1), (96, 512, 2), (192, 1024, 1)), 3, affine=True), params=6_343_158
    ),
    hgnetv2_b2=Variant(
        Config((24, 32), ((32, 96, 1), (64, 384, 1), (128, 768, 3), (256, 1536, 1)), 4, affine=True), params=11_221_356
    ),
    hgnetv2_b3=Variant(
        Config((24, 32), ((32, 128, 1), (64, 512, 1), (128, 1024, 3), (256, 2048, 1)), 5, affine=True),
        params=16_292_216,
    ),
    hgnetv2_b4=Variant(
        Config((32, 48), ((48, 128, 1), (96, 512, 1), (192, 1024, 3), (384, 2048, 1)), 6), params=19_796_680
    ),
    hgnetv2_b5=Variant(
        Config((32, 64), ((64, 128, 1), (128, 512, 2), (256, 1024, 5), (512, 2048, 2)), 6), params=39_569_064
    ),
    hgnetv2_b6=Variant(
        Config((48, 96), ((96, 192, 2), (192, 512, 3), (384, 1024, 6), (768, 2048, 3)), 6), params=75_256_776
    ),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = stem(net / "stem", x, *cfg.stem, partial(conv, affine=cfg.affine))
    for stage, (width, out, depth) in enumerate(cfg.stages):
        at = net / "stages" / stage
        if stage > 0:
            x = conv_bn(at / "downsample", x, x.shape[1], 3, 2, groups=x.shape[1])
        for i in range(depth):
            y = block(at / "blocks" / i, x, width, out, cfg.layers, stage > 1, cfg.affine)
            x = add(at / "blocks" / i, y, x) if i > 0 else y
    head = net / "head"
    x = conv2d(head / "last_conv" / 0, global_avg_pool(head / "global_pool" / "pool", x), 2048, 1, bias=False)
    x = relu(head / "last_conv" / 1, x)
    if cfg.affine:
        x = scaled(head / "last_conv" / 2, x)
    return linear(head / "fc", flatten(head, x), cfg.num_classes)
