"""Depth Anything V2, small and base, on DINOv2 (Yang et al. 2024, arXiv:2406.09414).

The maps are resized corner to corner, and a residual unit begins with its ReLU. The larger a value, the nearer. Scopes
are those of transformers 5.24; parameters are counted without the mask token, which served training, and without the
residual unit of the deepest map, which nothing reaches. A picture's short side becomes 518 there, its shape is kept and
both sides rounded to multiples of 14, as the input 518x686 does with 4:3.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.transformer import as_map, as_tokens, attend_each, mlp
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    concat,
    conv2d,
    conv_transpose2d,
    expand_batch,
    layer_norm,
    linear,
    mul,
    narrow,
    open_size,
    relu,
    reshape,
    upsample,
)
from zoo.ops._sizes import size_of
from zoo.preprocess import stretched
from zoo.registry import Variant, register

PATCH = 14
POSITIONS = 37  # on each side of the square that the position embeddings were trained on
STAGES = (3, 6, 9, 12)  # the layers whose tokens are used


@dataclass(frozen=True)
class Config:
    width: int = 384
    heads: int = 6
    maps: tuple[int, int, int, int] = (48, 96, 192, 384)
    fused: int = 64


def positions(net: Net, width: int, grid: tuple[int, int]) -> Tensor:
    """(1, 1 + patches, width): the trained square, stretched over another grid. In fp32, as PyTorch does."""
    trained = net.weight("position_embeddings", 1, 1 + POSITIONS**2, width)
    first = net.constant(trained[:, :1], "class_position")
    square = trained[:, 1:].transpose(0, 2, 1).reshape(1, width, POSITIONS, POSITIONS)
    at = net.fp32.functional
    rest = upsample(at, at.constant(square, "positions"), size=grid, mode="bicubic")
    return concat(net, [first, as_tokens(net, rest)])


def embed(net: Net, x: Tensor, width: int) -> Tensor:
    """(N, 3, H, W) -> (N, 1 + patches, width): the class token, then the patches in reading order."""
    at = net / "patch_embeddings"
    x = conv2d(at / "projection", x, width, PATCH, PATCH, pad=0)
    grid = open_size(net, x)
    x = at.tap(as_tokens(at, x))
    token = net.constant(net.weight("cls_token", 1, 1, width), "cls_token")
    x = concat(net, [expand_batch(net, token, like=x), x])
    return net.tap(add(net, x, positions(net, width, grid)))


def scaled(net: Net, x: Tensor) -> Tensor:
    return net.tap(mul(net, x, net.constant(net.weight("lambda1", x.shape[-1])[None, None], "lambda1")))


def layer(net: Net, x: Tensor, heads: int) -> Tensor:
    width, at = x.shape[-1], net / "attention"
    y = layer_norm(net / "norm1", x, 1e-6)
    y = attend_each(at, *(linear(at / f"{part}_proj", y, width) for part in "qkv"), heads)
    x = add(net, scaled(net / "layer_scale1", at.tap(linear(at / "o_proj", y, width))), x)
    y = mlp(net / "mlp", layer_norm(net / "norm2", x, 1e-6), 4 * width, ("fc1", "activation_fn", "fc2"))
    return net.tap(add(net, scaled(net / "layer_scale2", (net / "mlp").tap(y)), x))


def features(net: Net, x: Tensor, cfg: Config) -> list[Tensor]:
    """The normalised tokens of four layers, each (N, 1 + patches, width)."""
    x, found = embed(net / "embeddings", x, cfg.width), []
    for i in range(max(STAGES)):
        x = layer(net / "encoder" / "layer" / i, x, cfg.heads)
        if i + 1 in STAGES:
            found.append(layer_norm(net / "layernorm", x, 1e-6))
    return found


def reassemble(net: Net, tokens: Tensor, out: int, level: int, grid: tuple[int, int]) -> Tensor:
    """Tokens as a map again, 4, 2, 1 or 1/2 times the grid of the patches."""
    x = as_map(net, narrow(net, tokens, 1, 1, size_of(tokens, 1) + -1), grid)
    x, at = conv2d(net / "projection", x, out, 1), net / "resize"
    if level < 2:
        x = conv_transpose2d(at, x, out, 4 >> level, 4 >> level)
    elif level == 3:
        x = conv2d(at, x, out, 3, 2)
    return net.tap(x)


def residual(net: Net, x: Tensor) -> Tensor:
    y = conv2d(net / "convolution1", relu(net / "activation1", x), x.shape[1], 3)
    y = conv2d(net / "convolution2", relu(net / "activation2", y), x.shape[1], 3)
    return net.tap(add(net, y, x))


def fuse(net: Net, x: Tensor, finer: Tensor | None, size: tuple[int, int]) -> Tensor:
    if finer is not None:
        x = add(net, x, residual(net / "residual_layer1", finer))
    x = upsample(net.functional, residual(net / "residual_layer2", x), size=size, mode="bilinear", align_corners=True)
    return net.tap(conv2d(net / "projection", x, x.shape[1], 1))


@register(
    task="depth",
    reference="transformers:{name}",
    preprocess=stretched(518, interpolation="pillow:bicubic", stride=PATCH),
    paper="arXiv:2406.09414",
    ignored=("backbone.embeddings.mask_token", "neck.fusion_stage.layers.0.residual_layer1.*"),
    depth_anything_v2_small=Variant(Config(), params=24_710_849),
    depth_anything_v2_base=Variant(Config(768, 12, (96, 192, 384, 768), 128), params=97_174_849),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    size, neck, head = (
        open_size(net, x, PATCH),
        net / "neck",
        net / "head",
    )
    grid, stages = (size[0] // PATCH, size[1] // PATCH), neck / "reassemble_stage" / "layers"
    tokens = features(net / "backbone", x, cfg)
    maps = [reassemble(stages / i, x, out, i, grid) for i, (x, out) in enumerate(zip(tokens, cfg.maps))]
    maps = [conv2d(neck / "convs" / i, x, cfg.fused, 3, bias=False) for i, x in enumerate(maps)]

    sizes = [open_size(net, x) for x in maps[2::-1]] + [(8 * grid[0], 8 * grid[1])]
    x = None
    for i, (finer, to) in enumerate(zip(maps[::-1], sizes)):
        at = neck / "fusion_stage" / "layers" / i
        x = fuse(at, finer, None, to) if x is None else fuse(at, x, finer, to)

    x = conv2d(head / "conv1", x, cfg.fused // 2, 3)
    x = upsample(head.functional, x, size=size, mode="bilinear", align_corners=True)
    x = relu(head / "activation1", conv2d(head / "conv2", x, 32, 3))
    x = relu(head / "activation2", conv2d(head / "conv3", x, 1, 1))
    return head.tap(reshape(head, x, (0, *size)))
