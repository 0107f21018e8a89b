"""ConvMixer (Trockman and Kolter 2022, arXiv:2201.09792).

Activation comes before normalisation, in the stem too, so that no BatchNorm folds into the convolution before it. Only
what each channel does alone has a shortcut. The largest number in a name is the width, the next the depth; the network
of 32 blocks has ReLU where the others have GELU. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_layers import Activation, pooled
from zoo.network import Net, Tensor
from zoo.ops import add, batch_norm, conv2d, gelu, linear, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    width: int
    depth: int
    k: int = 9
    patch: int = 7
    activation: Activation = gelu
    num_classes: int = 1000


def block(net: Net, x: Tensor, cfg: Config) -> Tensor:
    at = net / 0 / "fn"
    y = cfg.activation(at / 1, conv2d(at / 0, x, cfg.width, cfg.k, groups=cfg.width))
    x = (net / 0).tap(add(net / 0, batch_norm(at / 2, y), x))
    return batch_norm(net / 3, cfg.activation(net / 2, conv2d(net / 1, x, cfg.width, 1)))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(share=0.96, interpolation="pillow:bicubic"),
    paper="arXiv:2201.09792",
    configure=classes_from("head.bias"),
    convmixer_768_32=Variant(Config(768, 32, k=7, activation=relu), params=21_110_248),
    convmixer_1024_20_ks9_p14=Variant(Config(1024, 20, patch=14), params=24_383_464),
    convmixer_1536_20=Variant(Config(1536, 20), params=51_625_960),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    stem = net / "stem"
    x = batch_norm(stem / 2, cfg.activation(stem / 1, conv2d(stem / 0, x, cfg.width, cfg.patch, cfg.patch, pad=0)))
    for i in range(cfg.depth):
        x = block(net / "blocks" / i, x, cfg)
    return linear(net / "head", pooled(net / "global_pool", x), cfg.num_classes)
