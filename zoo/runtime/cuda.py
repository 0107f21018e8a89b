"""The few CUDA calls that the runtime needs, over cuda-python (default) or PyCUDA. Nothing here knows TensorRT.

`provider(name)` gives a `Cuda`. Every call must run inside `with cuda.active():`, which makes the device's primary
context, the one that TensorRT and PyTorch use too, current in the calling thread and puts the caller's own back.
"""

from __future__ import annotations

import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.driver import driver_problem
from zoo.errors import ZooError

PROVIDERS = ("cuda-python", "pycuda")
LEGACY_STREAM = 1  # CU_STREAM_LEGACY, the handle that names the default stream

_MIB = 1 << 20


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
            f"not enough {where}: needs {nbytes / _MIB:.1f} MiB, {device.free_memory / _MIB:.1f} MiB of "
            f"{device.total_memory / _MIB:.0f} MiB are free on {device.name}; free memory or use a smaller batch"
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


class _Active:
    __slots__ = ("_cuda", "_previous")

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda

    def __enter__(self) -> None:
        self._previous = self._cuda._enter()

    def __exit__(self, *error: object) -> None:
        if self._previous is not None:
            self._cuda._leave(self._previous)


_providers_lock = threading.Lock()


def provider(name: str = "cuda-python", device: int = 0) -> Cuda:
    """The `Cuda` of the package `name` for one device. Raises ZooError when the package or the driver is missing."""
    with _providers_lock:
        return _provider(name, device)


@functools.cache
def _provider(name: str, device: int) -> Cuda:
    if name not in PROVIDERS:
        raise ZooError(f"unknown CUDA package '{name}'; choose one of {', '.join(PROVIDERS)}")
    problem = driver_problem()
    if problem:
        raise ZooError(f"{problem}; use --device cpu to run without a GPU")
    try:
        return (CudaPython if name == "cuda-python" else PyCuda)(device)
    except ImportError as error:
        package = ".[gpu]" if name == "cuda-python" else ".[pycuda]"
        raise ZooError(f'{name} cannot be imported ({error}); install it: pip install -e "{package}"') from error


class _PinnedMemory:
    """Page-locked host memory; numpy arrays on it keep it alive."""

    def __init__(self, cuda: CudaPython, nbytes: int) -> None:
        self._cuda = cuda
        self._ptr = cuda._alloc_host(nbytes)
        self.__array_interface__ = {"data": (self._ptr, False), "shape": (nbytes,), "typestr": "|u1", "version": 3}

    def __del__(self) -> None:
        try:
            with self._cuda.active():
                self._cuda._free_host(self._ptr)
        except Exception:  # allocation failed, or the interpreter or the driver is shutting down
            pass


class CudaPython(Cuda):
    """NVIDIA's own bindings of the driver API (package cuda-bindings)."""

    name = "cuda-python"
    graphs = True

    def __init__(self, device: int) -> None:
        from cuda.bindings import driver

        self._driver = driver
        self._success = driver.CUresult.CUDA_SUCCESS
        self._call(driver.cuInit(0))
        self._device = self._call(driver.cuDeviceGet(device))
        self._context = self._call(driver.cuDevicePrimaryCtxRetain(self._device))
        self._handle = int(self._context)

    def _call(self, result: tuple[Any, ...]) -> Any:
        """The value of a driver call; an error code becomes a ZooError with CUDA's words."""
        if result[0] != self._success:
            raise ZooError(self._describe(result[0]))
        return result[1] if len(result) > 1 else None

    def _describe(self, error: Any) -> str:
        name, text = self._driver.cuGetErrorName(error)[1], self._driver.cuGetErrorString(error)[1]
        return f"CUDA failed with {(name or b'?').decode()}: {(text or b'').decode()}"

    def _enter(self) -> Any:
        current = self._call(self._driver.cuCtxGetCurrent())
        if int(current) == self._handle:
            return None
        self._call(self._driver.cuCtxSetCurrent(self._context))
        return current if int(current) else None  # a thread that had no context keeps this one

    def _leave(self, previous: Any) -> None:
        self._call(self._driver.cuCtxSetCurrent(previous))

    def device(self) -> Device:
        d, attributes = self._driver, self._driver.CUdevice_attribute
        name = self._call(d.cuDeviceGetName(256, self._device)).split(b"\0")[0].decode()
        major = self._call(
            d.cuDeviceGetAttribute(attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, self._device)
        )
        minor = self._call(
            d.cuDeviceGetAttribute(attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, self._device)
        )
        error, free, total = d.cuMemGetInfo()
        self._call((error,))
        return Device(name, f"{major}.{minor}", int(total), int(free))

    def _alloc(self, nbytes: int) -> int:
        error, ptr = self._driver.cuMemAlloc(nbytes)
        if error == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise self._memory_error(nbytes, "GPU memory")
        return int(self._call((error, ptr)))

    def _free(self, ptr: int) -> None:
        self._call(self._driver.cuMemFree(ptr))

    def _alloc_host(self, nbytes: int) -> int:
        error, ptr = self._driver.cuMemHostAlloc(nbytes, 0)
        if error == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise ZooError(f"not enough host memory: {nbytes / _MIB:.1f} MiB could not be page-locked")
        return int(self._call((error, ptr)))

    def _free_host(self, ptr: int) -> None:
        self._call(self._driver.cuMemFreeHost(ptr))

    def pinned(self, nbytes: int) -> np.ndarray:
        return np.asarray(_PinnedMemory(self, max(nbytes, 1)))[:nbytes]

    def h2d(self, dst: int, src: np.ndarray, stream: Stream) -> None:
        self._call(self._driver.cuMemcpyHtoDAsync(dst, src.ctypes.data, src.nbytes, stream.raw))

    def d2h(self, dst: np.ndarray, src: int, stream: Stream) -> None:
        self._call(self._driver.cuMemcpyDtoHAsync(dst.ctypes.data, src, dst.nbytes, stream.raw))

    def d2d(self, dst: int, src: int, nbytes: int, stream: Stream) -> None:
        self._call(self._driver.cuMemcpyDtoDAsync(dst, src, nbytes, stream.raw))

    def zero(self, dst: int, nbytes: int, stream: Stream) -> None:
        self._call(self._driver.cuMemsetD8Async(dst, 0, nbytes, stream.raw))

    def stream(self) -> Stream:
        # Non-blocking: a stream that waits for the default stream could not be captured while others use that one.
        raw = self._call(self._driver.cuStreamCreate(int(self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING)))
        return Stream(raw, int(raw), self)

    def wrap_stream(self, stream: Any) -> Stream:
        """The caller's stream: an address, or an object of PyTorch, CuPy, PyCUDA, cuda.core or cuda.bindings."""
        handle = _stream_handle(stream)
        return Stream(self._driver.CUstream(handle), handle)

    def _destroy_stream(self, raw: Any) -> None:
        self._call(self._driver.cuStreamDestroy(raw))

    def synchronize(self, stream: Stream | None = None) -> None:
        if stream is None:
            self._call(self._driver.cuCtxSynchronize())
        else:
            self._call(self._driver.cuStreamSynchronize(stream.raw))

    def event(self, timing: bool = False) -> Any:
        flags = self._driver.CUevent_flags
        flag = flags.CU_EVENT_DEFAULT if timing else flags.CU_EVENT_DISABLE_TIMING
        return self._call(self._driver.cuEventCreate(int(flag)))

    def record(self, event: Any, stream: Stream) -> None:
        self._call(self._driver.cuEventRecord(event, stream.raw))

    def wait(self, stream: Stream, event: Any) -> None:
        self._call(self._driver.cuStreamWaitEvent(stream.raw, event, 0))

    def elapsed_ms(self, start: Any, end: Any) -> float:
        self._call(self._driver.cuEventSynchronize(end))
        return float(self._call(self._driver.cuEventElapsedTime(start, end)))

    def destroy_event(self, event: Any) -> None:
        self._call(self._driver.cuEventDestroy(event))

    def begin_capture(self, stream: Stream) -> None:
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call(self._driver.cuStreamBeginCapture(stream.raw, mode))

    def end_capture(self, stream: Stream) -> Any:
        graph = self._call(self._driver.cuStreamEndCapture(stream.raw))
        try:
            return self._call(self._driver.cuGraphInstantiate(graph, 0))
        finally:
            self._call(self._driver.cuGraphDestroy(graph))

    def launch_graph(self, graph: Any, stream: Stream) -> None:
        (error,) = self._driver.cuGraphLaunch(graph, stream.raw)
        if error != self._success:
            raise ZooError(self._describe(error))

    def destroy_graph(self, graph: Any) -> None:
        self._call(self._driver.cuGraphExecDestroy(graph))

    def load_module(self, image: bytes) -> Any:
        return self._call(self._driver.cuModuleLoadData(image))

    def function(self, module: Any, name: str) -> Any:
        return self._call(self._driver.cuModuleGetFunction(module, name.encode()))

    def launch(
        self, function: Any, grid: Sequence[int], block: Sequence[int], stream: Stream, args: Sequence[np.generic]
    ) -> None:
        values = [np.array(arg) for arg in args]
        pointers = np.array([value.ctypes.data for value in values], np.uint64)
        self._call(self._driver.cuLaunchKernel(function, *grid, *block, 0, stream.raw, pointers.ctypes.data, 0))


class PyCuda(Cuda):
    """PyCUDA in the caller's context when one is current (pycuda.autoprimaryctx), else in the primary context."""

    name = "PyCUDA"
    graphs = False

    def __init__(self, device: int) -> None:
        import pycuda.driver as driver

        self._driver = driver
        driver.init()
        self._context = driver.Context.get_current() or driver.Device(device).retain_primary_context()
        self._allocations: dict[int, Any] = {}

    def _call(self, function: Any, *args: Any) -> Any:
        try:
            return function(*args)
        except self._driver.Error as error:
            raise ZooError(f"CUDA failed: {error}") from error

    def _enter(self) -> Any:
        # PyCUDA keeps a stack of contexts in each thread and aborts when a thread ends with one on it.
        if self._driver.Context.get_current() == self._context:
            return None
        self._context.push()
        return self._context

    def _leave(self, previous: Any) -> None:
        self._driver.Context.pop()

    def device(self) -> Device:
        device = self._driver.Context.get_device()
        free, total = self._driver.mem_get_info()
        major, minor = device.compute_capability()
        return Device(device.name(), f"{major}.{minor}", int(total), int(free))

    def _alloc(self, nbytes: int) -> int:
        try:
            allocation = self._driver.mem_alloc(nbytes)
        except self._driver.MemoryError as error:
            raise self._memory_error(nbytes, "GPU memory") from error
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def _free(self, ptr: int) -> None:
        self._allocations.pop(ptr).free()

    def pinned(self, nbytes: int) -> np.ndarray:
        return self._call(self._driver.pagelocked_empty, max(nbytes, 1), np.uint8)[:nbytes]

    def h2d(self, dst: int, src: np.ndarray, stream: Stream) -> None:
        self._call(self._driver.memcpy_htod_async, dst, src, stream.raw)

    def d2h(self, dst: np.ndarray, src: int, stream: Stream) -> None:
        self._call(self._driver.memcpy_dtoh_async, dst, src, stream.raw)

    def d2d(self, dst: int, src: int, nbytes: int, stream: Stream) -> None:
        self._call(self._driver.memcpy_dtod_async, dst, src, nbytes, stream.raw)

    def zero(self, dst: int, nbytes: int, stream: Stream) -> None:
        self._call(self._driver.memset_d8_async, dst, 0, nbytes, stream.raw)

    def stream(self) -> Stream:
        # Ordered with the default stream, where GPUArrays are computed.
        raw = self._call(self._driver.Stream)
        return Stream(raw, int(raw.handle))

    def wrap_stream(self, stream: Any) -> Stream:
        """The caller's pycuda.driver.Stream, or the default stream; PyCUDA cannot use the streams of others."""
        if isinstance(stream, int) and stream in (0, LEGACY_STREAM):
            return Stream(None, 0)
        if not isinstance(stream, self._driver.Stream):
            raise ZooError(f"with PyCUDA the stream must be a pycuda.driver.Stream, not {type(stream).__name__}")
        return Stream(stream, int(stream.handle))

    def _destroy_stream(self, raw: Any) -> None:
        """PyCUDA destroys a stream with its last reference."""

    def synchronize(self, stream: Stream | None = None) -> None:
        # Synchronising the context covers the default stream, which has no PyCUDA object.
        whole = stream is None or stream.raw is None
        self._call(self._driver.Context.synchronize if whole else stream.raw.synchronize)

    def event(self, timing: bool = False) -> Any:
        flags = self._driver.event_flags
        return self._call(self._driver.Event, flags.DEFAULT if timing else flags.DISABLE_TIMING)

    def record(self, event: Any, stream: Stream) -> None:
        self._call(event.record, stream.raw)

    def wait(self, stream: Stream, event: Any) -> None:
        if stream.raw is not None:  # the default stream waits for PyCUDA's streams of itself
            self._call(stream.raw.wait_for_event, event)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        self._call(end.synchronize)
        return float(self._call(start.time_till, end))

    def destroy_event(self, event: Any) -> None:
        """PyCUDA destroys an event with its last reference."""

    def load_module(self, image: bytes) -> Any:
        return self._call(self._driver.module_from_buffer, image)

    def function(self, module: Any, name: str) -> Any:
        return self._call(module.get_function, name)

    def launch(
        self, function: Any, grid: Sequence[int], block: Sequence[int], stream: Stream, args: Sequence[np.generic]
    ) -> None:
        try:
            function(*args, grid=tuple(grid), block=tuple(block), stream=stream.raw)
        except self._driver.Error as error:
            raise ZooError(f"CUDA failed: {error}") from error


def _stream_handle(stream: Any) -> int:
    if hasattr(stream, "cuda_stream"):  # torch.cuda.Stream
        return int(stream.cuda_stream)
    if hasattr(stream, "__cuda_stream__"):  # cuda.core, CuPy
        protocol = stream.__cuda_stream__
        return int((protocol() if callable(protocol) else protocol)[1])
    for name in ("handle", "ptr"):  # pycuda.driver.Stream, cupy.cuda.Stream
        if hasattr(stream, name):
            return int(getattr(stream, name))
    try:
        return int(stream)
    except (TypeError, ValueError) as error:
        raise ZooError(
            f"a CUDA stream is needed (its address, or a stream object), not {type(stream).__name__}"
        ) from error
