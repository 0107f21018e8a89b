"""Anchor boxes and what a head makes of them, as torchvision's detectors do it.

What people get wrong: an anchor lies around the corner of its cell, not around its middle; its sides are rounded; the
stride of a level is the size of the input through that of the map, rounded down; sizes are exponentials that are
capped, and boxes end at the border.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, exp, maximum, minimum, mul, narrow, reshape, sub

Size = tuple[int, int]
Sizes = Sequence[Sequence[int]]  # of the anchors of each level
LARGEST = math.log(1000 / 16)  # exponent of a size
RATIOS = (0.5, 1.0, 2.0)  # height through width


def cell(sizes: Sequence[int], ratios: Sequence[float]) -> np.ndarray:
    """The anchors of one cell, (K, 4) float32 x1, y1, x2, y2 around its corner: for each ratio all sizes."""
    tall = np.sqrt(np.float32(ratios))[:, None] * np.float32(sizes)
    wide = (1 / np.sqrt(np.float32(ratios)))[:, None] * np.float32(sizes)
    corners = np.stack([-wide, -tall, wide, tall], -1).reshape(-1, 4) / 2
    return np.round(corners)


def anchors(size: Size, maps: Sequence[Tensor], sizes: Sizes, ratios: Sequence[float] = RATIOS) -> np.ndarray:
    """(4, A) float32 as cx, cy, w, h in pixels of an input of `size` (height, width): level by level, and in a level
    for each anchor of a cell all cells."""
    found = []
    for x, of_level in zip(maps, sizes, strict=True):
        height, width = x.shape[2:]
        y, x_ = np.meshgrid(
            np.arange(height) * (size[0] // height), np.arange(width) * (size[1] // width), indexing="ij"
        )
        cells = np.stack([x_, y, x_, y]).reshape(4, 1, -1)
        found.append((cells + cell(of_level, ratios).T[:, :, None]).reshape(4, -1))
    x1, y1, x2, y2 = np.concatenate(found, axis=1).astype(np.float32)
    wide, tall = x2 - x1, y2 - y1
    return np.stack([x1 + wide / 2, y1 + tall / 2, wide, tall])


def values(net: Net, x: Tensor, count: int, per_cell: int = 1, k: int = 3) -> Tensor:
    """A convolution that gives `count` values for each anchor of a cell: (N, C, H, W) -> (N, count, per_cell H W).

    No tap: it is judged with what its values become.
    """
    order = np.arange(per_cell * count).reshape(per_cell, count).T.ravel()  # values first: nothing is transposed
    height, width = x.shape[2:]
    y = conv2d(net, x, per_cell * count, k, order=order)
    return reshape(net, y, (0, count, per_cell * height * width))


def clipped(net: Net, low: Tensor, high: Tensor, size: Size) -> Tensor:
    """Corners (N, 2, …) x, y each, that end at the border of an input of `size`: (N, 4, …) as cx, cy, w, h."""
    border = net.constant(np.float32(size[::-1]).reshape(1, 2, *(1,) * (len(low.shape) - 2)), "border")
    low, high = (minimum(net, maximum(net, corner, 0.0), border) for corner in (low, high))
    return concat(net, [mul(net, add(net, low, high), 0.5), sub(net, high, low)])


def decode(net: Net, codes: Tensor, centre: Tensor, extent: Tensor, size: Size) -> Tensor:
    """codes (N, 4, …) for boxes that are given by `centre` and `extent` (1 or N, 2, …) -> boxes (N, 4, …) as cx, cy, w,
    h, clipped to an input of `size`."""
    shift, scale = narrow(net, codes, 1, 0, 2), narrow(net, codes, 1, 2, 2)
    middle = add(net, mul(net, shift, extent), centre)
    half = mul(net, mul(net, exp(net, minimum(net, scale, LARGEST)), extent), 0.5)
    return clipped(net, sub(net, middle, half), add(net, middle, half), size)
