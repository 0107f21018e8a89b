"""The heads of ultralytics' YOLOs from v8 on, anchor-free, and of their classifiers, with upstream's scopes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from zoo.blocks.yolo import STRIDE, Scale, X, Y, boxes_around, cell_rows, check_scale, conv, distances
from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    concat,
    conv2d,
    conv_transpose2d,
    cos,
    flatten,
    global_avg_pool,
    linear,
    mul,
    reshape,
    sigmoid,
    sin,
    split,
    sub,
)
from zoo.ops._sizes import Size
from zoo.weights import Weights

Branch = Callable[[Net, Tensor, int], Tensor]
Turn = Callable[[Net, Tensor], Tensor]


@dataclass(frozen=True)
class Head:
    num_classes: int = 80
    reg_max: int = 16  # bins of the distribution that stands for a distance; 1: the distance itself
    extra: int = 0  # what a head for more than boxes gives for each anchor: 3 for each point of a pose


@dataclass(frozen=True)
class DetectConfig(Head, Scale):
    """A size that scales the depths and widths of its yaml."""


AnyHead = TypeVar("AnyHead", bound=Head)
AnyConfig = TypeVar("AnyConfig", bound=DetectConfig)


def plain(net: Net, x: Tensor, width: int) -> Tensor:
    """Two 3x3 convolutions."""
    return conv(net / 1, conv(net / 0, x, width, 3), width, 3)


def separable(net: Net, x: Tensor, width: int) -> Tensor:
    """Twice a 3x3 convolution of each channel and a 1x1 one across them."""
    for i in range(2):
        x = conv(net / i / 0, x, x.shape[1], 3, groups=x.shape[1])
        x = conv(net / i / 1, x, width)
    return x


def each_level(net: Net, levels: list[Tensor], branch: Branch, width: int, out: int) -> list[Tensor]:
    """The branch and a last 1x1 convolution on each level: (N, out, H, W)."""
    return [conv2d(net / i / 2, branch(net / i, x, width), out, 1) for i, x in enumerate(levels)]


def found(net: Net, levels: list[Tensor], cfg: Head, branch: Branch, prefix: str = "") -> tuple[Tensor, Tensor]:
    """Distances (N, 4, A) in cells and scores (N, classes, A). `branch` is that of the classes."""
    first = levels[0].shape[1]
    width = max(16, first // 4, 4 * cfg.reg_max)
    sides = each_level(net / f"{prefix}cv2", levels, plain, width, 4 * cfg.reg_max)
    width = max(first, min(cfg.num_classes, 100))
    classes = each_level(net / f"{prefix}cv3", levels, branch, width, cfg.num_classes)
    scores = [sigmoid(net.functional, x) for x in classes]  # here it fuses into the convolution
    scores = concat(net, [reshape(net, x, (0, cfg.num_classes, -1)) for x in scores], axis=2)
    far = distances(net / "dfl", sides, cfg.reg_max) if cfg.reg_max > 1 else in_a_row(net.fp32, sides)
    return far, scores


def in_a_row(net: Net, levels: list[Tensor]) -> Tensor:
    """Maps (N, C, H, W) of all levels -> (N, C, A)."""
    return concat(net, [reshape(net, x, (0, x.shape[1], -1)) for x in levels], axis=2)


def detect(
    net: Net, levels: list[Tensor], size: tuple[Size, Size], cfg: Head, branch: Branch, prefix: str = ""
) -> dict[str, Tensor]:
    """Boxes (N, 4, A) as cx, cy, w, h in pixels and scores (N, classes, A). `branch` is that of the classes."""
    far, scores = found(net, levels, cfg, branch, prefix)
    return {"boxes": boxes_around(net, far, size, levels), "scores": scores}


def keypoints(net: Net, levels: list[Tensor], size: tuple[Size, Size], cfg: Head) -> Tensor:
    """(N, points, 3, A): x and y in pixels, and in 0..1 how visible a point is."""
    raw = each_level(net / "cv4", levels, plain, max(levels[0].shape[1] // 4, cfg.extra), cfg.extra)
    return points_around(net, raw, size, levels, scale=2.0, shift=0.5)


def points_around(
    net: Net, raw: list[Tensor], size: tuple[Size, Size], levels: list[Tensor], scale: float, shift: float
) -> Tensor:
    """Each level's (N, 3 * points, H, W) -> (N, points, 3, A). Places are `scale` cells from a cell's centre, or from
    where it is `shift` cells nearer to the left top corner.
    """
    values = raw[0].shape[1]
    if values % 3:
        raise ZooError(f"the head has {values} values for points; three a point are needed: x, y and how visible it is")
    at = net.fp32  # beyond 512 pixels half precision counts in halves
    xy, seen = split(at, reshape(at, in_a_row(at, raw), (0, values // 3, 3, -1)), (2, 1), axis=2)
    factors, offset = [(0, 0, scale, 0)], [(1, 0, -shift, 0), (0, 1, -shift, 0)]
    xy = mul(at, xy, reshape(at, cell_rows(at, size, levels, factors, "scale"), (1, 1, 1, -1)))
    xy = add(at, xy, reshape(at, cell_rows(at, size, levels, offset, "offset"), (1, 1, 2, -1)))
    return concat(at, [xy, sigmoid(at.functional, seen)], axis=2)


def instances(
    net: Net, levels: list[Tensor], size: tuple[Size, Size], cfg: Head, branch: Branch, maps: Tensor, prefix: str = ""
) -> dict[str, Tensor]:
    """What `detect` gives, the prototypes `maps` (N, prototypes, h, w), and coefficients (N, prototypes, A): how much
    of each prototype is in the mask of an anchor."""
    width = max(levels[0].shape[1] // 4, cfg.extra)
    shares = in_a_row(net, each_level(net / f"{prefix}cv4", levels, plain, width, cfg.extra))
    return {**detect(net, levels, size, cfg, branch, prefix), "coefficients": shares, "prototypes": maps}


def prototypes(net: Net, x: Tensor, width: int, out: int) -> Tensor:
    """(N, C, H, W) -> (N, out, 2H, 2W)."""
    x = conv_transpose2d(net / "upsample", conv(net / "cv1", x, width, 3), width, 2, 2)
    return net.tap(conv(net / "cv3", conv(net / "cv2", x, width, 3), out))


def turned(
    net: Net, levels: list[Tensor], size: tuple[Size, Size], cfg: Head, branch: Branch, as_angle: Turn, prefix: str = ""
) -> dict[str, Tensor]:
    """Boxes (N, 4, A) as cx, cy, w, h in pixels, scores (N, classes, A) and angles (N, 1, A) in radians: how far a
    box is turned about its centre, from x towards y. `as_angle` makes them of (N, 1, A)."""
    far, scores = found(net, levels, cfg, branch, prefix)
    width = max(levels[0].shape[1] // 4, cfg.extra)
    raw = each_level(net / f"{prefix}cv4", levels, plain, width, cfg.extra)
    angles = as_angle(net.fp32, in_a_row(net.fp32, raw))
    return {"boxes": turned_boxes_around(net, far, angles, size, levels), "scores": scores, "angles": angles}


def turned_boxes_around(
    net: Net, sides: Tensor, angles: Tensor, size: tuple[Size, Size], levels: list[Tensor]
) -> Tensor:
    """`boxes_around` where left, top, right and bottom are those of boxes that are turned by `angles`."""
    at = net.fp32
    left_top, right_bottom = split(at, sides, (2, 2))
    x, y = split(at, mul(at, sub(at, right_bottom, left_top), 0.5), (1, 1))
    across, down = cos(at.functional, angles), sin(at.functional, angles)
    x, y = sub(at, mul(at, x, across), mul(at, y, down)), add(at, mul(at, x, down), mul(at, y, across))
    boxes = concat(at, [x, y, add(at, left_top, right_bottom)])
    none = (0, 0, 0, 0)
    boxes = mul(at, boxes, cell_rows(at, size, levels, [STRIDE], "scale"))
    return add(at, boxes, cell_rows(at, size, levels, [X, Y, none, none], "offset"))


def angle_of(net: Net, logits: Tensor) -> Tensor:
    """Angles from -pi/4 to 3/4 pi of logits."""
    return mul(net, sub(net, sigmoid(net.functional, logits), 0.25), math.pi)


def classify(net: Net, x: Tensor, classes: int) -> Tensor:
    """Logits (N, classes)."""
    x = global_avg_pool(net / "pool", conv(net / "conv", x, 1280))
    return linear(net / "linear", flatten(net, x), classes)


def configured_by(
    head: int, repeats: int, prefix: str = "", extra: str = "cv4.0.2"
) -> Callable[[Weights, AnyConfig], AnyConfig]:
    """A `configure` for a head at `model.HEAD`: its classes, bins, and `extra` of the convolution of that name. Width
    and depth (the first stage has `repeats` blocks before scaling) must be those of the name."""

    def configure(weights: Weights, cfg: AnyConfig) -> AnyConfig:
        check_scale(weights, cfg, repeats)
        return with_head(weights, cfg, head, prefix, extra)

    return configure


def classified_by(head: int, repeats: int) -> Callable[[Weights, AnyConfig], AnyConfig]:
    """The same for a classifier, which has nothing but classes."""

    def configure(weights: Weights, cfg: AnyConfig) -> AnyConfig:
        check_scale(weights, cfg, repeats)
        bias = f"model.{head}.linear.bias"
        return replace(cfg, num_classes=weights.size(bias)) if bias in weights else cfg

    return configure


def with_head(weights: Weights, cfg: AnyHead, head: int, prefix: str = "", extra: str = "cv4.0.2") -> AnyHead:
    """`cfg` with the classes, bins and extra values that `weights` have."""
    found = {"num_classes": f"model.{head}.{prefix}cv3.0.2.bias"}
    if cfg.reg_max > 1:
        found["reg_max"] = f"model.{head}.dfl.conv.weight"
    if cfg.extra:
        found["extra"] = f"model.{head}.{prefix}{extra}.bias"
    return replace(cfg, **{field: weights.size(name) for field, name in found.items() if name in weights})


DOTA = {"num_classes": 15, "extra": 1}  # of DOTA's aerial pictures, and an angle
MASKS = {"extra": 32}  # prototypes
PERSON = {"num_classes": 1, "extra": 17 * 3}  # of COCO's persons: 17 points
