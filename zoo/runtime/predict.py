"""From pictures to results: preprocessing, a session and a task's decoding, put together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.api import Session
from zoo.tasks import Options, Task, get_task
from zoo.tasks.labels import labels_for
from zoo.tasks.preprocess import preprocess


@dataclass(frozen=True)
class Prediction:
    """What one picture gave: results (see the task), and the milliseconds of each step."""

    result: list[Any]
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float


class Predictor:
    """Calls a session with pictures: `predictor(image)` takes (H, W, 3) uint8 BGR."""

    def __init__(self, session: Session, options: Options = Options()) -> None:
        self.session = session
        self.options = options
        self.task: Task = get_task(session.model.task, session.model.iou)

    def __call__(self, image: np.ndarray) -> Prediction:
        start = time.perf_counter()
        pixels, placement = preprocess(image, self.session.preprocess, self.session.size)
        prepared = time.perf_counter()
        outputs = self.session(pixels[None])
        inferred = time.perf_counter()
        one = {name: np.asarray(value)[0] for name, value in outputs.items()}
        result = self.task.decode(one, placement, self._labels(one), self.options)
        done = time.perf_counter()
        steps = [(b - a) * 1e3 for a, b in ((start, prepared), (prepared, inferred), (inferred, done))]
        return Prediction(result, *steps)

    def _labels(self, outputs: dict[str, np.ndarray]) -> Sequence[str]:
        """One name per class: the weights' own, else the well-known ones for that many classes."""
        classes = outputs["scores" if "scores" in outputs else "logits"].shape[0]
        return labels_for(classes, self.session.labels)
