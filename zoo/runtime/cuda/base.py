"""What the runtime asks of CUDA, whichever Python package answers. Nothing here knows TensorRT."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import ZooError

LEGACY_STREAM = 1  # CU_STREAM_LEGACY, the handle that names the default stream

MIB = 1 << 20

FORKED = (
    "CUDA does not survive a fork of its process: load the model in the child, "
    'and start it with multiprocessing\'s "spawn" if its parent used CUDA'
)


@dataclass(frozen=True)
class Device:
    """The GPU: its name, compute capability («9.0») and memory in bytes."""

    name: str
    compute_capability: str
    total_memory: int
    free_memory: int


_capture = threading.local()  # `.later`: what destructors would have freed while this thread captures


def release(cuda: Cuda, free: Callable[[Any], None], handle: Any) -> None:
    """Frees what a destructor holds, after the capture that its thread is in: CUDA forbids it there, and destructors
    run wherever the garbage collector does."""
    later = getattr(_capture, "later", None)
    if later is not None:
        later.append((cuda, free, handle))
        return
    try:
        with cuda.active():
            free(handle)
    except Exception:  # the interpreter or the driver is shutting down: it is gone already
        pass


class Stream:
    """A CUDA stream: `raw` is the provider's object, `handle` its address; 0 is the default stream.

    A stream with an `owner` is destroyed with its last reference, so arrays on it can outlive their session.
    """

    __slots__ = ("raw", "handle", "_owner")

    def __init__(self, raw: Any, handle: int, owner: Cuda | None = None) -> None:
        self.raw, self.handle, self._owner = raw, handle, owner

    def __del__(self) -> None:
        if self._owner is not None:
            release(self._owner, self._owner._destroy_stream, self.raw)


class Event:
    """A CUDA event, destroyed with its last reference."""

    __slots__ = ("raw", "_owner")

    def __init__(self, raw: Any, owner: Cuda) -> None:
        self.raw, self._owner = raw, owner

    def __del__(self) -> None:
        release(self._owner, self._owner._destroy_event, self.raw)


class Graph:
    """An executable CUDA graph, destroyed with its last reference."""

    __slots__ = ("raw", "_owner")

    def __init__(self, raw: Any, owner: Cuda) -> None:
        self.raw, self._owner = raw, owner

    def __del__(self) -> None:
        release(self._owner, self._owner._destroy_graph, self.raw)


class Buffer:
    """Device memory that is freed with its last reference, so arrays on it can outlive their session.

    `borrowers` counts the arrays of others that still lie on it, by the stream that took them; `returned` holds the
    event behind which the last work of a stream that gave one back is done. `untold`: somebody was given the address
    who will not say when his work on it is done.
    """

    __slots__ = ("_cuda", "ptr", "nbytes", "borrowers", "returned", "untold")

    def __init__(self, cuda: Cuda, ptr: int, nbytes: int) -> None:
        self._cuda, self.ptr, self.nbytes = cuda, ptr, nbytes
        self.borrowers: dict[int, int] = {}
        self.returned: dict[int, Event] = {}
        self.untold = False

    def lend(self, stream: int) -> None:
        """Notes that an array on this memory is in the hands of somebody who works on `stream`, an address."""
        self.borrowers[stream] = self.borrowers.get(stream, 0) + 1

    def take_back(self, stream: int) -> None:
        """The other end of `lend`; what the borrower has enqueued may still be under way."""
        self.borrowers[stream] -= 1
        if not self.borrowers[stream]:
            del self.borrowers[stream]
        with self._cuda.active():
            event = self._cuda.event()
            self._cuda.record(event, self._cuda.wrap_stream(stream))
        self.returned[stream] = event

    def __del__(self) -> None:
        release(self._cuda, self._cuda._free, self.ptr)


class Cuda(ABC):
    """One device through one Python package. Pointers are ints; host memory is pinned numpy arrays of uint8."""

    name: str
    graphs: bool  # whether CUDA graphs can be captured
    ordinal: int  # the device's number, as CUDA counts them

    @staticmethod
    @abstractmethod
    def context(device: int) -> Any:
        """What an instance for the device is made with, and what instances are told apart by."""

    def active(self) -> _Active:
        """A context manager that makes the device current in this thread."""
        return _Active(self)

    def alloc(self, nbytes: int) -> Buffer:
        """Device memory, at least 256-byte aligned. Raises ZooError with the needed and the free amount."""
        return Buffer(self, self._alloc(max(nbytes, 1)), nbytes)

    def upload(self, array: np.ndarray) -> Buffer:
        """A copy of `array` in new device memory, complete on return."""
        staging = self.pinned(array.nbytes)
        staging[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        buffer = self.alloc(array.nbytes)
        stream = self.stream()
        self.h2d(buffer.ptr, staging, stream)
        self.synchronize(stream)
        return buffer

    def download(self, ptr: int, shape: tuple[int, ...], dtype: np.dtype, stream: Stream) -> np.ndarray:
        """A host copy of device memory, after all earlier work on `stream`."""
        staging = self.pinned(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        self.d2h(staging, ptr, stream)
        self.synchronize(stream)
        return staging.view(dtype).reshape(shape).copy()

    def _memory_error(self, nbytes: int, where: str) -> ZooError:
        device = self.device()
        return ZooError(
            f"not enough {where}: needs {nbytes / MIB:.1f} MiB, {device.free_memory / MIB:.1f} MiB of "
            f"{device.total_memory / MIB:.0f} MiB are free on {device.name}; free memory or use a smaller batch"
        )

    @abstractmethod
    def _enter(self) -> Any: ...
    @abstractmethod
    def _leave(self, previous: Any) -> None: ...
    @abstractmethod
    def device(self) -> Device: ...
    @abstractmethod
    def _alloc(self, nbytes: int) -> int: ...
    @abstractmethod
    def _free(self, ptr: int) -> None: ...
    @abstractmethod
    def pinned(self, nbytes: int) -> np.ndarray: ...
    @abstractmethod
    def h2d(self, dst: int, src: np.ndarray, stream: Stream) -> None: ...
    @abstractmethod
    def d2h(self, dst: np.ndarray, src: int, stream: Stream) -> None: ...
    @abstractmethod
    def d2d(self, dst: int, src: int, nbytes: int, stream: Stream) -> None: ...
    @abstractmethod
    def zero(self, dst: int, nbytes: int, stream: Stream) -> None: ...
    @abstractmethod
    def stream(self) -> Stream: ...
    @abstractmethod
    def wrap_stream(self, stream: Any) -> Stream: ...
    @abstractmethod
    def _destroy_stream(self, raw: Any) -> None: ...
    @abstractmethod
    def synchronize(self, stream: Stream | None = None) -> None: ...
    @abstractmethod
    def event(self, timing: bool = False) -> Event: ...
    @abstractmethod
    def record(self, event: Event, stream: Stream) -> None: ...
    @abstractmethod
    def wait(self, stream: Stream, event: Event) -> None: ...
    @abstractmethod
    def passed(self, event: Event) -> bool: ...
    @abstractmethod
    def wait_on_host(self, event: Event) -> None: ...
    @abstractmethod
    def elapsed_ms(self, start: Event, end: Event) -> float: ...
    @abstractmethod
    def _destroy_event(self, raw: Any) -> None: ...
    @abstractmethod
    def load_module(self, image: bytes) -> Any: ...
    @abstractmethod
    def function(self, module: Any, name: str) -> Any: ...
    @abstractmethod
    def launch(
        self, function: Any, grid: Sequence[int], block: Sequence[int], stream: Stream, args: Sequence[np.generic]
    ) -> None: ...

    def device_of(self, ptr: int) -> int | None:
        """The number of the device in whose memory an address lies; None where CUDA does not tell."""
        return None

    def begin_capture(self, stream: Stream) -> None:
        raise self._no_graphs()

    def end_capture(self, stream: Stream) -> Graph:
        """The captured work as an executable graph. Raises ZooError when something in it could not be captured."""
        raise self._no_graphs()

    def launch_graph(self, graph: Graph, stream: Stream) -> None:
        raise self._no_graphs()

    def _destroy_graph(self, raw: Any) -> None:
        raise self._no_graphs()

    def _no_graphs(self) -> ZooError:
        return ZooError(f"CUDA graphs are not offered with {self.name}; use cuda-python or graphs=False")

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph | None:
        """`work`, which enqueues to `stream`, as a CUDA graph; None when something in it cannot be captured.

        It runs once first: TensorRT defers work to the first run after a change of shape, which must not be captured.
        The capture ends however `work` does: a stream left capturing would refuse all that follows.
        """
        work()
        _capture.later = []
        try:
            return self._captured(stream, work)
        finally:
            later, _capture.later = _capture.later, None
            for held in later:
                release(*held)

    def _captured(self, stream: Stream, work: Callable[[], None]) -> Graph | None:
        self.begin_capture(stream)
        try:
            work()
        except BaseException as error:
            try:
                self.end_capture(stream)
            except ZooError:  # the capture was invalidated, which is why `work` failed
                pass
            if isinstance(error, ZooError):
                return None
            raise
        try:
            return self.end_capture(stream)
        except ZooError:
            return None


class _Active:
    __slots__ = ("_cuda", "_previous")

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda

    def __enter__(self) -> None:
        self._previous = self._cuda._enter()

    def __exit__(self, *error: object) -> None:
        if self._previous is not None:
            self._cuda._leave(self._previous)
