"""CUDA through PyCUDA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.runtime.cuda.base import LEGACY_STREAM, Cuda, Device, Event, Stream


class PyCuda(Cuda):
    """PyCUDA in the caller's context when one is current (pycuda.autoprimaryctx), else in the primary context."""

    name = "PyCUDA"
    graphs = False

    @staticmethod
    def context(device: int) -> Any:
        """The caller's current context, else the primary context of the device. Raises ZooError when the caller's is on
        another device."""
        import pycuda.driver as driver

        driver.init()
        current = driver.Context.get_current()
        if current is None:
            return driver.Device(device).retain_primary_context()
        here = _current_ordinal(driver)
        if here != device:
            raise ZooError(
                f"PyCUDA's current context is on gpu:{here}, gpu:{device} was asked for; "
                f'load the model with device="gpu:{here}", or make a context on gpu:{device} current'
            )
        return current

    def __init__(self, current: Any) -> None:
        import pycuda.driver as driver

        self._driver, self._current = driver, current
        self._allocations: dict[int, Any] = {}
        with self.active():
            self.ordinal = _current_ordinal(driver)

    def _call(self, function: Any, *args: Any) -> Any:
        try:
            return function(*args)
        except self._driver.Error as error:
            raise ZooError(f"CUDA failed: {error}") from error

    def _enter(self) -> Any:
        # PyCUDA keeps a stack of contexts in each thread and aborts when a thread ends with one on it.
        if self._driver.Context.get_current() == self._current:
            return None
        self._current.push()
        return self._current

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

    def event(self, timing: bool = False) -> Event:
        flags = self._driver.event_flags
        return Event(self._call(self._driver.Event, flags.DEFAULT if timing else flags.DISABLE_TIMING), self)

    def record(self, event: Event, stream: Stream) -> None:
        self._call(event.raw.record, stream.raw)

    def wait(self, stream: Stream, event: Event) -> None:
        if stream.raw is not None:  # the default stream waits for PyCUDA's streams of itself
            self._call(stream.raw.wait_for_event, event.raw)

    def passed(self, event: Event) -> bool:
        return bool(self._call(event.raw.query))

    def wait_on_host(self, event: Event) -> None:
        self._call(event.raw.synchronize)

    def elapsed_ms(self, start: Event, end: Event) -> float:
        self.wait_on_host(end)
        return float(self._call(start.raw.time_till, end.raw))

    def _destroy_event(self, raw: Any) -> None:
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


def _current_ordinal(driver: Any) -> int:
    """The number of the device of the current context, as CUDA counts them."""
    here = driver.Context.get_device().pci_bus_id()
    return next(i for i in range(driver.Device.count()) if driver.Device(i).pci_bus_id() == here)
