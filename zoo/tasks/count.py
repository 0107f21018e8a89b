"""Counting: how many people a crowd is, and how densely they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.preprocess import Placement
from zoo.tasks import Result, Task
from zoo.tasks.detect import check_finite


@dataclass(frozen=True, eq=False)
class Count(Result):
    """`count`, how many there are, and `density` (H, W) float32, how many on each pixel of the picture: its sum is the
    count, but for rounding."""

    count: float
    density: np.ndarray


class CountPeople(Task):
    """A map of the input at any resolution, whose sum is the number of people."""

    name = "count"
    outputs = {"density": ("height", "width")}
    whole = True

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> Count:
        density = outputs["density"].astype(np.float32)
        check_finite(density)
        total, spread = float(density.sum(dtype=np.float64)), placement.map_to_image(density)
        whole = float(spread.sum(dtype=np.float64))
        return Count(total, spread * np.float32(total / whole) if abs(whole) > 1e-6 else spread)

    def draw(self, image: np.ndarray, result: Count) -> np.ndarray:
        from zoo.images.draw import heat_map

        return heat_map(result.density)

    def to_json(self, result: Count) -> dict[str, Any]:
        return {"count": round(result.count, 3)}

    def describe(self, result: Count) -> list[str]:
        return [f"{result.count:.1f} people"]
