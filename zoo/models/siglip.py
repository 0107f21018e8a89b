"""The image encoder of SigLIP (Zhai et al. 2023, arXiv:2303.15343), which makes embeddings.

There is no class token: a learned probe asks all tokens, once, after the last normalisation, and an MLP follows. GELU
is the one by tanh, the epsilon is 1e-6. Of so400m's pictures of 384 the last pixels are in no patch. The direction of
the embedding counts. Scopes are those of transformers; the text's half of a checkpoint is left.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.clip import embed, layer, mlp
from zoo.blocks.timm_vit import token, token_at
from zoo.blocks.transformer import attend_each
from zoo.network import Net, Tensor
from zoo.ops import add, concat, gelu_tanh, layer_norm, linear, narrow, split
from zoo.preprocess import Resize
from zoo.registry import Variant, register

EPS = 1e-6


@dataclass(frozen=True)
class Config:
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    patch: int = 16


LARGE, SO400M = Config(1024, 24, 16, 4096), Config(1152, 27, 16, 4304, 14)


def pooled(net: Net, x: Tensor, cfg: Config) -> Tensor:
    """What the probe is told by the tokens (N, S, C): (N, C)."""
    at, tokens = net / "attention", x.shape[1]
    x = concat(net, [token(net, "probe", cfg.width, like=x), x])
    # one layer makes queries of the probe, and keys and values of the tokens
    qkv = linear(at.functional, x, 3 * cfg.width, weight="in_proj_weight", bias="in_proj_bias")
    q, k, v = split(at, qkv, [cfg.width] * 3, 2)
    q, k, v = narrow(at, q, 1, 0, 1), narrow(at, k, 1, 1, tokens), narrow(at, v, 1, 1, tokens)
    x = at.tap(linear(at / "out_proj", attend_each(at, q, k, v, cfg.heads), cfg.width))
    x = add(net, x, mlp(net / "mlp", layer_norm(net / "layernorm", x, EPS), cfg.hidden, gelu_tanh))
    return net.tap(token_at(net, x, 0))


def pictures(size: int) -> Resize:
    """The whole picture, stretched to a square, from -1 to 1."""
    return Resize(size, interpolation="pillow:bicubic", mean=(0.5,), std=(0.5,))


@register(
    task="embed",
    reference="transformers:{name}",
    preprocess=pictures(384),
    paper="arXiv:2303.15343",
    ignored=("text_model.*", "logit_scale", "logit_bias", "*.position_ids"),
    siglip_base_patch16_224=Variant(Config(), params=92_884_224, preprocess=pictures(224)),
    siglip_base_patch16_256=Variant(Config(), params=92_930_304, preprocess=pictures(256)),
    siglip_base_patch16_384=Variant(Config(), params=93_176_064),
    siglip_base_patch16_512=Variant(Config(), params=93_520_128, preprocess=pictures(512)),
    siglip_large_patch16_256=Variant(LARGE, params=315_956_224, preprocess=pictures(256)),
    siglip_large_patch16_384=Variant(LARGE, params=316_283_904),
    siglip_so400m_patch14_224=Variant(SO400M, params=427_680_704, preprocess=pictures(224)),
    siglip_so400m_patch14_384=Variant(SO400M, params=428_225_600),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    at = net / "vision_model"
    x = embed(at / "embeddings", x, cfg.width, cfg.patch, classed=False)
    for i in range(cfg.depth):
        x = layer(at / "encoder" / "layers" / i, x, cfg.heads, cfg.hidden, gelu_tanh, EPS)
    return pooled(at / "head", layer_norm(at / "post_layernorm", x, EPS), cfg)
