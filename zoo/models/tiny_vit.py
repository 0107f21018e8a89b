"""TinyViT (Wu et al. 2022, arXiv:2207.10666).

Maps are filled up to whole windows before they are normalised, so that what fills them is attended to as well. One bias
for each distance down and across, in either direction, is added to the scores. Each head has its queries, keys and
values side by side, and a convolution of single channels comes between attention and MLP. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.blocks.transformer import as_tokens
from zoo.blocks.windows import distances, padded_places, pick, windows
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    attention,
    conv_bn,
    fixed_size,
    flatten,
    gelu,
    global_avg_pool,
    layer_norm,
    linear,
    reshape,
    split,
    transpose,
)
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

DEPTHS = (2, 2, 6, 2)
WINDOWS = (7, 7, 14, 7)  # their sides; the first stage has convolutions instead


@dataclass(frozen=True)
class Config:
    widths: tuple[int, int, int, int] = (64, 128, 160, 320)
    heads: tuple[int, int, int, int] = (2, 4, 5, 10)
    num_classes: int = 1000


def conv_block(net: Net, x: Tensor) -> Tensor:
    width = x.shape[1]
    y = gelu(net / "act1", conv_bn(net / "conv1", x, 4 * width, 1))
    y = gelu(net / "act2", conv_bn(net / "conv2", y, 4 * width, 3, groups=4 * width))
    return net.tap(gelu(net / "act3", add(net, conv_bn(net / "conv3", y, width, 1), x)))


def merge(net: Net, x: Tensor, out: int) -> Tensor:
    """Halves a map."""
    x = gelu(net / "act1", conv_bn(net / "conv1", x, out, 1))
    x = gelu(net / "act2", conv_bn(net / "conv2", x, out, 3, 2, groups=out))
    return conv_bn(net / "conv3", x, out, 1)


def window_attention(net: Net, x: Tensor, heads: int, side: int) -> Tensor:
    """Attention within windows of a map (N, H, W, C)."""
    _, height, width, channels = x.shape
    order, tokens = windows(padded_places(height, width, side), side), side * side
    y = layer_norm(net / "norm", reshape(net, pick(net, x, order), (-1, tokens, channels)))
    y = reshape(net, linear(net / "qkv", y, 3 * channels), (0, tokens, heads, 3 * channels // heads))
    q, k, v = split(net, transpose(net, y, (0, 2, 1, 3)), [channels // heads] * 3, 3)
    bias = net.weight("attention_biases", heads, tokens)[:, distances(side, side)]
    y = attention(net, q, k, v, net.constant(bias[None], "attention_biases"))
    y = reshape(net, transpose(net, y, (0, 2, 1, 3)), (0, tokens, channels))
    y = net.tap(linear(net / "proj", y, channels))
    back = np.argsort(order.reshape(-1), kind="stable")[: height * width]
    return reshape(net, pick(net, reshape(net, y, (-1, 1, order.size, channels)), back), (0, height, width, channels))


def block(net: Net, x: Tensor, heads: int, side: int) -> Tensor:
    _, height, width, channels = x.shape
    x = transpose(net, add(net, x, window_attention(net / "attn", x, heads, side)), (0, 3, 1, 2))
    x = as_tokens(net, conv_bn(net / "local_conv", x, channels, 3, groups=channels))
    at = net / "mlp"
    y = gelu(at / "act", linear(at / "fc1", layer_norm(at / "norm", x), 4 * channels))
    return net.tap(reshape(net, add(net, x, linear(at / "fc2", y, channels)), (0, height, width, channels)))


@register(
    task="classify",
    reference="timm:{name}.dist_in22k_ft_in1k",
    preprocess=imagenet(share=0.95, interpolation="pillow:bicubic"),
    paper="arXiv:2207.10666",
    configure=classes_from("head.fc.bias"),
    tiny_vit_5m_224=Variant(Config(), params=5_392_764),
    tiny_vit_11m_224=Variant(Config((64, 128, 256, 448), (2, 4, 8, 14)), params=10_996_972),
    tiny_vit_21m_224=Variant(Config((96, 192, 384, 576), (3, 6, 12, 18)), params=21_198_568),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    fixed_size(net, x, 1, "its windows and their biases are cut for one size")
    at, width = net / "patch_embed", cfg.widths[0]
    x = gelu(at / "act", conv_bn(at / "conv1", x, width // 2, 3, 2))
    x = conv_bn(at / "conv2", x, width, 3, 2)
    for i in range(DEPTHS[0]):
        x = conv_block(net / "stages" / 0 / "blocks" / i, x)
    for stage in (1, 2, 3):
        at = net / "stages" / stage
        x = transpose(at, merge(at / "downsample", x, cfg.widths[stage]), (0, 2, 3, 1))
        for i in range(DEPTHS[stage]):
            x = block(at / "blocks" / i, x, cfg.heads[stage], WINDOWS[stage])
        x = transpose(at, x, (0, 3, 1, 2))
    head = net / "head"
    x = layer_norm(head / "norm", global_avg_pool(head / "global_pool" / "pool", x), axis=1)
    return linear(head / "fc", flatten(head, x), cfg.num_classes)
