"""InceptionNeXt (Yu et al. 2023, arXiv:2303.16900).

Of a block's channels most pass; three parts, of an eighth each, are filtered by 3x3, by a band along the rows and by
one along the columns, in this order and last. BatchNorms stand before the MLP and before a map is halved, so that none
folds into what it follows. The last stage's MLPs are three times wider, not four. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_layers import pooled
from zoo.network import Net, Tensor
from zoo.ops import add, batch_norm, concat, conv2d, conv_bn, gelu, layer_norm, linear, mul, split
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

HIDDEN = (4, 4, 4, 3)  # how many times wider the MLPs are


@dataclass(frozen=True)
class Config:
    """`parts`: how many times fewer channels a filter has. `band`: the length of a band."""

    depths: tuple[int, int, int, int]
    width: int = 96
    parts: int = 8
    band: int = 11
    num_classes: int = 1000


def token_mixer(net: Net, x: Tensor, cfg: Config) -> Tensor:
    part = x.shape[1] // cfg.parts
    others, square, row, column = split(net, x, [x.shape[1] - 3 * part, part, part, part])
    return net.tap(
        concat(
            net,
            [
                others,
                conv2d(net / "dwconv_hw", square, part, 3, groups=part),
                conv2d(net / "dwconv_w", row, part, (1, cfg.band), groups=part),
                conv2d(net / "dwconv_h", column, part, (cfg.band, 1), groups=part),
            ],
        )
    )


def block(net: Net, x: Tensor, cfg: Config, hidden: int) -> Tensor:
    at, width = net / "mlp", x.shape[1]
    y = conv2d(at / "fc1", batch_norm(net / "norm", token_mixer(net / "token_mixer", x, cfg)), hidden, 1)
    y = conv2d(at / "fc2", gelu(at / "act", y), width, 1)
    scale = net.constant(net.weight("gamma", width).reshape(1, width, 1, 1), "gamma")
    return net.tap(add(net, mul(net, y, scale), x))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic"),
    paper="arXiv:2303.16900",
    configure=classes_from("head.fc2.bias"),
    inception_next_atto=Variant(Config((2, 2, 6, 2), 40, 4, 9), params=4_156_520),
    inception_next_tiny=Variant(Config((3, 3, 9, 3)), params=28_055_680),
    inception_next_small=Variant(Config((3, 3, 27, 3)), params=49_374_016),
    inception_next_base=Variant(
        Config((3, 3, 27, 3), 128), params=86_672_136, preprocess=imagenet(share=0.95, interpolation="pillow:bicubic")
    ),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = conv_bn(net / "stem", x, cfg.width, 4, 4, pad=0, bias=True, conv=0, bn=1)
    for stage, (depth, times) in enumerate(zip(cfg.depths, HIDDEN)):
        at, width = net / "stages" / stage, cfg.width << stage
        if stage > 0:
            x = conv2d(at / "downsample" / 1, batch_norm(at / "downsample" / 0, x), width, 2, 2, pad=0)
        for i in range(depth):
            x = block(at / "blocks" / i, x, cfg, times * width)
    head = net / "head"
    x = gelu(head / "act", linear(head / "fc1", pooled(head / "global_pool", x), 3 * x.shape[1]))
    return linear(head / "fc2", layer_norm(head / "norm", x, 1e-6), cfg.num_classes)
