"""SE-ResNet, SE-ResNeXt and SENet-154 (Hu et al. 2017, arXiv:1709.01507).

Squeeze-and-excite comes after the last normalisation and before the sum, with a sixteenth of the channels, but at least
8. SENet-154 halves what its groups read, and its shortcuts are 3x3 where they stride. Scopes are timm's; its networks
of Caffe's layout (`legacy_`) have other ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_layers import squeeze_excite
from zoo.blocks.timm_resnet import basic, bottleneck, resnet, shortcut
from zoo.network import Net, Tensor
from zoo.ops import add, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    """`reduced`: what the first convolution of a bottleneck divides the width by."""

    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    bottleneck: bool = True
    groups: int = 1
    base_width: int = 64
    reduced: int = 1
    deep: int | None = None
    shortcut: int = 1
    num_classes: int = 1000


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic"),
    paper="arXiv:1709.01507",
    configure=classes_from("fc.bias"),
    seresnet18=Variant(Config((2, 2, 2, 2), bottleneck=False), params=11_779_624),
    seresnet34=Variant(Config(bottleneck=False), params=21_960_416),
    seresnet50=Variant(Config(), params=28_088_024, preprocess=imagenet(share=0.95, interpolation="pillow:bicubic")),
    seresnet101=Variant(Config((3, 4, 23, 3)), params=49_326_872),
    seresnet152=Variant(Config((3, 8, 36, 3)), params=66_821_848),
    seresnext50_32x4d=Variant(Config(groups=32, base_width=4), params=27_559_896),
    seresnext101_32x4d=Variant(Config((3, 4, 23, 3), groups=32, base_width=4), params=48_955_416),
    senet154=Variant(
        Config((3, 8, 36, 3), groups=64, base_width=4, reduced=2, deep=64, shortcut=3), params=115_088_984
    ),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    def block(net: Net, x: Tensor, planes: int, stride: int) -> Tensor:
        if cfg.bottleneck:
            width = planes * cfg.base_width // 64 * cfg.groups
            y = bottleneck(net, x, 4 * planes, stride, width=width, first=width // cfg.reduced, groups=cfg.groups)
        else:
            y = basic(net, x, planes, stride)
        y = squeeze_excite(net / "se", y, max(8, y.shape[1] // 16))
        return relu(
            net / ("act3" if cfg.bottleneck else "act2"),
            add(net, y, shortcut(net, x, y.shape[1], stride, k=cfg.shortcut)),
        )

    return resnet(net, x, cfg.depths, block, cfg.num_classes, deep=cfg.deep)
