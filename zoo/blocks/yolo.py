"""Blocks of ultralytics' YOLOs (github.com/ultralytics/yolov5, /ultralytics), with upstream's scopes.

What people get wrong: BatchNorm's eps is 1e-3, but in ultralytics' classifiers, which have `net.having(eps=1e-5)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    cell_grid,
    concat,
    conv2d_each,
    conv_bn,
    max_pool,
    mul,
    narrow,
    open_size,
    ratio,
    reshape,
    silu,
    softmax,
    split,
    sub,
)
from zoo.ops._sizes import Size, is_open
from zoo.weights import Weights


@dataclass(frozen=True)
class Scale:
    """How a size of a model scales the depths and widths of its yaml."""

    depth: float
    width: float
    max_channels: int = 1024

    def channels(self, n: int) -> int:
        """`n` capped, scaled, and rounded up to a multiple of 8."""
        return int(-(-min(n, self.max_channels) * self.width // 8) * 8)

    def repeats(self, n: int) -> int:
        return max(round(n * self.depth), 1)


def check_scale(weights: Weights, scale: Scale, repeats: int = 3) -> None:
    """Raises ZooError where the first convolution and the first stage of `weights`, of `repeats` blocks before scaling,
    have another width and depth.

    Weights of another architecture pass: the definition says what they lack.
    """
    if "model.0.bn.weight" not in weights:
        return
    width = weights.size("model.0.bn.weight")
    depth = sum(f"model.2.m.{i}.cv1.bn.weight" in weights for i in range(99))
    if (width, depth) != (scale.channels(64), scale.repeats(repeats)):
        raise ZooError(
            f"{weights.name} is {width} channels wide in model.0 and {depth} deep in model.2, "
            f"the definition {scale.channels(64)} and {scale.repeats(repeats)}"
        )


def conv(
    net: Net,
    x: Tensor,
    out: int,
    k: int = 1,
    stride: int = 1,
    pad: int | None = None,
    *,
    groups: int = 1,
    merge: bool = True,
) -> Tensor:
    eps = net.setting("eps", 1e-3)
    activation = net.setting("activation", silu)
    return activation(net / "act", conv_bn(net, x, out, k, stride, pad, groups=groups, eps=eps, merge=merge))


def linear_conv(net: Net, x: Tensor, out: int, k: int = 1, stride: int = 1, groups: int = 1) -> Tensor:
    """A convolution and its normalisation without an activation: `Conv(…, act=False)`."""
    return conv_bn(net, x, out, k, stride, groups=groups, eps=net.setting("eps", 1e-3))


def bottleneck(net: Net, x: Tensor, shortcut: bool, k: int = 3, hidden: int | None = None) -> Tensor:
    """Two convolutions, the first with a kernel of `k` to `hidden` channels, as many as x has by default."""
    y = conv(net / "cv2", conv(net / "cv1", x, hidden or x.shape[1], k), x.shape[1], 3)
    return add(net, x, y) if shortcut else y


def c3(net: Net, x: Tensor, out: int, repeats: int, shortcut: bool = True) -> Tensor:
    """`csp` of bottlenecks whose first kernel is 1x1."""
    return csp(net, x, out, [partial(bottleneck, shortcut=shortcut, k=1)] * repeats)


def c2f(net: Net, x: Tensor, out: int, repeats: int, shortcut: bool = False) -> Tensor:
    """Half of the channels pass `repeats` bottlenecks, and every intermediate result reaches the last convolution."""
    return halves(net, x, out, out // 2, [partial(bottleneck, shortcut=shortcut)] * repeats)


def c3k(net: Net, x: Tensor, out: int, shortcut: bool = True) -> Tensor:
    """`c3` with two bottlenecks of 3x3 kernels."""
    return csp(net, x, out, [partial(bottleneck, shortcut=shortcut)] * 2)


def csp(net: Net, x: Tensor, out: int, blocks: Sequence[Callable[[Net, Tensor], Tensor]]) -> Tensor:
    """One half of the channels passes the blocks, one after the other below `m`; the other half passes by."""
    y = conv(net / "cv1", x, out // 2)
    for i, block in enumerate(blocks):
        y = block(net / "m" / i, y)
    return conv(net / "cv3", concat(net, [y, conv(net / "cv2", x, out // 2, merge=False)]), out)


def halves(net: Net, x: Tensor, out: int, width: int, blocks: Sequence[Callable[[Net, Tensor], Tensor]]) -> Tensor:
    """`c2f` of any blocks, one after the other below `m`, on the second `width` of 2 * `width` channels."""
    x = conv(net / "cv1", x, 2 * width)
    found, y = [x], narrow(net, x, axis=1, start=width, size=width)
    for i, block in enumerate(blocks):
        y = block(net / "m" / i, y)
        found.append(y)
    return conv(net / "cv2", concat(net, found), out)


def c3k2(net: Net, x: Tensor, out: int, repeats: int, nested: bool, share: float = 0.5) -> Tensor:
    """`c2f` whose blocks are `c3k` (`nested`) or bottlenecks that narrow to a half, on `share` of the channels."""
    width = int(out * share)

    def block(net: Net, x: Tensor) -> Tensor:
        return c3k(net, x, width) if nested else bottleneck(net, x, shortcut=True, hidden=width // 2)

    return halves(net, x, out, width, [block] * repeats)


def sppf(net: Net, x: Tensor, out: int) -> Tensor:
    """Spatial pyramid pooling: three 5x5 poolings in a row see 5, 9 and 13 cells."""
    found = [conv(net / "cv1", x, x.shape[1] // 2)]
    for _ in range(3):
        found.append(max_pool(net / "m", found[-1], 5, 1, pad=2))
    return conv(net / "cv2", concat(net, found), out)


def join(net: Net, x: Tensor, skip: Tensor) -> Tensor:
    return net.tap(concat(net, [x, skip]))


# For each anchor: factors of the x and the y of a cell's centre in pixels, of its stride, and of 1.
X, Y, STRIDE = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)


def cell_rows(net: Net, size: tuple[Size, Size], levels: list[Tensor], rows: Any, name: str, times: int = 1) -> Tensor:
    """(1, R, A) in fp32: for all cells the `rows` (R, 4) of factors as above, in pixels of an input of `size` (H, W).

    The cells of each level (N, C, H, W) come in reading order, `times` over; `rows` may differ from level to level and
    from time to time: (levels, times, R, 4). Constants, or where the size is open, layers.
    """
    rows = np.broadcast_to(rows, (len(levels), times, *np.shape(rows)[-2:]))
    if is_open(*size):
        return concat(
            net.fp32, [part for x, own in zip(levels, rows) for part in _open_rows(net, size, x, own)], axis=2
        )
    parts = []
    for level, own in zip(levels, rows):
        height, width = level.shape[2:]
        y, x = np.mgrid[:height, :width].reshape(2, -1) + 0.5
        x, y, one = x * size[1] / width, y * size[0] / height, np.ones(height * width)
        cells = np.stack([x, y, one * size[0] / height, one])
        parts += [factors @ cells for factors in own.astype(np.float64)]
    return net.fp32.constant(np.concatenate(parts, axis=1)[None], name)


def _open_rows(net: Net, size: tuple[Size, Size], level: Tensor, rows: np.ndarray) -> list[Tensor]:
    """The same of one level, a tensor for each of the times."""
    at, (x, y) = net.fp32, cell_grid(net, level, 0.5)
    stride = ratio(at, size[0], level, 2) if is_open(size[0]) else ratio(at, size[1], level, 3)
    nothing = mul(at, add(at, x, y), 0.0)
    cells = [add(at, mul(at, part, stride), nothing) for part in (x, y)] + [add(at, stride, nothing), nothing]

    def row(factors: np.ndarray) -> Tensor:
        *parts, constant = (float(factor) for factor in factors)
        total = add(at, nothing, constant)
        for part, factor in zip(cells, parts):
            total = add(at, total, mul(at, part, factor)) if factor else total
        return total

    return [reshape(at, concat(at, [row(f) for f in own]), (1, len(own), -1)) for own in rows]


def distances(net: Net, levels: list[Tensor], bins: int) -> Tensor:
    """Logits (N, 4 * bins, H, W) of each level -> (N, 4, A): the mean of each distribution over 0 … bins - 1."""
    means, at = [], (net / "conv").fp32
    for x in levels:
        height, width = open_size(net, x)
        x = softmax(net.functional, reshape(net, x, (0, 4, bins, -1)), axis=2)
        x = conv2d_each(at, reshape(net, x, (0, 4 * bins, height, width)), groups=4)
        means.append(reshape(at, x, (0, 4, -1)))
    mean = concat(at, means, axis=2)
    mean = at.tap(reshape(at, mean, (0, 1, 4, mean.shape[2])))
    return net.tap(reshape(at, mean, (0, 4, mean.shape[3])))


def boxes_around(net: Net, sides: Tensor, size: tuple[Size, Size], levels: list[Tensor]) -> Tensor:
    """Distances (N, 4, A) in cells, left, top, right, bottom of the cells' centres -> cx, cy, w, h in pixels."""
    at = net.fp32  # beyond 512 pixels half precision counts in halves
    left_top, right_bottom = split(at, sides, (2, 2))
    boxes = concat(at, [sub(at, right_bottom, left_top), add(at, right_bottom, left_top)])
    half, none = (0, 0, 0.5, 0), (0, 0, 0, 0)
    scale = cell_rows(at, size, levels, [half, half, STRIDE, STRIDE], "scale")
    return add(at, mul(at, boxes, scale), cell_rows(at, size, levels, [X, Y, none, none], "offset"))
