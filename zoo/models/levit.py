"""LeViT (Graham et al. 2021, arXiv:2104.01136).

There is no class token: tokens are averaged. A BatchNorm follows each linear layer, and each head has its queries, keys
and values side by side, with values wider than keys. Between stages only every second token down and across asks, and
the biases of distances are still those of the larger map. The logits are the mean of two heads'. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.transformer import as_tokens
from zoo.blocks.windows import distances
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    attention,
    batch_norm1d,
    conv_bn,
    fixed_size,
    hardswish,
    index_select,
    linear,
    linear_bn,
    mul,
    reduce_mean,
    reshape,
    split,
    transpose,
)
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

Grid = tuple[int, int]


@dataclass(frozen=True)
class Config:
    """`keys`: channels of a head's keys; its values have twice as many."""

    widths: tuple[int, int, int]
    heads: tuple[int, int, int]
    keys: int = 32
    depths: tuple[int, int, int] = (4, 4, 4)
    num_classes: int = 1000


def parts(net: Net, x: Tensor, heads: int, sizes: list[int]) -> list[Tensor]:
    """Tokens (N, S, heads * sum(sizes)) as parts (N, heads, S, size)."""
    x = reshape(net, x, (0, x.shape[1], heads, sum(sizes)))
    return split(net, transpose(net, x, (0, 2, 1, 3)), sizes, 3)


def attended(net: Net, q: Tensor, k: Tensor, v: Tensor, grid: Grid, stride: int, out: int) -> Tensor:
    """Attention with the biases of distances, and the projection to `out` channels."""
    heads, values = v.shape[1], v.shape[3]
    bias = net.weight("attention_biases", heads, grid[0] * grid[1])[:, distances(*grid, stride)]
    x = attention(net, q, k, v, net.constant(bias[None], "attention_biases"))
    x = reshape(net, transpose(net, x, (0, 2, 1, 3)), (0, q.shape[2], heads * values))
    return net.tap(linear_bn(net / "proj" / "ln", hardswish(net / "proj" / "act", x), out))


def self_attention(net: Net, x: Tensor, heads: int, keys: int, grid: Grid) -> Tensor:
    sizes = [keys, keys, 2 * keys]
    q, k, v = parts(net, linear_bn(net / "qkv", x, heads * sum(sizes)), heads, sizes)
    return attended(net, q, k, v, grid, 1, x.shape[2])


def halving_attention(net: Net, x: Tensor, keys: int, grid: Grid, out: int) -> Tensor:
    """Every second token down and across asks all of them; values are four times as wide as keys."""
    rows, columns = grid
    heads, sizes = x.shape[2] // keys, [keys, 4 * keys]
    asking = [row * columns + column for row in range(0, rows, 2) for column in range(0, columns, 2)]
    k, v = parts(net, linear_bn(net / "kv", x, heads * sum(sizes)), heads, sizes)
    few = (net / "q" / "down").tap(index_select(net / "q" / "down", x, 1, asking))
    (q,) = parts(net, linear_bn(net / "q" / "ln", few, heads * keys), heads, [keys])
    return attended(net, q, k, v, grid, 2, out)


def mlp(net: Net, x: Tensor) -> Tensor:
    return linear_bn(net / "ln2", hardswish(net / "act", linear_bn(net / "ln1", x, 2 * x.shape[2])), x.shape[2])


def classified(net: Net, x: Tensor, classes: int) -> Tensor:
    return linear(net / "linear", batch_norm1d(net / "bn", x), classes)


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(share=0.9, interpolation="pillow:bicubic"),
    paper="arXiv:2104.01136",
    configure=classes_from("head.linear.bias"),
    levit_128s=Variant(Config((128, 256, 384), (4, 6, 8), 16, (2, 3, 4)), params=7_777_058),
    levit_128=Variant(Config((128, 256, 384), (4, 8, 12), 16), params=9_213_936),
    levit_192=Variant(Config((192, 288, 384), (3, 5, 6)), params=10_947_069),
    levit_256=Variant(Config((256, 384, 512), (4, 6, 8)), params=18_893_876),
    levit_384=Variant(Config((384, 512, 768), (6, 9, 12)), params=39_128_836),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    fixed_size(net, x, 1, "its attention has biases for one size")
    for i in (1, 2, 3, 4):
        x = conv_bn(net / "stem" / f"conv{i}", x, cfg.widths[0] >> (4 - i), 3, 2, conv="linear")
        x = x if i == 4 else hardswish(net / "stem" / f"act{i}", x)
    grid = tuple(x.shape[2:])
    x = as_tokens(net, x)
    for stage, (width, heads, depth) in enumerate(zip(cfg.widths, cfg.heads, cfg.depths)):
        at = net / "stages" / stage
        if stage > 0:
            x = halving_attention(at / "downsample" / "attn_downsample", x, cfg.keys, grid, width)
            x, grid = add(at, x, mlp(at / "downsample" / "mlp", x)), tuple((side + 1) // 2 for side in grid)
        for block in (at / "blocks" / i for i in range(depth)):
            x = add(block, x, self_attention(block / "attn", x, heads, cfg.keys, grid))
            x = block.tap(add(block, x, mlp(block / "mlp", x)))
    x = reduce_mean(net, x, 1)
    both = (classified(net / head, x, cfg.num_classes) for head in ("head", "head_dist"))
    return mul(net, add(net, *both), 0.5)
