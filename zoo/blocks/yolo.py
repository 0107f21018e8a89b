"""Blocks of ultralytics' YOLOs (github.com/ultralytics/yolov5, /ultralytics), with upstream's scopes.

What people get wrong: BatchNorm's eps is 1e-3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    concat,
    conv2d_each,
    conv_bn,
    max_pool,
    mul,
    narrow,
    reshape,
    silu,
    softmax,
    split,
    sub,
)
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


def check_scale(weights: Weights, scale: Scale) -> None:
    """Raises ZooError where the first convolution and the first stage of `weights` have another width and depth.

    Weights of another architecture pass: the definition says what they lack.
    """
    if "model.0.bn.weight" not in weights:
        return
    width = weights.size("model.0.bn.weight")
    depth = sum(f"model.2.m.{i}.cv1.bn.weight" in weights for i in range(99))
    if (width, depth) != (scale.channels(64), scale.repeats(3)):
        raise ZooError(
            f"{weights.name} is {width} channels wide in model.0 and {depth} deep in model.2, "
            f"the definition {scale.channels(64)} and {scale.repeats(3)}"
        )


def conv(
    net: Net, x: Tensor, out: int, k: int = 1, stride: int = 1, pad: int | None = None, merge: bool = True
) -> Tensor:
    return silu(net / "act", conv_bn(net, x, out, k, stride, pad, eps=1e-3, merge=merge))


def bottleneck(net: Net, x: Tensor, shortcut: bool, k: int = 3) -> Tensor:
    """Two convolutions, the first with a kernel of `k`."""
    y = conv(net / "cv2", conv(net / "cv1", x, x.shape[1], k), x.shape[1], 3)
    return add(net, x, y) if shortcut else y


def c3(net: Net, x: Tensor, out: int, repeats: int, shortcut: bool = True) -> Tensor:
    """One half of the channels passes the bottlenecks, the other half passes by."""
    y = conv(net / "cv1", x, out // 2)
    for i in range(repeats):
        y = bottleneck(net / "m" / i, y, shortcut, k=1)
    return conv(net / "cv3", concat(net, [y, conv(net / "cv2", x, out // 2, merge=False)]), out)


def c2f(net: Net, x: Tensor, out: int, repeats: int, shortcut: bool = False) -> Tensor:
    """Half of the channels pass `repeats` bottlenecks, and every intermediate result reaches the last convolution."""
    x = conv(net / "cv1", x, out)
    found, y = [x], narrow(net, x, axis=1, start=out // 2, size=out // 2)
    for i in range(repeats):
        y = bottleneck(net / "m" / i, y, shortcut)
        found.append(y)
    return conv(net / "cv2", concat(net, found), out)


def sppf(net: Net, x: Tensor, out: int) -> Tensor:
    """Spatial pyramid pooling: three 5x5 poolings in a row see 5, 9 and 13 cells."""
    found = [conv(net / "cv1", x, x.shape[1] // 2)]
    for _ in range(3):
        found.append(max_pool(net / "m", found[-1], 5, 1, pad=2))
    return conv(net / "cv2", concat(net, found), out)


def join(net: Net, x: Tensor, skip: Tensor) -> Tensor:
    return net.tap(concat(net, [x, skip]))


def cells(size: tuple[int, int], levels: list[Tensor], times: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Centres (2, A) as x, y and strides (A,) of all cells, in pixels of an input of `size` (H, W).

    The cells of each level (N, C, H, W) come in reading order, `times` over.
    """
    centres, strides = [], []
    for height, width in (level.shape[2:] for level in levels):
        y, x = np.tile(np.mgrid[:height, :width].reshape(2, -1) + 0.5, times)
        centres.append(np.stack([x * size[1] / width, y * size[0] / height]))
        strides.append(np.full(len(x), size[0] / height))
    return np.concatenate(centres, axis=1), np.concatenate(strides)


def distances(net: Net, levels: list[Tensor], bins: int) -> Tensor:
    """Logits (N, 4 * bins, H, W) of each level -> (N, 4, A): the mean of each distribution over 0 … bins - 1."""
    means, at = [], (net / "conv").fp32
    for x in levels:
        height, width = x.shape[2:]
        x = softmax(net.functional, reshape(net, x, (0, 4, bins, -1)), axis=2)
        x = conv2d_each(at, reshape(net, x, (0, 4 * bins, height, width)), groups=4)
        means.append(reshape(at, x, (0, 4, -1)))
    mean = concat(at, means, axis=2)
    mean = at.tap(reshape(at, mean, (0, 1, 4, mean.shape[2])))
    return net.tap(reshape(at, mean, (0, 4, mean.shape[3])))


def boxes_around(net: Net, sides: Tensor, size: tuple[int, int], levels: list[Tensor]) -> Tensor:
    """Distances (N, 4, A) in cells, left, top, right, bottom of the cells' centres -> cx, cy, w, h in pixels."""
    at = net.fp32  # beyond 512 pixels half precision counts in halves
    left_top, right_bottom = split(at, sides, (2, 2))
    boxes = concat(at, [sub(at, right_bottom, left_top), add(at, right_bottom, left_top)])
    centres, strides = cells(size, levels)
    scale = at.constant(np.stack([strides / 2] * 2 + [strides] * 2)[None], "scale")
    offset = at.constant(np.concatenate([centres, np.zeros_like(centres)])[None], "offset")
    return add(at, mul(at, boxes, scale), offset)
