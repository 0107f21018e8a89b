"""Local maxima of a map."""

from __future__ import annotations

import cv2
import numpy as np


def peaks(scores: np.ndarray, radius: int) -> np.ndarray:
    """Which of `scores` (H, W) float32 >= 0 are the largest of a square of `radius` pixels around them, (H, W) bool.

    As `simple_nms` of SuperPoint's authors: what lies in the square of a peak is taken off, and of what is left the
    largest are peaks too, twice.
    """
    square = np.ones((2 * radius + 1,) * 2, np.uint8)
    found = scores == cv2.dilate(scores, square)
    for _ in range(2):
        covered = cv2.dilate(found.astype(np.uint8), square) > 0
        left = np.where(covered, np.float32(0), scores)
        found |= (left == cv2.dilate(left, square)) & ~covered
    return found
