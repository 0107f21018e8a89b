"""The image encoder of Segment Anything (Kirillov et al. 2023, arXiv:2304.02643).

Most blocks attend within windows of 14x14, filled up with zeros after they are normalised; four attend to the whole
map. What is added to the scores depends on the queries: each is multiplied, as it is before scaling, by what was
learned for the rows and for the columns between it and the others. Two convolutions make the map that prompts are
answered from. Scopes are those of transformers; the prompts' and the masks' parts of a checkpoint are left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.blocks.windows import padded_places, pick, windows
from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import add, attention, conv2d, fixed_size, gelu, layer_norm, linear, matmul, reshape, split, transpose
from zoo.preprocess import IMAGENET_MEAN, IMAGENET_STD, Resize
from zoo.registry import Variant, register

PATCH, WINDOW, OUT, EPS = 16, 14, 256, 1e-6


@dataclass(frozen=True)
class Config:
    """`whole`: the blocks that attend to the whole map."""

    width: int = 768
    heads: int = 12
    whole: tuple[int, ...] = (2, 5, 8, 11)

    @property
    def depth(self) -> int:
        return self.whole[-1] + 1


def relative(net: Net, name: str, size: int, depth: int) -> Tensor:
    """What was learned for each pair of rows or columns: (1, 1, size, size, depth), by query and by key."""
    table, places = net.weight(name, 2 * size - 1, depth), np.arange(size)
    return net.constant(table[places[:, None] - places + size - 1][None, None], name)


def position_bias(net: Net, q: Tensor, rows: int, columns: int) -> Tensor:
    """What rows and columns between queries (N, heads, S, D) and keys add to the scores: (N, heads, S, S)."""
    _, heads, tokens, depth = q.shape
    q = reshape(net, q, (0, heads, rows, columns, depth))
    down = matmul(net, q, relative(net, "rel_pos_h", rows, depth), transpose=True, name="down")
    across = transpose(net, q, (0, 1, 3, 2, 4))
    across = matmul(net, across, relative(net, "rel_pos_w", columns, depth), transpose=True, name="across")
    across = reshape(net, transpose(net, across, (0, 1, 3, 2, 4)), (0, heads, tokens, 1, columns))
    both = add(net, reshape(net, down, (0, heads, tokens, rows, 1)), across)
    return reshape(net, both, (0, heads, tokens, tokens))


def self_attention(net: Net, x: Tensor, heads: int) -> Tensor:
    """Attention within each map (N, H, W, C)."""
    _, rows, columns, width = x.shape
    qkv = reshape(net, linear(net / "qkv", x, 3 * width), (0, rows * columns, 3 * heads, width // heads))
    q, k, v = split(net, transpose(net, qkv, (0, 2, 1, 3)), [heads] * 3)
    x = transpose(net, attention(net, q, k, v, position_bias(net, q, rows, columns)), (0, 2, 1, 3))
    return linear(net / "proj", reshape(net, x, (0, rows, columns, width)), width)


def window_attention(net: Net, x: Tensor, heads: int) -> Tensor:
    """The same within windows."""
    _, rows, columns, width = x.shape
    order = windows(padded_places(rows, columns, WINDOW), WINDOW)
    x = self_attention(net, reshape(net, pick(net, x, order), (-1, WINDOW, WINDOW, width)), heads)
    back = np.argsort(order.reshape(-1), kind="stable")[: rows * columns]
    return reshape(net, pick(net, reshape(net, x, (-1, 1, order.size, width)), back), (0, rows, columns, width))


def layer(net: Net, x: Tensor, heads: int, *, whole: bool) -> Tensor:
    attend, width = self_attention if whole else window_attention, x.shape[3]
    x = add(net, x, attend(net / "attn", layer_norm(net / "layer_norm1", x, EPS), heads))
    y = linear(net / "mlp" / "lin1", layer_norm(net / "layer_norm2", x, EPS), 4 * width)
    return net.tap(add(net, x, linear(net / "mlp" / "lin2", gelu(net / "mlp" / "act", y), width)))


def neck(net: Net, x: Tensor) -> Tensor:
    x = layer_norm(net / "layer_norm1", conv2d(net / "conv1", x, OUT, 1, bias=False), EPS, axis=1)
    return layer_norm(net / "layer_norm2", conv2d(net / "conv2", x, OUT, 3, bias=False), EPS, axis=1)


@register(
    task="features",
    reference="transformers:{name}",
    # padded with zeros after it is normalised, which is this grey but for 0.2 of red and 0.2 of blue
    preprocess=Resize(1024, "fit", mean=IMAGENET_MEAN, std=IMAGENET_STD, pad=116, align="corner"),
    paper="arXiv:2304.02643",
    ignored=("prompt_encoder.*", "mask_decoder.*", "shared_image_embedding.*"),
    sam_vit_base=Variant(Config(), params=89_670_912),
    sam_vit_large=Variant(Config(1024, 16, (5, 11, 17, 23)), params=308_278_272),
    sam_vit_huge=Variant(Config(1280, 16, (7, 15, 23, 31)), params=637_026_048),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    height, width = fixed_size(net, x, PATCH, "the position embeddings are for one size")
    if height != width:
        raise ZooError(
            f"images of {height}x{width} do not fit the positions, which are a square's; use {width}x{width}"
        )
    net = net / "vision_encoder"
    x = transpose(net, conv2d(net / "patch_embed" / "projection", x, cfg.width, PATCH, PATCH, pad=0), (0, 2, 3, 1))
    x = add(net, x, net.constant(net.weight("pos_embed", *(1, *x.shape[1:])), "pos_embed"))
    for i in range(cfg.depth):
        x = layer(net / "layers" / i, x, cfg.heads, whole=i in cfg.whole)
    return {"image_embeddings": neck(net / "neck", transpose(net, x, (0, 3, 1, 2)))}
