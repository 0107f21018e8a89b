"""EfficientViT of Microsoft Research Asia (Liu et al. 2023, arXiv:2305.07027).

The heads of attention run one after the other: each gets its own share of the channels and adds what the head before
it gave. Queries alone pass a convolution of single channels. Windows are 7x7 places, filled up with zeros, and no
larger than the map of a published picture, so that in the last stage they are 4x4. Scopes are timm's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from zoo.blocks.timm_layers import pooled, squeeze_excite
from zoo.blocks.transformer import as_tokens
from zoo.blocks.windows import distances, padded_places, pick, windows
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    attention,
    batch_norm1d,
    concat,
    conv_bn,
    fixed_size,
    linear,
    relu,
    reshape,
    split,
    transpose,
)
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

KEYS = 16  # channels of a head's queries and of its keys
SIDES = (7, 7, 4)  # of windows


@dataclass(frozen=True)
class Config:
    widths: tuple[int, int, int]
    heads: tuple[int, int, int]
    kernels: tuple[int, int, int, int] = (7, 5, 3, 3)  # of the heads' queries
    depths: tuple[int, int, int] = (1, 2, 3)
    num_classes: int = 1000


def residual(net: Net, x: Tensor, branch: Callable[[Net, Tensor], Tensor]) -> Tensor:
    return net.tap(add(net, x, branch(net / "m", x)))


def depthwise(net: Net, x: Tensor) -> Tensor:
    return conv_bn(net, x, x.shape[1], 3, groups=x.shape[1])


def mlp(net: Net, x: Tensor) -> Tensor:
    y = relu(net / "act", conv_bn(net / "pw1", x, 2 * x.shape[1], 1))
    return conv_bn(net / "pw2", y, x.shape[1], 1)


def merge(net: Net, x: Tensor, out: int) -> Tensor:
    """Halves a map."""
    hidden = 4 * x.shape[1]
    x = relu(net / "act", conv_bn(net / "conv1", x, hidden, 1))
    x = relu(net / "act", conv_bn(net / "conv2", x, hidden, 3, 2, groups=hidden))
    return conv_bn(net / "conv3", squeeze_excite(net / "se", x, hidden // 4), out, 1)


def head(net: Net, x: Tensor, i: int, k: int, bias: np.ndarray) -> Tensor:
    """One of the heads, on windows (N, C, side, side) -> same."""
    channels, side = x.shape[1:3]
    q, keys, values = split(net, conv_bn(net / "qkvs" / i, x, 2 * KEYS + channels, 1), [KEYS, KEYS, channels])
    q = conv_bn(net / "dws" / i, q, KEYS, k, groups=KEYS)
    q, keys, values = (as_tokens(net, part) for part in (q, keys, values))
    x = attention(net, q, keys, values, net.constant(bias, "attention_biases"))
    x = transpose(net, x, (0, 2, 1))
    return reshape(net, x, (0, channels, side, side))


def cascaded_attention(net: Net, x: Tensor, heads: int, kernels: tuple[int, ...]) -> Tensor:
    """Windows (N, C, side, side) -> same."""
    width, side = x.shape[1:3]
    biases = net.weight("attention_biases", heads, side * side)[:, distances(side, side)]
    outs: list[Tensor] = []
    for i, part in enumerate(split(net, x, [width // heads] * heads)):
        part = add(net, outs[-1], part) if outs else part
        outs.append(head(net, part, i, kernels[i], biases[i][None]))
    return conv_bn(net / "proj" / 1, relu(net / "proj" / 0, concat(net, outs)), width, 1)


def window_attention(net: Net, x: Tensor, heads: int, kernels: tuple[int, ...], side: int) -> Tensor:
    _, width, height, across = x.shape
    if (height, across) == (side, side):
        return net.tap(cascaded_attention(net / "attn", x, heads, kernels))
    order = windows(padded_places(height, across, side), side)
    x = pick(net, transpose(net, x, (0, 2, 3, 1)), order)
    x = transpose(net, reshape(net, x, (-1, side, side, width)), (0, 3, 1, 2))
    x = transpose(net, cascaded_attention(net / "attn", x, heads, kernels), (0, 2, 3, 1))
    back = np.argsort(order.reshape(-1), kind="stable")[: height * across]
    x = pick(net, reshape(net, x, (-1, 1, order.size, width)), back)
    return net.tap(transpose(net, reshape(net, x, (0, height, across, width)), (0, 3, 1, 2)))


def block(net: Net, x: Tensor, heads: int, kernels: tuple[int, ...], side: int) -> Tensor:
    x = residual(net / "ffn0", residual(net / "dw0", x, depthwise), mlp)
    x = residual(net / "mixer", x, lambda net, x: window_attention(net, x, heads, kernels, side))
    return net.tap(residual(net / "ffn1", residual(net / "dw1", x, depthwise), mlp))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic"),
    paper="arXiv:2305.07027",
    configure=classes_from("head.linear.bias"),
    efficientvit_m0=Variant(Config((64, 128, 192), (4, 4, 4), (5, 5, 5, 5)), params=2_349_436),
    efficientvit_m1=Variant(Config((128, 144, 192), (2, 3, 3)), params=2_980_560),
    efficientvit_m2=Variant(Config((128, 192, 224), (4, 3, 2)), params=4_187_554),
    efficientvit_m3=Variant(Config((128, 240, 320), (4, 3, 4), (5, 5, 5, 5)), params=6_900_722),
    efficientvit_m4=Variant(Config((128, 256, 384), (4, 4, 4)), params=8_804_228),
    efficientvit_m5=Variant(Config((192, 288, 384), (3, 3, 4), depths=(1, 3, 4)), params=12_473_772),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    fixed_size(net, x, 1, "its windows are cut for one size")
    for i in (1, 2, 3, 4):
        x = conv_bn(net / "patch_embed" / f"conv{i}", x, cfg.widths[0] >> (4 - i), 3, 2)
        x = x if i == 4 else relu(net / "patch_embed" / f"relu{i}", x)
    for stage, (width, heads, depth, side) in enumerate(zip(cfg.widths, cfg.heads, cfg.depths, SIDES)):
        at = net / "stages" / stage
        if stage > 0:
            down = at / "downsample"
            x = residual(down / "res1" / 1, residual(down / "res1" / 0, x, depthwise), mlp)
            x = merge(down / "patchmerge", x, width)
            x = residual(down / "res2" / 1, residual(down / "res2" / 0, x, depthwise), mlp)
        for i in range(depth):
            x = block(at / "blocks" / i, x, heads, cfg.kernels, side)
    x = batch_norm1d(net / "head" / "bn", pooled(net / "global_pool", x))
    return linear(net / "head" / "linear", x, cfg.num_classes)
