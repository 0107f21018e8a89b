"""From pictures to results: preprocessing, a session and a task's decoding, put together."""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from zoo.cascades import Cascade
from zoo.engine.end2end import FRAMES
from zoo.errors import ZooError
from zoo.labels import labels_for
from zoo.preprocess import Tile, tiles
from zoo.tasks import TiledTask, get_task

if TYPE_CHECKING:
    from zoo.session import CascadeSession, Session

T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """What one picture gave: the task's `Result`, and the milliseconds of each step.

    On the GPU all steps are one CUDA graph, so that `ms` has a single entry.
    """

    result: Any
    ms: dict[str, float]


class Pending(Protocol):
    """A picture under way: `result()` waits for its prediction."""

    def result(self) -> Prediction: ...


class Predictor:
    """Calls a session with pictures: `predictor(image)` takes (H, W, 3) uint8 BGR.

    `options` are those of the session's task; what is not given is the model's own. Raises ZooError for others.
    `underway` pictures may be submitted before the result of the first is asked for.
    """

    underway = 2  # on a GPU one is copied while the network runs on the other
    in_a_row = 1  # pictures that go through the network together

    def __init__(self, session: Session, **options: Any) -> None:
        self.session = session
        self.task = get_task(session.model.task)
        self.options = self.task.settings(session.model.options, options)

    def __call__(self, image: np.ndarray) -> Prediction:
        """The results for one picture."""
        start = time.perf_counter()
        pixels, placement = self.session.prepare(image)
        prepared = time.perf_counter()
        outputs = {name: _float32(np.asarray(value)[0]) for name, value in self.session(pixels[None]).items()}
        inferred = time.perf_counter()
        result = self.task(outputs, placement, self.session.labels, self.options)
        steps = (start, prepared, inferred, time.perf_counter())
        names = ("preprocess", "inference", "postprocess")
        return Prediction(result, {name: (b - a) * 1e3 for name, a, b in zip(names, steps, steps[1:])})

    def submit(self, image: np.ndarray) -> Pending:
        """Starts on one picture; here, on the CPU, it is done on return."""
        done: Future[Prediction] = Future()
        done.set_result(self(image))
        return done

    def warm_up(self, runs: int) -> None:
        """Predicts for a black picture: the first ones take longer."""
        for _ in range(runs):
            self(np.zeros((*self.session.size, 3), np.uint8))

    def close(self) -> None:
        """Frees what the predictor made; the session stays open."""

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class GpuPredictor(Predictor):
    """The same with preprocessing, and where the task can, decoding in CUDA kernels around the engine, on one stream.

    Two pipelines take turns, so that a picture is copied to the GPU while the network runs on the one before.
    """

    def __init__(self, session: Session, **options: Any) -> None:
        from zoo.runtime.pipeline import FramePipeline

        super().__init__(session, **options)
        settings = {"size": session.size, "decoder": partial(self.task.gpu_decoder, options=self.options)}
        self._pipelines = [FramePipeline(session.executor, session.preprocess, **settings) for _ in range(2)]  # type: ignore[arg-type]
        self._labels = self.task.labels(self._pipelines[0].shapes, session.labels)
        self._turns = itertools.cycle(self._pipelines)

    def __call__(self, image: np.ndarray) -> Prediction:
        """The results for one picture."""
        return self.submit(image).result()

    def submit(self, image: np.ndarray) -> Pending:
        """Starts on one picture and returns. The second one after it waits for it."""
        start = time.perf_counter()
        pipeline = next(self._turns)
        pending = pipeline.submit(image)

        def predict() -> Prediction:
            found = pending.result()
            milliseconds = {"total": (time.perf_counter() - start) * 1e3}
            if pipeline.decodes:
                return Prediction(self.task.from_gpu(found, self._labels), milliseconds)
            outputs = {name: output[0] for name, output in found.items()}
            result = self.task(outputs, pending.placement, self.session.labels, self.options)
            return Prediction(result, milliseconds)

        return _Underway(predict)

    def close(self) -> None:
        for pipeline in self._pipelines:
            pipeline.close()


@dataclass(frozen=True)
class _Underway:
    """A picture that the GPU works on."""

    result: Callable[[], Prediction]


class FramePredictor(Predictor):
    """Calls an engine that takes frames and gives final boxes; the options are built into it."""

    def __init__(self, session: Session, **options: Any) -> None:
        if options:
            raise ZooError(f"{', '.join(options)}: built into this engine; build it again with other options")
        super().__init__(session)

    def __call__(self, image: np.ndarray) -> Prediction:
        """The results for one picture. Raises ZooError where the engine says that they are not certain."""
        start = time.perf_counter()
        found = {name: np.asarray(value)[0] for name, value in self.session(np.ascontiguousarray(image[None])).items()}
        count = int(found["num_detections"][0])
        if found["open"][0]:
            raise ZooError(f"{found['open'][0]} boxes are not settled: too many, or no numbers; use --plugins cuda")
        classes = found["classes"][:count].astype(np.int64)
        labels = self.session.labels or labels_for(int(classes.max(initial=-1)) + 1)
        result = self.task.from_gpu((found["boxes"][:count], found["scores"][:count], classes), labels)
        return Prediction(result, {"total": (time.perf_counter() - start) * 1e3})


class TiledPredictor(Predictor):
    """Calls a session with the tiles of a picture, `batch` at once, and puts their results together."""

    task: TiledTask

    def __init__(self, session: Session, batch: int = 1, **options: Any) -> None:
        super().__init__(session, **options)
        self.batch = batch

    def __call__(self, image: np.ndarray) -> Prediction:
        """The results for one picture."""
        start = time.perf_counter()
        (height, width), stride = self.session.size, self.session.preprocess.stride
        found = tiles(image.shape[:2], (height, width), self.task.overlap(self.options), stride)
        below = found[-1].rows.start + height - image.shape[0]  # of the last tile, beyond the picture
        beside = found[-1].columns.start + width - image.shape[1]
        whole = np.pad(image, ((0, below), (0, beside), (0, 0)), "edge") if below or beside else image
        result = self.task.join(image.shape[:2], self._parts(whole, found))  # type: ignore[arg-type]
        return Prediction(result, {"total": (time.perf_counter() - start) * 1e3})

    def _parts(self, image: np.ndarray, found: Sequence[Tile]) -> Iterator[tuple[Tile, Any]]:
        """The results of tiles that lie in `image`."""
        height, width = self.session.size
        for first in range(0, len(found), self.batch):
            group = found[first : first + self.batch]
            corners = [(tile.rows.start, tile.columns.start) for tile in group]
            prepared = [self.session.prepare(image[y : y + height, x : x + width]) for y, x in corners]
            outputs = self.session(np.stack([pixels for pixels, _ in prepared]))
            for i, (tile, (_, placement)) in enumerate(zip(group, prepared)):
                mine = {name: _float32(np.asarray(value)[i]) for name, value in outputs.items()}
                yield tile, self.task(mine, placement, self.session.labels, self.options)


class BatchPredictor(Predictor):
    """Calls a session with up to `batch` pictures at once. Threads prepare them and decode their outputs while the
    network runs on others."""

    def __init__(self, session: Session, batch: int, **options: Any) -> None:
        super().__init__(session, **options)
        self.batch, self.in_a_row, self.underway = batch, batch, 2 * batch
        self._workers = ThreadPoolExecutor(os.cpu_count())
        self._network = ThreadPoolExecutor(1)
        self._waiting: list[_Batched] = []

    def submit(self, image: np.ndarray) -> Pending:
        """Takes a picture. Its batch is started when it is full, or when one of its results is asked for."""
        pending = _Batched(self, self._workers.submit(_timed, self.session.prepare, image))
        self._waiting.append(pending)
        if len(self._waiting) == self.batch:
            self.start()
        return pending

    def start(self) -> None:
        """Starts the network on what was submitted since the last batch."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._network.submit(self._run, waiting)

    def _run(self, batch: list[_Batched]) -> None:
        """The network on a batch, without the pictures that could not be prepared."""
        good = []
        for item in batch:
            error = item.prepared.exception()  # waits for it
            if error is None:
                good.append(item)
            else:
                item.decoded.set_exception(error)
        if not good:
            return
        try:
            images = np.stack([item.prepared.result()[0][0] for item in good])
            outputs, inference = _timed(self.session, images)
        except BaseException as error:  # raised again where the results are asked for
            for item in good:
                item.decoded.set_exception(error)
            return
        for index, item in enumerate(good):
            mine = {name: _float32(np.asarray(value)[index]) for name, value in outputs.items()}
            self._workers.submit(self._decode, item, mine, inference / len(good))

    def _decode(self, item: _Batched, outputs: dict[str, np.ndarray], inference: float) -> None:
        (_, placement), preprocess = item.prepared.result()
        try:
            result, postprocess = _timed(self.task, outputs, placement, self.session.labels, self.options)
        except BaseException as error:
            item.decoded.set_exception(error)
            return
        times = {"preprocess": preprocess, "inference": inference, "postprocess": postprocess}
        item.decoded.set_result(Prediction(result, times))

    def close(self) -> None:
        self._network.shutdown()
        self._workers.shutdown()


@dataclass(frozen=True, eq=False)
class _Batched:
    """A picture of a batch: prepared as ((pixels, placement), milliseconds), then decoded."""

    predictor: BatchPredictor
    prepared: Future[tuple[tuple[np.ndarray, Any], float]]
    decoded: Future[Prediction] = field(default_factory=Future)

    def result(self) -> Prediction:
        if self in self.predictor._waiting:
            self.predictor.start()
        return self.decoded.result()


def _timed(call: Callable[..., T], *arguments: Any) -> tuple[T, float]:
    """What a call gives, and the milliseconds that it took."""
    start = time.perf_counter()
    found = call(*arguments)
    return found, (time.perf_counter() - start) * 1e3


class CascadePredictor(Predictor):
    """Calls a cascade, whose host code prepares what each of its networks sees."""

    session: CascadeSession

    def __call__(self, image: np.ndarray) -> Prediction:
        """The results for one picture."""
        start = time.perf_counter()
        result = self.session.model(image, self.session, self.options)
        return Prediction(result, {"total": (time.perf_counter() - start) * 1e3})

    def warm_up(self, runs: int) -> None:
        """Nothing: which networks run, and in what sizes, depends on the picture."""


class SharedPredictor(Predictor):
    """Shares pictures out to several predictors, of one network on a GPU each, which take turns.

    A thread each submits them: some predictors are done with a picture only on return.
    """

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        first = predictors[0]
        self.session, self.task, self.options = first.session, first.task, first.options
        self.predictors = predictors
        self.underway = sum(predictor.underway for predictor in predictors)
        self._threads = [ThreadPoolExecutor(1) for _ in predictors]
        turns = zip(predictors, self._threads)
        self._turns = itertools.cycle([turn for turn in turns for _ in range(turn[0].in_a_row)])

    def __call__(self, image: np.ndarray) -> Prediction:
        """The results for one picture."""
        return self.submit(image).result()

    def submit(self, image: np.ndarray) -> Pending:
        """Starts on one picture, on the GPU whose turn it is."""
        predictor, thread = next(self._turns)
        pending = thread.submit(predictor.submit, image)
        return _Underway(lambda: thread.submit(pending.result().result).result())

    def warm_up(self, runs: int) -> None:
        for predictor in self.predictors:
            predictor.warm_up(runs)

    def close(self) -> None:
        for thread in self._threads:
            thread.shutdown()
        for predictor in self.predictors:
            predictor.close()


def _float32(values: np.ndarray) -> np.ndarray:
    """Outputs in half precision as tasks take them."""
    return values.astype(np.float32) if values.dtype == np.float16 else values


def make_predictor(session: Session | CascadeSession, *, batch: int = 1, **options: Any) -> Predictor:
    """The predictor for where the session runs and what prepares its pictures. With a `batch` of more than 1 so many
    go through the network at once, prepared on the host. Raises ZooError for a session that takes them one by one."""
    cascade = isinstance(session.model, Cascade)
    if cascade or FRAMES in getattr(session.executor, "inputs", ()):
        if batch > 1:
            what = f"{session.model.name} is a cascade" if cascade else "this engine takes frames of any size"
            raise ZooError(f"{what}, which pictures go through one by one; leave the batch away")
        return (CascadePredictor if cascade else FramePredictor)(session, **options)
    if isinstance(get_task(session.model.task), TiledTask):
        return TiledPredictor(session, batch, **options)
    if batch > 1 and session.open_sides:
        raise ZooError("each picture has a size of its own here, so they go through one by one; leave the batch away")
    if batch > 1:
        return BatchPredictor(session, batch, **options)
    spec, size = session.preprocess, session.size
    on_gpu = (
        hasattr(session.executor, "cuda")
        and session.io == "fp32"
        and not session.open_sides
        and spec.resampling(spec.placement(size, size)) is not None
    )
    return (GpuPredictor if on_gpu else Predictor)(session, **options)


def share_out(sessions: Sequence[Session | CascadeSession], *, batch: int = 1, **options: Any) -> Predictor:
    """`make_predictor` for one network on several GPUs, a session each; for one session, its own predictor."""
    predictors = [make_predictor(session, batch=batch, **options) for session in sessions]
    return predictors[0] if len(predictors) == 1 else SharedPredictor(predictors)


def ahead(items: Iterable[T], depth: int = 4, ended: threading.Event | None = None) -> Iterator[T]:
    """`items`, fetched by a thread of its own up to `depth` ahead: decoding then overlaps what the caller does.

    Once `ended` is set, there are no more, even where the thread still waits for one (a stream that went silent).
    """
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
        while ended is None or not ended.is_set():
            try:
                item = waiting.get(timeout=0.1)
            except queue.Empty:
                continue
            if item is done:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join(timeout=2)  # a thread that waits for a silent stream ends with the process
