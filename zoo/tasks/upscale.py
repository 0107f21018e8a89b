"""Super-resolution: a picture enlarged, with detail that was lost or never there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.preprocess import Placement, Span, Tile
from zoo.tasks import Option, Result, TiledTask


@dataclass(frozen=True, eq=False)
class Upscaled(Result):
    """`picture` (scale x H, scale x W, 3) uint8 BGR, for a picture of H x W pixels."""

    picture: np.ndarray
    scale: int


class Upscale(TiledTask):
    """The picture in RGB, 0..1, some times as large as the network's input. Larger pictures are cut into tiles."""

    name = "upscale"
    outputs = {"picture": (3, "height", "width")}
    options = (Option("overlap", 16, "Pixels of the picture that a tile sees beside what it answers for.", low=0),)
    whole = True

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> Upscaled:
        values = outputs["picture"]
        if not np.isfinite(values).all():
            raise ZooError("The picture holds NaN or infinity: the network overflowed; build it with fp32 or bf16.")
        scale, (left, top), (width, height) = values.shape[2] // placement.input[0], placement.offset, placement.resized
        shown = values[::-1, top * scale : (top + height) * scale, left * scale : (left + width) * scale]
        return Upscaled((shown.transpose(1, 2, 0).clip(0, 1) * 255).round().astype(np.uint8), scale)

    def overlap(self, options: Mapping[str, Any]) -> int:
        return options["overlap"]

    def join(self, picture: tuple[int, int], parts: Iterable[tuple[Tile, Upscaled]]) -> Upscaled:
        joined: np.ndarray | None = None
        for tile, part in parts:
            scale = part.scale
            if joined is None:
                joined = np.empty((picture[0] * scale, picture[1] * scale, 3), np.uint8)
            (here_y, there_y), (here_x, there_x) = (_places(span, scale) for span in (tile.rows, tile.columns))
            joined[here_y, here_x] = part.picture[there_y, there_x]
        assert joined is not None
        return Upscaled(joined, scale)

    def draw(self, image: np.ndarray, result: Upscaled) -> np.ndarray:
        """The enlarged picture itself."""
        return result.picture.copy()

    def to_json(self, result: Upscaled) -> dict[str, Any]:
        height, width = result.picture.shape[:2]
        return {"scale": result.scale, "upscaled": {"width": width, "height": height}}

    def describe(self, result: Upscaled) -> list[str]:
        height, width = result.picture.shape[:2]
        return [f"{result.scale} times as large: {width}x{height}"]


def _places(span: Span, scale: int) -> tuple[slice, slice]:
    """Where in the enlarged picture that lies which one side of a tile answers for, and where in the enlarged tile."""
    first, end = (place * scale for place in (span.first, span.end))
    return slice(first, end), slice(first - span.start * scale, end - span.start * scale)
