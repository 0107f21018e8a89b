"""Pixels in, results out: preprocessing, decoding, drawing and writing, by task. Importing this imports no library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from zoo.errors import ZooError, closest

if TYPE_CHECKING:
    import numpy as np

    from zoo.preprocess import Placement

TASKS = ("classify", "detect")


@dataclass(frozen=True)
class Options:
    """What a user may choose when outputs become results. Raises `ZooError` for a value that means nothing."""

    conf: float = 0.25  # detections must score more than this
    iou: float | None = None  # a detection is dropped when a better one of its class overlaps it more; None: the task's
    max_det: int = 300  # detections kept per picture
    top: int = 5  # classes reported per picture

    def __post_init__(self) -> None:
        for name in ("conf", "iou"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ZooError(f"{name} is {value}; it must lie between 0 and 1.")
        for name in ("max_det", "top"):
            if getattr(self, name) < 1:
                raise ZooError(f"{name} is {getattr(self, name)}; it must be at least 1.")


class Task(Protocol):
    """What a kind of network is for. `outputs` are those of one picture, without the batch dimension."""

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Options
    ) -> list[Any]:
        """Results, best first."""

    def draw(self, image: np.ndarray, result: list[Any]) -> np.ndarray:
        """A new annotated picture (H, W, 3) uint8 BGR; tiny pictures come back enlarged so that text can be read."""

    def to_json(self, result: list[Any]) -> dict[str, Any]:
        """The result as JSON data."""

    def describe(self, result: list[Any]) -> list[str]:
        """The result as lines for people."""


def get_task(name: str, iou: float = 0.7) -> Task:
    """The task "classify" or "detect".

    `iou` is the overlap that detections may have when `Options.iou` is None: 0.7 is ultralytics' (YOLOv8 and later,
    YOLOv5u), 0.45 that of the yolov5 project's anchor heads.
    """
    if name == "classify":
        from zoo.tasks.classify import Classify

        return Classify()
    if name == "detect":
        from zoo.tasks.detect import Detect

        return Detect(iou)
    raise ZooError(f"No task is called '{name}'; there are {', '.join(TASKS)}{closest(name, TASKS)}.")
