"""MTCNN (Zhang et al. 2016, arXiv:1604.02878) as a cascade, step by step as facenet-pytorch 2.6.0 has it.

P-Net runs over the picture in many sizes, so that a face of any size fills its window of 12 pixels in one of them;
R-Net judges what it proposes, and O-Net what R-Net leaves. All in float32, as there: boxes are judged at thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from zoo.cascades import Cascade, Run
from zoo.tasks.faces import Faces, suppressed

Outputs = Mapping[str, np.ndarray]
WINDOW, STRIDE = 12, 2  # of P-Net, in pixels
FACTOR = 0.709  # from one size of the picture to the next: its area is halved
PROPOSED, JUDGED = np.float32(0.6), 0.7  # scores from which R-Net looks, and above which O-Net does
NOTHING = {"scores": np.zeros(0, np.float32), "boxes": np.zeros((0, 4), np.float32)} | {
    "landmarks": np.zeros((0, 10), np.float32)
}


class Mtcnn(Cascade):
    """Faces with their landmarks. `conf` is the threshold of O-Net, `iou` the share of the smaller box at the end."""

    name = "mtcnn"
    task = "faces"
    parts = ("mtcnn_pnet", "mtcnn_rnet", "mtcnn_onet")
    paper = "arXiv:1604.02878"
    options = {"iou": 0.7}

    def __call__(self, image: np.ndarray, run: Run, options: Mapping[str, Any]) -> Faces:
        means = Means(image)
        boxes = proposals(means, partial(run, "mtcnn_pnet"), options["min_face"])
        boxes, found = judged(boxes, 24, JUDGED, means, partial(run, "mtcnn_rnet"))
        kept = suppressed(boxes, found["scores"], 0.7)
        boxes = squared(moved(boxes[kept], found["boxes"][kept], 1))
        boxes, found = judged(boxes, 48, options["conf"], means, partial(run, "mtcnn_onet"))
        sides = (boxes[:, 2:] - boxes[:, :2] + 1)[:, None]
        landmarks = found["landmarks"].reshape(-1, 2, 5).transpose(0, 2, 1) * sides + boxes[:, None, :2] - 1
        boxes = moved(boxes, found["boxes"], 1)
        kept = suppressed(boxes, found["scores"], options["iou"], pixel=1, least=True)
        return Faces(boxes[kept], found["scores"][kept], landmarks[kept])


class Means:
    """A picture (H, W, 3) uint8 BGR whose rectangles are resized as by `interpolate(mode="area")` of PyTorch: each
    pixel of the result is the mean of those that it touches. Sums over rectangles are differences of running sums."""

    def __init__(self, image: np.ndarray) -> None:
        self.height, self.width = image.shape[:2]
        self._sums = np.zeros((self.height + 1, self.width + 1, 3), np.uint32)  # what overflows cancels out
        self._sums[1:, 1:] = image[..., ::-1].cumsum(0, np.uint32).cumsum(1, np.uint32)

    def resized(self, box: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
        """The rectangle x1, y1, x2, y2, whose last row and column are not in it, as input (3, height, width)."""
        left, top, right, bottom = box
        (top_, bottom_), (left_, right_) = _touched(top, bottom, height), _touched(left, right, width)
        sums = self._sums[np.ix_(bottom_, right_)] + self._sums[np.ix_(top_, left_)]
        sums -= self._sums[np.ix_(bottom_, left_)] + self._sums[np.ix_(top_, right_)]
        rows, columns = (bottom_ - top_).astype(np.float32), (right_ - left_).astype(np.float32)
        means = sums.astype(np.float32) / rows[:, None, None] / columns[:, None]
        return ((means - np.float32(127.5)) * np.float32(1 / 128)).transpose(2, 0, 1)


def _touched(start: int, end: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(first, end) of the pixels in start … end that each of `count` pixels of the result touches."""
    i, size = np.arange(count), end - start
    return start + i * size // count, start - (-(i + 1) * size // count)


def scales(side: int, smallest: int) -> Iterator[float]:
    """The scales at which faces of `smallest` pixels and more fill P-Net's window; `side` is the picture's shorter."""
    scale = WINDOW / smallest
    side_then = side * scale
    while side_then >= WINDOW:
        yield scale
        scale, side_then = scale * FACTOR, side_then * FACTOR


def proposals(means: Means, pnet: Callable[[np.ndarray], Outputs], smallest: int) -> np.ndarray:
    """Squares (K, 4) in pixels of the picture, which P-Net takes for faces."""
    found = []
    for scale in scales(min(means.height, means.width), smallest):
        size = int(means.height * scale + 1), int(means.width * scale + 1)
        outputs = pnet(means.resized((0, 0, means.width, means.height), *size)[None])
        scores, sides = outputs["scores"][0, 1], outputs["boxes"][0]
        rows, columns = np.nonzero(scores >= PROPOSED)
        corner = np.stack([columns, rows], axis=1).astype(np.float32) * STRIDE + 1
        boxes = np.floor(np.concatenate([corner, corner + (WINDOW - 1)], axis=1) / np.float32(scale))
        kept = suppressed(boxes, scores[rows, columns], 0.5)
        rows, columns = rows[kept], columns[kept]
        found.append((boxes[kept], scores[rows, columns], sides[:, rows, columns].T))
    if not found:  # the picture is smaller than a face
        return NOTHING["boxes"]
    boxes, scores, sides = (np.concatenate(parts) for parts in zip(*found))
    kept = suppressed(boxes, scores, 0.7)
    return squared(moved(boxes[kept], sides[kept], 0))


def judged(
    boxes: np.ndarray, side: int, conf: float, means: Means, network: Callable[[np.ndarray], Outputs]
) -> tuple[np.ndarray, Outputs]:
    """The `boxes` in which the network, whose input has this `side`, sees a face with more than `conf`, and what it
    says of each; its `scores` are those of a face. What lies beside the picture is not shown."""
    limits = (1, 1, means.width, means.height)
    windows = boxes.astype(np.int32)  # towards zero; their first row and column count from 1
    windows[:, :2] = np.maximum(windows[:, :2], limits[:2])
    windows[:, 2:] = np.minimum(windows[:, 2:], limits[2:])
    inside = (windows[:, 2:] >= windows[:, :2]).all(axis=1)
    boxes, windows = boxes[inside], windows[inside] - (1, 1, 0, 0)
    if not len(boxes):
        return boxes, NOTHING
    crops = np.stack([means.resized(tuple(window), side, side) for window in windows.tolist()])
    outputs = network(crops)
    scores = outputs["scores"][:, 1]
    kept = scores > np.float32(conf)
    return boxes[kept], {name: values[kept] for name, values in outputs.items()} | {"scores": scores[kept]}


def moved(boxes: np.ndarray, shares: np.ndarray, pixel: int) -> np.ndarray:
    """`boxes` with each side moved by its share of the width or height, which are `pixel` longer than a difference."""
    size = boxes[:, 2:] - boxes[:, :2] + pixel
    return boxes + shares * np.concatenate([size, size], axis=1)


def squared(boxes: np.ndarray) -> np.ndarray:
    """Squares around the same middles, with the longer sides."""
    size = boxes[:, 2:] - boxes[:, :2]
    longest = size.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + size * np.float32(0.5) - longest * np.float32(0.5)
    return np.concatenate([corner, corner + longest], axis=1)
