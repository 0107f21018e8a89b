"""Semantic segmentation: the class of every pixel, as the evaluations of torchvision and transformers decide it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.preprocess import Placement
from zoo.tasks import CLASSES, Result, Task

NO_CLASS = -1


@dataclass(frozen=True, eq=False)
class Segmentation(Result):
    """`class_map` (H, W) int16, the class of every pixel of the picture, -1 where it has none. `classes` (K,) int64 are
    those that it holds, the largest first, with their `labels` and `shares` (K,) float64 of the pixels."""

    class_map: np.ndarray
    classes: np.ndarray
    shares: np.ndarray
    labels: list[str]


def best_class(logits: np.ndarray, placement: Placement) -> np.ndarray:
    """The class (H, W) int16 with the largest of `logits` (classes, h, w), interpolated, at each pixel of the picture.

    A single class is one that a pixel has or not: it has where its logit is positive, and no class elsewhere.
    """
    if not np.isfinite(logits).all():
        raise ZooError("The logits hold NaN or infinity: the network overflowed; build it with fp32 or bf16.")
    width, height = placement.picture
    best = np.full((height, width), 0 if len(logits) == 1 else -np.inf, np.float32)
    found = np.full((height, width), NO_CLASS, np.int16)
    for index, of_class in enumerate(logits):  # one after the other: all of them in a large picture take gigabytes
        values = placement.map_to_image(of_class)
        found[values > best] = index
        np.maximum(best, values, out=best)
    return found


class Segment(Task):
    """Which class every pixel is of."""

    name = "segment"
    outputs = {"logits": (CLASSES, "height", "width")}
    whole = True

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> Segmentation:
        class_map = best_class(outputs["logits"], placement)
        counts = np.bincount(class_map[class_map != NO_CLASS], minlength=len(labels))
        classes = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        return Segmentation(class_map, classes, counts[classes] / class_map.size, [labels[i] for i in classes])

    def draw(self, image: np.ndarray, result: Segmentation) -> np.ndarray:
        from zoo.images.draw import class_color, draw_bars, paint

        colors = [class_color(index) for index in result.classes.tolist()]
        painted = paint(image, result.class_map, dict(zip(result.classes.tolist(), colors)))
        return draw_bars(painted, result.labels, result.shares.tolist(), colors)

    def to_json(self, result: Segmentation) -> dict[str, Any]:
        from zoo.images.rle import run_lengths

        rows = zip(result.labels, result.classes.tolist(), result.shares.tolist())
        return {
            "classes": [
                {"label": label, "index": i, "share": round(share, 6), "rle": run_lengths(result.class_map == i)}
                for label, i, share in rows
            ]
        }

    def describe(self, result: Segmentation) -> list[str]:
        rows = zip(result.labels, result.classes, result.shares)
        return [f"{share:6.1%}  {label} ({index})" for label, index, share in rows] or ["no pixel has a class"]

    def summarize(self, result: Segmentation) -> str:
        shown = [f"{label} {share:.0%}" for label, share in zip(result.labels[:3], result.shares)]
        return ", ".join(shown) or "no pixel has a class"
