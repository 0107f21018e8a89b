"""What timm's vision transformers share, with its scopes: tokens are (N, S, C)."""

from __future__ import annotations

import numpy as np

from zoo.blocks.transformer import as_tokens, attend, mlp
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    conv2d,
    expand_batch,
    fixed_size,
    layer_norm,
    linear,
    mul,
    narrow,
    reduce_mean,
    reshape,
    silu,
)

EPS = 1e-6


def patches(net: Net, x: Tensor, width: int, side: int, module: str = "patch_embed") -> tuple[Tensor, tuple[int, int]]:
    """An image (N, 3, H, W) as tokens, one for each square of `side`, and how many there are down and across."""
    rows, columns = (size // side for size in fixed_size(net, x, side, "the position embeddings are for one size"))
    return as_tokens(net, conv2d(net / module / "proj", x, width, side, side, pad=0)), (rows, columns)


def token(net: Net, name: str, width: int, like: Tensor, count: int = 1) -> Tensor:
    """Learned tokens (N, count, C) that are the same for each picture of `like`."""
    return expand_batch(net, net.constant(net.weight(name, 1, count, width), name), like=like)


def scaled_by(net: Net, x: Tensor, name: str) -> Tensor:
    """Tokens (N, S, C) times the parameter `name`, one number for each channel."""
    return mul(net, x, net.constant(net.weight(name, x.shape[2]).reshape(1, 1, -1), name))


def residual(net: Net, name: str, x: Tensor, y: Tensor, *, scaled: bool) -> Tensor:
    """x + y, where y is `scaled` by channel first, in the module `name`."""
    if scaled:
        at = net / name
        y = at.tap(mul(at, y, at.constant(at.weight("gamma", y.shape[2]).reshape(1, 1, -1), "gamma")))
    return add(net, x, y)


def qkv_without_key_bias(net: Net, x: Tensor) -> Tensor:
    """Queries, keys and values side by side, (N, S, C) -> (N, S, 3 * C), by one product and two biases."""
    width = x.shape[2]
    biases = [net.weight("q_bias", width), np.zeros(width, np.float32), net.weight("v_bias", width)]
    qkv = linear((net / "qkv").functional, x, 3 * width, bias=None)
    return add(net, qkv, net.constant(np.concatenate(biases)[None, None], "qkv_bias"))


def gated_mlp(net: Net, x: Tensor, hidden: int, *, normalised: bool = False) -> Tensor:
    """timm's SwiGLU: what is between its layers is gated, and may be `normalised` after it."""
    gate = silu(net / "act", linear(net / "fc1_g", x, hidden))
    y = mul(net, gate, linear(net / "fc1_x", x, hidden))
    return linear(net / "fc2", layer_norm(net / "norm", y, EPS) if normalised else y, x.shape[2])


def mean_of_patches(net: Net, x: Tensor, classes: int) -> Tensor:
    """The classifier on the normalised mean of all tokens (N, S, C) but the first."""
    x = reduce_mean(net, narrow(net, x, 1, 1, x.shape[1] - 1), 1)
    return linear(net / "head", layer_norm(net / "fc_norm", x, EPS), classes)


def mean_of_tokens(net: Net, x: Tensor, classes: int) -> Tensor:
    """The classifier on the mean of all tokens (N, S, C)."""
    return linear(net / "head", reduce_mean(net, x, 1), classes)


def token_at(net: Net, x: Tensor, i: int) -> Tensor:
    """One of the tokens (N, S, C): (N, C)."""
    return reshape(net, narrow(net, x, 1, i, 1), (0, x.shape[2]))


def token_heads(net: Net, x: Tensor, classes: int, *, distilled: bool) -> Tensor:
    """The classifier on the first of the tokens (N, S, C); a distilled network's logits are the mean of its and of
    those of a second one, on the token after it.
    """
    logits = linear(net / "head", token_at(net, x, 0), classes)
    if not distilled:
        return logits
    return mul(net, add(net, logits, linear(net / "head_dist", token_at(net, x, 1), classes)), 0.5)


def block(net: Net, x: Tensor, heads: int, *, scaled: bool) -> Tensor:
    """Attention and MLP, each after a normalisation, on branches that may be scaled."""
    at, width = net / "attn", x.shape[2]
    y = attend(at, linear(at / "qkv", layer_norm(net / "norm1", x, EPS), 3 * width), heads)
    x = residual(net, "ls1", x, linear(at / "proj", y, width), scaled=scaled)
    y = mlp(net / "mlp", layer_norm(net / "norm2", x, EPS), 4 * width, ("fc1", "act", "fc2"))
    return net.tap(residual(net, "ls2", x, y, scaled=scaled))
