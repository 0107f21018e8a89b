"""ConViT (d'Ascoli et al. 2021, arXiv:2103.10697).

In the first ten blocks, heads weigh what tokens say against where they are, by a gate of each head; the second softmax
knows no picture and is made on the host. Two blocks after these have the class token and plain attention. Queries, keys
and values have no bias. Places are counted on a square, so height and width are the same. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.blocks.timm_vit import EPS, patches, token, token_heads
from zoo.blocks.transformer import attend, mlp
from zoo.blocks.windows import shares_by_place
from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import add, concat, layer_norm, linear, matmul, mul, reshape, softmax, split, transpose
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

PATCH, GATED, PLAIN = 16, 10, 2


@dataclass(frozen=True)
class Config:
    heads: int
    num_classes: int = 1000

    @property
    def width(self) -> int:
        return 48 * self.heads


def gated_attention(net: Net, x: Tensor, heads: int) -> Tensor:
    """Shares by content and by place, in a proportion that each head has learned."""
    _, tokens, width = x.shape
    parted = lambda y, count: transpose(net, reshape(net, y, (0, tokens, count * heads, width // heads)), (0, 2, 1, 3))  # noqa: E731
    q, k = split(net, parted(linear(net / "qk", x, 2 * width, bias=None), 2), [heads] * 2)
    scores = matmul(net, mul(net, q, (width // heads) ** -0.5), k, transpose=True, name="scores")
    gate = 1 / (1 + np.exp(-net.weight("gating_param", heads)))[:, None, None]
    by_place = net.constant((gate * shares_by_place(net, heads, round(tokens**0.5)))[None], "by_place")
    by_content = mul(net, softmax(net.functional, scores, 3), net.constant(1 - gate[None], "gate"))
    v = parted(linear(net / "v", x, width, bias=None), 1)
    x = matmul(net, add(net, by_content, by_place), v, name="attend")  # shares add up to one, so none is divided
    x = reshape(net, transpose(net, x, (0, 2, 1, 3)), (0, tokens, width))
    return net.tap(linear(net / "proj", x, width))


def plain_attention(net: Net, x: Tensor, heads: int) -> Tensor:
    width = x.shape[2]
    return net.tap(linear(net / "proj", attend(net, linear(net / "qkv", x, 3 * width, bias=None), heads), width))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic"),
    paper="arXiv:2103.10697",
    configure=classes_from("head.bias"),
    convit_tiny=Variant(Config(4), params=5_710_512),
    convit_small=Variant(Config(9), params=27_777_322),
    convit_base=Variant(Config(16), params=86_540_040),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x, (rows, columns) = patches(net, x, cfg.width, PATCH)
    if rows != columns:
        size = f"{PATCH * rows}x{PATCH * columns}"
        raise ZooError(
            f"images of {size} are no squares, and places are counted on one; use {PATCH * rows}x{PATCH * rows}"
        )
    x = add(net, x, net.constant(net.weight("pos_embed", *(1, *x.shape[1:])), "pos_embed"))
    for i in range(GATED + PLAIN):
        at = net / "blocks" / i
        if i == GATED:
            x = concat(net, [token(net, "cls_token", cfg.width, like=x), x])
        attention = gated_attention if i < GATED else plain_attention
        x = add(at, x, attention(at / "attn", layer_norm(at / "norm1", x, EPS), cfg.heads))
        y = mlp(at / "mlp", layer_norm(at / "norm2", x, EPS), 4 * cfg.width, ("fc1", "act", "fc2"))
        x = at.tap(add(at, x, y))
    return token_heads(net, layer_norm(net / "norm", x, EPS), cfg.num_classes, distilled=False)
