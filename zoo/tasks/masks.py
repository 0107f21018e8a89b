"""Instance segmentation by masks of boxes: objects and which pixels each of them covers, as torchvision decides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.preprocess import Placement
from zoo.tasks import CLASSES
from zoo.tasks.detect import check_finite, select
from zoo.tasks.instances import Instances, SegmentInstances


class SegmentBoxes(SegmentInstances):
    """Boxes in input pixels, scores in 0..1, and for each box a small map of how likely its pixels are the object's."""

    name = "masks"
    outputs = {"boxes": (4, "anchors"), "scores": (CLASSES, "anchors"), "masks": ("anchors", "height", "width")}

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> Instances:
        from zoo.preprocess.pixels import paste_mask

        anchors, boxes, scores, classes = select(outputs["boxes"], outputs["scores"], **options)
        boxes, maps = placement.to_image(boxes), outputs["masks"][anchors]
        check_finite(maps)
        width, height = placement.picture
        masks = np.zeros((len(maps), height, width), bool)
        for mask, values, box in zip(masks, maps, boxes):
            paste_mask(mask, values, box)
        return Instances(boxes, scores, classes, masks, [labels[index] for index in classes])
