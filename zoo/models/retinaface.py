"""RetinaFace (Deng et al. 2019, arXiv:1905.00641) over MobileNet 0.25 and ResNet-50, in biubug6's form.

A context module joins what is seen in 3x3, 5x5 and 7x7 pixels before it activates. Where maps have 64 channels every
ReLU but that one leaks by a tenth. The pyramid is merged from coarse to fine, each map with the merged one before it.
Boxes and landmarks are relative to two anchors a cell. The input is BGR minus a mean. Scopes are facexlib's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.blocks.resnet import Stages, features
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    concat,
    conv2d,
    conv_bn,
    exp,
    fixed_size,
    leaky_relu,
    mul,
    narrow,
    relu,
    reshape,
    softmax,
    transpose,
    upsample,
)
from zoo.preprocess import Resize
from zoo.registry import Variant, register

ANCHORS = (
    (8, (16, 32)),
    (16, (64, 128)),
    (32, (256, 512)),
)  # stride, and sides of the two squares around a cell's middle
MOVES, GROWS = 0.1, 0.2  # how much of an anchor a value of 1 stands for


@dataclass(frozen=True)
class Config:
    width: int  # channels of the pyramid
    resnet: bool


def activated(net: Net, x: Tensor, slope: float) -> Tensor:
    return leaky_relu(net, x, slope) if slope else relu(net, x)


def conv(
    net: Net, x: Tensor, out: int, k: int, slope: float, stride: int = 1, *, groups: int = 1, at: int = 0
) -> Tensor:
    """A convolution, its normalisation and an activation: the modules `at` and the two after it."""
    return activated(net / (at + 2), conv_bn(net, x, out, k, stride, groups=groups, conv=at, bn=at + 1), slope)


def mobilenet(net: Net, x: Tensor) -> list[Tensor]:
    """Maps of strides 8, 16 and 32: MobileNet v1 of a quarter of its width."""
    x, found, first = conv(net / "stage1" / 0, x, 8, 3, 0.1, 2), [], 1
    stages = (((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)), ((128, 2), *((128, 1),) * 5), ((256, 2), (256, 1)))
    for stage, blocks in enumerate(stages, 1):
        for i, (out, stride) in enumerate(blocks, first):
            at = net / f"stage{stage}" / i
            x = conv(at, conv(at, x, x.shape[1], 3, 0.1, stride, groups=x.shape[1]), out, 1, 0.1, at=3)
        found, first = [*found, x], 0
    return found


def pyramid(net: Net, maps: Sequence[Tensor], width: int, slope: float) -> list[Tensor]:
    found = [conv(net / f"output{i}", x, width, 1, slope) for i, x in enumerate(maps, 1)]
    for i in (1, 0):
        above = upsample(net.functional, found[i + 1], size=tuple(found[i].shape[2:]))
        found[i] = conv(net / f"merge{i + 1}", add(net, found[i], above), width, 3, slope)
    return found


def context(net: Net, x: Tensor, slope: float) -> Tensor:
    width = x.shape[1]
    near = conv_bn(net / "conv3X3", x, width // 2, 3, conv=0, bn=1)
    shared = conv(net / "conv5X5_1", x, width // 4, 3, slope)
    wider = conv_bn(net / "conv5X5_2", shared, width // 4, 3, conv=0, bn=1)
    widest = conv(net / "conv7X7_2", shared, width // 4, 3, slope)
    widest = conv_bn(net / "conv7x7_3", widest, width // 4, 3, conv=0, bn=1)
    return net.tap(relu(net.functional, concat(net, [near, wider, widest])))


def values(net: Net, maps: Sequence[Tensor], count: int) -> Tensor:
    """`count` values for each anchor, (N, count, A): level by level, cell by cell, the smaller anchor first."""
    found = []
    for i, x in enumerate(maps):
        cells = x.shape[2] * x.shape[3]
        y = reshape(net / i, conv2d(net / i / "conv1x1", x, 2 * count, 1), (0, 2, count, cells))
        found.append(reshape(net / i, transpose(net / i, y, (0, 2, 3, 1)), (0, count, 2 * cells), "anchors"))
    return concat(net, found, 2)


def anchors(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Middles (1, 2, A) x, y and sides (1, 1, A) of all anchors, in pixels of the input."""
    middles, sides = [], []
    for stride, squares in ANCHORS:
        y, x = np.indices((-(-height // stride), -(-width // stride))).reshape(2, -1)
        middles.append(np.repeat((np.stack([x, y]) + 0.5) * stride, 2, axis=1))
        sides.append(np.tile(squares, x.size))
    return np.concatenate(middles, 1)[None], np.concatenate(sides)[None, None]


@register(
    task="faces",
    reference="facexlib:{name}",
    preprocess=Resize(
        640, "fit", interpolation="cv2:bilinear", divisor=1.0, mean=(104.0, 117.0, 123.0), color="BGR", align="corner"
    ),
    paper="arXiv:1905.00641",
    options={"conf": 0.8, "iou": 0.4},
    retinaface_mobile025=Variant(Config(64, resnet=False), params=426_608),
    retinaface_resnet50=Variant(Config(256, resnet=True), params=27_293_600),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, slope = fixed_size(net, x, 1), 0.1 if cfg.width <= 64 else 0.0
    if cfg.resnet:
        found = features(net / "body", x, Stages())
        maps = [found[f"layer{i}"] for i in (2, 3, 4)]
    else:
        maps = mobilenet(net / "body", x)
    maps = [context(net / f"ssh{i}", y, slope) for i, y in enumerate(pyramid(net / "fpn", maps, cfg.width, slope), 1)]
    scores = softmax(net.functional, values(net / "ClassHead", maps, 2), 1)
    at = net.fp32  # in half precision pixels beyond 512 count in halves
    middles, sides = (at.constant(array, name) for array, name in zip(anchors(*size), ("middles", "sides")))
    boxes, points = (values(net / head, maps, n) for head, n in (("BboxHead", 4), ("LandmarkHead", 10)))
    move = mul(at, mul(at, narrow(at, boxes, 1, 0, 2), MOVES), sides)
    grown = mul(at, exp(at, mul(at, narrow(at, boxes, 1, 2, 2), GROWS)), sides)
    shift = mul(at, mul(at, points, MOVES), sides)
    landmarks = add(at, reshape(at, shift, (0, 5, 2, -1), "pairs"), reshape(at, middles, (1, 1, 2, -1), "middle"))
    return {
        "boxes": concat(at, [add(at, middles, move), grown]),
        "scores": reshape(net, narrow(net, scores, 1, 1, 1), (0, -1), "faces"),
        "landmarks": landmarks,
    }
