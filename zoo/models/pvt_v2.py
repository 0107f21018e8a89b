"""PVT v2 (Wang et al. 2021, arXiv:2106.13797).

Tokens attend to a smaller map: a convolution without overlap makes it, with a normalisation that has an epsilon of
1e-5, where those of the blocks have 1e-6. The MLP filters each channel between its layers, before the activation.
Patches overlap, so no side need be a multiple of anything. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.transformer import as_map, as_tokens, attend_each
from zoo.network import Net, Tensor
from zoo.ops import add, conv2d, gelu, layer_norm, linear, open_size, reduce_mean, reshape, split, transpose
from zoo.ops._sizes import Size
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

EPS = 1e-6
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)  # of a side of the map that tokens attend to
WIDTHS = (64, 128, 320, 512)


@dataclass(frozen=True)
class Config:
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    widths: tuple[int, int, int, int] = WIDTHS
    expansions: tuple[int, int, int, int] = (8, 8, 4, 4)
    num_classes: int = 1000


def embed(net: Net, x: Tensor, width: int, k: int, stride: int) -> tuple[Tensor, tuple[Size, Size]]:
    """Overlapping patches of a map as tokens (N, S, C), and the size of their map."""
    x = conv2d(net / "proj", x, width, k, stride)
    size = open_size(net, x)
    x = layer_norm(net / "norm", transpose(net, x, (0, 2, 3, 1)))
    return reshape(net, x, (0, -1, width)), size


def attention(net: Net, x: Tensor, size: tuple[Size, Size], heads: int, reduction: int) -> Tensor:
    width, seen = x.shape[2], x
    if reduction > 1:
        seen = conv2d(net / "sr", as_map(net, x, size), width, reduction, reduction, pad=0)
        seen = layer_norm(net / "norm", as_tokens(net, seen))
    keys, values = split(net, linear(net / "kv", seen, 2 * width), [width] * 2, 2)
    return linear(net / "proj", attend_each(net, linear(net / "q", x, width), keys, values, heads), width)


def mlp(net: Net, x: Tensor, size: tuple[Size, Size], hidden: int) -> Tensor:
    y = as_map(net, linear(net / "fc1", x, hidden), size)
    y = as_tokens(net, conv2d(net / "dwconv", y, hidden, 3, groups=hidden))
    return linear(net / "fc2", gelu(net / "act", y), x.shape[2])


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(share=0.9, interpolation="pillow:bicubic"),
    paper="arXiv:2106.13797",
    configure=classes_from("head.bias"),
    pvt_v2_b0=Variant(Config(widths=(32, 64, 160, 256)), params=3_666_760),
    pvt_v2_b1=Variant(Config(), params=14_009_000),
    pvt_v2_b2=Variant(Config((3, 4, 6, 3)), params=25_362_856),
    pvt_v2_b3=Variant(Config((3, 4, 18, 3)), params=45_238_696),
    pvt_v2_b4=Variant(Config((3, 8, 27, 3)), params=62_556_072),
    pvt_v2_b5=Variant(Config((3, 6, 40, 3), expansions=(4, 4, 4, 4)), params=81_956_008),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x, size = embed(net / "patch_embed", x, cfg.widths[0], 7, 4)
    for stage, (depth, width) in enumerate(zip(cfg.depths, cfg.widths)):
        at = net / "stages" / stage
        if stage > 0:
            x, size = embed(at / "downsample", as_map(at, x, size), width, 3, 2)
        for block in (at / "blocks" / i for i in range(depth)):
            y = layer_norm(block / "norm1", x, EPS)
            x = add(block, x, attention(block / "attn", y, size, HEADS[stage], REDUCTIONS[stage]))
            y = layer_norm(block / "norm2", x, EPS)
            x = block.tap(add(block, x, mlp(block / "mlp", y, size, cfg.expansions[stage] * width)))
        x = layer_norm(at / "norm", x, EPS)
    return linear(net / "head", reduce_mean(net, x, 1), cfg.num_classes)
