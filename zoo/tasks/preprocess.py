"""Pixels to network input, byte for byte as torchvision's Resize + CenterCrop and ultralytics' LetterBox do it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from zoo.errors import ZooError
from zoo.tasks.geometry import Geometry, center_crop_geometry, letterbox_geometry
from zoo.tasks.spec import CenterCrop, Letterbox, Preprocess

_PRECISION = 1 << 22  # Pillow's fixed-point resampling weights
_COLUMNS = 16  # output columns per matrix product: wide enough for BLAS, narrow enough to skip most zeros


@dataclass(frozen=True)
class Placement:
    """Where the picture lies in the network input: input = picture x scale + offset, in pixels, (x, y) order."""

    scale: tuple[float, float]
    offset: tuple[int, int]  # of the picture's left top corner; negative where a crop cut it away
    size: tuple[int, int]  # (width, height) of the picture

    def to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (..., 4) x1, y1, x2, y2 of the network input as picture pixels, clipped to the picture."""
        moved = (boxes - np.float32(self.offset * 2)) / np.float32(self.scale * 2)
        return np.clip(moved, np.float32(0), np.float32(self.size * 2))


def preprocess(
    image: np.ndarray, spec: Preprocess, size: tuple[int, int] | None = None
) -> tuple[np.ndarray, Placement]:
    """The network input (C, H, W) float32 for one picture (H, W, 3) uint8 BGR, and where the picture lies in it.

    `size` is the (height, width) of the network input; without it, the square of `spec.size`. Raises `ZooError` for a
    size that the network cannot have.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ZooError(f"Expected a picture (H, W, 3) of uint8, got {image.shape} of {image.dtype}.")
    height, width = size or (spec.size, spec.size)
    check_size(spec, height, width)
    if isinstance(spec, CenterCrop):
        return _center_crop(image, spec, height, width)
    if isinstance(spec, Letterbox):
        return _letterbox(image, spec, height, width)
    return _gray(image, height, width)


def check_size(spec: Preprocess, height: int, width: int) -> None:
    """Raise `ZooError`, naming the nearest valid sizes, unless the network input can be `height` x `width`."""
    stride = spec.stride if isinstance(spec, Letterbox) else 1
    for side in (height, width):
        if side <= 0 or side % stride:
            below = side // stride * stride
            nearest = f"{below} or {below + stride}" if below > 0 else f"{stride}"
            rule = f"a multiple of {stride}" if stride > 1 else "positive"
            raise ZooError(
                f"An input of {height}x{width} is impossible: each side must be {rule}; nearest to {side}: {nearest}."
            )


def _center_crop(image: np.ndarray, spec: CenterCrop, height: int, width: int) -> tuple[np.ndarray, Placement]:
    """torchvision's Resize(spec.resize), CenterCrop and Normalize; another crop size keeps the share of the picture."""
    geometry = center_crop_geometry(_size(image), (width, height), spec)
    (new_width, new_height), (left, top) = geometry.resized, (-offset for offset in geometry.offset)
    rows = _resize_columns(image, new_width, left, left + width)
    crop = _resize_columns(rows.swapaxes(0, 1), new_height, top, top + height).swapaxes(0, 1)
    pixels = crop[..., ::-1].astype(np.float32) / 255
    pixels = (pixels - np.float32(spec.mean)) / np.float32(spec.std)
    return _to_chw(pixels), _placement(geometry)


def _resize_columns(image: np.ndarray, size: int, start: int, stop: int) -> np.ndarray:
    """Columns `start` to `stop` of `image` (H, W, C) uint8 resized to `size` columns, bit-equal to Pillow's BILINEAR.

    Pillow's filter is a triangle that widens with the shrink factor (antialiasing); no cv2 interpolation does that.
    Every output column is a weighted sum of input columns, so a block of them is one matrix product. Pillow rounds
    the weights to 22 bits and adds integers: those sums are below 2^53, so float64 holds them exactly in any order.
    """
    scale = image.shape[1] / size
    support = max(scale, 1.0)
    result = np.empty((image.shape[0], stop - start, image.shape[2]), np.uint8)
    for first in range(start, stop, _COLUMNS):
        last = min(first + _COLUMNS, stop)
        centres = (np.arange(first, last) + 0.5) * scale
        low, high = max(int(centres[0] - support), 0), min(int(centres[-1] + support) + 1, image.shape[1])
        weights = np.maximum(1 - np.abs(np.arange(low, high)[:, None] + 0.5 - centres) / support, 0)
        weights = np.floor(weights / weights.sum(0) * _PRECISION + 0.5)
        sums = image[:, low:high].swapaxes(1, 2).astype(np.float64) @ weights
        result[:, first - start : last - start] = np.floor(sums / _PRECISION + 0.5).swapaxes(1, 2)
    return result


def _letterbox(image: np.ndarray, spec: Letterbox, height: int, width: int) -> tuple[np.ndarray, Placement]:
    """ultralytics' LetterBox(auto=False, center=True): the same roundings, so the same bytes."""
    geometry = letterbox_geometry(_size(image), (width, height))
    (new_width, new_height), (left, top) = geometry.resized, geometry.offset
    if geometry.resized != geometry.picture:
        image = cv2.resize(image, geometry.resized, interpolation=cv2.INTER_LINEAR)
    canvas = np.full((height, width, 3), spec.fill, np.uint8)
    canvas[top : top + new_height, left : left + new_width] = image
    return _to_chw(canvas[..., ::-1].astype(np.float32) / 255), _placement(geometry)


def _gray(image: np.ndarray, height: int, width: int) -> tuple[np.ndarray, Placement]:
    """Stretched to the input size; shrinking averages, so that thin strokes survive."""
    geometry = Geometry(_size(image), (width, height), (0, 0))
    shrinks = geometry.picture[0] > width or geometry.picture[1] > height
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    gray = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return _to_chw(gray[..., None].astype(np.float32) / 255), _placement(geometry)


def _size(image: np.ndarray) -> tuple[int, int]:
    """(width, height)."""
    return image.shape[1], image.shape[0]


def _placement(geometry: Geometry) -> Placement:
    return Placement(geometry.scale, geometry.offset, geometry.picture)


def _to_chw(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
