"""A preprocessing as tables, in the form that the GPU's kernel takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Axis:
    """One axis of a resampling: output i is the weighted sum of `weights.shape[1]` pixels from starts[i] on, of which
    those outside the picture are its border pixels."""

    starts: np.ndarray  # (M,) int32
    weights: np.ndarray  # (M, taps) int32, in units of the resampling's arithmetic


@dataclass(frozen=True)
class Resampling:
    """A preprocessing as tables, for the one kernel that applies them all; see zoo/runtime/kernels/preprocess.cu.

    `columns` and `rows` describe the part of the resized picture that the input shows, whose left top corner stands at
    `corner`. `fixed_point` is the arithmetic: "pillow" (weights in 1/2^22, each pass rounded to a byte, the columns'
    first unless `rows_first`) or "cv2" (weights in 1/2048, both passes rounded together).
    """

    columns: Axis
    rows: Axis
    corner: tuple[int, int]
    fixed_point: str
    rows_first: bool
    pad: int
    divisor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool  # the network's channel order
