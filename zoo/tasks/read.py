"""Reading: the word or line that a picture shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.preprocess import Placement
from zoo.tasks import CLASSES, Result, Task


@dataclass(frozen=True, eq=False)
class Reading(Result):
    """`texts`, one string, and `scores` (1,) float32, how sure the least sure step is of its letter."""

    texts: tuple[str, ...]
    scores: np.ndarray


def best_path(logits: np.ndarray, letters: Sequence[str]) -> tuple[str, float]:
    """The text of `logits` (steps, classes), and the smallest of the steps' largest probabilities.

    The best class of each step counts, once for a run of steps, and the last class is no letter (Graves et al. 2006,
    connectionist temporal classification). Letters with names of several characters are set apart.
    """
    if not np.isfinite(logits).all():
        raise ZooError("The logits hold NaN or infinity: the network overflowed; build it with fp32 or bf16.")
    best = logits.argmax(axis=1)
    shares = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    blank = logits.shape[1] - 1
    apart = "" if all(len(letter) == 1 for letter in letters[:blank]) else " "
    return apart.join(letters[i] for i, _ in groupby(best.tolist()) if i != blank), float(shares.min())


class Read(Task):
    """Logits for each step from left to right; the last class stands for no letter."""

    name = "read"
    outputs = {"logits": ("steps", CLASSES)}
    whole = True

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> Reading:
        text, score = best_path(outputs["logits"], labels)
        return Reading((text,), np.float32([score]))

    def draw(self, image: np.ndarray, result: Reading) -> np.ndarray:
        from zoo.images.draw import draw_bars

        return draw_bars(image, result.texts, result.scores.tolist())

    def to_json(self, result: Reading) -> dict[str, Any]:
        return {"text": result.texts[0], "score": round(float(result.scores[0]), 6)}

    def describe(self, result: Reading) -> list[str]:
        return [f"{result.scores[0]:5.2f}  {result.texts[0] or '(no text)'}"]
