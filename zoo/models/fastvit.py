"""FastViT, the networks without attention (Vasu et al. 2023, arXiv:2303.14189).

A token mixer is trained as x + scale * (branches(x) - normalised x), which the host makes one depthwise convolution, as
it does with all other branches; between stages a 7x7 window and a 3x3 one are added. Only the last convolution squeezes
and excites. Folded weights are read as well. Scopes are timm's, parameter counts those of its networks before folding.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.reparam import folding_from, layer_scale, layer_scale_of, rep_block
from zoo.blocks.timm_layers import classifier, squeeze_excite
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    batch_norm_kernel,
    conv2d,
    conv2d_of,
    conv_bn,
    conv_bn_kernel,
    gelu,
    identity_kernel,
)
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

LARGE = (("conv_kxk.0", 3), ("conv_scale", 1))
POINT = (("conv_kxk.0", 1),)


@dataclass(frozen=True)
class Config:
    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    expansion: int
    folded: bool = False
    num_classes: int = 1000


def token_mixer(net: Net, x: Tensor, folded: bool) -> Tensor:
    width = x.shape[1]
    if folded:
        return net.tap(conv2d(net / "reparam_conv", x, width, 3, groups=width))
    at = net / "mixer"
    branches = [conv_bn_kernel(at / name, x, width, k, groups=width) for name, k in LARGE]
    mixed = branches[0] + branches[1] + batch_norm_kernel(at / "identity", x, groups=width)
    mixed -= batch_norm_kernel(net / "norm" / "identity", x, groups=width)
    kernel = identity_kernel(net, x, groups=width) + layer_scale_of(net / "layer_scale", mixed)
    return net.tap(conv2d_of(net, x, kernel, groups=width))


def block(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x, at, width = token_mixer(net / "token_mixer", x, cfg.folded), net / "mlp", x.shape[1]
    y = conv_bn(at / "conv", x, width, 7, groups=width)
    y = gelu(at / "act", conv2d(at / "fc1", y, cfg.expansion * width, 1))
    y = layer_scale(net / "layer_scale", conv2d(at / "fc2", y, width, 1))
    return net.tap(add(net, x, y))


def patch_embed(net: Net, x: Tensor, out: int, folded: bool) -> Tensor:
    """Halves a map; the first convolution has no activation."""
    at, groups = net / 0, x.shape[1]
    if folded:
        x = conv2d(at / "reparam_conv", x, out, 7, 2, groups=groups)
    else:
        large = conv_bn_kernel(at / "large_conv", x, out, 7, groups=groups)
        x = conv2d_of(at, x, large + conv_bn_kernel(at / "small_conv", x, out, 3, groups=groups), 2, groups=groups)
    return rep_block(net / 1, at.tap(x), out, 1, POINT, activation=gelu, folded=folded)


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(size=256, share=0.9, interpolation="pillow:bicubic"),
    paper="arXiv:2303.14189",
    configure=folding_from("stem.0.reparam_conv", classes_from("head.fc.bias")),
    fastvit_t8=Variant(Config((2, 2, 4, 2), (48, 96, 192, 384), 3), params=4_026_232),
    fastvit_t12=Variant(Config((2, 2, 6, 2), (64, 128, 256, 512), 3), params=7_553_704),
    fastvit_s12=Variant(Config((2, 2, 6, 2), (64, 128, 256, 512), 4), params=9_473_576),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    stem, width = net / "stem", cfg.widths[0]
    x = rep_block(stem / 0, x, width, 2, LARGE, activation=gelu, folded=cfg.folded)
    x = rep_block(stem / 1, x, width, 2, LARGE, groups=width, activation=gelu, folded=cfg.folded)
    x = rep_block(stem / 2, x, width, 1, POINT, activation=gelu, folded=cfg.folded)
    for stage, (depth, width) in enumerate(zip(cfg.depths, cfg.widths)):
        at = net / "stages" / stage
        if stage > 0:
            x = patch_embed(at / "downsample" / "proj", x, width, cfg.folded)
        for i in range(depth):
            x = block(at / "blocks" / i, x, cfg)
    last = net / "final_conv"
    excite = lambda x: squeeze_excite(last / "se", x, x.shape[1] // 16)  # noqa: E731
    x = rep_block(last, x, 2 * width, 1, LARGE, groups=width, between=excite, activation=gelu, folded=cfg.folded)
    return classifier(net / "head", x, cfg.num_classes)
