"""The two stages of torchvision's R-CNNs (Ren et al. 2015, arXiv:1506.01497): proposals, and what a head makes of them.

Counts are fixed: proposals and detections are filled up with boxes of no size, which score nothing. What people get
wrong: codes of the second stage are ten and five times as large; each class has a box of its own, the background
(class 0) too; a proposal is pooled from one level, by the root of its area, and is not moved by half a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.blocks import resnet
from zoo.blocks.anchors import Size, Sizes, anchors, decode
from zoo.blocks.feature_pyramid import WIDTH, pyramid
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    concat,
    conv2d,
    conv_bn,
    div,
    flatten,
    linear,
    max_pool,
    maximum,
    minimum,
    mul,
    narrow,
    pad,
    relu,
    reshape,
    softmax,
    sqrt,
    sub,
    take_rows,
    topk,
    transpose,
)
from zoo.plugins.core.layers import binary, cast, constant, gather
from zoo.plugins.nms import Nms
from zoo.plugins.roi_align import roi_align

SIZES = ((32,), (64,), (128,), (256,), (512,))
HIDDEN = 1024  # of the second stage
CODES = (10.0, 10.0, 5.0, 5.0)
SMALLEST_PROPOSAL, SMALLEST = 1e-3, 1e-2  # pixels of a side
NOTHING = -1e30  # a logit
CANONICAL = 224  # root of the area of what is pooled from a stride of 16
PROPOSAL_IOU, PROPOSAL_ROUNDS = 0.7, 64  # smooth scores over 1000 anchors of a level settle within 30
CONF, IOU, ROUNDS = 0.05, 0.5, 32
CANDIDATES = 2000  # pairs of box and class that are compared, the best; enough for 100 that stay


@dataclass(frozen=True)
class Config:
    """What torchvision decides by: `proposals` for each level before suppression and for all after it, at most so many
    `detections`.

    The `second` version normalises the pyramid, looks twice for proposals, and has convolutions before its linear
    layer.
    """

    second: bool = False
    proposals: int = 1000
    proposal_conf: float = 0.0
    detections: int = 100
    num_classes: int = 91


def holds(net: Net, a: Tensor, b: Tensor, comparison: Any) -> Tensor:
    """1 where a comparison of TensorRT's ElementWiseOperation (GREATER, LESS, EQUAL) holds, else 0."""
    return cast(net, binary(net, a, b, comparison), net.trt.float32)


def without_small(net: Net, scores: Tensor, boxes: Tensor, least: float) -> Tensor:
    """scores (N, A), nothing for boxes (N, 4, A) of cx, cy, w, h with a side below `least`."""
    side = minimum(net, narrow(net, boxes, 1, 2, 1), narrow(net, boxes, 1, 3, 1))
    large = holds(
        net,
        side,
        net.constant(np.full((1, 1, 1), np.nextafter(np.float32(least), 0)), "least"),
        net.trt.ElementWiseOperation.GREATER,
    )
    return mul(net, scores, reshape(net, large, (0, scores.shape[1])))


def resnet_levels(net: Net, x: Tensor, second: bool) -> list[Tensor]:
    """The maps of a ResNet-50 that are pooled from, and a last one. The published weights of the first version run with
    an epsilon of 0."""
    body = net / "body" if second else net.having(eps=0.0) / "body"
    _, *maps = resnet.features(body, x, resnet.Stages()).values()
    return with_last(net, pyramid(net / "fpn", maps, normalised=second))


def with_last(net: Net, levels: list[Tensor]) -> list[Tensor]:
    """One more, which has every second pixel of the last."""
    return [*levels, max_pool(net.functional, levels[-1], 1, 2)]


def find(net: Net, levels: Sequence[Tensor], size: Size, sizes: Sizes, cfg: Config) -> tuple[Tensor, Tensor, Tensor]:
    """The detections of both stages: boxes (N, D, 4) as x1, y1, x2, y2, scores (N, D) and classes (N, D)."""
    boxes = propose(net / "rpn", levels, size, sizes, cfg)
    scores, codes = classify(net / "roi_heads", levels[:-1], boxes, size, cfg)
    return detect(net / "roi_heads", scores, codes, boxes, size, cfg)


def propose(net: Net, maps: Sequence[Tensor], size: Size, sizes: Sizes, cfg: Config) -> Tensor:
    """Boxes (N, R, 4) as x1, y1, x2, y2 in pixels of an input of `size`, best first: where something is.

    Logits decide, whose sigmoids may be equal. Levels are suppressed as pictures of a batch are, by the places of their
    boxes in the order of the logits.
    """
    at = net.fp32
    found = [best_of_level(net / "head", x, size, each, cfg) for x, each in zip(maps, sizes, strict=True)]
    most, count = max(x.shape[1] for x, *_ in found), len(found)
    logits, boxes, valid = (
        reshape(at, concat(at, [widened(at, x, most) for x in parts], 1), (-1, rows, most))
        for parts, rows in zip(zip(*found), (1, 4, 1))
    )
    rank = at.constant(np.arange(most, 0, -1, dtype=np.float32).reshape(1, 1, -1), "rank")
    nms = Nms(0.0, PROPOSAL_IOU, most, most, PROPOSAL_ROUNDS)
    _, kept, rank, *_ = nms(at / "nms", boxes, mul(at, valid, rank))
    place = cast(at, sub(at, at.constant(np.full((1, 1), most), "most"), rank), net.trt.int32)  # `most` where none is
    logits = pad(at.functional, reshape(at, logits, (-1, 1, most, 1)), (0, 0, 0, 1), value=NOTHING)
    logits = take_rows(at, reshape(at, logits, (-1, most + 1, 1)), place)
    _, order = topk(
        at, reshape(at, logits, (-1, count * most)), min(cfg.proposals, sum(x.shape[1] for x, *_ in found)), 1
    )
    return take_rows(at, reshape(at, kept, (-1, count * most, 4)), order)


def widened(net: Net, x: Tensor, to: int) -> Tensor:
    """x (N, …, K) as (N, 1, …, `to`), with zeros."""
    rows = x.shape[1] if len(x.shape) == 3 else 1
    return pad(net.functional, reshape(net, x, (0, 1, rows, x.shape[-1])), (0, to - x.shape[-1], 0, 0))


def best_of_level(net: Net, x: Tensor, size: Size, sizes: Sequence[int], cfg: Config) -> tuple[Tensor, Tensor, Tensor]:
    """The best anchors of a level: logits (N, K), boxes (N, 4, K) as cx, cy, w, h, and 1 where they count (N, K)."""
    for i in range(1 + cfg.second):
        x = relu(net / "conv" / i / 1, conv2d(net / "conv" / i / 0, x, WIDTH, 3))
    at = net.fp32
    given = anchors(size, [x], [sizes])
    every, area = given.shape[1], x.shape[2] * x.shape[3]
    per_cell = every // area
    logits = reshape(at, conv2d(at / "cls_logits", x, per_cell, 1), (0, every))
    codes = reshape(at, conv2d(at / "bbox_pred", x, per_cell * 4, 1), (0, per_cell, 4, area))
    codes = reshape(at, transpose(at, codes, (0, 1, 3, 2)), (0, every, 4))
    logits, order = topk(at, logits, min(cfg.proposals, every), 1)
    codes = transpose(at, take_rows(at, codes, order), (0, 2, 1))
    given = transpose(at, gather(at, at.constant(given.T, "anchors"), order, axis=0), (0, 2, 1))
    boxes = decode(at, codes, narrow(at, given, 1, 0, 2), narrow(at, given, 1, 2, 2), size)
    least = NOTHING if cfg.proposal_conf == 0 else np.log(cfg.proposal_conf / (1 - cfg.proposal_conf))
    enough = holds(at, logits, at.constant(np.full((1, 1), least), "least"), at.trt.ElementWiseOperation.GREATER)
    return logits, boxes, without_small(at, enough, boxes, SMALLEST_PROPOSAL)


def pool(net: Net, maps: Sequence[Tensor], boxes: Tensor, size: Size, out: int) -> Tensor:
    """Each of boxes (N, R, 4) from the level of its size: (N R, C, out, out). The module MultiScaleRoIAlign."""
    scales = [2.0 ** round(np.log2(x.shape[2] / size[0])) for x in maps]
    if len(set(scales)) == 1:  # then torchvision takes the first alone
        return net.tap(roi_align(net, maps[0], boxes, out, scales[0]))
    at = net.fp32
    low, high = narrow(at, boxes, 2, 0, 2), narrow(at, boxes, 2, 2, 2)
    sides = sub(at, high, low)
    root = sqrt(at, mul(at, narrow(at, sides, 2, 0, 1), narrow(at, sides, 2, 1, 1)))
    root = reshape(at, root, (-1, 1, 1, 1))
    total, above = None, None
    for x, scale in zip(maps[::-1], scales[::-1]):
        share = holds(
            at, root, at.constant(np.full((1, 1, 1, 1), from_root(scale)), "from"), at.trt.ElementWiseOperation.GREATER
        )
        if scale == scales[0]:
            share = add(at, mul(at, share, 0.0), 1.0)
        here = share if above is None else sub(at, share, above)
        part = mul(net, roi_align(net, x, boxes, out, scale), net.enter(here))
        total, above = part if total is None else add(net, total, part), share
    return net.tap(total)


def from_root(scale: float) -> np.float32:
    """Boxes whose root of the area is more than this are pooled from the level of this scale, or a coarser one."""
    return np.nextafter(np.float32(CANONICAL / 16 / scale * 2**-1e-6), np.float32(0))


def embed(net: Net, x: Tensor, second: bool) -> Tensor:
    """What is pooled of each proposal as 1024 numbers."""
    if not second:
        x = relu(net.functional, linear(net / "fc6", flatten(net, x), HIDDEN))
        return relu(net.functional, linear(net / "fc7", x, HIDDEN))
    for i in range(4):
        x = relu(net / i / 2, conv_bn(net / i, x, WIDTH, 3, conv=0, bn=1))
    return relu(net / 6, linear(net / 5, flatten(net, x), HIDDEN))


def classify(net: Net, maps: Sequence[Tensor], boxes: Tensor, size: Size, cfg: Config) -> tuple[Tensor, Tensor]:
    """scores (N R, classes) and codes (N R, 4 classes) of the proposals (N, R, 4)."""
    x = embed(net / "box_head", pool(net / "box_roi_pool", maps, boxes, size, 7), cfg.second)
    at = (net / "box_predictor").fp32
    scores = softmax(at.functional, linear(at / "cls_score", x, cfg.num_classes), 1)
    return scores, linear(at / "bbox_pred", x, 4 * cfg.num_classes)


def detect(
    net: Net, scores: Tensor, codes: Tensor, boxes: Tensor, size: Size, cfg: Config
) -> tuple[Tensor, Tensor, Tensor]:
    """What is found, best first: boxes (N, D, 4) as x1, y1, x2, y2, scores (N, D), classes (N, D), int32, -1 beyond."""
    at, count, classes = net.fp32, boxes.shape[1], scores.shape[1]
    low, high = (transpose(at, narrow(at, boxes, 2, start, 2), (0, 2, 1)) for start in (0, 2))
    extent = sub(at, high, low)
    centre = add(at, low, mul(at, extent, 0.5))
    codes = transpose(at, reshape(at, codes, (-1, count, classes, 4)), (0, 3, 1, 2))
    codes = div(at, narrow(at, codes, 3, 1, classes - 1), at.constant(np.reshape(CODES, (1, 4, 1, 1)), "codes"))
    of_class = decode(at, codes, *(reshape(at, t, (0, 2, count, 1)) for t in (centre, extent)), size)
    every = count * (classes - 1)
    of_class = reshape(at, of_class, (0, 4, every))
    scores = reshape(at, narrow(at, reshape(at, scores, (-1, count, classes)), 2, 1, classes - 1), (0, every))
    scores = without_small(at, scores, of_class, SMALLEST)

    most = min(CANDIDATES, every)
    scores, order = topk(at, scores, most, 1)
    chosen = transpose(at, take_rows(at, transpose(at, of_class, (0, 2, 1)), order), (0, 2, 1))
    label = gather(at, constant(at, np.tile(np.arange(1, classes, dtype=np.int32), count)), order, axis=0)
    each = mul(at, one_hot(at, label, classes), reshape(at, scores, (0, 1, most)))
    nms = Nms(CONF, IOU, cfg.detections, most, ROUNDS, apart=True)
    _, found, score, label, _ = nms(at / "nms", chosen, each)
    return found, score, label


def one_hot(net: Net, label: Tensor, classes: int) -> Tensor:
    """(N, K) int32 -> (N, classes, K): 1 at the class of each."""
    known = constant(net, np.arange(classes, dtype=np.int32).reshape(1, -1, 1))
    return holds(net, reshape(net, label, (0, 1, label.shape[1])), known, net.trt.ElementWiseOperation.EQUAL)


def as_outputs(net: Net, boxes: Tensor, scores: Tensor, label: Tensor, classes: int) -> dict[str, Tensor]:
    """Detections as the task has them: boxes (N, 4, D) as cx, cy, w, h, scores (N, classes, D)."""
    at = net.fp32
    boxes = transpose(at, boxes, (0, 2, 1))
    low, high = narrow(at, boxes, 1, 0, 2), narrow(at, boxes, 1, 2, 2)
    boxes = concat(at, [mul(at, add(at, low, high), 0.5), sub(at, high, low)])
    return {
        "boxes": boxes,
        "scores": mul(at, one_hot(at, label, classes), reshape(at, scores, (0, 1, scores.shape[1]))),
    }


def of_class(net: Net, x: Tensor, label: Tensor) -> Tensor:
    """The map of its class for each detection: x (N D, classes, H, W) at `label` (N, D), class 0 where that is -1, as
    (N D, 1, H W)."""
    at = net.fp32
    label = cast(at, maximum(at, cast(at, label, at.dtype), 0.0), at.trt.int32)
    return take_rows(net, reshape(net, x, (0, 0, x.shape[2] * x.shape[3])), reshape(at, label, (-1, 1)))
