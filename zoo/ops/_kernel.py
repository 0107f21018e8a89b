"""A convolution as arrays, which the host adds up and scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Kernel:
    """A convolution that keeps the size at stride 1: `weight` (out, in / groups, k, k) and `bias` (out,), float64."""

    weight: np.ndarray
    bias: np.ndarray

    def __add__(self, other: Kernel) -> Kernel:
        """The sum of both convolutions of one tensor; the smaller window lies in the middle of the larger."""
        k = max(self.weight.shape[-1], other.weight.shape[-1])
        return Kernel(self._widened(k) + other._widened(k), self.bias + other.bias)

    def __sub__(self, other: Kernel) -> Kernel:
        """The difference of both."""
        return self + other.scaled(np.full(len(other.bias), -1.0))

    def scaled(self, scale: np.ndarray) -> Kernel:
        """The convolution with each output channel times its number in `scale` (out,)."""
        return Kernel(self.weight * scale[:, None, None, None], self.bias * scale)

    def _widened(self, k: int) -> np.ndarray:
        margin = (k - self.weight.shape[-1]) // 2
        return np.pad(self.weight, ((0, 0), (0, 0), (margin, margin), (margin, margin)))


def unit(channels: int, groups: int) -> Kernel:
    """The convolution that returns what it is given."""
    width = channels // groups
    weight = np.tile(np.eye(width), (groups, 1)).reshape(channels, width, 1, 1)
    return Kernel(weight, np.zeros(channels))
