"""From the values that a tensor takes to the range that int8 shall represent.

A wide range keeps the outliers and rounds everything coarsely, a narrow one the other way round. `max` keeps all;
`percentile` lets the largest 0.01 % saturate; `mse` takes the range with the smallest mean squared error; `entropy` the
one whose distribution differs least from the original (Migacz, "8-bit inference with TensorRT", GTC 2017).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zoo.quantization import LEVELS

BINS = 2048
PERCENTILE = 99.99


class Histogram:
    """Counts of the magnitudes of a tensor in equal bins from 0 to `limit`, which doubles when a larger one comes.

    So memory is bounded whatever the number of values, and nothing is counted twice.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.limit = 0.0
        self.amax = 0.0

    def add(self, values: np.ndarray) -> None:
        """Counts `values`, which must be finite: float32 of any shape."""
        magnitudes = np.abs(values).ravel()
        largest = float(magnitudes.max(initial=0))
        if largest == 0:
            self.counts[0] += magnitudes.size
            return
        self.amax = max(self.amax, largest)
        self.limit = self.limit or largest
        while self.limit < largest:
            pairs = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate([pairs, np.zeros_like(pairs)])
            self.limit *= 2
        np.multiply(magnitudes, np.float32(BINS / self.limit), out=magnitudes)
        bins = np.minimum(magnitudes.astype(np.int32), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)

    @property
    def width(self) -> float:
        """Of a bin."""
        return self.limit / BINS


def by_max(histogram: Histogram) -> float:
    """The largest magnitude."""
    return histogram.amax


def by_percentile(histogram: Histogram) -> float:
    """The magnitude that `PERCENTILE` of the values other than zero do not exceed: zeros need no range."""
    counts = histogram.counts.copy()
    counts[0] = 0
    if not counts.any():
        return histogram.amax
    reached = int(np.searchsorted(np.cumsum(counts), counts.sum() * PERCENTILE / 100))
    return min((reached + 1) * histogram.width, histogram.amax)


def by_mse(histogram: Histogram) -> float:
    """The range with the smallest mean squared error of what is rounded and what saturates."""
    centres = (np.arange(BINS) + 0.5) * histogram.width

    def error(amax: float) -> float:
        rounded = np.minimum(np.rint(centres * LEVELS / amax), LEVELS) * amax / LEVELS
        return float(histogram.counts @ (centres - rounded) ** 2)

    return min(_candidates(histogram), key=error, default=histogram.amax)


def by_entropy(histogram: Histogram) -> float:
    """The range whose distribution, rounded to the levels of int8, has the smallest divergence from the original."""
    counts = histogram.counts.astype(np.float64)
    counts[0] = counts[1]  # the many exact zeros of a ReLU say nothing of the range

    def divergence(amax: float) -> float:
        kept = round(amax / histogram.width)
        wanted = counts[:kept].copy()
        if not wanted.any():
            return np.inf
        parts = np.minimum(np.arange(kept) * (LEVELS + 1) // kept, LEVELS)
        filled = counts[:kept] > 0
        sums = np.bincount(parts, counts[:kept], LEVELS + 1)
        shares = np.bincount(parts, filled, LEVELS + 1)
        spread = np.where(filled, sums[parts] / np.maximum(shares[parts], 1), 0)
        wanted[-1] += counts[kept:].sum()
        p, q = wanted / wanted.sum(), spread / spread.sum()
        if ((p > 0) & (q == 0)).any():  # what saturates would fall into a bin that was empty
            return np.inf
        held = p > 0
        return float((p[held] * np.log(p[held] / q[held])).sum())

    return min(_candidates(histogram), key=divergence, default=histogram.amax)


def _candidates(histogram: Histogram) -> list[float]:
    """Ranges to try, from as many bins as int8 has levels up to all that hold values."""
    last = int(np.flatnonzero(histogram.counts)[-1]) + 1 if histogram.counts.any() and histogram.limit else 0
    return [min(kept * histogram.width, histogram.amax) for kept in range(min(LEVELS + 1, last), last + 1, 8) if kept]


METHODS: dict[str, Callable[[Histogram], float]] = {
    "max": by_max,
    "percentile": by_percentile,
    "mse": by_mse,
    "entropy": by_entropy,
}
