"""What Swin and Swin V2 share (arXiv:2103.14030, 2111.09883), with torchvision's scopes: tokens are (N, H, W, C)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from zoo.blocks.windows import grouped_heads, padded_places, pick, ungrouped, windows
from zoo.network import Net, Tensor
from zoo.ops import attention, conv2d, fixed_size, flatten, global_avg_pool, layer_norm, linear, reshape, transpose

Block = Callable[[Net, Tensor, int, bool], Tensor]  # net, x, heads, whether its windows are shifted
Merge = Callable[[Net, Tensor], Tensor]
HIDDEN = -100.0  # added to the scores of tokens that are neighbours only because the map was rolled


@dataclass(frozen=True)
class Config:
    depths: tuple[int, int, int, int] = (2, 2, 18, 2)
    width: int = 96
    heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    num_classes: int = 1000


def shifts(height: int, width: int, side: int) -> tuple[int, int]:
    """By how much windows are shifted: half their side, but not where one covers the map."""
    return side // 2 * (height > side), side // 2 * (width > side)


def hidden(height: int, width: int, side: int) -> np.ndarray:
    """What is added to the scores within each shifted window: (windows, S, S)."""
    labels = np.zeros((height, width))
    for axis, (size, shift) in enumerate(zip((height, width), shifts(height, width, side))):
        places = np.arange(size)
        region = (places >= size - side).astype(int) + (places >= size - shift) if shift else 0 * places
        labels += 3**axis * (region if axis else region[:, None])
    labels = windows(labels, side)
    return np.where(labels[:, None] == labels[:, :, None], 0.0, HIDDEN)


def window_attention(
    net: Net,
    x: Tensor,
    qkv: Callable[[Tensor], Tensor],
    heads: int,
    side: int,
    bias: np.ndarray,
    *,
    shifted: bool,
    prepare: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda q, k: (q, k),
    scale: np.ndarray | None = None,
) -> Tensor:
    """Attention within windows of `side`, after the map was filled up with zeros and rolled.

    `bias` (heads, S, S) is added to all windows' scores, `scale` (heads, 1, 1) multiplies them.
    """
    height, width = x.shape[1:3]
    places = padded_places(height, width, side)
    rolled, mask = places, np.zeros((places.size // side**2, 1, 1))
    if shifted:
        rolled = np.roll(places, [-shift for shift in shifts(*places.shape, side)], (0, 1))
        mask = hidden(*places.shape, side)
    order = windows(rolled, side)
    groups = len(order)
    q, k, v = grouped_heads(net, qkv(pick(net, x, order)), groups, heads)
    q, k = prepare(q, k)
    scores = (bias[None] + mask[:, None]).reshape(1, groups * heads, *bias.shape[1:])
    if scale is not None:
        scale = net.constant(np.tile(scale, (groups, 1, 1))[None], "scale")
    x = attention(net, q, k, v, net.constant(scores, "scores"), scale=scale)
    x = linear((net / "proj").functional, ungrouped(net, x, groups), v.shape[-1] * heads)
    back = np.argsort(order.reshape(-1), kind="stable")[: height * width]
    x = reshape(net, x, (0, 1, groups * side**2, v.shape[-1] * heads))
    return net.tap(reshape(net, pick(net, x, back), (0, height, width, v.shape[-1] * heads)))


def fourfold(net: Net, x: Tensor) -> Tensor:
    """Each four neighbours as one token: (0, 0), (1, 0), (0, 1), (1, 1) of (row, column); zeros beyond an odd side."""
    height, width, channels = x.shape[1:]
    places = padded_places(height, width, 2)
    rows, columns = (side // 2 for side in places.shape)
    order = places.reshape(rows, 2, columns, 2).transpose(0, 2, 3, 1)
    return reshape(net, pick(net, x, order), (0, rows, columns, 4 * channels))


def swin(net: Net, x: Tensor, cfg: Config, block: Block, merge: Merge) -> Tensor:
    """Patches of 4x4, stages of `block` with `merge` between them, and the classifier."""
    at = net / "features"
    fixed_size(net, x, 1, "its windows and their masks are cut for one size")
    x = transpose(net, conv2d(at / 0 / 0, x, cfg.width, 4, 4, pad=0), (0, 2, 3, 1))
    x = layer_norm(at / 0 / 2, x)
    for stage, (depth, heads) in enumerate(zip(cfg.depths, cfg.heads)):
        if stage > 0:
            x = merge(at / (2 * stage), x)
        for i in range(depth):
            x = block(at / (2 * stage + 1) / i, x, heads, i % 2 == 1)
    x = transpose(net, layer_norm(net / "norm", x), (0, 3, 1, 2))
    return linear(net / "head", flatten(net, global_avg_pool(net / "avgpool", x)), cfg.num_classes)
