"""RepVGG (Ding et al. 2021, arXiv:2101.03697).

Trained with three branches a block, which the host makes one 3x3 convolution: the branch that only normalises is there
where neither size nor width changes, and no block has a shortcut besides. Folded weights are read as well. Every second
block of a `g4` has four groups. Scopes are timm's, parameter counts those of its networks before folding.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.reparam import folding_from, rep_block
from zoo.blocks.timm_layers import classifier
from zoo.network import Net, Tensor
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

A, B = (2, 4, 14, 1), (4, 6, 16, 1)
BRANCHES = (("conv_kxk", 3), ("conv_1x1", 1))


@dataclass(frozen=True)
class Config:
    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    stem: int = 64
    groups: int = 1
    folded: bool = False
    num_classes: int = 1000


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(),
    paper="arXiv:2101.03697",
    configure=folding_from("stem.reparam_conv", classes_from("head.fc.bias")),
    repvgg_a0=Variant(Config(A, (48, 96, 192, 1280), stem=48), params=9_108_968),
    repvgg_a1=Variant(Config(A, (64, 128, 256, 1280)), params=14_092_264),
    repvgg_a2=Variant(Config(A, (96, 192, 384, 1408)), params=28_210_600),
    repvgg_b0=Variant(Config(B, (64, 128, 256, 1280)), params=15_817_960),
    repvgg_b1=Variant(Config(B, (128, 256, 512, 2048)), params=57_415_016),
    repvgg_b1g4=Variant(Config(B, (128, 256, 512, 2048), groups=4), params=39_966_056),
    repvgg_b2=Variant(Config(B, (160, 320, 640, 2560)), params=89_022_376),
    repvgg_b2g4=Variant(Config(B, (160, 320, 640, 2560), groups=4), params=61_758_376),
    repvgg_b3=Variant(Config(B, (192, 384, 768, 2560)), params=123_085_288),
    repvgg_b3g4=Variant(Config(B, (192, 384, 768, 2560), groups=4), params=83_825_128),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = rep_block(net / "stem", x, cfg.stem, 2, BRANCHES, folded=cfg.folded)
    for stage, (depth, width) in enumerate(zip(cfg.depths, cfg.widths)):
        for i in range(depth):
            at, stride, groups = net / "stages" / stage / i, 1 if i else 2, cfg.groups if i % 2 else 1
            x = rep_block(at, x, width, stride, BRANCHES, groups=groups, folded=cfg.folded)
    return classifier(net / "head", x, cfg.num_classes)
