"""Resampling as tables of pixels and weights, with the arithmetic of Pillow and OpenCV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.preprocess.resampling import Axis

if TYPE_CHECKING:
    from zoo.preprocess.spec import Placement

PRECISION = 1 << 22  # Pillow's fixed-point weights
_CV2_PRECISION = 1 << 11


@dataclass(frozen=True)
class Filter:
    """A resampling filter of Pillow: `weight(distance)` is 0 from `support` pixels on."""

    support: float
    weight: Callable[[np.ndarray], np.ndarray]


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -1/2, in Pillow's order of operations."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


PILLOW = {"bilinear": Filter(1.0, _triangle), "bicubic": Filter(2.0, _cubic)}


def pillow_weights(kind: Filter, length: int, resized: int, start: int, stop: int) -> tuple[int, np.ndarray]:
    """For the pixels `start` to `stop` of `resized`, made from `length`: the first pixel L that counts and the weights
    (pixels from L on, stop - start) in 1/2^22, whole numbers in float64."""
    scale = length / resized
    stretch = max(scale, 1.0)
    support = kind.support * stretch
    centres = (np.arange(start, stop) + 0.5) * scale
    low, high = max(int(centres[0] - support), 0), min(int(centres[-1] + support) + 1, length)
    weights = kind.weight((np.arange(low, high)[:, None] - centres + 0.5) * (1.0 / stretch))
    weights = weights / weights.sum(0)
    return low, np.trunc(weights * PRECISION + np.copysign(0.5, weights))


def rows_first(placement: Placement) -> bool:
    """Whether Pillow resizes the rows before the columns, which rounds otherwise.

    Pillow 13 does when they shrink by more than twice as many pixels as the columns, as in very tall pictures (found by
    trial, and held by tests); Pillow 12 never does.
    """
    (width, height), (new_width, new_height) = placement.picture, placement.resized
    return new_height < height and height - new_height > 2 * (width - new_width)


def nearest(library: str, length: int, resized: int) -> np.ndarray:
    """The pixel (resized,) that each output pixel takes. Pillow takes the middle of a pixel, OpenCV its start."""
    scale = length / resized if library == "pillow" else 1 / (resized / length)
    if library == "pillow":  # which adds up the steps
        position = np.cumsum(np.r_[scale * 0.5, np.full(resized - 1, scale)])
    else:
        position = np.arange(resized) * scale
    return np.minimum(np.floor(position).astype(np.int32), length - 1)


# ---- tables for the GPU


def axes(interpolation: str, placement: Placement) -> tuple[Axis, Axis] | None:
    """Columns and rows of the resized picture that the input shows; None for what no kernel does."""
    library, _, filter_ = interpolation.partition(":")
    made = []
    for axis in (0, 1):
        length, resized = placement.picture[axis], placement.resized[axis]
        start = max(-placement.offset[axis], 0)
        stop = min(placement.input[axis] - placement.offset[axis], resized)
        if filter_ == "nearest" or (library == "pillow" and length == resized):
            pixels = nearest(library, length, resized)[start:stop]
            made.append(Axis(pixels, np.full((stop - start, 1), PRECISION, np.int32)))
        elif library == "pillow":
            made.append(_antialiased(PILLOW[filter_], length, resized, start, stop))
        elif filter_ == "bilinear":
            made.append(_cv2_bilinear(length, resized, start, stop, clamp=axis == 0))
        else:
            return None
    return made[0], made[1]


def _antialiased(kind: Filter, length: int, resized: int, start: int, stop: int) -> Axis:
    """Pillow's filter along one axis; weights in 1/2^22."""
    support = kind.support * max(length / resized, 1.0)
    taps = min(int(np.ceil(2 * support)) + 2, length)
    low, weights = pillow_weights(kind, length, resized, start, stop)
    centres = (np.arange(start, stop) + 0.5) * (length / resized)
    starts = np.clip(np.floor(centres - support).astype(np.int64), 0, length - taps)
    rows = starts - low + np.arange(taps)[:, None]
    known = (rows >= 0) & (rows < len(weights))
    taken = np.where(known, weights[np.clip(rows, 0, len(weights) - 1), np.arange(stop - start)], 0)
    return Axis(starts.astype(np.int32), np.ascontiguousarray(taken.T.astype(np.int32)))


def _cv2_bilinear(length: int, resized: int, start: int, stop: int, clamp: bool) -> Axis:
    """OpenCV's INTER_LINEAR along one axis; weights in 1/2048.

    It clamps the weights at the borders of its horizontal pass (`clamp`), and the pixels in the vertical one.
    """
    scale = 1 / (resized / length)
    position = ((np.arange(start, stop) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int32)
    weight = position - first.astype(np.float32)
    if clamp:
        weight[(first < 0) | (first >= length - 1)] = 0
        first = np.clip(first, 0, length - 1)
    weights = [np.rint((1 - weight) * np.float32(_CV2_PRECISION)), np.rint(weight * np.float32(_CV2_PRECISION))]
    return Axis(first, np.stack(weights, 1).astype(np.int32))
