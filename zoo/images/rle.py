"""Masks as run lengths, COCO's uncompressed form, which pycocotools reads."""

from __future__ import annotations

import numpy as np


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """`size` is the height and width of `mask` (H, W) bool; `counts` are the lengths of its runs, column by column,
    by turns of what lies outside and of what lies inside."""
    pixels = mask.ravel(order="F")
    ends = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff(ends, prepend=0, append=pixels.size).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if pixels[0] else counts}
