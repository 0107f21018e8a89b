"""Blocks and the head of YOLOv7, with upstream's scopes, which are places in its descriptions: `model.0`, `model.1` …

Blocks take these one after the other, in the order of the description.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import TypeVar

import numpy as np

from zoo.blocks.yolo import conv, join
from zoo.blocks.yolo_anchors import ANCHORS, anchored, values_first
from zoo.network import Net, Tensor
from zoo.ops import concat, conv2d, conv2d_kernel, conv2d_of, upsample
from zoo.ops._kernel import Kernel
from zoo.ops._sizes import Size
from zoo.weights import Weights

Places = Iterator[Net]


@dataclass(frozen=True)
class Config:
    implicit: bool = False  # the head is that of training
    num_classes: int = 80


AnyConfig = TypeVar("AnyConfig", bound=Config)


def places(net: Net) -> Places:
    return (net / "model" / i for i in count())


def elan(at: Places, x: Tensor, out: int, width: int, inner: int, repeats: int, every: bool = False) -> Tensor:
    """Two 1x1 convolutions of x and a chain of 3x3 ones after the second; `every` or every other result is joined."""
    found = [conv(next(at), x, width), conv(next(at), x, width)]
    for _ in range(repeats):
        found.append(conv(next(at), found[-1], inner, 3))
    kept = found if every else [found[0], *found[1::2]]
    joined = next(at)
    return conv(next(at), joined.tap(concat(joined, kept[::-1])), out)


def doubled(at: Places, x: Tensor, skip: Tensor, width: int) -> Tensor:
    """x, narrowed, at twice its size, after the finer level."""
    x = conv(next(at), x, width)
    x = upsample(next(at), x, 2)
    skip = conv(next(at), skip, width)
    return join(next(at), skip, x)


def implicit_kernel(net: Net, x: Tensor, i: int, out: int) -> Kernel:
    """The last convolution of a level with what is added before it and multiplied after it."""
    before, after = net / "ia" / i, net / "im" / i
    net.definition.folded |= {before.scope, after.scope}
    kernel = conv2d_kernel(net / "m" / i, x, out, 1)
    added = kernel.weight[:, :, 0, 0] @ before.weight("implicit", 1, x.shape[1], 1, 1).reshape(-1)
    return replace(kernel, bias=kernel.bias + added).scaled(after.weight("implicit", 1, out, 1, 1).reshape(-1))


def detect(net: Net, levels: list[Tensor], size: tuple[Size, Size], cfg: Config) -> dict[str, Tensor]:
    """Boxes (N, 4, A) as cx, cy, w, h in pixels and scores (N, classes, A), which are objectness x class."""
    values, found = 5 + cfg.num_classes, []
    order = values_first(values)
    for i, x in enumerate(levels):
        if cfg.implicit:
            kernel = implicit_kernel(net, x, i, ANCHORS * values)
            found.append(conv2d_of(net, x, Kernel(kernel.weight[order], kernel.bias[order])))
        else:
            found.append(conv2d(net / "m" / i, x, ANCHORS * values, 1, order=order))
    anchors = net.buffer("anchor_grid", len(levels), 1, ANCHORS, 1, 1, 2).reshape(len(levels), ANCHORS, 2, 1)
    anchors = anchors * np.array((0, 0, 0, 1))  # they are in pixels
    return anchored(net, found, anchors, size, cfg.num_classes)[0]


def configured_by(*heads: int) -> Callable[[Weights, AnyConfig], AnyConfig]:
    """A `configure` for a head at one of `model.HEAD`: its classes, and whether the weights are those of training."""

    def configure(weights: Weights, cfg: AnyConfig) -> AnyConfig:
        head = next((head for head in heads if f"model.{head}.m.0.bias" in weights), None)
        if head is None:
            return cfg
        classes = weights.size(f"model.{head}.m.0.bias") // ANCHORS - 5
        return replace(cfg, num_classes=classes, implicit=f"model.{head}.ia.0.implicit" in weights)

    return configure
