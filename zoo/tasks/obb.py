"""Oriented bounding boxes: objects in boxes that are turned, as ultralytics decides them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.preprocess import Placement
from zoo.tasks import CLASSES, Result
from zoo.tasks.detect import CLASS_OFFSET, Found, best_classes, best_scores, check_finite, rounded

_BLOCK = 256  # boxes compared at once
_EPS = np.float32(1e-7)


@dataclass(frozen=True, eq=False)
class TurnedBoxes(Result):
    """Objects, best first: `corners` (K, 4, 2) float32 x, y in pixels of the picture, which may lie beside it, `angles`
    (K,) float32 in radians from x towards y, `boxes` (K, 4) float32 x1, y1, x2, y2 around the corners; `scores` (K,)
    float32, `classes` (K,) int64."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    corners: np.ndarray
    angles: np.ndarray
    labels: list[str]


def suppress(boxes: np.ndarray, iou: float, max_det: int) -> np.ndarray:
    """Positions of at most `max_det` of `boxes` (5, K) cx, cy, w, h, angle, best first, that no better one overlaps by
    more than `iou`, be that one dropped or not: `TorchNMS.fast_nms` of ultralytics, which suppresses more than others.
    """
    kept = np.empty(0, np.int64)
    for start in range(0, boxes.shape[1], _BLOCK):
        block = boxes[:, start : start + _BLOCK]
        better = np.arange(start + block.shape[1])[:, None] < np.arange(start, start + block.shape[1])
        overlapped = ((probabilistic_iou(boxes[:, : len(better)], block) > np.float32(iou)) & better).any(axis=0)
        kept = np.concatenate([kept, start + np.flatnonzero(~overlapped)])
        if len(kept) >= max_det:
            return kept[:max_det]
    return kept


def probabilistic_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How alike boxes (5, M) and (5, N) are in 0..1, (M, N): 1 - Hellinger's distance of the normal distributions that
    stand for them (arXiv:2106.06072), in float32 as `ultralytics.utils.metrics.batch_probiou`."""
    (x1, y1), (x2, y2) = first[:2, :, None], second[:2, None]
    a1, b1, c1 = (part[:, None] for part in _covariance(first))
    a2, b2, c2 = (part[None] for part in _covariance(second))
    a, b, c = a1 + a2, b1 + b2, c1 + c2
    det = a * b - c**2
    far = (a * (y1 - y2) ** 2 + b * (x1 - x2) ** 2) / (det + _EPS) * np.float32(0.25)
    far += c * (x2 - x1) * (y1 - y2) / (det + _EPS) * np.float32(0.5)
    own = np.maximum(a1 * b1 - c1**2, 0) * np.maximum(a2 * b2 - c2**2, 0)
    far += np.log(det / (4 * np.sqrt(own) + _EPS) + _EPS) * np.float32(0.5)
    return 1 - np.sqrt(1 - np.exp(-np.clip(far, _EPS, np.float32(100))) + _EPS)


def _covariance(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a, b, c of [[a, c], [c, b]] for each of `boxes` (5, K)."""
    a, b = boxes[2:4] ** 2 / 12
    cos, sin = np.cos(boxes[4]), np.sin(boxes[4])
    return a * cos**2 + b * sin**2, a * sin**2 + b * cos**2, (a - b) * cos * sin


class FindTurned(Found):
    """Where which objects are and how they lie: boxes in input pixels, angles in radians, scores in 0..1."""

    name = "obb"
    outputs = {"boxes": (4, "anchors"), "scores": (CLASSES, "anchors"), "angles": (1, "anchors")}

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> TurnedBoxes:
        scores = outputs["scores"].astype(np.float32, copy=False)
        found = best_classes(scores, options["conf"])
        if not options["nms"]:
            found = best_scores(scores, options["conf"], options["max_det"])
        anchors, classes = found
        boxes = np.concatenate([outputs[name][:, anchors] for name in ("boxes", "angles")]).astype(np.float32)
        check_finite(scores, boxes)
        if options["nms"]:
            apart = boxes.copy()
            apart[:2] += classes.astype(np.float32) * CLASS_OFFSET
            kept = suppress(apart, options["iou"], options["max_det"])
            anchors, classes, boxes = anchors[kept], classes[kept], boxes[:, kept]
        corners = _corners(boxes, placement)
        around = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        names = [labels[index] for index in classes]
        return TurnedBoxes(around, scores[classes, anchors], classes, corners, boxes[4], names)

    def places(self, result: TurnedBoxes) -> list[dict[str, Any]]:
        return [
            {"box": rounded(box), "corners": rounded(corners), "angle": round(angle, 6)}
            for box, corners, angle in zip(result.boxes, result.corners, result.angles.tolist())
        ]


def _corners(boxes: np.ndarray, placement: Placement) -> np.ndarray:
    """(K, 4, 2) in pixels of the picture; sides are scaled along the picture's axes, whatever the angle."""
    centre = placement.points_to_image(boxes[:2].T, clip=False)
    half = boxes[2:4].T / np.float32(placement.scale) / 2
    cos, sin = np.cos(boxes[4]), np.sin(boxes[4])
    across = half[:, :1] * np.stack([cos, sin], axis=1)
    down = half[:, 1:] * np.stack([-sin, cos], axis=1)
    return np.stack([centre + across + down, centre + across - down, centre - across - down, centre - across + down], 1)
