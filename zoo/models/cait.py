"""CaiT (Touvron et al. 2021, arXiv:2103.17239).

Heads are mixed with each other twice, before the softmax and after it. The class token joins after all of these blocks,
and two more change it alone: it asks itself and the patches, which stay as they are. Every branch is scaled by channel.
Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_vit import EPS, patches, scaled_by, token, token_at, token_heads
from zoo.blocks.transformer import attend_each, mlp
from zoo.network import Net, Tensor
from zoo.ops import add, concat, layer_norm, linear, matmul, mul, reshape, softmax, split, transpose
from zoo.preprocess import Resize, imagenet
from zoo.registry import Variant, classes_from, register

PATCH = 16


@dataclass(frozen=True)
class Config:
    width: int
    depth: int
    num_classes: int = 1000

    @property
    def heads(self) -> int:
        return self.width // 48


def mixed(net: Net, scores: Tensor) -> Tensor:
    """(N, heads, queries, keys), where each head is a sum of all."""
    scores = linear(net, transpose(net, scores, (0, 2, 3, 1)), scores.shape[1])
    return transpose(net, scores, (0, 3, 1, 2))


def talking_heads(net: Net, x: Tensor, heads: int) -> Tensor:
    _, tokens, width = x.shape
    qkv = reshape(net, linear(net / "qkv", x, 3 * width), (0, tokens, 3 * heads, width // heads))
    q, k, v = split(net, transpose(net, qkv, (0, 2, 1, 3)), [heads] * 3)
    q = mul(net, q, (width // heads) ** -0.5)
    scores = mixed(net / "proj_l", matmul(net, q, k, transpose=True, name="scores"))
    shares = mixed(net / "proj_w", softmax(net.functional, scores, 3))
    x = transpose(net, matmul(net, shares, v, name="attend"), (0, 2, 1, 3))
    return net.tap(linear(net / "proj", reshape(net, x, (0, tokens, width)), width))


def class_attention(net: Net, x: Tensor, heads: int) -> Tensor:
    """The first of the tokens (N, S, C) asks them all: (N, 1, C)."""
    width = x.shape[2]
    q = reshape(net, linear(net / "q", token_at(net, x, 0), width), (0, 1, width))
    k, v = linear(net / "k", x, width), linear(net / "v", x, width)
    return net.tap(linear(net / "proj", attend_each(net, q, k, v, heads), width))


def fed(net: Net, x: Tensor) -> Tensor:
    """The second half of a block: its MLP."""
    y = mlp(net / "mlp", layer_norm(net / "norm2", x, EPS), 4 * x.shape[2], ("fc1", "act", "fc2"))
    return net.tap(add(net, x, scaled_by(net, y, "gamma_2")))


def at_size(size: int) -> Resize:
    """The whole of a square picture of this size."""
    return imagenet(size=size, share=1.0, interpolation="pillow:bicubic")


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=at_size(384),
    paper="arXiv:2103.17239",
    configure=classes_from("head.bias"),
    cait_xxs24_224=Variant(Config(192, 24), params=11_956_264, preprocess=at_size(224)),
    cait_xxs24_384=Variant(Config(192, 24), params=12_029_224),
    cait_xxs36_224=Variant(Config(192, 36), params=17_299_720, preprocess=at_size(224)),
    cait_xxs36_384=Variant(Config(192, 36), params=17_372_680),
    cait_xs24_384=Variant(Config(288, 24), params=26_670_088),
    cait_s24_224=Variant(Config(384, 24), params=46_916_200, preprocess=at_size(224)),
    cait_s24_384=Variant(Config(384, 24), params=47_062_120),
    cait_s36_384=Variant(Config(384, 36), params=68_366_632),
    cait_m36_384=Variant(Config(768, 36), params=271_221_352),
    cait_m48_448=Variant(Config(768, 48), params=356_460_520, preprocess=at_size(448)),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x, _ = patches(net, x, cfg.width, PATCH)
    x = add(net, x, net.constant(net.weight("pos_embed", *(1, *x.shape[1:])), "pos_embed"))
    for at in (net / "blocks" / i for i in range(cfg.depth)):
        y = talking_heads(at / "attn", layer_norm(at / "norm1", x, EPS), cfg.heads)
        x = fed(at, add(at, x, scaled_by(at, y, "gamma_1")))
    first = token(net, "cls_token", cfg.width, like=x)
    for at in (net / "blocks_token_only" / i for i in range(2)):
        y = class_attention(at / "attn", layer_norm(at / "norm1", concat(at, [first, x]), EPS), cfg.heads)
        first = fed(at, add(at, first, scaled_by(at, y, "gamma_1")))
    x = layer_norm(net / "norm", concat(net, [first, x]), EPS)
    return token_heads(net, x, cfg.num_classes, distilled=False)
