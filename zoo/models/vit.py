"""Vision Transformer (Dosovitskiy et al. 2020, arXiv:2010.11929).

Normalisation comes before attention and MLP, with an epsilon of 1e-6; GELU is the exact one. There is one position
embedding per patch of the published image size, so no other size fits. Scopes are torchvision's; preprocessing and
parameter counts are those of its IMAGENET1K_V1 weights, of `vit_h_14` those of IMAGENET1K_SWAG_LINEAR_V1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt

from zoo.blocks.transformer import encoder_layer
from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, expand_batch, fixed_size, layer_norm, linear, narrow, reshape, transpose
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register
from zoo.weights import Weights


@dataclass(frozen=True)
class Config:
    patch: int
    depth: int = 12
    heads: int = 12
    width: int = 768
    mlp_width: int = 3072
    image: int = 224
    num_classes: int = 1000


def embed(net: Net, x: Tensor, cfg: Config) -> Tensor:
    """(N, 3, H, W) -> (N, 1 + patches, width): the class token, then the patches in reading order."""
    height, width = fixed_size(net, x, 1, why="the position embeddings are for one number of patches")
    if (height, width) != (cfg.image, cfg.image):
        tokens = 1 + (cfg.image // cfg.patch) ** 2
        raise ZooError(
            f"images of {height}x{width} do not fit {tokens} position embeddings; use {cfg.image}x{cfg.image}"
        )
    x = conv2d(net / "conv_proj", x, cfg.width, cfg.patch, cfg.patch, pad=0)
    x = transpose(net, reshape(net, x, (0, cfg.width, -1)), (0, 2, 1))
    token = net.constant(net.weight("class_token", 1, 1, cfg.width), "class_token")
    return concat(net, [expand_batch(net, token, like=x), x])


def configure(weights: Weights, cfg: Config) -> Config:
    """The classes and the image size that `weights` have."""
    cfg, positions = classes_from("heads.head.bias")(weights, cfg), "encoder.pos_embedding"
    if positions not in weights:
        return cfg
    return replace(cfg, image=cfg.patch * isqrt(weights.size(positions) // cfg.width - 1))


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(),
    paper="arXiv:2010.11929",
    configure=configure,
    vit_b_16=Variant(Config(patch=16), params=86_567_656),
    vit_b_32=Variant(Config(patch=32), params=88_224_232),
    vit_l_16=Variant(
        Config(patch=16, depth=24, heads=16, width=1024, mlp_width=4096),
        params=304_326_632,
        preprocess=imagenet(resize=242),
    ),
    vit_l_32=Variant(Config(patch=32, depth=24, heads=16, width=1024, mlp_width=4096), params=306_535_400),
    vit_h_14=Variant(
        Config(patch=14, depth=32, heads=16, width=1280, mlp_width=5120),
        params=632_045_800,
        preprocess=imagenet(224, interpolation="pillow:bicubic"),
    ),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    encoder = net / "encoder"
    x = embed(net, x, cfg)
    positions = encoder.constant(encoder.weight("pos_embedding", *(1, *x.shape[1:])), "pos_embedding")
    x = add(encoder, x, positions)
    for i in range(cfg.depth):
        x = encoder_layer(encoder / "layers" / f"encoder_layer_{i}", x, cfg.heads, cfg.mlp_width)
    x = narrow(net, layer_norm(encoder / "ln", x, eps=1e-6), 1, 0, 1)
    return linear(net / "heads" / "head", reshape(net, x, (0, cfg.width)), cfg.num_classes)
