"""Big Transfer (Kolesnikov et al. 2019, arXiv:1912.11370): ResNets that groups of channels normalise.

Filters are standardised, with an epsilon of 1e-8. Normalisation and ReLU come before each convolution, and the shortcut
of a stage's first block begins after the first of them. Zeros, not the lowest number, surround what the stem pools, and
the classifier is a convolution. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.network import Net, Tensor
from zoo.ops import add, conv2d, flatten, global_avg_pool, group_norm, max_pool, pad, relu, standardised_conv2d
from zoo.preprocess import Resize, imagenet
from zoo.registry import Variant, classes_from, register

GROUPS, EPS = 32, 1e-8


@dataclass(frozen=True)
class Config:
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 1
    num_classes: int = 1000


def norm_act(net: Net, x: Tensor) -> Tensor:
    """timm's GroupNormAct: the module's tensor is what comes after its ReLU."""
    return net.tap(relu(net / "act", group_norm(net.functional, x, GROUPS)))


def block(net: Net, x: Tensor, width: int, stride: int, first: bool) -> Tensor:
    y = norm_act(net / "norm1", x)
    if first:
        x = standardised_conv2d(net / "downsample" / "conv", y, width, 1, stride, eps=EPS)
    y = norm_act(net / "norm2", standardised_conv2d(net / "conv1", y, width // 4, 1, eps=EPS))
    y = norm_act(net / "norm3", standardised_conv2d(net / "conv2", y, width // 4, 3, stride, eps=EPS))
    return net.tap(add(net, standardised_conv2d(net / "conv3", y, width, 1, eps=EPS), x))


def large(size: int) -> Resize:
    """Of the networks that were trained on larger pictures."""
    return imagenet(size=size, share=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
    paper="arXiv:1912.11370",
    configure=classes_from("head.fc.bias"),
    resnetv2_50x1_bit=Variant(Config(), params=25_549_352),
    resnetv2_50x3_bit=Variant(Config(width=3), params=217_319_080, preprocess=large(448)),
    resnetv2_101x1_bit=Variant(Config((3, 4, 23, 3)), params=44_541_480, preprocess=large(448)),
    resnetv2_101x3_bit=Variant(Config((3, 4, 23, 3), 3), params=387_934_888, preprocess=large(448)),
    resnetv2_152x2_bit=Variant(Config((3, 8, 36, 3), 2), params=236_335_208),
    resnetv2_152x4_bit=Variant(Config((3, 8, 36, 3), 4), params=936_533_224, preprocess=large(480)),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    stem = net / "stem"
    x = standardised_conv2d(stem / "conv", x, 64 * cfg.width, 7, 2, eps=EPS)
    x = max_pool(stem / "pool", pad(stem / "pad", x, (1, 1, 1, 1)), 3, 2)
    for stage, depth in enumerate(cfg.depths):
        for i in range(depth):
            at, stride = net / "stages" / stage / "blocks" / i, 2 if stage > 0 and i == 0 else 1
            x = block(at, x, 256 * 2**stage * cfg.width, stride, first=i == 0)
    head = net / "head"
    x = global_avg_pool(head / "global_pool" / "pool", norm_act(net / "norm", x))
    return flatten(head, conv2d(head / "fc", x, cfg.num_classes, 1))
