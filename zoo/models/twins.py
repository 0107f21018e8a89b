"""Twins (Chu et al. 2021, arXiv:2104.13840): PCPVT, and SVT with windows.

In SVT each odd block attends within windows of 7x7, filled up with zeros, where each token has only its window's; the
others let every token ask a map that is made smaller. In PCPVT all do. A convolution of single channels after the first
block of each stage tells places. Normalisations of blocks have an epsilon of 1e-6, the others 1e-5. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zoo.blocks.timm_vit import EPS, mean_of_tokens
from zoo.blocks.transformer import as_map, as_tokens, attend_each, mlp
from zoo.blocks.windows import grouped_heads, padded_places, pick, ungrouped, windows
from zoo.network import Net, Tensor
from zoo.ops import add, attention, conv2d, fixed_size, layer_norm, linear, reshape, split
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

WINDOW, PATCHES, REDUCED = 7, (4, 2, 2, 2), (8, 4, 2, 1)  # reduced: by how much the asked map is smaller
Four = tuple[int, int, int, int]


@dataclass(frozen=True)
class Config:
    """`head_width`: channels of a head. `hidden`: how many times wider the MLPs are."""

    depths: Four
    widths: Four = (64, 128, 320, 512)
    head_width: int = 64
    hidden: Four = (8, 8, 4, 4)
    windowed: bool = False
    num_classes: int = 1000


SVT = Config((2, 2, 10, 4), (64, 128, 256, 512), 32, (4, 4, 4, 4), windowed=True)


def window_attention(net: Net, x: Tensor, heads: int, size: tuple[int, int]) -> Tensor:
    (height, across), width = size, x.shape[2]
    order = windows(padded_places(height, across, WINDOW), WINDOW)
    x = pick(net, reshape(net, x, (0, height, across, width)), order)
    qkv, grid = linear((net / "qkv").functional, x, 3 * width), (-(-height // WINDOW), -(-across // WINDOW))
    qkv = (net / "qkv").tap(reshape(net, qkv, (0, *grid, WINDOW, WINDOW, 3 * width)))
    q, k, v = grouped_heads(net, reshape(net, qkv, (0, order.size, 3 * width)), len(order), heads)
    x = ungrouped(net, attention(net, q, k, v), len(order))
    back = np.argsort(order.reshape(-1), kind="stable")[: height * across]
    return net.tap(linear(net / "proj", pick(net, reshape(net, x, (0, 1, order.size, width)), back), width))


def reduced_attention(net: Net, x: Tensor, heads: int, size: tuple[int, int], times: int) -> Tensor:
    """Every token asks a map that is `times` smaller."""
    width, asked = x.shape[2], x
    if times > 1:
        asked = as_tokens(net, conv2d(net / "sr", as_map(net, x, size), width, times, times, pad=0))
        asked = layer_norm(net / "norm", asked)
    k, v = split(net, linear(net / "kv", asked, 2 * width), [width] * 2, 2)
    x = attend_each(net, linear(net / "q", x, width), k, v, heads)
    return net.tap(linear(net / "proj", x, width))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(share=0.9, interpolation="pillow:bicubic"),
    paper="arXiv:2104.13840",
    configure=classes_from("head.bias"),
    twins_pcpvt_small=Variant(Config((3, 4, 6, 3)), params=24_106_216),
    twins_pcpvt_base=Variant(Config((3, 4, 18, 3)), params=43_828_456),
    twins_pcpvt_large=Variant(Config((3, 8, 27, 3)), params=60_989_672),
    twins_svt_small=Variant(SVT, params=24_060_776),
    twins_svt_base=Variant(replace(SVT, depths=(2, 2, 18, 2), widths=(96, 192, 384, 768)), params=56_070_952),
    twins_svt_large=Variant(replace(SVT, depths=(2, 2, 18, 2), widths=(128, 256, 512, 1024)), params=99_271_400),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    fixed_size(net, x, 1, "its windows are cut for one size")
    for stage, (width, patch, hidden) in enumerate(zip(cfg.widths, PATCHES, cfg.hidden)):
        at, heads = net / "patch_embeds" / stage, width // cfg.head_width
        x = conv2d(at / "proj", x, width, patch, patch, pad=0)
        size = tuple(x.shape[2:])
        x = layer_norm(at / "norm", as_tokens(net, x))
        for i in range(cfg.depths[stage]):
            at = net / "blocks" / stage / i
            y = layer_norm(at / "norm1", x, EPS)
            if cfg.windowed and i % 2 == 0:
                x = add(at, x, window_attention(at / "attn", y, heads, size))
            else:
                x = add(at, x, reduced_attention(at / "attn", y, heads, size, REDUCED[stage]))
            y = mlp(at / "mlp", layer_norm(at / "norm2", x, EPS), hidden * width, ("fc1", "act", "fc2"))
            x = at.tap(add(at, x, y))
            if i == 0:
                at, y = net / "pos_block" / stage, as_map(net, x, size)
                x = at.tap(as_tokens(at, add(at, conv2d(at / "proj" / 0, y, width, 3, groups=width), y)))
        x = x if stage == 3 else as_map(net, x, size)
    return mean_of_tokens(net, layer_norm(net / "norm", x, EPS), cfg.num_classes)
