"""Pixels to network input on the CPU, byte for byte as Pillow and OpenCV do it for the references."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

import zoo.images  # noqa: F401  # quietens OpenCV
from zoo.preprocess.tables import PILLOW, PRECISION, nearest, pillow_weights, rows_first

if TYPE_CHECKING:
    from zoo.preprocess.resize import Resize
    from zoo.preprocess.spec import Placement

_COLUMNS = 16  # output columns per matrix product: wide enough for BLAS, narrow enough to skip most zeros
_CV2 = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}


def prepare(image: np.ndarray, spec: Resize, placement: Placement) -> np.ndarray:
    """The network input (C, H, W) float32 for a picture (H, W, 3) uint8 BGR placed so."""
    part = placed(image, spec, placement)
    if spec.color == "RGB":
        part = part[..., ::-1]
    pixels = part.astype(np.float32) / np.float32(spec.divisor)
    if any(spec.mean) or any(value != 1 for value in spec.std):
        pixels = (pixels - np.float32(spec.mean)) / np.float32(spec.std)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def placed(image: np.ndarray, spec: Resize, placement: Placement) -> np.ndarray:
    """The picture resized and placed in the input: (H, W, C) uint8, BGR or grey."""
    if spec.color == "GRAY":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None]
    width, height = placement.input
    (left, top), (right, bottom) = placement.offset, (o + r for o, r in zip(placement.offset, placement.resized))
    shown = (max(left, 0), max(top, 0), min(right, width), min(bottom, height))  # of the input
    window = (shown[0] - left, shown[1] - top, shown[2] - left, shown[3] - top)  # the same part of the resized picture
    library, _, filter_ = spec.interpolation.partition(":")
    if library == "cv2":
        part = _cv2(image, placement.resized, window, filter_)
    else:
        part = _pillow(image, placement.resized, window, filter_, rows_first(placement))
    if part.shape[:2] != (height, width):
        canvas = np.full((height, width, spec.channels), spec.pad, np.uint8)
        canvas[shown[1] : shown[3], shown[0] : shown[2]] = part
        part = canvas
    return part


Window = tuple[int, int, int, int]  # left, top, right, bottom


def _cv2(image: np.ndarray, size: tuple[int, int], window: Window, filter_: str) -> np.ndarray:
    """The `window` of `image` (H, W, C) uint8 resized to `size` by OpenCV."""
    height, width, channels = image.shape
    if size != (width, height):
        grows = size[0] >= width and size[1] >= height
        method = cv2.INTER_LINEAR if filter_ == "area" and grows else _CV2[filter_]
        image = cv2.resize(np.ascontiguousarray(image), size, interpolation=method).reshape(*size[::-1], channels)
    return image[window[1] : window[3], window[0] : window[2]]


def _pillow(image: np.ndarray, size: tuple[int, int], window: Window, filter_: str, rows_first: bool) -> np.ndarray:
    """The `window` of `image` (H, W, C) uint8 resized to `size` by Pillow, one axis after the other."""
    if rows_first:
        turned = (window[1], window[0], window[3], window[2])
        return _pillow(image.swapaxes(0, 1), size[::-1], turned, filter_, False).swapaxes(0, 1)
    columns = _pillow_columns(image, size[0], window[0], window[2], filter_)
    return _pillow_columns(columns.swapaxes(0, 1), size[1], window[1], window[3], filter_).swapaxes(0, 1)


def _pillow_columns(image: np.ndarray, size: int, start: int, stop: int, filter_: str) -> np.ndarray:
    """Columns `start` to `stop` of `image` (H, W, C) uint8 resized to `size` columns, bit-equal to Pillow.

    Pillow's filters widen with the shrink factor (antialiasing); no cv2 interpolation does that. Every output column is
    a weighted sum of input columns, so a block of them is one matrix product. Pillow rounds the weights to 22 bits and
    adds integers: those sums are below 2^53, so float64 holds them exactly in any order.
    """
    length = image.shape[1]
    if size == length:
        return image[:, start:stop]
    if filter_ == "nearest":
        return image[:, nearest("pillow", length, size)[start:stop]]
    result = np.empty((image.shape[0], stop - start, image.shape[2]), np.uint8)
    for first in range(start, stop, _COLUMNS):
        last = min(first + _COLUMNS, stop)
        low, weights = pillow_weights(PILLOW[filter_], length, size, first, last)
        sums = image[:, low : low + len(weights)].swapaxes(1, 2).astype(np.float64) @ weights
        values = np.clip(np.floor(sums / PRECISION + 0.5), 0, 255)
        result[:, first - start : last - start] = values.swapaxes(1, 2)
    return result


def map_to_image(values: np.ndarray, placement: Placement, smooth: bool) -> np.ndarray:
    """`Placement.map_to_image`. The border of the map goes on where a crop cut the picture's edges off."""
    for axis, of in ((0, 1), (1, 0)):
        step = values.shape[axis] / placement.input[of]
        middles = (np.arange(placement.picture[of]) + 0.5) * placement.scale[of] + placement.offset[of]
        positions = np.clip(middles * step - 0.5, 0, values.shape[axis] - 1)
        if not smooth:
            values = values.take(np.rint(positions).astype(int), axis)
            continue
        first = np.minimum(positions.astype(int), max(values.shape[axis] - 2, 0))
        weight = (positions - first).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
        last = np.minimum(first + 1, values.shape[axis] - 1)
        values = values.take(first, axis) * (1 - weight) + values.take(last, axis) * weight
    return values.astype(np.float32) if smooth else values


def masks_to_image(logits: np.ndarray, boxes: np.ndarray, placement: Placement) -> np.ndarray:
    """`Placement.masks_to_image`. A map is enlarged first, as little as will do for the picture to begin and to end
    between two of its pixels."""
    (width, height), (columns, rows) = placement.picture, placement.input
    ratio = columns // logits.shape[2]
    padding = (columns - placement.resized[0]) | (rows - placement.resized[1])
    step = math.gcd(ratio, padding | padding // 2)  # pixels of the input in one of the enlarged map
    left, top = (offset // step for offset in placement.offset)
    right, bottom = (start + side // step for start, side in zip((left, top), placement.resized))
    masks = np.zeros((len(logits), height, width), bool)
    for mask, values, box in zip(masks, logits, np.ceil(boxes).astype(int).tolist()):
        if step < ratio:
            values = cv2.resize(values, (columns // step, rows // step), interpolation=cv2.INTER_LINEAR)
        values = cv2.resize(values[top:bottom, left:right], (width, height), interpolation=cv2.INTER_LINEAR)
        inside = slice(box[1], box[3]), slice(box[0], box[2])
        mask[inside] = values[inside] > 0
    return masks


def paste_mask(mask: np.ndarray, values: np.ndarray, box: np.ndarray) -> None:
    """Sets `mask` (H, W) bool where `values` (S, S), a map of what lies in `box` x1, y1, x2, y2, are more than 0.5.

    As `torchvision.models.detection.roi_heads.paste_masks_in_image`: the map has a border of zeros, with which the box
    grows; its corners are cut to whole pixels, and the last one belongs to it.
    """
    side = values.shape[0]
    middle, half = (box[2:] + box[:2]) * np.float32(0.5), (box[2:] - box[:2]) * np.float32(0.5)
    half = half * np.float32((side + 2) / side)
    (left, top), (right, bottom) = (corner.astype(int).tolist() for corner in (middle - half, middle + half))
    size = max(right - left + 1, 1), max(bottom - top + 1, 1)
    values = cv2.resize(np.pad(values, 1).astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    rows, columns = slice(max(top, 0), bottom + 1), slice(max(left, 0), right + 1)
    inside = mask[rows, columns]
    first_row, first_column = rows.start - top, columns.start - left
    inside[:] = values[first_row : first_row + inside.shape[0], first_column : first_column + inside.shape[1]] > 0.5
