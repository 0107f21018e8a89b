"""SegFormer B0 to B5, trained on ADE20K (Xie et al. 2021, arXiv:2105.15203).

The head joins its maps from coarse to fine, and gives logits at a quarter of the input's size. Keys and values come
from a map that a convolution shrinks without padding, so that edges may be cut off. Scopes are those of transformers
5.24, which stretches pictures to the input.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.transformer import as_map, as_tokens, attend_each
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, conv_bn, gelu, layer_norm, linear, open_size, relu, upsample
from zoo.ops._sizes import Size as Side
from zoo.preprocess import stretched
from zoo.registry import Variant, classes_from, register

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
Widths = tuple[int, int, int, int]
Size = tuple[Side, Side]
LARGE = (64, 128, 320, 512)


@dataclass(frozen=True)
class Config:
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    widths: Widths = LARGE
    head: int = 768
    num_classes: int = 150


def embed(net: Net, x: Tensor, width: int, k: int, stride: int) -> tuple[Tensor, Size]:
    """Overlapping patches as tokens, and the grid that they make."""
    x = conv2d(net / "proj", x, width, k, stride)
    return net.tap(layer_norm(net / "layer_norm", as_tokens(net, x))), open_size(net, x)


def attend(net: Net, x: Tensor, size: Size, heads: int, reduction: int) -> Tensor:
    width, seen, at = x.shape[-1], x, net / "sequence_reduction"
    if reduction > 1:
        seen = conv2d(at / "sequence_reduction", as_map(at, x, size), width, reduction, reduction, pad=0)
        seen = at.tap(layer_norm(at / "layer_norm", as_tokens(at, seen)))
    q = linear(net / "q_proj", x, width)
    k, v = (linear(net / name, seen, width) for name in ("k_proj", "v_proj"))
    return net.tap(linear(net / "o_proj", attend_each(net, q, k, v, heads), width))


def mix(net: Net, x: Tensor, size: Size) -> Tensor:
    """An MLP whose convolution tells neighbours apart, so that no position embeddings are needed."""
    width, at = 4 * x.shape[-1], net / "dwconv"
    y = as_map(at, linear(net / "fc1", x, width), size)
    y = at.tap(as_tokens(at, conv2d(at / "dwconv", y, width, 3, groups=width)))
    return net.tap(linear(net / "fc2", gelu(net / "activation_fn", y), x.shape[-1]))


def block(net: Net, x: Tensor, size: Size, heads: int, reduction: int) -> Tensor:
    x = add(net, attend(net / "attention", layer_norm(net / "layernorm_before", x), size, heads, reduction), x)
    return net.tap(add(net, mix(net / "mlp", layer_norm(net / "layernorm_after", x), size), x))


def stage(net: Net, x: Tensor, level: int, cfg: Config) -> Tensor:
    k, stride = (7, 4) if level == 0 else (3, 2)
    x, size = embed(net / "patch_embeddings", x, cfg.widths[level], k, stride)
    for i in range(cfg.depths[level]):
        x = block(net / "blocks" / i, x, size, HEADS[level], REDUCTIONS[level])
    return net.tap(as_map(net, layer_norm(net / "layer_norm", x), size))


def project(net: Net, x: Tensor, width: int, size: Size) -> Tensor:
    """A map in the head's width, stretched to `size`."""
    grid = open_size(net, x)
    x = as_map(net, net.tap(linear(net / "proj", as_tokens(net, x), width)), grid)
    return x if grid == size else upsample(net.functional, x, size=size, mode="bilinear")


@register(
    task="segment",
    reference="transformers:{name}",
    preprocess=stretched(512),
    paper="arXiv:2105.15203",
    configure=classes_from("decode_head.classifier.bias"),
    segformer_b0=Variant(Config(widths=(32, 64, 160, 256), head=256), params=3_752_694),
    segformer_b1=Variant(Config(head=256), params=13_715_798),
    segformer_b2=Variant(Config((3, 4, 6, 3)), params=27_461_974),
    segformer_b3=Variant(Config((3, 4, 18, 3)), params=47_337_814),
    segformer_b4=Variant(Config((3, 8, 27, 3)), params=64_108_374),
    segformer_b5=Variant(Config((3, 6, 40, 3)), params=84_708_694, preprocess=stretched(640)),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    head, maps = net / "decode_head", []
    for level in range(4):
        x = stage(net / "segformer" / "stages" / level, x, level, cfg)
        maps.append(x)
    size = open_size(net, maps[0])
    maps = [project(head / "linear_projections" / i, x, cfg.head, size) for i, x in enumerate(maps)]
    x = conv_bn(head, concat(head, maps[::-1]), cfg.head, 1, conv="linear_fuse", bn="batch_norm")
    return head.tap(conv2d(head / "classifier", relu(head / "activation", x), cfg.num_classes, 1))
