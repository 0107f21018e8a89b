"""The image encoder of CLIP (Radford et al. 2021, arXiv:2103.00020), which makes embeddings.

GELU is the quick one, x * sigmoid(1.702 x). Tokens are normalised before the first block too, by a module that upstream
calls `pre_layrnorm`, and the epsilon is 1e-5. Patches have no bias. The class token, normalised and projected, is the
embedding, of which the direction counts. Scopes are those of transformers; the text's half of a checkpoint is left.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.clip import embed, layer
from zoo.blocks.timm_vit import token_at
from zoo.network import Net, Tensor
from zoo.ops import layer_norm, linear, quick_gelu
from zoo.preprocess import CLIP_MEAN, CLIP_STD, Resize, imagenet
from zoo.registry import Variant, register

EPS = 1e-5


@dataclass(frozen=True)
class Config:
    patch: int
    width: int = 768
    depth: int = 12
    out: int = 512


LARGE = Config(14, 1024, 24, 768)


def pictures(size: int) -> Resize:
    """CLIP's: the short side and the crop are of one size."""
    return imagenet(size, size, interpolation="pillow:bicubic", mean=CLIP_MEAN, std=CLIP_STD)


@register(
    task="embed",
    reference="transformers:{name}",
    preprocess=pictures(224),
    paper="arXiv:2103.00020",
    ignored=("text_model.*", "text_projection.weight", "logit_scale", "*.position_ids"),
    clip_vit_base_patch32=Variant(Config(32), params=87_849_216),
    clip_vit_base_patch16=Variant(Config(16), params=86_192_640),
    clip_vit_large_patch14=Variant(LARGE, params=303_966_208),
    clip_vit_large_patch14_336=Variant(LARGE, params=304_293_888, preprocess=pictures(336)),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    at = net / "vision_model"
    x = layer_norm(at / "pre_layrnorm", embed(at / "embeddings", x, cfg.width, cfg.patch, classed=True), EPS)
    for i in range(cfg.depth):
        x = layer(at / "encoder" / "layers" / i, x, cfg.width // 64, 4 * cfg.width, quick_gelu, EPS)
    first = layer_norm(at / "post_layernorm", token_at(at, x, 0), EPS)
    return linear(net / "visual_projection", first, cfg.out, bias=None)
