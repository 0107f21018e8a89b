"""Deep Layer Aggregation (Yu et al. 2017, arXiv:1707.06484).

A tree's root joins what its two halves made, the second first, then what was handed down to it: in the upper levels the
tree's own input, pooled, comes first. The shortcut of a tree's first block is that pooled input, projected. The last
layer is a convolution. Sides are multiples of 32. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, conv_bn, flatten, global_avg_pool, max_pool, open_size, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

WIDE, COMPACT = (128, 256, 512, 1024), (64, 64, 128, 256)


@dataclass(frozen=True)
class Config:
    """`depths` and `widths` are of the trees, levels 2 to 5; `root`: whether a root adds its first child."""

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int] = WIDE
    bottleneck: bool = True
    groups: int = 1
    base_width: int = 64
    root: bool = False
    num_classes: int = 1000


def block(net: Net, x: Tensor, out: int, stride: int, shortcut: Tensor, cfg: Config) -> Tensor:
    if cfg.bottleneck:
        width = out * cfg.base_width // 64 * cfg.groups // 2
        x = relu(net / "relu", conv_bn(net, x, width, 1, conv="conv1", bn="bn1"))
        x = relu(net / "relu", conv_bn(net, x, width, 3, stride, groups=cfg.groups, conv="conv2", bn="bn2"))
        x = conv_bn(net, x, out, 1, conv="conv3", bn="bn3")
    else:
        x = relu(net / "relu", conv_bn(net, x, out, 3, stride, conv="conv1", bn="bn1"))
        x = conv_bn(net, x, out, 3, conv="conv2", bn="bn2")
    return relu(net / "relu", add(net, x, shortcut))


def root(net: Net, children: list[Tensor], out: int, cfg: Config) -> Tensor:
    x = conv_bn(net, concat(net, children), out, 1)
    return relu(net / "relu", add(net, x, children[0]) if cfg.root else x)


def tree(
    net: Net,
    x: Tensor,
    depth: int,
    out: int,
    stride: int,
    cfg: Config,
    children: list[Tensor],
    level_root: bool = False,
) -> Tensor:
    bottom = max_pool(net / "downsample", x, stride) if stride > 1 else x
    if level_root:
        children = [*children, bottom]
    if depth > 1:
        first = tree(net / "tree1", x, depth - 1, out, stride, cfg, [])
        return tree(net / "tree2", first, depth - 1, out, 1, cfg, [*children, first])
    if x.shape[1] != out:
        bottom = conv_bn(net / "project", bottom, out, 1, conv=0, bn=1)
    first = block(net / "tree1", x, out, stride, bottom, cfg)
    second = block(net / "tree2", first, out, 1, first, cfg)
    return root(net / "root", [second, first, *children], out, cfg)


def conv(net: Net, x: Tensor, out: int, k: int, stride: int = 1) -> Tensor:
    return relu(net / 2, conv_bn(net, x, out, k, stride, conv=0, bn=1))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(),
    paper="arXiv:1707.06484",
    configure=classes_from("fc.bias"),
    dla34=Variant(Config((1, 2, 2, 1), (64, 128, 256, 512), bottleneck=False), params=15_742_104),
    dla46_c=Variant(Config((1, 2, 2, 1), COMPACT), params=1_301_400),
    dla46x_c=Variant(Config((1, 2, 2, 1), COMPACT, groups=32, base_width=4), params=1_068_440),
    dla60x_c=Variant(Config((1, 2, 3, 1), COMPACT, groups=32, base_width=4), params=1_319_832),
    dla60=Variant(Config((1, 2, 3, 1)), params=22_036_632),
    dla60x=Variant(Config((1, 2, 3, 1), groups=32, base_width=4), params=17_352_344),
    dla102=Variant(Config((1, 3, 4, 1), root=True), params=33_268_888),
    dla102x=Variant(Config((1, 3, 4, 1), groups=32, base_width=4, root=True), params=26_309_272),
    dla102x2=Variant(Config((1, 3, 4, 1), groups=64, base_width=4, root=True), params=41_282_200),
    dla169=Variant(Config((2, 3, 5, 1), root=True), params=53_389_720),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    open_size(net, x, 32)
    x = conv(net / "base_layer", x, 16, 7)
    x = conv(net / "level1", conv(net / "level0", x, 16, 3), 32, 3, 2)
    for level, (depth, width) in enumerate(zip(cfg.depths, cfg.widths), start=2):
        x = tree(net / f"level{level}", x, depth, width, 2, cfg, [], level_root=level > 2)
    x = global_avg_pool(net / "global_pool" / "pool", x)
    return flatten(net, conv2d(net / "fc", x, cfg.num_classes, 1))
