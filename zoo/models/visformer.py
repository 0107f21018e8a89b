"""Visformer (Chen et al. 2021, arXiv:2104.12533).

Maps stay maps: attention's projections are convolutions of one pixel, without bias, and BatchNorms stand where
transformers normalise tokens. The first stage has no attention, but 3x3 convolutions in eight groups within its MLPs.
Positions are added after each halving. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_layers import pooled
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    attention,
    batch_norm,
    conv2d,
    conv_bn,
    fixed_size,
    gelu,
    linear,
    relu,
    reshape,
    split,
    transpose,
)
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

DEPTHS, PATCHES, GROUPS = (7, 4, 4), (4, 2, 2), 8


@dataclass(frozen=True)
class Config:
    """`width`: that of the second stage."""

    width: int
    heads: int
    num_classes: int = 1000


def self_attention(net: Net, x: Tensor, heads: int) -> Tensor:
    """Each pixel of (N, C, H, W) asks all of them."""
    _, width, height, across = x.shape
    qkv = reshape(net, conv2d(net / "qkv", x, 3 * width, 1, bias=False), (0, 3 * heads, width // heads, -1))
    q, k, v = split(net, transpose(net, qkv, (0, 1, 3, 2)), [heads] * 3)
    x = reshape(net, transpose(net, attention(net, q, k, v), (0, 1, 3, 2)), (0, width, height, across))
    return net.tap(conv2d(net / "proj", x, width, 1, bias=False))


def mlp(net: Net, x: Tensor, hidden: int, spatial: bool) -> Tensor:
    width = x.shape[1]
    x = gelu(net / "act1", conv2d(net / "conv1", x, hidden, 1, bias=False))
    if spatial:
        x = gelu(net / "act2", conv2d(net / "conv2", x, hidden, 3, groups=GROUPS, bias=False))
    return conv2d(net / "conv3", x, width, 1, bias=False)


def block(net: Net, x: Tensor, heads: int, spatial: bool) -> Tensor:
    if not spatial:
        x = add(net, x, self_attention(net / "attn", batch_norm(net / "norm1", x), heads))
    hidden = (2 if spatial else 4) * x.shape[1]
    return net.tap(add(net, x, mlp(net / "mlp", batch_norm(net / "norm2", x), hidden, spatial)))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(share=0.9, interpolation="pillow:bicubic"),
    paper="arXiv:2104.12533",
    configure=classes_from("head.bias"),
    visformer_tiny=Variant(Config(192, 3), params=10_321_368),
    visformer_small=Variant(Config(384, 6), params=40_219_592),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    fixed_size(net, x, 32, "the position embeddings are for one size")
    x = relu(net / "stem" / 2, conv_bn(net / "stem", x, cfg.width // 12, 7, 2, conv=0, bn=1))
    for i, (depth, patch) in enumerate(zip(DEPTHS, PATCHES), 1):
        width, name = cfg.width << i >> 2, f"pos_embed{i}"
        at = net / f"patch_embed{i}"
        x = conv_bn(at, x, width, patch, patch, pad=0, bias=True, conv="proj", bn="norm")
        x = add(net, x, net.constant(net.weight(name, *(1, *x.shape[1:])), name))
        for j in range(depth):
            x = block(net / f"stage{i}" / j, x, cfg.heads, spatial=i == 1)
    return linear(net / "head", pooled(net / "global_pool", batch_norm(net / "norm", x)), cfg.num_classes)
