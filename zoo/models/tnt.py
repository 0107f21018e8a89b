"""Transformer in Transformer (Han et al. 2021, arXiv:2103.00112).

Each patch is a picture of its own, with 4x4 inner tokens that attend to each other: the convolution that makes them
sees zeros beyond its patch. In each block all inner tokens of a patch, as one vector, are added to its outer token,
normalised before and after they are projected. Queries, keys and values have no bias, normalisations an epsilon of
1e-5. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_vit import token, token_heads
from zoo.blocks.transformer import as_tokens, attend_each, mlp
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, fixed_size, layer_norm, linear, narrow, reshape, split, transpose
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

PATCH, STRIDE, DEPTH, INNER_HEADS = 16, 4, 12, 4
PIXELS = (PATCH // STRIDE) ** 2  # inner tokens of a patch


@dataclass(frozen=True)
class Config:
    width: int
    inner: int
    num_classes: int = 1000

    @property
    def heads(self) -> int:
        return self.width // 64


def pixel_embed(net: Net, x: Tensor, cfg: Config) -> Tensor:
    """An image (N, 3, H, W) as the inner tokens of all patches, (N * patches, 16, inner)."""
    rows, columns = (size // PATCH for size in fixed_size(net, x, PATCH, "the position embeddings are for one size"))
    x = transpose(net, reshape(net, x, (0, 3, rows, PATCH, columns, PATCH)), (0, 1, 3, 5, 2, 4))
    x = (net / "unfold").tap(reshape(net, x, (0, 3 * PATCH * PATCH, rows * columns)))
    x = reshape(net, transpose(net, x, (0, 2, 1)), (-1, 3, PATCH, PATCH))
    return conv2d(net / "proj", x, cfg.inner, 7, STRIDE)


def self_attention(net: Net, x: Tensor, heads: int) -> Tensor:
    width = x.shape[2]
    q, k = split(net, linear(net / "qk", x, 2 * width, bias=None), [width] * 2, 2)
    v = linear(net / "v", x, width, bias=None)
    return net.tap(linear(net / "proj", attend_each(net, q, k, v, heads), width))


def projected(net: Net, inner: Tensor, cfg: Config, patches: int, bias: str | None) -> Tensor:
    """The inner tokens of each patch as one outer token: (N, patches, width)."""
    x = layer_norm(net / "norm1_proj", reshape(net, inner, (-1, patches, PIXELS * cfg.inner)))
    return layer_norm(net / "norm2_proj", linear(net / "proj", x, cfg.width, bias=bias))


def block(net: Net, inner: Tensor, x: Tensor, cfg: Config) -> tuple[Tensor, Tensor]:
    """Inner tokens (N * patches, 16, inner) and outer ones (N, 1 + patches, width), both after one block."""
    inner = add(net, inner, self_attention(net / "attn_in", layer_norm(net / "norm_in", inner), INNER_HEADS))
    y = mlp(net / "mlp_in", layer_norm(net / "norm_mlp_in", inner), 4 * cfg.inner, ("fc1", "act", "fc2"))
    inner, patches = add(net, inner, y), x.shape[1] - 1
    told = add(net, narrow(net, x, 1, 1, patches), projected(net, inner, cfg, patches, bias=None))
    x = concat(net, [narrow(net, x, 1, 0, 1), told])
    x = add(net, x, self_attention(net / "attn_out", layer_norm(net / "norm_out", x), cfg.heads))
    y = mlp(net / "mlp", layer_norm(net / "norm_mlp", x), 4 * cfg.width, ("fc1", "act", "fc2"))
    return inner, add(net, x, y)


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(share=0.9, interpolation="pillow:bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
    paper="arXiv:2103.00112",
    configure=classes_from("head.bias"),
    tnt_s_patch16_224=Variant(Config(384, 24), params=23_768_584),
    tnt_b_patch16_224=Variant(Config(640, 40), params=65_428_680),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    patches = (x.shape[2] // PATCH) * (x.shape[3] // PATCH)
    inner = pixel_embed(net / "pixel_embed", x, cfg)
    places = net.constant(net.weight("pixel_pos", 1, cfg.inner, PATCH // STRIDE, PATCH // STRIDE), "pixel_pos")
    inner = as_tokens(net, add(net, inner, places))
    outer = projected(net, inner, cfg, patches, bias="bias")
    x = concat(net, [token(net, "cls_token", cfg.width, like=outer), outer])
    x = add(net, x, net.constant(net.weight("patch_pos", *(1, *x.shape[1:])), "patch_pos"))
    for i in range(DEPTH):
        inner, x = block(net / "blocks" / i, inner, x, cfg)
    return token_heads(net, layer_norm(net / "norm", x), cfg.num_classes, distilled=False)
