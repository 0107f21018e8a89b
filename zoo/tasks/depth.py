"""Relative depth from one picture: how near every pixel is, in no unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.preprocess import Placement
from zoo.tasks import Result, Task


@dataclass(frozen=True, eq=False)
class Depth(Result):
    """`depth` (H, W) float32 for every pixel of the picture: the larger, the nearer, up to scale and shift."""

    depth: np.ndarray

    def extreme(self, *, near: bool) -> list[int]:
        """The nearest or the farthest pixel: x, y."""
        place = self.depth.argmax() if near else self.depth.argmin()
        row, column = np.unravel_index(place, self.depth.shape)
        return [int(column), int(row)]


class EstimateDepth(Task):
    """How near everything in the picture is."""

    name = "depth"
    outputs = {"depth": ("height", "width")}
    whole = True

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> Depth:
        if not np.isfinite(outputs["depth"]).all():
            raise ZooError("The depth holds NaN or infinity: the network overflowed; build it with fp32 or bf16.")
        return Depth(placement.map_to_image(outputs["depth"]))

    def draw(self, image: np.ndarray, result: Depth) -> np.ndarray:
        from zoo.images.draw import heat_map

        return heat_map(result.depth)

    def to_json(self, result: Depth) -> dict[str, Any]:
        return {
            "smallest": round(float(result.depth.min()), 6),
            "largest": round(float(result.depth.max()), 6),
            "nearest": result.extreme(near=True),
            "farthest": result.extreme(near=False),
        }

    def describe(self, result: Depth) -> list[str]:
        near, far = (", ".join(map(str, result.extreme(near=near))) for near in (True, False))
        return [f"nearest at {near}, farthest at {far}"]
