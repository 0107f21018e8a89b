"""Measuring on the GPU: CUDA events around replays of a CUDA graph, and what trtexec reports."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.runtime.arrays import Shape
from zoo.runtime.cuda import Cuda, Stream
from zoo.runtime.gpu import GpuSession

LEAD = 4  # replays ahead of the first one measured: the GPU is then busy while the host enqueues the others


# ---- numbers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """How measured milliseconds are distributed."""

    min: float
    max: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float

    @classmethod
    def of(cls, times: Sequence[float]) -> Spread:
        """Of at least one time. A percentile is the time that so many of all do not exceed."""
        ordered = sorted(times)
        at = [ordered[max(0, -(-len(ordered) * p // 100) - 1)] for p in (90, 95, 99)]
        return cls(ordered[0], ordered[-1], statistics.fmean(ordered), statistics.median(ordered), *at)

    def __add__(self, other: Spread) -> Spread:
        """Of two steps one after the other, bounded by what each had."""
        return Spread(*(a + b for a, b in zip(vars(self).values(), vars(other).values())))


@dataclass(frozen=True)
class Latency:
    """What trtexec reports: steps in ms, and how many batches per second a stream of them gave."""

    queries_per_s: float
    upload: Spread
    compute: Spread
    download: Spread
    enqueue: Spread

    @property
    def total(self) -> Spread:
        """From host memory to host memory."""
        return self.upload + self.compute + self.download

    def __str__(self) -> str:
        steps = [
            ("Latency", self.total),
            ("Enqueue Time", self.enqueue),
            ("H2D Latency", self.upload),
            ("GPU Compute Time", self.compute),
            ("D2H Latency", self.download),
        ]
        lines = [f"Throughput: {self.queries_per_s:.2f} qps"]
        for name, s in steps:
            lines.append(
                f"{name}: min = {s.min:.4g} ms, max = {s.max:.4g} ms, mean = {s.mean:.4g} ms, median = {s.median:.4g} "
                f"ms, percentile(90%) = {s.p90:.4g} ms, percentile(95%) = {s.p95:.4g} ms, percentile(99%) = "
                f"{s.p99:.4g} ms"
            )
        return "\n".join(lines)


# ---- events ---------------------------------------------------------------------------------------------------------


class Stopwatch:
    """Times work on a stream with CUDA events. Inside `cuda.active()`."""

    def __init__(self, cuda: Cuda, stream: Stream) -> None:
        self._cuda, self._stream = cuda, stream
        self._events: list[tuple[Any, Any]] = []

    def __call__(self, work: Callable[[], None], count: int, lead: int = LEAD) -> list[float]:
        """The milliseconds of `count` calls of `work`, which enqueues; `lead` calls before them are not measured."""
        cuda, stream = self._cuda, self._stream
        while len(self._events) < count:
            self._events.append((cuda.event(timing=True), cuda.event(timing=True)))
        for _ in range(lead):
            work()
        for start, end in self._events[:count]:
            cuda.record(start, stream)
            work()
            cuda.record(end, stream)
        cuda.synchronize(stream)
        return [cuda.elapsed_ms(start, end) for start, end in self._events[:count]]


class Replay:
    """A session's engine at fixed shapes, with buffers and a stream of its own, as one CUDA graph.

    Where the engine cannot be captured it is enqueued each time.
    """

    def __init__(self, session: GpuSession, shapes: Mapping[str, Shape]) -> None:
        self.cuda = session.cuda
        with self.cuda.active():
            self.stream = self.cuda.stream()
            self.bound = session.bind(shapes, self.stream)
            self._graph = self.cuda.capture(self.stream, self._enqueue)
            self._stopwatch = Stopwatch(self.cuda, self.stream)

    @property
    def captured(self) -> bool:
        return self._graph is not None

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Fills the inputs."""
        for name, array in arrays.items():
            self.bound.inputs[name].write(array)

    def outputs(self) -> dict[str, np.ndarray]:
        """What one run makes of the inputs."""
        with self.cuda.active():
            self.run()
        return {name: array.numpy() for name, array in self.bound.outputs.items()}

    def run(self) -> None:
        """Enqueues one run. Inside `cuda.active()`."""
        if self._graph is None:
            self._enqueue()
        else:
            self.cuda.launch_graph(self._graph, self.stream)

    def _enqueue(self) -> None:
        self.bound.enqueue(self.stream)

    def measure(self, count: int) -> list[float]:
        """The milliseconds on the GPU of `count` runs, each on its own."""
        with self.cuda.active():
            return self._stopwatch(self.run, count)

    def latency(self, count: int, compute: Sequence[float] = ()) -> Latency:
        """The block that trtexec prints, from `count` runs; `compute` times measured before are used as they are."""
        cuda, stream = self.cuda, self.stream
        with cuda.active():
            inputs = [(array, cuda.pinned(array.nbytes)) for array in self.bound.inputs.values()]
            outputs = [(array, cuda.pinned(array.nbytes)) for array in self.bound.outputs.values()]

            def upload() -> None:
                for array, pinned in inputs:
                    cuda.h2d(array.ptr, pinned, stream)

            def download() -> None:
                for array, pinned in outputs:
                    cuda.d2h(pinned, array.ptr, stream)

            up, down, enqueue = self._stopwatch(upload, count), self._stopwatch(download, count), []
            begin = time.perf_counter()
            for _ in range(count):
                start = time.perf_counter()
                self.run()
                enqueue.append((time.perf_counter() - start) * 1e3)
            cuda.synchronize(stream)
            seconds = time.perf_counter() - begin
        compute = compute or self.measure(count)
        return Latency(count / seconds, Spread.of(up), Spread.of(compute), Spread.of(down), Spread.of(enqueue))

    def close(self) -> None:
        """Frees graph, context and buffers. The session stays open."""
        if self.bound is None:
            return
        with self.cuda.active():
            self.cuda.synchronize(self.stream)
        self._graph = None  # before the context that it was captured from
        self.bound = None  # type: ignore[assignment]


def copy_gb_per_s(cuda: Cuda, nbytes: int = 2 << 30, count: int = 10) -> float:
    """The bandwidth of copies within GPU memory, counting bytes read and bytes written: the best of `count`."""
    with cuda.active():
        stream = cuda.stream()
        source, target = cuda.alloc(nbytes), cuda.alloc(nbytes)
        cuda.zero(source.ptr, nbytes, stream)
        times = Stopwatch(cuda, stream)(lambda: cuda.d2d(target.ptr, source.ptr, nbytes, stream), count)
    return 2 * nbytes / min(times) / 1e6
