"""DINOv3, which makes embeddings (Siméoni et al. 2025, arXiv:2508.10104).

Positions are rotations of queries and keys, of the patches alone: neither the class token nor the registers turn. The
first half of a head's channels turns against the second, by angles of places from -1 to 1 on each axis. Queries, keys
and values have no bias, the epsilon of normalisations is 1e-5, and timm's embedding is the mean of the normalised
patches. The plus network has a gated MLP. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.blocks.timm_vit import gated_mlp, patches, scaled_by, token
from zoo.blocks.transformer import mlp
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    attention,
    concat,
    layer_norm,
    linear,
    mul,
    narrow,
    reduce_mean,
    reshape,
    split,
    transpose,
)
from zoo.preprocess import imagenet
from zoo.registry import Variant, register

PATCH, REGISTERS, BASE, EPS = 16, 4, 100.0, 1e-5


@dataclass(frozen=True)
class Config:
    width: int
    heads: int
    depth: int = 12
    gated: bool = False


def angles(grid: tuple[int, int], depth: int) -> np.ndarray:
    """(patches, depth / 2): by how much each pair of channels turns at each place, for rows and then for columns."""
    frequencies = 2 * np.pi / BASE ** (np.arange(depth // 4) / (depth // 4))
    rows, columns = (2 * (np.arange(size) + 0.5) / size - 1 for size in grid)
    down = np.broadcast_to(rows[:, None, None] * frequencies, (*grid, depth // 4))
    across = np.broadcast_to(columns[None, :, None] * frequencies, (*grid, depth // 4))
    return np.concatenate([down, across], axis=2).reshape(-1, depth // 2)


def rotations(grid: tuple[int, int], depth: int) -> tuple[np.ndarray, np.ndarray]:
    """What multiplies a head's channels and what multiplies its swapped halves: (tokens, depth) each."""
    turned = np.concatenate([np.zeros((1 + REGISTERS, depth // 2)), angles(grid, depth)])
    sine, cosine = np.sin(turned), np.cos(turned)
    return np.concatenate([cosine, cosine], axis=1), np.concatenate([-sine, sine], axis=1)


def rotate(net: Net, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Rotary positions of (N, heads, S, D), in fp32 as in timm."""
    net, depth = net.fp32, x.shape[3]
    keep, swap = (net.constant(array[None, None], "rotation") for array in rotations(grid, depth))
    first, second = split(net, x, [depth // 2] * 2, 3)
    return add(net, mul(net, x, keep), mul(net, concat(net, [second, first], 3), swap))


def self_attention(net: Net, x: Tensor, heads: int, grid: tuple[int, int]) -> Tensor:
    _, tokens, width = x.shape
    qkv = reshape(net, linear(net / "qkv", x, 3 * width, bias=None), (0, tokens, 3 * heads, width // heads))
    q, k, v = split(net, transpose(net, qkv, (0, 2, 1, 3)), [heads] * 3)
    x = attention(net, rotate(net, q, grid), rotate(net, k, grid), v)
    return net.tap(linear(net / "proj", reshape(net, transpose(net, x, (0, 2, 1, 3)), (0, tokens, width)), width))


def block(net: Net, x: Tensor, cfg: Config, grid: tuple[int, int]) -> Tensor:
    y = self_attention(net / "attn", layer_norm(net / "norm1", x, EPS), cfg.heads, grid)
    x = add(net, x, scaled_by(net, y, "gamma_1"))
    y, at = layer_norm(net / "norm2", x, EPS), net / "mlp"
    y = gated_mlp(at, y, 4 * cfg.width) if cfg.gated else mlp(at, y, 4 * cfg.width, ("fc1", "act", "fc2"))
    return net.tap(add(net, x, scaled_by(net, y, "gamma_2")))


@register(
    task="embed",
    reference="timm:{name}",
    preprocess=imagenet(size=256, share=1.0, interpolation="pillow:bicubic"),
    paper="arXiv:2508.10104",
    vit_small_patch16_dinov3=Variant(Config(384, 6), params=21_586_944, aliases=("dinov3_vits16",)),
    vit_small_plus_patch16_dinov3=Variant(
        Config(384, 6, gated=True), params=28_683_264, aliases=("dinov3_vits16plus",)
    ),
    vit_base_patch16_dinov3=Variant(Config(768, 12), params=85_641_216, aliases=("dinov3_vitb16",)),
    vit_large_patch16_dinov3=Variant(Config(1024, 16, 24), params=303_079_424, aliases=("dinov3_vitl16",)),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x, grid = patches(net, x, cfg.width, PATCH)
    first = token(net, "cls_token", cfg.width, like=x)
    x = concat(net, [first, token(net, "reg_token", cfg.width, like=x, count=REGISTERS), x])
    for i in range(cfg.depth):
        x = block(net / "blocks" / i, x, cfg, grid)
    x = narrow(net, layer_norm(net / "norm", x, EPS), 1, 1 + REGISTERS, grid[0] * grid[1])
    return reduce_mean(net, x, 1)
