"""FasterNet (Chen et al. 2023, arXiv:2303.03667).

Only the first quarter of a block's channels is convolved by 3x3; the others pass. The two convolutions of one pixel
after it have no bias, the second no normalisation, and neither has the last one before the classifier. The two smallest
networks have GELU, the others ReLU. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_layers import Activation
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, conv_bn, flatten, gelu, global_avg_pool, linear, relu, split
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    width: int
    depths: tuple[int, int, int, int] = (1, 2, 8, 2)
    activation: Activation = relu
    num_classes: int = 1000


def partial_conv(net: Net, x: Tensor) -> Tensor:
    convolved = x.shape[1] // 4
    first, others = split(net, x, [convolved, x.shape[1] - convolved])
    return net.tap(concat(net, [conv2d(net / "partial_conv3", first, convolved, 3, bias=False), others]))


def block(net: Net, x: Tensor, activation: Activation) -> Tensor:
    at, width = net / "mlp", x.shape[1]
    y = conv_bn(at, partial_conv(net / "spatial_mixing", x), 2 * width, 1, conv=0, bn=1)
    return net.tap(add(net, x, conv2d(at / 3, activation(at / 2, y), width, 1, bias=False)))


def patches(net: Net, x: Tensor, out: int, side: int, conv: str) -> Tensor:
    return conv_bn(net, x, out, side, side, pad=0, conv=conv, bn="norm")


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(share=1.0, interpolation="pillow:bicubic"),
    paper="arXiv:2303.03667",
    configure=classes_from("classifier.bias"),
    fasternet_t0=Variant(Config(40, activation=gelu), params=3_905_500),
    fasternet_t1=Variant(Config(64, activation=gelu), params=7_595_368),
    fasternet_t2=Variant(Config(96), params=14_982_888),
    fasternet_s=Variant(Config(128, (1, 2, 13, 2)), params=31_181_032),
    fasternet_m=Variant(Config(144, (3, 4, 18, 3)), params=53_521_464),
    fasternet_l=Variant(Config(192, (3, 4, 18, 3)), params=93_465_192),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = patches(net / "patch_embed", x, cfg.width, 4, "proj")
    for stage, depth in enumerate(cfg.depths):
        at = net / "stages" / stage
        x = x if stage == 0 else patches(at / "downsample", x, cfg.width << stage, 2, "reduction")
        for i in range(depth):
            x = block(at / "blocks" / i, x, cfg.activation)
    x = conv2d(net / "conv_head", global_avg_pool(net / "global_pool" / "pool", x), 1280, 1, bias=False)
    return linear(net / "classifier", flatten(net, cfg.activation(net / "act", x)), cfg.num_classes)
