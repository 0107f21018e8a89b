"""MaxViT (Tu et al. 2022, arXiv:2204.01697).

Each layer is an inverted residual, attention within windows of 7x7, and attention within grids: 7x7 places spread
evenly over the whole map. Scores are scaled by all channels, not by a head's, and biases tell relative places. The
average that halves a shortcut counts the padding; BatchNorms have an epsilon of 1e-3. The classifier has a hidden layer
with tanh, and no bias. Scopes are torchvision's; preprocessing and parameter count are those of its IMAGENET1K_V1
weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zoo.blocks.mbconv import conv, squeeze_excite
from zoo.blocks.windows import grouped_heads, relative_positions, ungrouped
from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    attention,
    avg_pool,
    batch_norm,
    conv2d,
    fixed_size,
    flatten,
    gelu,
    global_avg_pool,
    layer_norm,
    linear,
    reshape,
    sigmoid,
    silu,
    tanh,
    transpose,
)
from zoo.preprocess import imagenet
from zoo.registry import Variant, register
from zoo.weights import Weights

SIDE, HEAD, EPS = 7, 32, 1e-3


@dataclass(frozen=True)
class Config:
    depths: tuple[int, int, int, int] = (2, 2, 5, 2)
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    num_classes: int = 1000


def classes(weights: Weights, cfg: Config) -> Config:
    """The class count from the last layer, which has no bias."""
    last = "classifier.5.weight"
    return replace(cfg, num_classes=weights.size(last) // cfg.widths[3]) if last in weights else cfg


def inverted_residual(net: Net, x: Tensor, out: int, stride: int) -> Tensor:
    at, y = net / "layers", batch_norm(net / "layers" / "pre_norm", x, EPS)
    y = conv(at / "conv_a", y, 4 * out, 1, activation=gelu, eps=EPS)
    y = conv(at / "conv_b", y, 4 * out, 3, stride, groups=4 * out, activation=gelu, eps=EPS)
    y = squeeze_excite(at / "squeeze_excitation", y, out // 4, gate=sigmoid, activation=silu)
    y = conv2d(at / "conv_c", y, out, 1)
    if stride == 2:
        x = conv2d(net / "proj" / 1, avg_pool(net / "proj" / 0, x, 3, 2, pad=1), out, 1)
    return net.tap(add(net, x, y))


def relative_attention(net: Net, x: Tensor) -> Tensor:
    """Attention within each group of (N, groups, 49, C)."""
    _, groups, places, width = x.shape
    heads = width // HEAD
    table = net.weight("relative_position_bias_table", (2 * SIDE - 1) ** 2, heads)
    bias = np.tile(table[relative_positions(SIDE, SIDE)].transpose(2, 0, 1), (groups, 1, 1))
    qkv = reshape(net, linear(net / "to_qkv", x, 3 * width), (0, groups * places, 3 * width))
    q, k, v = grouped_heads(net, qkv, groups, heads)
    x = ungrouped(net, attention(net, q, k, v, net.constant(bias[None], "bias"), scale=width**-0.5), groups)
    return net.tap(linear(net / "merge", reshape(net, x, (0, groups, places, width)), width))


def partition_attention(net: Net, x: Tensor, *, grid: bool) -> Tensor:
    """Attention and MLP within windows of a map (N, C, H, W), or within grids."""
    _, width, height, across = x.shape
    side = height // SIDE if grid else SIDE
    rows, columns = height // side, across // side
    x = transpose(net, reshape(net, x, (0, width, rows, side, columns, side)), (0, 2, 4, 3, 5, 1))
    x = (net / "partition_op").tap(reshape(net, x, (0, rows * columns, side * side, width)))
    if grid:
        x = (net / "partition_swap").tap(transpose(net, x, (0, 2, 1, 3)))
    at = net / "attn_layer"
    x = add(net, x, relative_attention(at / 1, layer_norm(at / 0, x)))
    at = net / "mlp_layer"
    x = add(net, x, linear(at / 3, gelu(at / 2, linear(at / 1, layer_norm(at / 0, x), 4 * width)), width))
    if grid:
        x = (net / "departition_swap").tap(transpose(net, x, (0, 2, 1, 3)))
    x = transpose(net, reshape(net, x, (0, rows, columns, side, side, width)), (0, 5, 1, 3, 2, 4))
    return (net / "departition_op").tap(reshape(net, x, (0, width, height, across)))


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(224, interpolation="pillow:bicubic"),
    paper="arXiv:2204.01697",
    configure=classes,
    ignored=("*.relative_position_index",),
    maxvit_t=Variant(Config(), params=30_919_624),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    height, width = fixed_size(net, x, 32 * SIDE, "its windows and grids are cut for one size")
    if height != width:
        raise ZooError(f"images of {height}x{width} are no squares, of which its grids are made; use {height}x{height}")
    x = conv(net / "stem" / 0, x, cfg.widths[0], 3, 2, activation=gelu, eps=EPS)
    x = conv2d(net / "stem" / 1 / 0, x, cfg.widths[0], 3)
    for block, (width, depth) in enumerate(zip(cfg.widths, cfg.depths)):
        for i in range(depth):
            at = net / "blocks" / block / "layers" / i / "layers"
            x = inverted_residual(at / "MBconv", x, width, 2 if i == 0 else 1)
            x = partition_attention(at / "window_attention", x, grid=False)
            x = partition_attention(at / "grid_attention", x, grid=True)
    at = net / "classifier"
    x = linear(at / 3, layer_norm(at / 2, flatten(net, global_avg_pool(at / 0, x))), cfg.widths[3])
    return linear(at / 5, tanh(at / 4, x), cfg.num_classes, bias=None)
