"""From pictures to results: preprocessing, a session and a task's decoding, put together."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from zoo.labels import labels_for
from zoo.session import Session
from zoo.tasks import Options, Task, get_task

T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """What one picture gave: results (see the task), and the milliseconds of each step.

    On the GPU all steps are one CUDA graph, so that `ms` has a single entry.
    """

    result: list[Any]
    ms: dict[str, float]


class Pending(Protocol):
    """A picture under way: `result()` waits for its prediction."""

    def result(self) -> Prediction: ...


class Predictor:
    """Calls a session with pictures: `predictor(image)` takes (H, W, 3) uint8 BGR."""

    def __init__(self, session: Session, options: Options = Options()) -> None:
        self.session = session
        self.options = options
        self.task: Task = get_task(session.model.task, session.model.options.get("iou", 0.7))

    def __call__(self, image: np.ndarray) -> Prediction:
        """The results for one picture."""
        start = time.perf_counter()
        pixels, placement = self.session.preprocess.apply(image, self.session.size)
        prepared = time.perf_counter()
        outputs = {name: np.asarray(value)[0] for name, value in self.session(pixels[None]).items()}
        inferred = time.perf_counter()
        labels = labels_for(_class_count(outputs), self.session.labels)
        result = self.task.decode(outputs, placement, labels, self.options)
        steps = (start, prepared, inferred, time.perf_counter())
        names = ("preprocess", "inference", "postprocess")
        return Prediction(result, {name: (b - a) * 1e3 for name, a, b in zip(names, steps, steps[1:])})

    def submit(self, image: np.ndarray) -> Pending:
        """Starts on one picture; here, on the CPU, it is done on return."""
        done: Future[Prediction] = Future()
        done.set_result(self(image))
        return done

    def close(self) -> None:
        """Frees what the predictor made; the session stays open."""

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class GpuPredictor(Predictor):
    """The same with preprocessing and decoding in CUDA kernels around the engine, frame to result on one stream.

    Two pipelines take turns, so that a picture is copied to the GPU while the network runs on the one before.
    """

    def __init__(self, session: Session, options: Options = Options()) -> None:
        from zoo.runtime.pipeline import FramePipeline

        super().__init__(session, options)
        iou = session.model.options.get("iou", 0.7) if options.iou is None else options.iou
        settings = {"size": session.size, "conf": options.conf, "iou": iou, "max_det": options.max_det}
        self._pipelines = [FramePipeline(session.executor, session.preprocess, **settings) for _ in range(2)]  # type: ignore[arg-type]
        self._turns = itertools.cycle(self._pipelines)

    def __call__(self, image: np.ndarray) -> Prediction:
        """The results for one picture."""
        return self.submit(image).result()

    def submit(self, image: np.ndarray) -> Pending:
        """Starts on one picture and returns. The second one after it waits for it."""
        start = time.perf_counter()
        pending = next(self._turns).submit(image)
        return _Underway(lambda: self._predict(image, pending.result(), start))

    def _predict(self, image: np.ndarray, found: Any, start: float) -> Prediction:
        milliseconds = {"total": (time.perf_counter() - start) * 1e3}
        if isinstance(found, dict):
            logits = found["logits"][0]
            labels = labels_for(len(logits), self.session.labels)
            placement = self.session.preprocess.placement(image.shape[:2], self.session.size)
            return Prediction(self.task.decode({"logits": logits}, placement, labels, self.options), milliseconds)
        from zoo.tasks.detect import Detection

        labels = labels_for(self._classes(), self.session.labels)
        rows = zip(found.boxes.tolist(), found.scores.tolist(), found.classes.tolist())
        result = [Detection(labels[index], index, score, tuple(box)) for box, score, index in rows]
        return Prediction(result, milliseconds)

    def _classes(self) -> int:
        return self.session.executor.outputs["scores"].shape[1]  # type: ignore[attr-defined]

    def close(self) -> None:
        for pipeline in self._pipelines:
            pipeline.close()


@dataclass(frozen=True)
class _Underway:
    """A picture that the GPU works on."""

    result: Callable[[], Prediction]


def make_predictor(session: Session, options: Options = Options()) -> Predictor:
    """The predictor for where the session runs and what its network takes."""
    on_gpu = hasattr(session.executor, "cuda") and session.model.input[0] == 3
    return (GpuPredictor if on_gpu else Predictor)(session, options)


def _class_count(outputs: dict[str, np.ndarray]) -> int:
    return outputs["scores" if "scores" in outputs else "logits"].shape[0]


def ahead(items: Iterable[T], depth: int = 4) -> Iterator[T]:
    """`items`, fetched by a thread of its own up to `depth` ahead: decoding then overlaps what the caller does."""
    done = object()
    waiting: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Any) -> None:
        while not stop.is_set():
            try:
                return waiting.put(item, timeout=0.1)
            except queue.Full:
                continue

    def fetch() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
            put(done)
        except BaseException as error:  # raised again where the items are used
            put(error)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not done:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
