"""Image classification: logits to the most probable classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.preprocess import Placement
from zoo.tasks import CLASSES, Option, Result, Task


@dataclass(frozen=True, eq=False)
class Classification(Result):
    """The most probable classes, best first: `classes` (K,) int64, their probabilities `scores` (K,) float64."""

    classes: np.ndarray
    scores: np.ndarray
    labels: list[str]


def top_classes(logits: np.ndarray, labels: Sequence[str], top: int = 5) -> Classification:
    """The `top` most probable classes of `logits` (classes,), best first; equal ones in class order."""
    if not np.isfinite(logits).all():
        raise ZooError(
            "The logits hold NaN or infinity: the network overflowed; build it with more precision (fp32 or bf16)."
        )
    exponents = np.exp(logits.astype(np.float64) - logits.max())
    scores = exponents / exponents.sum()
    order = np.argsort(-logits, kind="stable")[:top]
    return Classification(order, scores[order], [labels[index] for index in order])


class Classify(Task):
    """What is in the picture."""

    name = "classify"
    outputs = {"logits": (CLASSES,)}
    options = (Option("top", 5, "Classes reported per picture.", low=1, flags=("-k",)),)

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> Classification:
        return top_classes(outputs["logits"], labels, options["top"])

    def draw(self, image: np.ndarray, result: Classification) -> np.ndarray:
        from zoo.images.draw import draw_bars

        return draw_bars(image, result.labels, result.scores.tolist())

    def to_json(self, result: Classification) -> dict[str, Any]:
        rows = zip(result.labels, result.classes.tolist(), result.scores.tolist())
        return {"classes": [{"label": label, "index": i, "score": round(score, 6)} for label, i, score in rows]}

    def describe(self, result: Classification) -> list[str]:
        rows = zip(result.labels, result.classes, result.scores)
        return [f"{score:6.1%}  {label} ({index})" for label, index, score in rows]
