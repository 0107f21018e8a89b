"""NesT (Zhang et al. 2021, arXiv:2105.12723), the networks converted from JAX.

A map is cut into 16 blocks, then 4, then one, whatever its size, and attention stays within them. What heads give is
joined channel by channel, not head by head. Between levels a convolution, a normalisation of channels and a maximum
halve the map, padded as TensorFlow does: an odd pixel comes last. Blocks have positions of their own. Height and width
are the same. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_layers import pooled
from zoo.blocks.timm_vit import EPS
from zoo.blocks.transformer import mlp
from zoo.blocks.windows import grouped_heads
from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import add, attention, conv2d, fixed_size, layer_norm, linear, max_pool, reshape, transpose
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

PATCH, CUTS, HEAD = 4, (4, 2, 1), 32  # cuts: how many blocks are beside each other


@dataclass(frozen=True)
class Config:
    width: int = 96
    depth: int = 8  # of the last level; the others have two layers
    num_classes: int = 1000


def block_attention(net: Net, x: Tensor) -> Tensor:
    """Attention within each block of (N, blocks, S, C)."""
    _, blocks, tokens, width = x.shape
    heads = width // HEAD
    qkv = reshape(net, linear(net / "qkv", x, 3 * width), (0, blocks * tokens, 3 * width))
    x = attention(net, *grouped_heads(net, qkv, blocks, heads))
    x = transpose(net, reshape(net, x, (0, blocks, heads, tokens, HEAD)), (0, 1, 3, 4, 2))
    return net.tap(linear(net / "proj", reshape(net, x, (0, blocks, tokens, width)), width))


def layer(net: Net, x: Tensor) -> Tensor:
    x = add(net, x, block_attention(net / "attn", layer_norm(net / "norm1", x, EPS)))
    y = mlp(net / "mlp", layer_norm(net / "norm2", x, EPS), 4 * x.shape[3], ("fc1", "act", "fc2"))
    return net.tap(add(net, x, y))


def normalised(net: Net, x: Tensor) -> Tensor:
    """The channels of a map (N, C, H, W), as the module that gets them last."""
    return transpose(net, layer_norm(net, transpose(net, x, (0, 2, 3, 1)), EPS), (0, 3, 1, 2))


def level(net: Net, x: Tensor, depth: int, cuts: int) -> Tensor:
    """`depth` layers on a map (N, C, H, W), within cuts x cuts blocks."""
    width, height, across = x.shape[1:]
    rows, columns = height // cuts, across // cuts
    x = transpose(net, reshape(net, x, (0, width, cuts, rows, cuts, columns)), (0, 2, 4, 3, 5, 1))
    x = reshape(net, x, (0, cuts * cuts, rows * columns, width))
    x = add(net, x, net.constant(net.weight("pos_embed", *(1, *x.shape[1:])), "pos_embed"))
    for i in range(depth):
        x = layer(net / "transformer_encoder" / i, x)
    x = transpose(net, reshape(net, x, (0, cuts, cuts, rows, columns, width)), (0, 5, 1, 3, 2, 4))
    return net.tap(reshape(net, x, (0, width, height, across)))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic"),
    paper="arXiv:2105.12723",
    configure=classes_from("head.bias"),
    nest_tiny_jx=Variant(Config(), params=17_057_608),
    nest_small_jx=Variant(Config(depth=20), params=38_351_176),
    nest_base_jx=Variant(Config(128, 20), params=67_723_368),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    height, across = fixed_size(net, x, PATCH * CUTS[0], "the position embeddings are for one size")
    if height != across:
        raise ZooError(f"images of {height}x{across} are no squares, as its blocks are; use {height}x{height}")
    x = conv2d(net / "patch_embed" / "proj", x, cfg.width, PATCH, PATCH, pad=0)
    for i, cuts in enumerate(CUTS):
        at = net / "levels" / i
        if i > 0:
            x = conv2d(at / "pool" / "conv", x, cfg.width << i, 3)
            x = max_pool(at / "pool" / "pool", normalised(at / "pool" / "norm", x), 3, 2, pad="same")
        x = level(at, x, cfg.depth if i == 2 else 2, cuts)
    return linear(net / "head", pooled(net / "global_pool", normalised(net / "norm", x)), cfg.num_classes)
