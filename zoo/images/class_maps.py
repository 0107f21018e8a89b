"""Class maps: pictures whose pixels are the numbers of classes."""

from __future__ import annotations

import os
import struct

import cv2
import numpy as np

from zoo.errors import ZooError


def read_class_map(path: str | os.PathLike[str]) -> np.ndarray:
    """The class of every pixel, (H, W) int64: a grey picture's values, or the entries of a PNG with a palette, as
    Pascal VOC has them. Raises ZooError for any other picture."""
    try:
        data = np.fromfile(path, np.uint8)
        values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except (OSError, cv2.error) as error:
        raise ZooError(f"the class map {path} cannot be read: {getattr(error, 'strerror', 'no picture')}") from None
    if values is None:
        raise ZooError(f"the class map {path} is not an image that OpenCV can decode")
    if values.ndim == 2:
        return values.astype(np.int64)
    palette = _palette(data.tobytes())
    if palette is None:
        raise ZooError(
            f"the class map {path} has colours; its pixels must be the numbers of classes, grey or by palette"
        )
    entries = np.full(1 << 24, -1, np.int16)
    entries[_code(palette[::-1])] = np.arange(len(palette), dtype=np.int16)[::-1]  # of equal colours the first one
    return entries[_code(values[..., 2::-1])].astype(np.int64)


def _code(colours: np.ndarray) -> np.ndarray:
    """Colours (..., 3) as one number each."""
    return colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])


def _palette(png: bytes) -> np.ndarray | None:
    """The colours (N, 3) uint8 RGB of a PNG's palette; None where it has none."""
    at = 8
    while at + 8 <= len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        if kind == b"PLTE":
            return np.frombuffer(png[at + 8 : at + 8 + size // 3 * 3], np.uint8).reshape(-1, 3)
        at += size + 12
    return None
