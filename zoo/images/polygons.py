"""Masks as polygons."""

from __future__ import annotations

import cv2
import numpy as np


def polygons(mask: np.ndarray) -> list[list[int]]:
    """The outlines of what is connected in `mask` (H, W) bool, each x, y, x, y … as in COCO. Holes are not told, and
    what is a point or a line has no outline; run lengths tell all."""
    return [contour.ravel().tolist() for contour in outlines(mask) if len(contour) > 2]


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """The corners (points, 2) int32 x, y of what is connected in `mask` (H, W) bool, one array each."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [contour[:, 0] for contour in contours]


def opened(mask: np.ndarray) -> np.ndarray:
    """`mask` (H, W) bool without what a square of 3x3 pixels does not fit into."""
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(bool)
