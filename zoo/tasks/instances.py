"""Instance segmentation: objects and which pixels each of them covers, as ultralytics decides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.preprocess import Placement
from zoo.tasks import CLASSES, Result
from zoo.tasks.detect import Found, check_finite, rounded, select


@dataclass(frozen=True, eq=False)
class Instances(Result):
    """Objects, best first: `boxes` (K, 4) float32 x1, y1, x2, y2 in pixels of the picture, `masks` (K, H, W) bool of
    its size; `scores` (K,) float32, `classes` (K,) int64."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: np.ndarray
    labels: list[str]


class SegmentInstances(Found):
    """Boxes in input pixels, scores in 0..1, and masks: an anchor's coefficients say how much of each prototype, a map
    of the input at a lower resolution, is in its own. Objects whose mask is empty are left out."""

    name = "instances"
    outputs = {
        "boxes": (4, "anchors"),
        "scores": (CLASSES, "anchors"),
        "coefficients": ("prototypes", "anchors"),
        "prototypes": ("prototypes", "height", "width"),
    }

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> Instances:
        anchors, boxes, scores, classes = select(outputs["boxes"], outputs["scores"], **options)
        boxes = placement.to_image(boxes)
        count, height, width = outputs["prototypes"].shape
        logits = outputs["coefficients"][:, anchors].T @ outputs["prototypes"].reshape(count, -1)
        check_finite(logits)
        masks = placement.masks_to_image(logits.reshape(-1, height, width), boxes)
        seen = masks.any(axis=(1, 2))
        classes = classes[seen]
        return Instances(boxes[seen], scores[seen], classes, masks[seen], [labels[index] for index in classes])

    def draw(self, image: np.ndarray, result: Instances) -> np.ndarray:
        from zoo.images.draw import class_color, paint

        nearest = np.full(image.shape[:2], -1, np.int16)  # the best object at every pixel
        for index in reversed(range(len(result.masks))):
            nearest[result.masks[index]] = index
        colors = {index: class_color(index) for index in range(len(result.masks))}
        return super().draw(paint(image, nearest, colors), result)

    def places(self, result: Instances) -> list[dict[str, Any]]:
        from zoo.images.polygons import polygons
        from zoo.images.rle import run_lengths

        return [
            {"box": rounded(box), "rle": run_lengths(mask), "polygons": polygons(mask)}
            for box, mask in zip(result.boxes, result.masks)
        ]
