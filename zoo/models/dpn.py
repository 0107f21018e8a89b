"""Dual Path Networks (Chen et al. 2017, arXiv:1707.01629).

Normalisation and ReLU come before each convolution, with an epsilon of 1e-3, and after the last one, where timm's code
speaks of an ELU and makes none. What a block makes is added to the first channels and joined behind all others; the
first block of a stage projects both. The classifier is a convolution. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.network import Net, Tensor
from zoo.ops import add, batch_norm, concat, conv2d, conv_bn, flatten, global_avg_pool, max_pool, narrow, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

EPS = 1e-3
MEAN, STD = (124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3


@dataclass(frozen=True)
class Config:
    """`grown`: channels that each block of a stage joins; `width`: of the grouped convolutions of the first stage."""

    depths: tuple[int, int, int, int]
    grown: tuple[int, int, int, int]
    width: int
    groups: int
    stem: int
    small: bool = False
    num_classes: int = 1000


def normalised(net: Net, x: Tensor) -> Tensor:
    """timm's BatchNormAct2d, whose activation is a part of it."""
    return net.tap(relu(net / "act", batch_norm(net.functional, x, EPS)))


def conv(net: Net, x: Tensor, out: int, k: int = 1, stride: int = 1, groups: int = 1) -> Tensor:
    """Normalisation, ReLU and a convolution."""
    return conv2d(net / "conv", normalised(net / "bn", x), out, k, stride, groups=groups, bias=False)


def block(net: Net, x: Tensor, width: int, out: int, grown: int, groups: int, stride: int | None) -> Tensor:
    """`out` channels that are added up, and those that are joined; `stride` where both are projected first."""
    y = conv(net / "c3x3_b", conv(net / "c1x1_a", x, width), width, 3, stride or 1, groups)
    y = conv(net / "c1x1_c", y, out + grown)
    if stride is not None:
        x = conv(net / f"c1x1_w_s{stride}", x, out + 2 * grown, 1, stride)
    total = add(net, narrow(net, x, 1, 0, out), narrow(net, y, 1, 0, out))
    joined = narrow(net, x, 1, out, x.shape[1] - out)
    return net.tap(concat(net, [total, joined, narrow(net, y, 1, out, grown)]))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic", mean=MEAN, std=STD),
    paper="arXiv:1707.01629",
    configure=classes_from("classifier.bias"),
    dpn68=Variant(Config((3, 4, 12, 3), (16, 32, 32, 64), 128, 32, 10, small=True), params=12_611_602),
    dpn92=Variant(Config((3, 4, 20, 3), (16, 32, 24, 128), 96, 32, 64), params=37_668_392),
    dpn98=Variant(Config((3, 6, 20, 3), (16, 32, 32, 128), 160, 40, 96), params=61_570_728),
    dpn107=Variant(Config((4, 8, 20, 3), (20, 64, 64, 128), 200, 50, 128), params=86_917_800),
    dpn131=Variant(Config((4, 8, 28, 3), (16, 32, 32, 128), 160, 40, 128), params=79_254_504),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    at = net / "features"
    x = conv_bn(at / "conv1_1", x, cfg.stem, 3 if cfg.small else 7, 2, eps=EPS, activation=relu)
    x = max_pool(at / "conv1_pool", x, 3, 2, pad=1)
    for stage, (depth, grown) in enumerate(zip(cfg.depths, cfg.grown)):
        out = (64 if cfg.small else 256) << stage
        for i in range(depth):
            stride = None if i > 0 else 2 if stage > 0 else 1
            place = at / f"conv{stage + 2}_{i + 1}"
            x = block(place, x, cfg.width << stage, out, grown, cfg.groups, stride)
    x = global_avg_pool(net / "global_pool" / "pool", normalised(at / "conv5_bn_ac" / "bn", x))
    return flatten(net, conv2d(net / "classifier", x, cfg.num_classes, 1))
