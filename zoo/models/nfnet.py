"""NFNet (Brock et al. 2021, arXiv:2102.06171): no normalisation but that of filters.

Filters are standardised, and scaled by a gain of their own and the root of their size. Each branch begins with what the
variance is expected to be, 1 at the beginning of a stage and 0.04 more after each block, taken away; what it gives is
doubled after squeeze-and-excite and added as a fifth. DeepMind's networks (`dm_`) pad as TensorFlow does, scale GELU by
1.7, and have one more number per block, the share of its branch; the light one scales SiLU within its filters. Scopes
are timm's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zoo.blocks.mbconv import make_divisible
from zoo.blocks.timm_layers import classifier, squeeze_excite
from zoo.network import Net, Tensor
from zoo.ops import add, avg_pool, gelu, mul, silu, standardised_conv2d
from zoo.preprocess import Resize, imagenet
from zoo.registry import Variant, classes_from, register

GELU_GAIN, SILU_GAIN = 1.7015043497085571, 1.7881293296813965
WIDTHS, STRIDES, ALPHA = (256, 512, 1536, 1536), (1, 2, 2, 2), 0.2
Conv = Callable[..., Tensor]


@dataclass(frozen=True)
class Config:
    """`deepmind`: one of the networks that DeepMind published."""

    depths: tuple[int, int, int, int] = (1, 2, 6, 3)
    deepmind: bool = True
    num_classes: int = 1000

    @property
    def bottleneck(self) -> int:
        """By how much a block is narrower inside."""
        return 2 if self.deepmind else 4

    @property
    def group_width(self) -> int:
        return 128 if self.deepmind else 64

    @property
    def squeezed(self) -> float:
        return 0.5 if self.deepmind else 0.25

    @property
    def last(self) -> int:
        return 3072 if self.deepmind else 2304


def activation(net: Net, x: Tensor, cfg: Config) -> Tensor:
    if not cfg.deepmind:
        return silu(net, x)
    return net.tap(mul(net, gelu(net.functional, x), GELU_GAIN))


def conv(net: Net, x: Tensor, cfg: Config, out: int, k: int, stride: int = 1, groups: int = 1) -> Tensor:
    gain, pad = (1.0, "same") if cfg.deepmind else (SILU_GAIN, None)
    return standardised_conv2d(net, x, out, k, stride, pad, groups=groups, bias=True, eps=1e-5, gain=gain)


def stem(net: Net, x: Tensor, cfg: Config) -> Tensor:
    for i, (out, stride) in enumerate(((16, 2), (32, 1), (64, 1), (128, 2)), 1):
        x = conv(net / f"conv{i}", x, cfg, out, 3, stride)
        x = activation(net / f"act{i + 1}", x, cfg) if i < 4 else x
    return x


def block(net: Net, x: Tensor, cfg: Config, out: int, stride: int, variance: float) -> Tensor:
    inside = out // cfg.bottleneck
    y = mul(net, activation(net / "act1", x, cfg), variance**-0.5)
    if stride > 1 or x.shape[1] != out:
        x = (
            y
            if stride == 1
            else avg_pool(net / "downsample" / "pool", y, 2, 2, ceil_mode=True, count_include_pad=False)
        )
        x = conv(net / "downsample" / "conv", x, cfg, out, 1)
    y = activation(net / "act2", conv(net / "conv1", y, cfg, inside, 1), cfg)
    groups = inside // cfg.group_width
    y = activation(net / "act2b", conv(net / "conv2", y, cfg, inside, 3, stride, groups), cfg)
    y = activation(net / "act3", conv(net / "conv2b", y, cfg, inside, 3, groups=groups), cfg)
    y = squeeze_excite(net / "attn_last", conv(net / "conv3", y, cfg, out, 1), make_divisible(out * cfg.squeezed))
    y = mul(net, y, 2.0)
    if cfg.deepmind:
        y = mul(net, y, net.constant(net.weight("skipinit_gain").reshape(1, 1, 1, 1), "skipinit_gain"))
    return net.tap(add(net, mul(net, y, ALPHA), x))


def pictures(size: int, share: float) -> Resize:
    """The middle of a picture. Of one that is not square timm takes more, and squeezes it."""
    return imagenet(size=size, share=share, interpolation="pillow:bicubic")


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=pictures(224, 0.9),
    paper="arXiv:2102.06171",
    configure=classes_from("head.fc.bias"),
    nfnet_l0=Variant(Config(deepmind=False), params=35_074_488),
    dm_nfnet_f0=Variant(Config(), params=71_489_284, preprocess=pictures(192, 0.9)),
    dm_nfnet_f1=Variant(Config((2, 4, 12, 6)), params=132_634_256, preprocess=pictures(224, 0.91)),
    dm_nfnet_f2=Variant(Config((3, 6, 18, 9)), params=193_779_228, preprocess=pictures(256, 0.92)),
    dm_nfnet_f3=Variant(Config((4, 8, 24, 12)), params=254_924_200, preprocess=pictures(320, 0.94)),
    dm_nfnet_f4=Variant(Config((5, 10, 30, 15)), params=316_069_172, preprocess=pictures(384, 0.951)),
    dm_nfnet_f5=Variant(Config((6, 12, 36, 18)), params=377_214_144, preprocess=pictures(416, 0.954)),
    dm_nfnet_f6=Variant(Config((7, 14, 42, 21)), params=438_359_116, preprocess=pictures(448, 0.956)),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x, variance = stem(net / "stem", x, cfg), 1.0
    for stage, (depth, out, stride) in enumerate(zip(cfg.depths, WIDTHS, STRIDES)):
        for i in range(depth):
            x = block(net / "stages" / stage / i, x, cfg, out, stride if i == 0 else 1, variance)
            variance = (1.0 if i == 0 else variance) + ALPHA**2
    x = activation(net / "final_act", conv(net / "final_conv", x, cfg, cfg.last, 1), cfg)
    return classifier(net / "head", x, cfg.num_classes)
