"""Poses: persons, or whatever the network knows, with the points of their bodies, as ultralytics decides them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.preprocess import Placement
from zoo.tasks import CLASSES, Result
from zoo.tasks.detect import Found, rounded, select

# The 17 points of COCO: nose, then left and right eye, ear, shoulder, elbow, wrist, hip, knee and ankle.
LIMBS = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
    (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
SEEN = 0.5  # points that are less visible are not drawn


@dataclass(frozen=True, eq=False)
class Poses(Result):
    """Objects, best first: `boxes` (K, 4) float32 x1, y1, x2, y2 and `keypoints` (K, points, 3) float32 x, y in pixels
    of the picture and how visible a point is in 0..1; `scores` (K,) float32, `classes` (K,) int64."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    keypoints: np.ndarray
    labels: list[str]


class Pose(Found):
    """Where bodies are and how they stand: boxes and points in input pixels, scores and visibilities in 0..1."""

    name = "pose"
    outputs = {"boxes": (4, "anchors"), "scores": (CLASSES, "anchors"), "keypoints": ("points", 3, "anchors")}

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> Poses:
        anchors, boxes, scores, classes = select(outputs["boxes"], outputs["scores"], **options)
        points = outputs["keypoints"][:, :, anchors].transpose(2, 0, 1).astype(np.float32)
        if not np.isfinite(points).all():
            raise ZooError("Points hold NaN or infinity: the network overflowed; build it with fp32 or bf16.")
        points[..., :2] = placement.points_to_image(points[..., :2])
        return Poses(placement.to_image(boxes), scores, classes, points, [labels[index] for index in classes])

    def draw(self, image: np.ndarray, result: Poses) -> np.ndarray:
        from zoo.images.draw import draw_skeletons

        boxed = super().draw(image, result)
        scale = len(boxed) / len(image)  # small pictures grow
        limbs = LIMBS if result.keypoints.shape[1] == 17 else ()
        return draw_skeletons(boxed, result.keypoints[..., :2] * scale, result.keypoints[..., 2] >= SEEN, limbs)

    def places(self, result: Poses) -> list[dict[str, Any]]:
        return [{"box": rounded(box), "keypoints": rounded(p)} for box, p in zip(result.boxes, result.keypoints)]
