"""Pooling-based Vision Transformer (Heo et al. 2021, arXiv:2103.16302).

Patches overlap: their windows are twice as large as their steps. Between stages the patches, as a map, are halved by a
convolution that makes two channels of each, and the tokens beside them pass a linear layer of their own. A distilled
network has two of these, and its logits are the mean of two heads'. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zoo.blocks.timm_vit import EPS, block, token, token_heads
from zoo.blocks.transformer import as_map, as_tokens
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, fixed_size, layer_norm, linear, narrow
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    """`width`: channels of a head."""

    width: int
    heads: tuple[int, int, int] = (2, 4, 8)
    depths: tuple[int, int, int] = (2, 6, 4)
    patch: int = 16
    distilled: bool = False
    num_classes: int = 1000


SMALL = Config(48, (3, 6, 12))
BASE = Config(64, (4, 8, 16), (3, 6, 4), 14)


def stage(net: Net, x: Tensor, tokens: Tensor, heads: int, depth: int) -> tuple[Tensor, Tensor]:
    """A map (N, C, H, W) and the tokens beside it (N, T, C), after `depth` blocks on both."""
    grid, beside = tuple(x.shape[2:]), tokens.shape[1]
    x = concat(net, [tokens, as_tokens(net, x)])
    for i in range(depth):
        x = block(net / "blocks" / i, x, heads, scaled=False)
    patches = narrow(net, x, 1, beside, grid[0] * grid[1])
    return as_map(net, patches, grid), narrow(net, x, 1, 0, beside)


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(share=0.9, interpolation="pillow:bicubic"),
    paper="arXiv:2103.16302",
    configure=classes_from("head.bias"),
    pit_ti_224=Variant(Config(32), params=4_847_272),
    pit_xs_224=Variant(Config(48), params=10_618_888),
    pit_s_224=Variant(SMALL, params=23_461_912),
    pit_b_224=Variant(BASE, params=73_764_840),
    pit_ti_distilled_224=Variant(Config(32, distilled=True), params=5_104_336),
    pit_xs_distilled_224=Variant(Config(48, distilled=True), params=11_003_984),
    pit_s_distilled_224=Variant(replace(SMALL, distilled=True), params=24_039_056),
    pit_b_distilled_224=Variant(replace(BASE, distilled=True), params=74_790_096),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    fixed_size(net, x, 1, "the position embeddings are for one size")
    width = cfg.width * cfg.heads[0]
    x = conv2d(net / "patch_embed" / "conv", x, width, cfg.patch, cfg.patch // 2, pad=0)
    x = add(net, x, net.constant(net.weight("pos_embed", *(1, *x.shape[1:])), "pos_embed"))
    tokens = token(net, "cls_token", width, like=x, count=1 + cfg.distilled)
    for i, (heads, depth) in enumerate(zip(cfg.heads, cfg.depths)):
        at = net / "transformers" / i
        if i > 0:
            before, width = width, cfg.width * heads
            x = conv2d(at / "pool" / "conv", x, width, 3, 2, groups=before)
            tokens = linear(at / "pool" / "fc", tokens, width)
        x, tokens = stage(at, x, tokens, heads, depth)
    return token_heads(net, layer_norm(net / "norm", tokens, EPS), cfg.num_classes, distilled=cfg.distilled)
