"""Faces: where they are, and where in them the eyes, the nose and the corners of the mouth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.preprocess import Placement
from zoo.tasks import Option, Result, Task
from zoo.tasks.detect import check_finite, rounded

POINTS = ("left eye", "right eye", "nose", "left corner of the mouth", "right corner of the mouth")  # of the picture


@dataclass(frozen=True, eq=False)
class Faces(Result):
    """Faces, best first: `boxes` (K, 4) float32 x1, y1, x2, y2 and `landmarks` (K, 5, 2) float32 x, y in pixels of the
    picture, which may lie beside it; `scores` (K,) float32 in 0..1. The landmarks are `POINTS`."""

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray


def suppressed(
    boxes: np.ndarray, scores: np.ndarray, limit: float, *, pixel: int = 0, least: bool = False
) -> np.ndarray:
    """Which of `boxes` (K, 4) stay, best first: those that no better one overlaps by more than `limit`.

    The overlap is the share of the union, or with `least` of the smaller box. Sides are `pixel` longer than the
    difference of their coordinates: 1 where these are numbers of pixels, as in Caffe's days.
    """
    width, height = ((boxes[:, i + 2] - boxes[:, i] + pixel) for i in (0, 1))
    areas, left, kept = width * height, np.argsort(-scores, kind="stable"), []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        corner, other = np.maximum(boxes[best, :2], boxes[left, :2]), np.minimum(boxes[best, 2:], boxes[left, 2:])
        shared = np.maximum(other - corner + pixel, 0).prod(axis=1)
        whole = np.minimum(areas[best], areas[left]) if least else areas[best] + areas[left] - shared
        left = left[~(shared > whole * np.float32(limit))]
    return np.array(kept, np.int64)


class FindFaces(Task):
    """Boxes cx, cy, w, h in input pixels, scores in 0..1, and five landmarks of each."""

    name = "faces"
    outputs = {
        "boxes": (4, "anchors"),
        "scores": ("anchors",),
        "landmarks": (5, 2, "anchors"),
    }
    options = (
        Option("conf", 0.7, "Faces must score more than this.", low=0, high=1),
        Option("iou", 0.4, "Overlap at which the weaker of two faces goes.", low=0, high=1),
        Option("min_face", 20, "The smallest face that is looked for, in pixels of the picture.", low=12),
    )
    whole = True
    finds_many = True

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> Faces:
        found = np.flatnonzero(outputs["scores"] > np.float32(options["conf"]))
        scores, centre = outputs["scores"][found], outputs["boxes"][:2, found].T
        half, points = outputs["boxes"][2:, found].T / 2, outputs["landmarks"][..., found].transpose(2, 0, 1)
        check_finite(outputs["scores"], centre, half, points)
        boxes = placement.to_image(np.concatenate([centre - half, centre + half], axis=1))
        large = np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) >= options["min_face"])
        kept = large[suppressed(boxes[large], scores[large], options["iou"], pixel=1)]
        return Faces(boxes[kept], scores[kept], placement.points_to_image(points[kept], clip=False))

    def draw(self, image: np.ndarray, result: Faces) -> np.ndarray:
        from zoo.images.draw import class_color, draw_boxes, draw_skeletons

        tags = [f"{score:.2f}" for score in result.scores]
        boxed = draw_boxes(image, result.boxes, tags, [class_color(0)] * len(tags))
        scale = len(boxed) / len(image)  # small pictures grow
        return draw_skeletons(boxed, result.landmarks * scale, np.ones(result.landmarks.shape[:2], bool), ())

    def to_json(self, result: Faces) -> dict[str, Any]:
        rows = zip(result.scores.tolist(), result.boxes, result.landmarks)
        found = [{"score": round(s, 6), "box": rounded(b), "landmarks": rounded(p)} for s, b, p in rows]
        return {"faces": found}

    def describe(self, result: Faces) -> list[str]:
        rows = zip(result.scores, result.boxes)
        return [f"{score:5.2f}  at {', '.join(f'{x:.0f}' for x in box)}" for score, box in rows] or ["no face found"]

    def summarize(self, result: Faces) -> str:
        count = len(result.scores)
        return f"{count or 'no'} face{'' if count == 1 else 's'}"
