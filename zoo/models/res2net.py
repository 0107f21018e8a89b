"""Res2Net and Res2NeXt (Gao et al. 2019, arXiv:1904.01169).

A bottleneck's 3x3 convolution is cut into parts, each of which also sees what the part before it made; but not in the
first block of a stage, where the last part is averaged (padding counts) instead of left alone. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_resnet import resnet, shortcut
from zoo.network import Net, Tensor
from zoo.ops import add, avg_pool, concat, conv_bn, relu, split
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    """`base_width` of each of the `scale` parts; `deep`: three convolutions as the stem, and averaging shortcuts."""

    base_width: int = 26
    scale: int = 4
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    groups: int = 1
    deep: int | None = None
    num_classes: int = 1000


def parts(net: Net, x: Tensor, width: int, stride: int, first: bool, cfg: Config) -> Tensor:
    """The parts of a block, one after the other."""
    *convolved, last = split(net, x, [width] * cfg.scale)
    made: list[Tensor] = []
    for i, part in enumerate(convolved):
        if made and not first:
            part = add(net, made[-1], part)
        part = conv_bn(net, part, width, 3, stride, groups=cfg.groups, conv=f"convs.{i}", bn=f"bns.{i}")
        made.append(relu(net / "relu", part))
    return concat(net, [*made, avg_pool(net / "pool", last, 3, stride, 1) if first else last])


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(),
    paper="arXiv:1904.01169",
    configure=classes_from("fc.bias"),
    res2net50_26w_4s=Variant(Config(), params=25_699_120),
    res2net50_14w_8s=Variant(Config(14, 8), params=25_059_816),
    res2net50_26w_6s=Variant(Config(26, 6), params=37_051_448),
    res2net50_26w_8s=Variant(Config(26, 8), params=48_403_776),
    res2net50_48w_2s=Variant(Config(48, 2), params=25_287_304),
    res2net101_26w_4s=Variant(Config(depths=(3, 4, 23, 3)), params=45_206_688),
    res2next50=Variant(Config(4, 4, groups=8), params=24_671_464),
    res2net50d=Variant(Config(deep=32), params=25_718_352),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    def block(net: Net, x: Tensor, planes: int, stride: int) -> Tensor:
        width, first = planes * cfg.base_width // 64 * cfg.groups, stride > 1 or x.shape[1] != 4 * planes
        y = relu(net / "relu", conv_bn(net, x, width * cfg.scale, 1, conv="conv1", bn="bn1"))
        y = parts(net, y, width, stride, first, cfg)
        y = conv_bn(net, y, 4 * planes, 1, conv="conv3", bn="bn3")
        return relu(net / "relu", add(net, y, shortcut(net, x, 4 * planes, stride, average=cfg.deep is not None)))

    return resnet(net, x, cfg.depths, block, cfg.num_classes, deep=cfg.deep)
