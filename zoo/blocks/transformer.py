"""Encoder layers of vision transformers (Dosovitskiy et al. 2020, arXiv:2010.11929): tokens are (N, S, C)."""

from __future__ import annotations

from zoo.network import Net, Tensor
from zoo.ops import add, attention, gelu, layer_norm, linear, reshape, split, transpose


def attend(net: Net, qkv: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Queries, keys and values side by side (N, S, 3 * C) -> (N, S, C), each of `heads` by itself.

    `bias` is added to the scores (N, heads, S, S).
    """
    _, tokens, width = qkv.shape
    qkv = transpose(net, reshape(net, qkv, (0, tokens, 3 * heads, width // 3 // heads)), (0, 2, 1, 3))
    x = attention(net, *split(net, qkv, [heads] * 3), bias)
    return reshape(net, transpose(net, x, (0, 2, 1, 3)), (0, tokens, width // 3))


def as_tokens(net: Net, x: Tensor) -> Tensor:
    """A map (N, C, H, W) as its places in reading order, (N, H * W, C)."""
    return transpose(net, reshape(net, x, (0, x.shape[1], -1)), (0, 2, 1))


def as_map(net: Net, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Tokens (N, H * W, C) in reading order as a map (N, C, H, W)."""
    return reshape(net, transpose(net, x, (0, 2, 1)), (0, x.shape[2], *size))


def attend_each(net: Net, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Queries (N, S, C), keys and values (N, T, C) -> (N, S, C), each of `heads` by itself."""
    width = q.shape[-1] // heads
    parted = [transpose(net, reshape(net, x, (0, x.shape[1], heads, width)), (0, 2, 1, 3)) for x in (q, k, v)]
    return reshape(net, transpose(net, attention(net, *parted), (0, 2, 1, 3)), (0, *q.shape[1:]))


def self_attention(net: Net, x: Tensor, heads: int) -> Tensor:
    """torch.nn.MultiheadAttention of x with itself; its projections' parameters have names of their own."""
    width = x.shape[-1]
    qkv = linear(net.functional, x, 3 * width, weight="in_proj_weight", bias="in_proj_bias")
    return net.tap(linear(net / "out_proj", attend(net, qkv, heads), width))


def mlp(net: Net, x: Tensor, hidden: int, names: tuple[str | int, str | int, str | int] = (0, 1, 3)) -> Tensor:
    """Two linear layers with GELU between them; `names` are those of the three modules."""
    first, activation, second = names
    return linear(net / second, gelu(net / activation, linear(net / first, x, hidden)), x.shape[-1])


def encoder_layer(net: Net, x: Tensor, heads: int, hidden: int, eps: float = 1e-6) -> Tensor:
    """torchvision's EncoderBlock: normalisation comes before attention and MLP."""
    x = add(net, x, self_attention(net / "self_attention", layer_norm(net / "ln_1", x, eps), heads))
    return net.tap(add(net, x, mlp(net / "mlp", layer_norm(net / "ln_2", x, eps), hidden)))
