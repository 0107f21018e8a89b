"""ResNet, ResNeXt and Wide ResNet (He et al. 2015, arXiv:1512.03385; 1611.05431; 1605.07146).

This is "v1.5": the stride of a bottleneck sits on its 3x3 convolution, not on the first 1x1. Scopes are torchvision's;
preprocessing and parameter counts are those of its IMAGENET1K_V1 weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.resnet import Stages, features
from zoo.network import Net, Tensor
from zoo.ops import flatten, global_avg_pool, linear
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

RESNEXT, WIDE = "arXiv:1611.05431", "arXiv:1605.07146"


@dataclass(frozen=True)
class Config(Stages):
    num_classes: int = 1000


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(),
    paper="arXiv:1512.03385",
    configure=classes_from("fc.bias"),
    resnet18=Variant(Config((2, 2, 2, 2), bottleneck=False), params=11_689_512),
    resnet34=Variant(Config(bottleneck=False), params=21_797_672),
    resnet50=Variant(Config(), params=25_557_032),
    resnet101=Variant(Config((3, 4, 23, 3)), params=44_549_160),
    resnet152=Variant(Config((3, 8, 36, 3)), params=60_192_808),
    resnext50_32x4d=Variant(Config(groups=32, base_width=4), params=25_028_904, paper=RESNEXT),
    resnext101_32x8d=Variant(Config((3, 4, 23, 3), groups=32, base_width=8), params=88_791_336, paper=RESNEXT),
    resnext101_64x4d=Variant(
        Config((3, 4, 23, 3), groups=64, base_width=4),
        params=83_455_272,
        paper=RESNEXT,
        preprocess=imagenet(resize=232),
    ),
    wide_resnet50_2=Variant(Config(base_width=128), params=68_883_240, paper=WIDE),
    wide_resnet101_2=Variant(Config((3, 4, 23, 3), base_width=128), params=126_886_696, paper=WIDE),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = features(net, x, cfg)["layer4"]
    return linear(net / "fc", flatten(net, global_avg_pool(net / "avgpool", x)), cfg.num_classes)
