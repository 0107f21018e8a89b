"""How good a network's answers are: top-1 and top-5, COCO's mean average precision, mean intersection over union."""

from __future__ import annotations

import contextlib
import io
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from zoo.engine.end2end import FRAMES
from zoo.errors import ZooError
from zoo.images.class_maps import read_class_map
from zoo.images.sources import read_image
from zoo.measure.labelled import Boxes, Sample
from zoo.runtime.predict import ahead, make_predictor
from zoo.session import Session
from zoo.tasks import get_task

Progress = Callable[[str], None]
IGNORED = 255  # in a class map: no pixel of any class
UNDERWAY = 2  # pictures that the network may be at
CERTAIN = 0.25  # an object that scores more is one that the network says is there
INSTALL = 'pip install "tensorrt-zoo[eval]"'


@dataclass(frozen=True)
class Scores:
    """`metrics` by name, in 0 to 1, the one that counts first; `classes` has a row for each class that occurred.

    `samples` is how many pictures they are over, `errors` says which could not be read.
    """

    metrics: dict[str, float]
    classes: list[dict[str, Any]]
    samples: int
    errors: list[str] = field(default_factory=list)

    @property
    def value(self) -> float:
        """Of the metric that counts."""
        return next(iter(self.metrics.values()))


class Meter(ABC):
    """Compares a task's results with what is right. `labels` are the names of the network's classes.

    `options` are the task's, where they are not the usual ones.
    """

    options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = labels

    @abstractmethod
    def add(self, truth: Any, result: Any, size: tuple[int, int]) -> None:
        """Counts the result for one picture of `size` (H, W)."""

    @abstractmethod
    def scores(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """The metrics, and the rows of the classes."""

    @staticmethod
    @abstractmethod
    def truth(result: Any) -> Any:
        """A result as what is right: to ask how far another network agrees with it."""


class TopK(Meter):
    """Whether the right class is the most probable one, or among the five that are."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self._counts = np.zeros((len(labels), 3), np.int64)  # pictures, best, among five

    def add(self, truth: int, result: Any, size: tuple[int, int]) -> None:
        found = result.classes.tolist()
        self._counts[truth] += 1, truth in found[:1], truth in found[:5]

    def scores(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        pictures, best, five = self._counts.sum(0)
        rows = [
            {"class": self.labels[i], "pictures": int(n), "top-1": a / n, "top-5": b / n}
            for i, (n, a, b) in enumerate(self._counts.tolist()) if n
        ]  # fmt: skip
        return {"top-1": float(best / pictures), "top-5": float(five / pictures)}, rows

    @staticmethod
    def truth(result: Any) -> int:
        return int(result.classes[0])


class MeanIoU(Meter):
    """The intersection over union of each class, over all pixels of all pictures, and their mean."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self._counts = np.zeros((len(labels) + 1,) * 2, np.int64)  # true x found; the last is no class

    def add(self, truth: Path | np.ndarray, result: Any, size: tuple[int, int]) -> None:
        known, found, none = self._class_map(truth), result.class_map.astype(np.int64), len(self.labels)
        if known.shape != found.shape:
            shapes = ["x".join(map(str, array.shape)) for array in (known, found)]
            raise ZooError(f"the class map {truth} is {shapes[0]}, its picture is {shapes[1]}")
        judged = known != IGNORED
        pairs = known[judged] * (none + 1) + np.where(found < 0, none, found)[judged]
        self._counts += np.bincount(pairs, minlength=self._counts.size).reshape(self._counts.shape)

    def _class_map(self, truth: Path | np.ndarray) -> np.ndarray:
        """The classes, the number after the last one where a pixel has none."""
        none = len(self.labels)
        if not isinstance(truth, Path):
            return np.where(truth < 0, none, truth).astype(np.int64)
        known = read_class_map(truth)
        if none == 1:  # of a single class 0 is the background and all else the class
            return np.where(known == IGNORED, IGNORED, np.where(known > 0, 0, 1))
        wrong = known[(known != IGNORED) & ((known >= none) | (known < 0))]
        if wrong.size:
            raise ZooError(f"the class map {truth} holds the class {wrong[0]}, the network has {none}; 255 is none")
        return known

    def scores(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        right, true, found = self._counts.diagonal(), self._counts.sum(1), self._counts.sum(0)
        union = true + found - right
        occurs = np.flatnonzero(union[:-1])  # neither seen nor there: it counts for nothing
        rows = [{"class": self.labels[i], "pixels": int(true[i]), "IoU": right[i] / union[i]} for i in occurs.tolist()]
        mean = float(np.mean([row["IoU"] for row in rows])) if rows else 0.0
        return {"mIoU": mean, "pixel accuracy": float(right.sum() / max(self._counts.sum(), 1))}, rows

    @staticmethod
    def truth(result: Any) -> np.ndarray:
        return result.class_map


class MeanAveragePrecision(Meter):
    """COCO's, by pycocotools: over overlaps from 0.50 to 0.95, over classes, at most 100 objects a picture."""

    options = {"conf": 0.001, "max_det": 300}

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        try:
            import pycocotools  # noqa: F401
        except ImportError:
            raise ZooError(f"mean average precision needs pycocotools, which is not installed: {INSTALL}") from None
        self._images: list[dict[str, Any]] = []
        self._true: list[dict[str, Any]] = []
        self._found: list[np.ndarray] = []

    def add(self, truth: Boxes, result: Any, size: tuple[int, int]) -> None:
        image = len(self._images) + 1
        self._images.append({"id": image, "height": size[0], "width": size[1]})
        corners = truth.corners * np.tile(size[::-1], 2) if truth.shares else truth.corners
        boxes = _as_xywh(corners)
        areas = boxes[:, 2] * boxes[:, 3] if truth.areas is None else truth.areas
        crowd = np.zeros(len(boxes)) if truth.crowd is None else truth.crowd
        for box, kind, area, several in zip(boxes.tolist(), truth.classes.tolist(), areas.tolist(), crowd.tolist()):
            self._true.append(
                {"id": len(self._true) + 1, "image_id": image, "category_id": kind + 1, "bbox": box, "area": area,
                 "iscrowd": int(several)}
            )  # fmt: skip
        found = (np.full(len(result.scores), image), _as_xywh(result.boxes), result.scores, result.classes + 1)
        self._found.append(np.column_stack(found).astype(np.float64))

    def scores(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        categories = [{"id": i + 1, "name": label} for i, label in enumerate(self.labels)]
        found = np.concatenate(self._found)
        if not self._true:
            raise ZooError("no picture shows an object of the network's classes, so there is nothing to find")
        if not len(found):
            return {"mAP50-95": 0.0, "mAP50": 0.0, "mAP75": 0.0}, []
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
            known = COCO()
            known.dataset = {"images": self._images, "annotations": self._true, "categories": categories}
            known.createIndex()
            judge = COCOeval(known, known.loadRes(found), "bbox")
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        precision = judge.eval["precision"][:, :, :, 0, -1]  # overlaps x recalls x classes; -1 where nothing is true
        rows = [
            {"class": label, "mAP50-95": float(precision[:, :, i].mean()), "mAP50": float(precision[0, :, i].mean())}
            for i, label in enumerate(self.labels) if (precision[:, :, i] > -1).all()
        ]  # fmt: skip
        names = ("mAP50-95", "mAP50", "mAP75", "mAP small", "mAP medium", "mAP large")
        return {name: float(value) for name, value in zip(names, judge.stats) if value > -1}, rows

    @staticmethod
    def truth(result: Any) -> Boxes:
        certain = result.scores > CERTAIN
        return Boxes(result.boxes[certain].astype(np.float64), result.classes[certain])


def _as_xywh(corners: np.ndarray) -> np.ndarray:
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)


METERS: dict[str, type[Meter]] = {"classify": TopK, "detect": MeanAveragePrecision, "segment": MeanIoU}


def meter_of(task: str) -> type[Meter]:
    """Raises ZooError for a task whose answers have no metric here."""
    if task not in METERS:
        raise ZooError(f"the answers of the task '{task}' are not measured, only those of {', '.join(METERS)}")
    return METERS[task]


def labels_of(session: Session) -> list[str]:
    """The names of the classes that the session tells apart. Raises ZooError where it cannot be known."""
    if session.labels:
        return list(session.labels)
    if FRAMES in getattr(session.executor, "inputs", ()):
        raise ZooError("this engine gives final boxes and does not say of how many classes; use one without --end2end")
    outputs = session(np.zeros((1, session.model.input[0], *session.size), np.float32))
    shapes = {name: tuple(output.shape[1:]) for name, output in outputs.items()}
    return get_task(session.model.task).labels(shapes, None)


def evaluate(
    session: Session, samples: Sequence[Sample], labels: Sequence[str], progress: Progress = lambda text: None
) -> Scores:
    """The metrics of the session's answers for `samples`, which are read one after the other.

    What cannot be read is left out and told. Raises ZooError where nothing can.
    """
    meter, errors = meter_of(session.model.task)(labels), list[str]()
    count = 0
    for sample, result, size in _predicted(session, samples, meter.options, errors, progress):
        meter.add(sample.truth, result, size)
        count += 1
    if not count:
        raise ZooError(f"none of {len(samples)} pictures could be read: {errors[0] if errors else 'there is none'}")
    return Scores(*meter.scores(), count, errors)


def answered(
    session: Session, paths: Iterable[Path], labels: Sequence[str], progress: Progress = lambda text: None
) -> list[Sample]:
    """Pictures with the session's own answers as what is right: for others to agree with."""
    kind = meter_of(session.model.task)
    samples = [Sample(path, None) for path in paths]
    found = _predicted(session, samples, kind(labels).options, [], progress)
    return [Sample(sample.path, kind.truth(result)) for sample, result, _ in found]


def _predicted(
    session: Session, samples: Sequence[Sample], options: Mapping[str, Any], errors: list[str], progress: Progress
) -> Iterator[tuple[Sample, Any, tuple[int, int]]]:
    """(sample, result, size of the picture); the pictures are read ahead, and the network works on the next ones."""
    pending: deque[tuple[Sample, tuple[int, int], Any]] = deque()
    every, done = max(1, len(samples) // 10), 0
    with make_predictor(session, **_possible(session, options)) as predictor:
        for sample, image in ahead(_read(samples, errors)):
            pending.append((sample, image.shape[:2], predictor.submit(image)))
            if len(pending) > UNDERWAY:
                yield _finished(pending)
            if done % every == 0:
                progress(f"picture {done + 1} of {len(samples)}")
            done += 1
        while pending:
            yield _finished(pending)


def _possible(session: Session, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """An engine that gives final boxes has its options built in."""
    return {} if FRAMES in getattr(session.executor, "inputs", ()) else options


def _finished(pending: deque[tuple[Sample, tuple[int, int], Any]]) -> tuple[Sample, Any, tuple[int, int]]:
    sample, size, prediction = pending.popleft()
    return sample, prediction.result().result, size


def _read(samples: Iterable[Sample], errors: list[str]) -> Iterator[tuple[Sample, np.ndarray]]:
    for sample in samples:
        try:
            yield sample, read_image(sample.path)
        except ZooError as error:
            errors.append(str(error))
