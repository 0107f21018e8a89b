"""Blocks of Darknet's YOLOv4 with the scopes of pytorch-YOLOv4 (github.com/Tianxiaomo/pytorch-YOLOv4).

A scope is the place of a block in Darknet's description, `models.0`, and the modules of a convolution bear its number
among the convolutions, which is one more: `models.4.conv4`. What people get wrong: a box's centre may lie a little
beside its cell, by `scale_x_y`; its size is exp times the anchor, which is in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from zoo.blocks.yolo import STRIDE, cell_rows
from zoo.blocks.yolo_anchors import ANCHORS, values_first
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, conv_bn, exp, leaky_relu, mish, mul, reshape, sigmoid, split, sub
from zoo.ops._sizes import Size
from zoo.weights import Weights


@dataclass(frozen=True)
class Config:
    num_classes: int = 80


class Places:
    """The blocks of a description, one after the other, with a count of the convolutions."""

    def __init__(self, net: Net) -> None:
        self.net, self.place, self.convolution = net / "models", 0, 0

    def next(self) -> Net:
        """The next block, whatever it is: a route and a shortcut take a place, too."""
        self.place += 1
        return self.net / (self.place - 1)

    def conv(self, x: Tensor, out: int, k: int = 1, stride: int = 1, *, smooth: bool = False) -> Tensor:
        """A convolution with a leaky ReLU or, `smooth`, with Mish."""
        at, number = self.next(), self._count()
        x = conv_bn(at, x, out, k, stride, conv=f"conv{number}", bn=f"bn{number}")
        return mish(at / f"mish{number}", x) if smooth else leaky_relu(at / f"leaky{number}", x, 0.1)

    def alternating(self, x: Tensor, out: int, repeats: int) -> Tensor:
        """1x1 convolutions to `out` channels and 3x3 ones to twice as many by turns, `repeats` in all."""
        for i in range(repeats):
            x = self.conv(x, 2 * out if i % 2 else out, 3 if i % 2 else 1)
        return x

    def predict(self, x: Tensor, cfg: Config) -> Tensor:
        """The last convolution of a level, its channels in the order `values_first`."""
        at, values = self.next(), 5 + cfg.num_classes
        decoded = self.next()  # with those of the other levels, in `detections`
        decoded.definition.folded.add(decoded.scope)
        return conv2d(at / f"conv{self._count()}", x, ANCHORS * values, 1, order=values_first(values))

    def join(self, *parts: Tensor) -> Tensor:
        return concat(self.next(), parts)

    def _count(self) -> int:
        self.convolution += 1
        return self.convolution


def detections(
    net: Net, raw: list[Tensor], size: tuple[Size, Size], anchors: Sequence, reach: Sequence[float], cfg: Config
) -> dict[str, Tensor]:
    """Boxes (N, 4, A) as cx, cy, w, h in pixels and scores (N, classes, A), which are objectness x class.

    Of each level there are the `raw` values (N, values x anchors, H, W), `anchors` (3, 2) in pixels, and the `reach` of
    its centres: how wide the range of a centre is, in cells.
    """
    found = concat(net, [reshape(net, x, (0, 5 + cfg.num_classes, -1)) for x in raw], axis=2)
    box, objectness, classes = split(net, found, (4, 1, cfg.num_classes))
    scores = mul(net, sigmoid(net.functional, classes), sigmoid(net.functional, objectness))

    at = net.fp32  # beyond 512 pixels half precision counts in halves
    xy, wh = split(at, box, (2, 2))
    one = np.array((0, 0, 0, 1))
    wide = np.array(reach)[:, None, None, None] * one  # (levels, 1, 1, 4), as `cell_rows` takes them
    sides = np.array(anchors, np.float64)[..., None] * one  # in pixels
    xy = mul(at, sigmoid(at.functional, xy), cell_rows(at, size, raw, wide, "reach", ANCHORS))
    xy = sub(at, xy, cell_rows(at, size, raw, (wide - one) / 2, "beside", ANCHORS))
    xy = mul(at, xy, cell_rows(at, size, raw, [STRIDE], "stride", ANCHORS))
    xy = add(at, xy, cell_rows(at, size, raw, [(1, 0, -0.5, 0), (0, 1, -0.5, 0)], "corner", ANCHORS))
    wh = mul(at, exp(at, wh), cell_rows(at, size, raw, sides, "anchors", ANCHORS))
    return {"boxes": concat(at, [xy, wh]), "scores": scores}


def configured_by(place: int, number: int) -> Callable[[Weights, Config], Config]:
    """Reads the number of classes from the predicting convolution at `place`, the `number`th of `weights`."""
    bias = f"models.{place}.conv{number}.bias"

    def configure(weights: Weights, cfg: Config) -> Config:
        return replace(cfg, num_classes=weights.size(bias) // ANCHORS - 5) if bias in weights else cfg

    return configure
