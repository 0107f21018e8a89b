"""MobileOne (Vasu et al. 2022, arXiv:2206.04040).

Trained with several branches a block, which the host makes one convolution; s0 has four of each convolution, and only
3x3 windows have a 1x1 beside them. Folded weights are read as well. Scopes are timm's, parameter counts those of its
networks before folding.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.reparam import folding_from, rep_block
from zoo.blocks.timm_layers import classifier, squeeze_excite
from zoo.network import Net, Tensor
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

DEPTHS = (2, 8, 10, 1)


@dataclass(frozen=True)
class Config:
    """`squeezed`: how many of the last blocks of each stage squeeze and excite."""

    widths: tuple[int, int, int, int]
    stem: int = 64
    branches: int = 1
    squeezed: tuple[int, int, int, int] = (0, 0, 0, 0)
    folded: bool = False
    num_classes: int = 1000


def block(net: Net, x: Tensor, out: int, k: int, stride: int, branches: int, squeeze: bool, folded: bool) -> Tensor:
    """A convolution of k x k; one of 3x3 is of each channel by itself, but for the stem's."""
    names = [(f"conv_kxk.{i}", k) for i in range(branches)]
    if k > 1:
        names.append(("conv_scale", 1))
    groups = out if k > 1 and x.shape[1] == out else 1
    excite = lambda x: squeeze_excite(net / "attn", x, out // 16) if squeeze else x  # noqa: E731
    return rep_block(net, x, out, stride, names, groups=groups, between=excite, folded=folded)


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(share=0.9),
    paper="arXiv:2206.04040",
    configure=folding_from("stem.reparam_conv", classes_from("head.fc.bias")),
    mobileone_s0=Variant(
        Config((48, 128, 256, 1024), stem=48, branches=4), params=5_293_272, preprocess=imagenet(share=0.875)
    ),
    mobileone_s1=Variant(Config((96, 192, 512, 1280)), params=4_825_192),
    mobileone_s2=Variant(Config((96, 256, 640, 2048)), params=7_884_648),
    mobileone_s3=Variant(Config((128, 320, 768, 2048)), params=10_170_600),
    mobileone_s4=Variant(Config((192, 448, 896, 2048), squeezed=(0, 0, 5, 1)), params=14_951_248),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = block(net / "stem", x, cfg.stem, 3, 2, 1, False, cfg.folded)
    for stage, (depth, width, squeezed) in enumerate(zip(DEPTHS, cfg.widths, cfg.squeezed)):
        at = net / "stages" / stage
        for i in range(depth):
            squeeze, stride = i >= depth - squeezed, 1 if i else 2
            x = block(at / (2 * i), x, x.shape[1], 3, stride, cfg.branches, squeeze, cfg.folded)
            x = block(at / (2 * i + 1), x, width, 1, 1, cfg.branches, squeeze, cfg.folded)
    return classifier(net / "head", x, cfg.num_classes)
