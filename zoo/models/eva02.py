"""EVA-02 (Fang et al. 2023, arXiv:2303.11331).

Besides learned positions, queries and keys of the patches turn by their places: each even channel against the odd one
after it, where DINOv3 turns halves. Places are those of a picture of 16x16 patches, whatever the size. MLPs are gated;
the larger networks normalise within them, and have queries, keys and values apart. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.blocks.timm_vit import EPS, gated_mlp, mean_of_patches, patches, qkv_without_key_bias, token
from zoo.network import Net, Tensor
from zoo.ops import add, attention, concat, layer_norm, linear, mul, reshape, silu, split, transpose
from zoo.preprocess import CLIP_MEAN, CLIP_STD, Resize, imagenet
from zoo.registry import Variant, classes_from, register

PATCH, TRAINED, BASE = 14, 16, 10000.0
WHOLE = Resize(448, interpolation="pillow:bicubic", mean=CLIP_MEAN, std=CLIP_STD)


@dataclass(frozen=True)
class Config:
    """`apart`: queries, keys and values are layers of their own, and MLPs normalise."""

    width: int
    depth: int = 12
    apart: bool = False
    num_classes: int = 1000

    @property
    def heads(self) -> int:
        return self.width // 64


def rotations(grid: tuple[int, int], depth: int) -> tuple[np.ndarray, np.ndarray]:
    """What multiplies a head's channels, and what multiplies them when the two of each pair are exchanged:
    (1 + patches, depth) each.
    """
    frequencies = BASE ** -(np.arange(depth // 4) / (depth // 4))
    places = np.indices(grid).reshape(2, -1, 1) * TRAINED / np.array(grid).reshape(2, 1, 1)
    turned = np.concatenate(list(places * frequencies), axis=1)
    turned = np.concatenate([np.zeros((1, depth // 2)), turned])
    sine, cosine = np.sin(turned), np.cos(turned)
    return np.repeat(cosine, 2, axis=1), np.stack([-sine, sine], axis=2).reshape(-1, depth)


def rotate(net: Net, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Rotary positions of (N, heads, S, D), in fp32 as in timm."""
    net, (_, heads, tokens, depth) = net.fp32, x.shape
    keep, exchange = (net.constant(array[None, None], "rotation") for array in rotations(grid, depth))
    even, odd = split(net, reshape(net, x, (0, heads, tokens, depth // 2, 2)), [1, 1], 4)
    exchanged = reshape(net, concat(net, [odd, even], 4), (0, heads, tokens, depth))
    return add(net, mul(net, x, keep), mul(net, exchanged, exchange))


def qkv_apart(net: Net, x: Tensor) -> Tensor:
    """The same as from one layer: queries, keys and values side by side, (N, S, C) -> (N, S, 3 * C)."""
    width = x.shape[2]
    biases = {"q_proj": "bias", "k_proj": None, "v_proj": "bias"}
    return concat(net, [linear(net / name, x, width, bias=bias) for name, bias in biases.items()], 2)


def self_attention(net: Net, x: Tensor, cfg: Config, grid: tuple[int, int]) -> Tensor:
    _, tokens, width = x.shape
    qkv = qkv_apart(net, x) if cfg.apart else qkv_without_key_bias(net, x)
    qkv = reshape(net, qkv, (0, tokens, 3 * cfg.heads, width // cfg.heads))
    q, k, v = split(net, transpose(net, qkv, (0, 2, 1, 3)), [cfg.heads] * 3)
    x = transpose(net, attention(net, rotate(net, q, grid), rotate(net, k, grid), v), (0, 2, 1, 3))
    return net.tap(linear(net / "proj", reshape(net, x, (0, tokens, width)), width))


def packed_mlp(net: Net, x: Tensor, hidden: int) -> Tensor:
    """The gate and what it multiplies are halves of one layer."""
    gate, y = split(net, linear(net / "fc1", x, 2 * hidden), [hidden] * 2, 2)
    return linear(net / "fc2", mul(net, silu(net / "act", gate), y), x.shape[2])


def block(net: Net, x: Tensor, cfg: Config, grid: tuple[int, int]) -> Tensor:
    x = add(net, x, self_attention(net / "attn", layer_norm(net / "norm1", x, EPS), cfg, grid))
    y, at, hidden = layer_norm(net / "norm2", x, EPS), net / "mlp", cfg.width * 8 // 3
    y = gated_mlp(at, y, hidden, normalised=True) if cfg.apart else packed_mlp(at, y, hidden)
    return net.tap(add(net, x, y))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(size=336, share=1.0, interpolation="pillow:bicubic", mean=CLIP_MEAN, std=CLIP_STD),
    paper="arXiv:2303.11331",
    configure=classes_from("head.bias"),
    eva02_tiny_patch14_336=Variant(Config(192), params=5_756_584),
    eva02_small_patch14_336=Variant(Config(384), params=22_129_000),
    eva02_base_patch14_448=Variant(Config(768, apart=True), params=87_117_544, preprocess=WHOLE),
    eva02_large_patch14_448=Variant(Config(1024, 24, apart=True), params=305_080_232, preprocess=WHOLE),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x, grid = patches(net, x, cfg.width, PATCH)
    x = concat(net, [token(net, "cls_token", cfg.width, like=x), x])
    x = add(net, x, net.constant(net.weight("pos_embed", *(1, *x.shape[1:])), "pos_embed"))
    for i in range(cfg.depth):
        x = block(net / "blocks" / i, x, cfg, grid)
    return mean_of_patches(net, x, cfg.num_classes)
