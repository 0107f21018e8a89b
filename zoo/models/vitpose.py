"""ViTPose (Xu et al. 2022, arXiv:2204.12484): heat maps of the 17 points of one person, who fills the picture.

Patches of 16 begin two pixels outside the picture. There is no class token, but its position is added to all patches;
the epsilon is 1e-12. The simple head enlarges the map fourfold, and the classic one by two transposed convolutions.
A point is where its map is largest. Scopes are those of transformers.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.transformer import as_map, as_tokens, attend_each, mlp
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    batch_norm,
    conv2d,
    conv_transpose2d,
    fixed_size,
    layer_norm,
    linear,
    relu,
    upsample,
)
from zoo.preprocess import stretched
from zoo.registry import Variant, register

PATCH, POINTS, WIDTH, DEPTH, HEADS, EPS = 16, 17, 768, 12, 12, 1e-12


@dataclass(frozen=True)
class Config:
    simple: bool = False


def layer(net: Net, x: Tensor) -> Tensor:
    at, y = net / "attention" / "attention", layer_norm(net / "layernorm_before", x, EPS)
    q, k, v = (linear(at / name, y, WIDTH) for name in ("query", "key", "value"))
    y = linear(net / "attention" / "output" / "dense", attend_each(at, q, k, v, HEADS), WIDTH)
    x = add(net, y, x)
    y = mlp(net / "mlp", layer_norm(net / "layernorm_after", x, EPS), 4 * WIDTH, ("fc1", "activation", "fc2"))
    return net.tap(add(net, y, x))


def simple_head(net: Net, x: Tensor) -> Tensor:
    x = upsample(net / "upsampling", relu(net / "activation", x), 4, mode="bilinear")
    return conv2d(net / "conv", x, POINTS, 3)


def classic_head(net: Net, x: Tensor) -> Tensor:
    for i in (1, 2):
        x = conv_transpose2d(net / f"deconv{i}", x, 256, 4, 2, 1, bias=False)
        x = relu(net / f"relu{i}", batch_norm(net / f"batchnorm{i}", x))
    return conv2d(net / "conv", x, POINTS, 1)


@register(
    task="features",
    reference="transformers:{name}",
    preprocess=stretched((256, 192), interpolation="cv2:bilinear"),
    paper="arXiv:2204.12484",
    vitpose_base_simple=Variant(Config(simple=True), params=85_912_337),
    vitpose_base=Variant(Config(), params=89_994_513),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    height, width = fixed_size(net, x, PATCH, "the position embeddings are for one size")
    at = net / "backbone" / "embeddings"
    x = as_tokens(at, conv2d(at / "patch_embeddings" / "projection", x, WIDTH, PATCH, PATCH, pad=2))
    positions = at.weight("position_embeddings", 1, 1 + x.shape[1], WIDTH)
    x = add(at, x, at.constant(positions[:, 1:] + positions[:, :1], "position_embeddings"))
    for i in range(DEPTH):
        x = layer(net / "backbone" / "encoder" / "layer" / i, x)
    x = as_map(net, layer_norm(net / "backbone" / "layernorm", x, EPS), (height // PATCH, width // PATCH))
    return {"heatmaps": (simple_head if cfg.simple else classic_head)(net / "head", x)}
