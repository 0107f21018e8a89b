"""What the runtime asks of CUDA, whichever Python package answers. Nothing here knows TensorRT."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import ZooError

LEGACY_STREAM = 1  # CU_STREAM_LEGACY, the handle that names the default stream

MIB = 1 << 20


@dataclass(frozen=True)
class Device:
    """The GPU: its name, compute capability («9.0») and memory in bytes."""

    name: str
    compute_capability: str
    total_memory: int
    free_memory: int


class Stream:
    """A CUDA stream: `raw` is the provider's object, `handle` its address; 0 is the default stream.

    A stream with an `owner` is destroyed with its last reference, so arrays on it can outlive their session.
    """

    __slots__ = ("raw", "handle", "_owner")

    def __init__(self, raw: Any, handle: int, owner: Cuda | None = None) -> None:
        self.raw, self.handle, self._owner = raw, handle, owner

    def __del__(self) -> None:
        if self._owner is not None:
            try:
                with self._owner.active():
                    self._owner._destroy_stream(self.raw)
            except Exception:  # the interpreter or the driver is shutting down
                pass


class Buffer:
    """Device memory that is freed with its last reference, so arrays on it can outlive their session."""

    __slots__ = ("_cuda", "ptr", "nbytes")

    def __init__(self, cuda: Cuda, ptr: int, nbytes: int) -> None:
        self._cuda, self.ptr, self.nbytes = cuda, ptr, nbytes

    def __del__(self) -> None:
        try:
            with self._cuda.active():
                self._cuda._free(self.ptr)
        except Exception:  # the interpreter or the driver is shutting down: the memory is gone already
            pass


class Cuda(ABC):
    """One device through one Python package. Pointers are ints; host memory is pinned numpy arrays of uint8."""

    name: str
    graphs: bool  # whether CUDA graphs can be captured

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
    def event(self, timing: bool = False) -> Any: ...
    @abstractmethod
    def record(self, event: Any, stream: Stream) -> None: ...
    @abstractmethod
    def wait(self, stream: Stream, event: Any) -> None: ...
    @abstractmethod
    def elapsed_ms(self, start: Any, end: Any) -> float: ...
    @abstractmethod
    def destroy_event(self, event: Any) -> None: ...
    @abstractmethod
    def load_module(self, image: bytes) -> Any: ...
    @abstractmethod
    def function(self, module: Any, name: str) -> Any: ...
    @abstractmethod
    def launch(
        self, function: Any, grid: Sequence[int], block: Sequence[int], stream: Stream, args: Sequence[np.generic]
    ) -> None: ...

    def begin_capture(self, stream: Stream) -> None:
        raise ZooError(f"CUDA graphs are not offered with {self.name}; use cuda-python or graphs=False")

    def end_capture(self, stream: Stream) -> Any:
        """The captured work as an executable graph. Raises ZooError when something in it could not be captured."""
        raise ZooError(f"CUDA graphs are not offered with {self.name}; use cuda-python or graphs=False")

    def launch_graph(self, graph: Any, stream: Stream) -> None:
        raise ZooError(f"CUDA graphs are not offered with {self.name}; use cuda-python or graphs=False")

    def destroy_graph(self, graph: Any) -> None:
        raise ZooError(f"CUDA graphs are not offered with {self.name}; use cuda-python or graphs=False")

    def capture(self, stream: Stream, work: Callable[[], None]) -> Any | None:
        """`work`, which enqueues to `stream`, as a CUDA graph; None when something in it cannot be captured.

        It runs once first: TensorRT defers work to the first run after a change of shape, which must not be captured.
        """
        work()
        self.begin_capture(stream)
        try:
            work()
        except ZooError:
            try:
                self.destroy_graph(self.end_capture(stream))
            except ZooError:  # the capture was invalidated, which is why `work` failed
                pass
            return None
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
