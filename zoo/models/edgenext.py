"""EdgeNeXt (Maaz et al. 2022, arXiv:2206.10589).

The last block of a stage filters its channels part by part, each with the part before added, and the last part passes
as it is; then channels attend to channels: queries and keys are of unit length over the pixels, and a learned
temperature per head multiplies their products. The first such block alone adds an encoding of the places. Scopes are
timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.blocks.transformer import as_tokens
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    concat,
    conv2d,
    expand_batch,
    flatten,
    gelu,
    global_avg_pool,
    l2_normalize,
    layer_norm,
    linear,
    matmul,
    mul,
    reshape,
    softmax,
    split,
    transpose,
)
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

EPS = 1e-6
KERNELS = (3, 5, 7, 9)
PARTS = (0, 2, 3, 4)  # of the channels, in the last block of each stage; the first stage has no such block
PLACES = 32  # frequencies of the encoding, sines and cosines, of each axis


@dataclass(frozen=True)
class Config:
    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    heads: int = 8
    num_classes: int = 1000


def scaled(net: Net, x: Tensor, name: str) -> Tensor:
    """(N, …, C) times a learned number per channel."""
    return mul(net, x, net.constant(net.weight(name, x.shape[-1]).reshape(*(1,) * (len(x.shape) - 1), -1), name))


def inverted_bottleneck(net: Net, x: Tensor, shortcut: Tensor) -> Tensor:
    """What x (N, H, W, C) becomes through normalisation and MLP, added to `shortcut` (N, C, H, W)."""
    at, width = net / "mlp", x.shape[-1]
    x = gelu(at / "act", linear(at / "fc1", layer_norm(net / "norm", x, EPS), 4 * width))
    x = scaled(net, linear(at / "fc2", x, width), "gamma")
    return net.tap(add(net, shortcut, transpose(net, x, (0, 3, 1, 2))))


def conv_block(net: Net, x: Tensor, k: int) -> Tensor:
    y = conv2d(net / "conv_dw", x, x.shape[1], k, groups=x.shape[1])
    return inverted_bottleneck(net, transpose(net, y, (0, 2, 3, 1)), x)


def encoding(rows: int, columns: int) -> np.ndarray:
    """(1, 2 * PLACES, H, W): sines and cosines of the place from 1 on, as a share of the whole side times 2 pi."""
    frequencies = 10000.0 ** (2 * (np.arange(PLACES) // 2) / PLACES)
    axes = []
    for size in (rows, columns):
        angles = (np.arange(1, size + 1) / (size + 1e-6) * 2 * np.pi)[:, None] / frequencies
        axes.append(np.stack([np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])], axis=2).reshape(size, PLACES))
    down = np.broadcast_to(axes[0][:, None], (rows, columns, PLACES))
    across = np.broadcast_to(axes[1][None], (rows, columns, PLACES))
    return np.concatenate([down, across], axis=2).transpose(2, 0, 1)[None]


def channel_attention(net: Net, x: Tensor, heads: int) -> Tensor:
    """Cross-covariance attention of tokens (N, S, C): of each head's channels to one another."""
    _, tokens, width = x.shape
    qkv = transpose(net, linear(net / "qkv", x, 3 * width), (0, 2, 1))
    q, k, v = split(net, reshape(net, qkv, (0, 3 * heads, width // heads, tokens)), [heads] * 3)
    scores = matmul(net, l2_normalize(net, q, 3), l2_normalize(net, k, 3), transpose=True)
    scores = mul(net, scores, net.constant(net.weight("temperature", heads, 1, 1)[None], "temperature"))
    x = matmul(net, softmax(net.functional, scores, 3), v)
    x = transpose(net, reshape(net, x, (0, width, tokens)), (0, 2, 1))
    return net.tap(linear(net / "proj", x, width))


def split_transpose_block(net: Net, x: Tensor, heads: int, parts: int, *, placed: bool) -> Tensor:
    _, width, rows, columns = x.shape
    part = -(-width // parts)
    given = split(net, x, [part] * (parts - 1) + [width - part * (parts - 1)])
    made: list[Tensor] = []
    for i, y in enumerate(given[:-1]):
        y = add(net, made[-1], y) if made else y
        made.append(conv2d(net / "convs" / i, y, part, 3, groups=part))
    y = as_tokens(net, concat(net, [*made, given[-1]]))
    if placed:
        at = net / "pos_embd"
        places = expand_batch(at, at.constant(encoding(rows, columns), "places"), like=x)
        y = add(net, y, as_tokens(at, conv2d(at / "token_projection", places, width, 1)))
    attended = channel_attention(net / "xca", layer_norm(net / "norm_xca", y, EPS), heads)
    y = add(net, y, scaled(net, attended, "gamma_xca"))
    return inverted_bottleneck(net, reshape(net, y, (0, rows, columns, width)), x)


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(size=256, share=0.95, interpolation="pillow:bicubic"),
    paper="arXiv:2206.10589",
    configure=classes_from("head.fc.bias"),
    edgenext_xx_small=Variant(
        Config((2, 2, 6, 2), (24, 48, 88, 168), 4),
        params=1_327_216,
        preprocess=imagenet(size=256, share=0.9, interpolation="pillow:bicubic"),
    ),
    edgenext_x_small=Variant(
        Config((3, 3, 9, 3), (32, 64, 100, 192), 4),
        params=2_336_804,
        preprocess=imagenet(size=256, share=0.9, interpolation="pillow:bicubic"),
    ),
    edgenext_small=Variant(Config((3, 3, 9, 3), (48, 96, 160, 304)), params=5_586_832),
    edgenext_base=Variant(Config((3, 3, 9, 3), (80, 160, 288, 584)), params=18_511_292),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = layer_norm(net / "stem" / 1, conv2d(net / "stem" / 0, x, cfg.widths[0], 4, 4, pad=0), EPS, axis=1)
    for stage, (depth, width) in enumerate(zip(cfg.depths, cfg.widths)):
        at, last = net / "stages" / stage, depth - 1 if PARTS[stage] else depth
        if stage > 0:
            halve = at / "downsample"
            x = conv2d(halve / 1, layer_norm(halve / 0, x, EPS, axis=1), width, 2, 2, pad=0)
        for i in range(last):
            x = conv_block(at / "blocks" / i, x, KERNELS[stage])
        if last < depth:
            x = split_transpose_block(at / "blocks" / last, x, cfg.heads, PARTS[stage], placed=stage == 1)
    head = net / "head"
    x = layer_norm(head / "norm", global_avg_pool(head / "global_pool" / "pool", x), EPS, axis=1)
    return linear(head / "fc", flatten(head, x), cfg.num_classes)
