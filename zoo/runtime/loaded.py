"""An engine in GPU memory: what it takes and gives, its execution contexts, and one bound to fixed buffers.

Uses only calls that TensorRT 8.6, 10, 11 and TensorRT-RTX share.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.engine.shapes import nearest
from zoo.errors import Refused, ZooError
from zoo.runtime.arrays import CLOSED, DeviceArray, Shape, byte_count
from zoo.runtime.cuda import Buffer, Cuda, Stream

if TYPE_CHECKING:
    from zoo.trt import Api

_DTYPES = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "INT8": np.dtype(np.int8),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
}


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine. `profiles` holds (min, opt, max) per optimisation profile, for inputs."""

    name: str
    dtype: np.dtype
    shape: Shape  # -1 where it is dynamic
    profiles: tuple[tuple[Shape, Shape, Shape], ...] = ()


class LoadedEngine:
    """A deserialised engine and what it takes and gives.

    The height and the width of images must be multiples of `multiple`.
    Threads may share it: contexts are made one at a time, since TensorRT promises no more.
    """

    def __init__(
        self, plan: bytes, api: Api, cuda: Cuda, rebuild: str, host_code: bool = False, multiple: int = 1
    ) -> None:
        self.api, self.cuda, self._multiple = api, cuda, multiple
        self._lock = threading.RLock()
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        api.log.drain()
        self.runtime = api.trt.Runtime(api.log.logger)
        if host_code:
            self.runtime.engine_host_code_allowed = True
        self.engine = self.runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            hint = f"; to rebuild it: {rebuild}" if rebuild else ""
            words = api.log.drain() or "it gave no reason"
            raise Refused(f"{api.name} cannot load the engine ({len(plan)} bytes): {words}{hint}")
        for index in range(self.engine.num_io_tensors):
            self._describe(self.engine.get_tensor_name(index))
        self.dynamic = any(-1 in tensor.shape for tensor in self.inputs.values())

    def _describe(self, name: str) -> None:
        trt, engine = self.api.trt, self.engine
        dtype = _DTYPES.get(engine.get_tensor_dtype(name).name)
        if dtype is None:
            raise ZooError(
                f"'{name}' is {engine.get_tensor_dtype(name).name}, which numpy lacks; build it with fp32 I/O"
            )
        if engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
            raise ZooError(f"'{name}' is not in linear format; build the engine with linear I/O")
        if engine.is_shape_inference_io(name):
            raise ZooError(f"'{name}' is a shape tensor, which sessions do not feed; build the engine without it")
        shape = tuple(engine.get_tensor_shape(name))
        if engine.get_tensor_mode(name) != trt.TensorIOMode.INPUT:
            self.outputs[name] = Tensor(name, dtype, shape)
            return
        profiles = ((shape, shape, shape),)
        if -1 in shape:
            count = engine.num_optimization_profiles
            profiles = tuple(tuple(map(tuple, engine.get_tensor_profile_shape(name, p))) for p in range(count))
        self.inputs[name] = Tensor(name, dtype, shape, profiles)

    def profile(self, shapes: Mapping[str, Shape]) -> int:
        """The optimisation profile that takes all `shapes` and is tuned for what is nearest to them.

        Raises ZooError naming the allowed ranges and the nearest shape in them.
        """
        count = max(len(tensor.profiles) for tensor in self.inputs.values())
        found = [i for i in range(count) if all(fits(shapes[name], tensor, i) for name, tensor in self.inputs.items())]
        for name, tensor in self.inputs.items():
            steps = self._steps(tensor)
            if found and any(shapes[name][axis] % step for axis, step in steps.items()):
                raise ZooError(
                    f"input '{name}' has shape {shapes[name]}: its height and width must be multiples of "
                    f"{self._multiple}; the nearest is {nearest(shapes[name], tensor.profiles, steps)}"
                )
        if found:
            return min(found, key=lambda index: self._distance(shapes, index))
        name = next((n for n, t in self.inputs.items() if not any(fits(shapes[n], t, p) for p in range(count))), None)
        if name is None:
            raise ZooError(f"no optimisation profile of the engine takes {dict(shapes)} together")
        ranges = " or ".join(f"{low} to {high} (fastest at {best})" for low, best, high in self.inputs[name].profiles)
        tensor, close = self.inputs[name], ""
        if len(shapes[name]) == len(tensor.shape):
            close = f" (the nearest is {nearest(shapes[name], tensor.profiles, self._steps(tensor))})"
        raise ZooError(
            f"input '{name}' has shape {shapes[name]}, the engine takes {ranges}; "
            f"use a shape in that range{close} or build the engine for a wider one"
        )

    def _steps(self, tensor: Tensor) -> dict[int, int]:
        """By axis, what the open sides of images must be a multiple of; bytes are (N, H, W, C)."""
        sides = (1, 2) if tensor.dtype == np.uint8 else (2, 3)
        return {axis: self._multiple for axis in sides if tensor.shape[axis] == -1} if len(tensor.shape) == 4 else {}

    def _distance(self, shapes: Mapping[str, Shape], profile: int) -> float:
        """How far what a profile is tuned for is from `shapes`."""
        pairs = ((shapes[name], t.profiles[min(profile, len(t.profiles) - 1)][1]) for name, t in self.inputs.items())
        return sum(abs(math.log(size / best)) for shape, tuned in pairs for size, best in zip(shape, tuned))

    def activation(self) -> Buffer:
        """Scratch memory for contexts of this engine that never run at the same time."""
        name = "device_memory_size_v2" if hasattr(self._open(), "device_memory_size_v2") else "device_memory_size"
        return self.cuda.alloc(int(getattr(self._open(), name)))

    def context(self, activation: Buffer, stream: Stream, profile: int = 0) -> Any:
        """An execution context that uses `activation` for scratch. Raises ZooError with TensorRT's words."""
        with self._lock:
            return self._make_context(activation, stream, profile)

    def _make_context(self, activation: Buffer, stream: Stream, profile: int) -> Any:
        trt, engine = self.api.trt, self._open()
        self.api.log.drain()
        if hasattr(trt, "ExecutionContextAllocationStrategy"):
            context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
            if context is not None:
                context.set_device_memory(activation.ptr, max(activation.nbytes, 1))
        else:
            context = engine.create_execution_context_without_device_memory()
            if context is not None:
                context.device_memory = activation.ptr
        if context is None:
            raise self.error("no execution context could be made")
        self.select(context, profile, stream)
        return context

    def select(self, context: Any, profile: int, stream: Stream) -> None:
        """Makes `profile` the one of `context`. Engines of fixed shape have none to choose."""
        if not self.dynamic or context.active_optimization_profile == profile:
            return
        with self._lock:
            try:
                context.set_optimization_profile_async(profile, stream.handle)
            except RuntimeError:
                raise self.error(
                    "the optimisation profile is taken by another context; with TensorRT 8.6 build the engine with "
                    "PreviewFeature.PROFILE_SHARING_0806, or use one context and graphs=False"
                ) from None

    def bind(self, context: Any, shapes: Mapping[str, Shape], addresses: Mapping[str, int]) -> None:
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise self.error(f"input '{name}' cannot have shape {shape}")
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise self.error(f"'{name}' cannot be bound to {address:#x}")

    def enqueue(self, context: Any, stream: Stream) -> None:
        if not context.execute_async_v3(stream.handle):
            raise self.error("the network could not be enqueued")

    def output_shapes(self, context: Any) -> dict[str, Shape]:
        """The outputs' shapes for the input shapes set on `context`."""
        shapes = {name: tuple(context.get_tensor_shape(name)) for name in self.outputs}
        for name, shape in shapes.items():
            if any(size < 0 for size in shape):
                raise ZooError(
                    f"output '{name}' has shape {shape}, known only after the run; sessions need fixed shapes"
                )
        return shapes

    def error(self, what: str) -> Refused:
        words = self.api.log.drain()
        return Refused(f"{self.api.name}: {what}" + (f": {words}" if words else ""))

    def _open(self) -> Any:
        engine = self.engine
        if engine is None:  # closed by another thread
            raise ZooError(CLOSED)
        return engine

    def close(self) -> None:
        with self._lock:
            self.engine = self.runtime = None


def fits(shape: Shape, tensor: Tensor, profile: int) -> bool:
    low, _, high = tensor.profiles[min(profile, len(tensor.profiles) - 1)]
    return len(shape) == len(low) and all(a <= size <= b for a, size, b in zip(low, shape, high))


class Bound:
    """An engine with fixed input shapes in an execution context and buffers of its own, to build pipelines with.

    `inputs`, zeros until they are written, and `outputs` are device arrays at fixed addresses; `enqueue(stream)` may
    be captured in a CUDA graph.
    """

    def __init__(self, engine: LoadedEngine, shapes: Mapping[str, Shape], stream: Stream) -> None:
        profile = engine.profile(shapes)
        self._engine, self._activation = engine, engine.activation()
        self._context = engine.context(self._activation, stream, profile)
        engine.bind(self._context, shapes, {})
        self.inputs = {name: self._array(tensor, shapes[name], stream) for name, tensor in engine.inputs.items()}
        out = engine.output_shapes(self._context)
        self.outputs = {name: self._array(tensor, out[name], stream) for name, tensor in engine.outputs.items()}
        for array in self.inputs.values():
            engine.cuda.zero(array.ptr, array.nbytes, stream)
        arrays = {**self.inputs, **self.outputs}
        engine.bind(self._context, {}, {name: array.ptr for name, array in arrays.items()})

    def _array(self, tensor: Tensor, shape: Shape, stream: Stream) -> DeviceArray:
        buffer = self._engine.cuda.alloc(byte_count(shape, tensor.dtype))
        return DeviceArray(self._engine.cuda, buffer.ptr, shape, tensor.dtype, stream, buffer)

    def enqueue(self, stream: Stream) -> None:
        self._engine.enqueue(self._context, stream)

    def layer_times(self, stream: Stream, runs: int) -> list[list[tuple[str, float]]]:
        """(layer, milliseconds) of each run, as TensorRT's profiler tells them, which stays with this context."""
        self._context.profiler = profiler = _make_profiler(self._engine.api.trt)
        found = []
        for _ in range(runs):
            profiler.times = []
            self.enqueue(stream)  # waits for every layer when a profiler is there
            self._engine.cuda.synchronize(stream)
            found.append(profiler.times)
        return found


def _make_profiler(trt: Any) -> Any:
    class Profiler(trt.IProfiler):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)  # required: super().__init__() is refused by the binding
            self.times: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times.append((layer_name, ms))

    return Profiler()
