"""Swin Transformer V2 (Liu et al. 2021, arXiv:2111.09883).

Normalisation comes after attention and MLP. Attention is by cosine, times a learned scale of at most 100 for each
head; its bias is a small network's answer to the relative position, which the host asks; keys have no bias, whatever
the weights hold. Scopes are torchvision's; preprocessing and parameter counts are those of its IMAGENET1K_V1 weights.
"""

from __future__ import annotations

import math

import numpy as np

from zoo.blocks.swin import Config, fourfold, swin, window_attention
from zoo.blocks.transformer import mlp
from zoo.blocks.windows import continuous_position_bias
from zoo.network import Net, Tensor
from zoo.ops import add, l2_normalize, layer_norm, linear
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

WINDOW = 8


def shifted_window_attention(net: Net, x: Tensor, heads: int, shifted: bool) -> Tensor:
    at, width = (net / "qkv").functional, x.shape[-1]
    bias = at.weight("bias", 3 * width).copy()
    bias[width : 2 * width] = 0
    qkv = lambda x: add(at, linear(at, x, 3 * width, bias=None), at.constant(bias[None, None], "bias"))  # noqa: E731
    scale = np.exp(np.minimum(net.weight("logit_scale", heads, 1, 1), math.log(100)))
    cosine = lambda q, k: (l2_normalize(net, q, 3), l2_normalize(net, k, 3))  # noqa: E731
    bias_of_positions = continuous_position_bias(net, heads, WINDOW)
    return window_attention(net, x, qkv, heads, WINDOW, bias_of_positions, shifted=shifted, prepare=cosine, scale=scale)


def block(net: Net, x: Tensor, heads: int, shifted: bool) -> Tensor:
    x = add(net, x, layer_norm(net / "norm1", shifted_window_attention(net / "attn", x, heads, shifted)))
    return net.tap(add(net, x, layer_norm(net / "norm2", mlp(net / "mlp", x, 4 * x.shape[-1]))))


def merge(net: Net, x: Tensor) -> Tensor:
    out = 2 * x.shape[-1]
    return layer_norm(net / "norm", linear(net / "reduction", fourfold(net, x), out, bias=None))


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(260, 256, interpolation="pillow:bicubic"),
    paper="arXiv:2111.09883",
    configure=classes_from("head.bias"),
    ignored=("*.relative_position_index",),
    swin_v2_t=Variant(Config((2, 2, 6, 2)), params=28_351_570),
    swin_v2_s=Variant(Config(), params=49_737_442),
    swin_v2_b=Variant(
        Config(width=128, heads=(4, 8, 16, 32)),
        params=87_930_848,
        preprocess=imagenet(272, 256, interpolation="pillow:bicubic"),
    ),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    return swin(net, x, cfg, block, merge)
