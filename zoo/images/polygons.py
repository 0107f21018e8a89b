"""Masks as polygons."""

from __future__ import annotations

import cv2
import numpy as np


def polygons(mask: np.ndarray) -> list[list[int]]:
    """The outlines of what is connected in `mask` (H, W) bool, each x, y, x, y … as in COCO. Holes are not told, and
    what is a point or a line has no outline; run lengths tell all."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [contour.ravel().tolist() for contour in contours if len(contour) > 2]
