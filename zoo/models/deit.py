"""DeiT and DeiT III (Touvron et al. 2020, arXiv:2012.12877; 2022, 2204.07118).

A distilled network has a second token with a head of its own, and its logits are the mean of both heads'. DeiT III adds
positions to the patches only, before the class token is put in front, and scales each residual branch by channel.
Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_vit import EPS, block, token, token_heads
from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, fixed_size, layer_norm, reshape, transpose
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

PATCH, SIDE = 16, 224
THIRD = "arXiv:2204.07118"


@dataclass(frozen=True)
class Config:
    """`third`: DeiT III."""

    width: int
    heads: int
    depth: int = 12
    distilled: bool = False
    third: bool = False
    num_classes: int = 1000


def embed(net: Net, x: Tensor, cfg: Config) -> Tensor:
    """(N, 3, H, W) -> (N, tokens, width): the class token, the distillation token if any, the patches."""
    if fixed_size(net, x, 1, "the position embeddings are for one number of patches") != (SIDE, SIDE):
        height, width = x.shape[2:]
        raise ZooError(f"images of {height}x{width} do not fit the position embeddings; use {SIDE}x{SIDE}")
    x = conv2d(net / "patch_embed" / "proj", x, cfg.width, PATCH, PATCH, pad=0)
    x = transpose(net, reshape(net, x, (0, cfg.width, -1)), (0, 2, 1))
    names = ["cls_token", "dist_token"] if cfg.distilled else ["cls_token"]
    tokens = [token(net, name, cfg.width, like=x) for name in names]
    if not cfg.third:
        x = concat(net, [*tokens, x])
    x = add(net, x, net.constant(net.weight("pos_embed", *(1, *x.shape[1:])), "pos_embed"))
    return concat(net, [*tokens, x]) if cfg.third else x


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(share=0.9, interpolation="pillow:bicubic"),
    paper="arXiv:2012.12877",
    configure=classes_from("head.bias"),
    deit_tiny_patch16_224=Variant(Config(192, 3), params=5_717_416),
    deit_small_patch16_224=Variant(Config(384, 6), params=22_050_664),
    deit_base_patch16_224=Variant(Config(768, 12), params=86_567_656),
    deit_tiny_distilled_patch16_224=Variant(Config(192, 3, distilled=True), params=5_910_800),
    deit_small_distilled_patch16_224=Variant(Config(384, 6, distilled=True), params=22_436_432),
    deit_base_distilled_patch16_224=Variant(Config(768, 12, distilled=True), params=87_338_192),
    deit3_small_patch16_224=Variant(Config(384, 6, third=True), params=22_059_496, paper=THIRD),
    deit3_medium_patch16_224=Variant(Config(512, 8, third=True), params=38_849_512, paper=THIRD),
    deit3_base_patch16_224=Variant(Config(768, 12, third=True), params=86_585_320, paper=THIRD),
    deit3_large_patch16_224=Variant(Config(1024, 16, 24, third=True), params=304_374_760, paper=THIRD),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = embed(net, x, cfg)
    for i in range(cfg.depth):
        x = block(net / "blocks" / i, x, cfg.heads, scaled=cfg.third)
    x = layer_norm(net / "norm", x, EPS)
    return token_heads(net, x, cfg.num_classes, distilled=cfg.distilled)
