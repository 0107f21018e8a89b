"""What the heads of YOLOv5 and YOLOv7 make of boxes: a correction of anchor boxes, of which each cell has three."""

from __future__ import annotations

import numpy as np

from zoo.blocks.yolo import cell_rows
from zoo.network import Net, Tensor
from zoo.ops import add, concat, mul, reshape, sigmoid, split
from zoo.ops._sizes import Size

ANCHORS = 3  # per cell


def values_first(values: int) -> np.ndarray:
    """The order of a head's channels in which nothing is left to transpose: the values of an anchor, then anchors."""
    return np.arange(ANCHORS * values).reshape(ANCHORS, values).T.ravel()


def anchored(
    net: Net, raw: list[Tensor], anchors: np.ndarray, size: tuple[Size, Size], classes: int
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Boxes (N, 4, A) as cx, cy, w, h in pixels and scores (N, classes, A), which are objectness x class; then what
    else an anchor has, (N, values, A), or None.

    Each level of `raw` is (N, values x anchors, H, W) in the order `values_first`; `anchors` (levels, anchors, 2, 4)
    are widths and heights as `cell_rows` takes them.
    """
    values = raw[0].shape[1] // ANCHORS
    found = concat(net, [reshape(net, x, (0, values, -1)) for x in raw], axis=2)
    more = values - 5 - classes
    box, objectness, names, *rest = split(net, found, (4, 1, classes, *[more] * (more > 0)))
    scores = mul(net, sigmoid(net.functional, names), sigmoid(net.functional, objectness))

    at = net.fp32  # beyond 512 pixels half precision counts in halves
    xy, wh = split(at, sigmoid(at.functional, box), (2, 2))
    xy = mul(at, xy, cell_rows(at, size, raw, [(0, 0, 2, 0)], "scale", ANCHORS))
    xy = add(at, xy, cell_rows(at, size, raw, [(1, 0, -1, 0), (0, 1, -1, 0)], "offset", ANCHORS))
    wh = mul(at, mul(at, wh, wh), cell_rows(at, size, raw, 4 * anchors, "anchors", ANCHORS))
    return {"boxes": concat(at, [xy, wh]), "scores": scores}, rest[0] if rest else None
