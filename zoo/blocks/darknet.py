"""Blocks of Darknet's YOLOs with the scopes of pytorchyolo (github.com/eriklindernoren/PyTorch-YOLOv3).

A scope is the place of a block in Darknet's description, and its modules bear the number again: `0.conv_0`. What people
get wrong: the slope of the leaky ReLU is 0.1; a box's centre lies in its cell (sigmoid) and its size is exp times the
anchor, which is in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.blocks.yolo import STRIDE, cell_rows
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, conv_bn, exp, leaky_relu, mul, reshape, sigmoid, split, transpose
from zoo.ops._sizes import Size
from zoo.weights import Weights

ANCHORS = 3  # per cell


@dataclass(frozen=True)
class Config:
    num_classes: int = 80


def conv(net: Net, x: Tensor, place: int, out: int, k: int, stride: int = 1) -> Tensor:
    at = net / place
    x = conv_bn(at, x, out, k, stride, conv=f"conv_{place}", bn=f"batch_norm_{place}")
    return leaky_relu(at / f"leaky_{place}", x, 0.1)


def residuals(net: Net, x: Tensor, place: int, repeats: int) -> Tensor:
    """Pairs of a 1x1 convolution to half the channels and a 3x3 one, each pair beside a shortcut."""
    for i in range(place, place + 3 * repeats, 3):
        y = conv(net, conv(net, x, i, x.shape[1] // 2, 1), i + 1, x.shape[1], 3)
        x = add(net / (i + 2), x, y)
    return x


def alternating(net: Net, x: Tensor, place: int, out: int, repeats: int) -> Tensor:
    """1x1 convolutions to `out` channels and 3x3 ones to twice as many by turns, `repeats` in all."""
    for i in range(repeats):
        x = conv(net, x, place + i, 2 * out if i % 2 else out, 3 if i % 2 else 1)
    return x


def predict(net: Net, x: Tensor, place: int, size: tuple[Size, Size], cfg: Config) -> Tensor:
    """Rows (N, anchors, 5 + classes) of one level: cx, cy, w, h in pixels, objectness, classes."""
    values = 5 + cfg.num_classes
    x = conv2d(net / place / f"conv_{place}", x, ANCHORS * values, 1)
    at, level = net / (place + 1) / f"yolo_{place + 1}", x
    x = transpose(at, reshape(at, x, (0, ANCHORS, values, -1)), (0, 1, 3, 2))
    box, found = split(at, reshape(at, x, (0, -1, values)), (4, values - 4), axis=2)
    found = sigmoid(at.functional, found)

    at = at.fp32  # half precision counts in quarters of a pixel beyond 256
    anchors = at.buffer("anchor_grid", 1, ANCHORS, 1, 1, 2).reshape(1, ANCHORS, 2, 1) * np.array((0, 0, 0, 1))
    corner = [(1, 0, -0.5, 0), (0, 1, -0.5, 0)]

    def column(rows: Any, name: str) -> Tensor:
        return transpose(at, cell_rows(at, size, [level], rows, name, ANCHORS), (0, 2, 1))

    xy, wh = split(at, box, (2, 2), axis=2)
    xy = mul(at, sigmoid(at.functional, xy), column([STRIDE], "stride"))
    xy = add(at, xy, column(corner, "corner"))
    wh = mul(at, exp(at, wh), column(anchors, "anchors"))
    return at.tap(concat(at, [xy, wh, found], axis=2))


def detections(net: Net, levels: list[Tensor], cfg: Config) -> dict[str, Tensor]:
    """Boxes (N, 4, A) as cx, cy, w, h in pixels and scores (N, classes, A), which are objectness x class."""
    rows = transpose(net, concat(net.fp32, levels), (0, 2, 1))
    boxes, objectness, classes = split(net.fp32, rows, (4, 1, cfg.num_classes))
    return {"boxes": boxes, "scores": mul(net.fp32, classes, objectness)}


def configured_by(place: int) -> Callable[[Weights, Config], Config]:
    """Reads the number of classes from the predicting convolution at `place` of `weights`."""
    bias = f"module_list.{place}.conv_{place}.bias"

    def configure(weights: Weights, cfg: Config) -> Config:
        return replace(cfg, num_classes=weights.size(bias) // ANCHORS - 5) if bias in weights else cfg

    return configure
