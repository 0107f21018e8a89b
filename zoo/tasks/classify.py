"""Image classification: logits to the most probable classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.preprocess import Placement
from zoo.tasks import Options


@dataclass(frozen=True)
class Classification:
    """One class and its probability."""

    label: str
    index: int
    score: float


def top_classes(logits: np.ndarray, labels: Sequence[str], top: int = 5) -> list[Classification]:
    """The `top` most probable classes of `logits` (classes,), best first; equal ones in class order."""
    if logits.shape != (len(labels),):
        raise ZooError(
            f"Logits of one picture must have the shape ({len(labels)},), one per label, not {logits.shape}."
        )
    if not np.isfinite(logits).all():
        raise ZooError(
            "The logits hold NaN or infinity: the network overflowed; build it with more precision (fp32 or bf16)."
        )
    exponents = np.exp(logits.astype(np.float64) - logits.max())
    scores = exponents / exponents.sum()
    order = np.argsort(-logits, kind="stable")[:top]
    return [Classification(labels[index], int(index), float(scores[index])) for index in order]


class Classify:
    """`zoo.tasks.Task` for outputs {"logits": (classes,)}."""

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Options
    ) -> list[Classification]:
        return top_classes(outputs["logits"], labels, options.top)

    def draw(self, image: np.ndarray, result: list[Classification]) -> np.ndarray:
        from zoo.images.draw import draw_classes

        return draw_classes(image, result)

    def to_json(self, result: list[Classification]) -> dict[str, Any]:
        return {"classes": [{"label": c.label, "index": c.index, "score": round(c.score, 6)} for c in result]}

    def describe(self, result: list[Classification]) -> list[str]:
        return [f"{c.score:6.1%}  {c.label} ({c.index})" for c in result]
