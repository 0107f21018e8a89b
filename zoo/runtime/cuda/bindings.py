"""CUDA through NVIDIA's own bindings of the driver API (package cuda-bindings, a part of cuda-python)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.runtime.cuda.base import FORKED, MIB, Cuda, Device, Event, Graph, Stream, release


class _PinnedMemory:
    """Page-locked host memory; numpy arrays on it keep it alive."""

    def __init__(self, cuda: CudaPython, nbytes: int) -> None:
        self._cuda = cuda
        self._ptr = cuda._alloc_host(nbytes)
        self.__array_interface__ = {"data": (self._ptr, False), "shape": (nbytes,), "typestr": "|u1", "version": 3}

    def __del__(self) -> None:
        if hasattr(self, "_ptr"):  # else there was no memory
            release(self._cuda, self._cuda._free_host, self._ptr)


class CudaPython(Cuda):
    """NVIDIA's own bindings of the driver API (package cuda-bindings)."""

    name = "cuda-python"
    graphs = True

    @staticmethod
    def context(device: int) -> int:
        """The device's number: its primary context is always the same."""
        return device

    def __init__(self, device: int) -> None:
        from cuda.bindings import driver

        self._driver, self.ordinal = driver, device
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
        hint = f"; {FORKED}" if error == self._driver.CUresult.CUDA_ERROR_NOT_INITIALIZED else ""
        return f"CUDA failed with {(name or b'?').decode()}: {(text or b'').decode()}{hint}"

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
            raise ZooError(f"not enough host memory: {nbytes / MIB:.1f} MiB could not be page-locked")
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

    def event(self, timing: bool = False) -> Event:
        flags = self._driver.CUevent_flags
        flag = flags.CU_EVENT_DEFAULT if timing else flags.CU_EVENT_DISABLE_TIMING
        return Event(self._call(self._driver.cuEventCreate(int(flag))), self)

    def record(self, event: Event, stream: Stream) -> None:
        self._call(self._driver.cuEventRecord(event.raw, stream.raw))

    def wait(self, stream: Stream, event: Event) -> None:
        self._call(self._driver.cuStreamWaitEvent(stream.raw, event.raw, 0))

    def passed(self, event: Event) -> bool:
        (error,) = self._driver.cuEventQuery(event.raw)
        if error == self._driver.CUresult.CUDA_ERROR_NOT_READY:
            return False
        self._call((error,))
        return True

    def wait_on_host(self, event: Event) -> None:
        self._call(self._driver.cuEventSynchronize(event.raw))

    def elapsed_ms(self, start: Event, end: Event) -> float:
        self.wait_on_host(end)
        return float(self._call(self._driver.cuEventElapsedTime(start.raw, end.raw)))

    def _destroy_event(self, raw: Any) -> None:
        self._call(self._driver.cuEventDestroy(raw))

    def device_of(self, ptr: int) -> int | None:
        attributes = self._driver.CUpointer_attribute
        error, kind = self._driver.cuPointerGetAttribute(attributes.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, ptr)
        if error != self._success or int(kind) != int(self._driver.CUmemorytype.CU_MEMORYTYPE_DEVICE):
            return None
        error, managed = self._driver.cuPointerGetAttribute(attributes.CU_POINTER_ATTRIBUTE_IS_MANAGED, ptr)
        if error != self._success or managed:  # every device may read it
            return None
        ordinal = self._driver.cuPointerGetAttribute(attributes.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, ptr)
        return int(self._call(ordinal))

    def begin_capture(self, stream: Stream) -> None:
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call(self._driver.cuStreamBeginCapture(stream.raw, mode))

    def end_capture(self, stream: Stream) -> Graph:
        graph = self._call(self._driver.cuStreamEndCapture(stream.raw))
        try:
            return Graph(self._call(self._driver.cuGraphInstantiate(graph, 0)), self)
        finally:
            self._call(self._driver.cuGraphDestroy(graph))

    def launch_graph(self, graph: Graph, stream: Stream) -> None:
        (error,) = self._driver.cuGraphLaunch(graph.raw, stream.raw)
        if error != self._success:
            raise ZooError(self._describe(error))

    def _destroy_graph(self, raw: Any) -> None:
        self._call(self._driver.cuGraphExecDestroy(raw))

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
