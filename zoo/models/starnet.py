"""StarNet (Ma et al. 2024, arXiv:2403.19967).

A block multiplies two linear maps of its channels, of which only the first is clipped. Every convolution has a bias,
those without a normalisation too. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_layers import pooled
from zoo.network import Net, Tensor
from zoo.ops import add, batch_norm, conv2d, conv_bn, linear, mul, relu6
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    width: int
    depths: tuple[int, int, int, int]
    expansion: int = 4
    num_classes: int = 1000


def block(net: Net, x: Tensor, expansion: int) -> Tensor:
    width = x.shape[1]
    y = conv_bn(net / "dwconv", x, width, 7, groups=width, bias=True)
    first = conv2d(net / "f1" / "conv", y, expansion * width, 1)
    second = conv2d(net / "f2" / "conv", y, expansion * width, 1)
    y = conv_bn(net / "g", mul(net, relu6(net / "act", first), second), width, 1, bias=True)
    return net.tap(add(net, x, conv2d(net / "dwconv2" / "conv", y, width, 7, groups=width)))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic"),
    paper="arXiv:2403.19967",
    configure=classes_from("head.bias"),
    starnet_s050=Variant(Config(16, (1, 1, 3, 1), 3), params=542_728),
    starnet_s100=Variant(Config(20, (1, 2, 4, 1)), params=1_043_280),
    starnet_s150=Variant(Config(24, (1, 2, 4, 2), 3), params=1_560_616),
    starnet_s1=Variant(Config(24, (2, 2, 8, 3)), params=2_869_168),
    starnet_s2=Variant(Config(32, (1, 2, 6, 2)), params=3_682_024),
    starnet_s3=Variant(Config(32, (2, 2, 8, 4)), params=5_750_792),
    starnet_s4=Variant(Config(32, (3, 3, 12, 5)), params=7_482_728),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = relu6(net / "stem" / 1, conv_bn(net / "stem" / 0, x, 32, 3, 2, bias=True))
    for stage, depth in enumerate(cfg.depths):
        at = net / "stages" / stage
        x = conv_bn(at / 0, x, cfg.width << stage, 3, 2, bias=True)
        for i in range(1, depth + 1):
            x = block(at / i, x, cfg.expansion)
    return linear(net / "head", pooled(net / "global_pool", batch_norm(net / "norm", x)), cfg.num_classes)
