"""TensorRT engines on the GPU: numpy or device arrays in, the same kind out, replayed as CUDA graphs.

    with GpuSession("resnet50.engine", api=trt.load()) as session:
        logits = session(images)["logits"]            # numpy in, numpy out
        ticket = session.submit(images)               # asynchronous
        logits = ticket.result()["logits"]

Uses only calls that TensorRT 8.6, 10, 11 and TensorRT-RTX share.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.driver import driver_problem
from zoo.errors import Refused, ZooError, closest
from zoo.runtime.arrays import DeviceArray, Shape, Source, byte_count, read_source
from zoo.runtime.cuda import Buffer, Cuda, Device, Stream, provider

if TYPE_CHECKING:
    from zoo.trt import Api

_MAX_PLANS = 32  # shapes and addresses that one context remembers, each with its graph
_MIB = 1 << 20
_CLOSED = "the session is closed; load the engine again"
_DTYPES = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "INT8": np.dtype(np.int8),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
}


# ---- will it load? --------------------------------------------------------------------------------------------------


def device_properties(cuda: str = "cuda-python") -> Device:
    """The GPU's name, compute capability and memory. Raises ZooError when there is none."""
    gpu = provider(cuda)
    with gpu.active():
        return gpu.device()


def why_not_loadable(
    description: Mapping[str, Any], api: Api | None, device: Device | None, rebuild: str = ""
) -> str | None:
    """Why an engine cannot run here and how to rebuild it, in one sentence, or None when nothing speaks against it.

    `description` is what was written down when the engine was built: `flavour` («tensorrt» or «rtx»), `version`,
    `compute_capability` («9.0»; none: any), `size` (bytes, which the GPU must hold) and `rebuild`, the command, unless
    that is passed in; what is missing is not checked. `api` is this machine's TensorRT, `device` its GPU, if any.
    """
    reason = _mismatch(description, api, device)
    rebuild = rebuild or description.get("rebuild") or ""
    if reason is None:
        return None
    return f"the engine cannot run here: {reason}" + (f"; to rebuild it: {rebuild}" if rebuild else "")


def _mismatch(description: Mapping[str, Any], api: Api | None, device: Device | None) -> str | None:
    names = {"tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}
    flavour, version = description.get("flavour"), description.get("version")
    capability, size = description.get("compute_capability"), description.get("size") or 0
    built = f"{names.get(str(flavour), 'TensorRT')} {version or ''}".rstrip()
    if device is None:
        return f"{driver_problem() or 'no GPU was found'}, and it was built by {built} for a GPU"
    if api is None:
        return f"it was built by {built}, which is not installed"
    if flavour and flavour != api.flavour:
        return f"it was built by {built}, this is {api.name}"
    if version and version != api.version:
        return f"it was built by {built}, this is {api.name}, and engines load only in the version that built them"
    if capability and capability != device.compute_capability:
        return f"it was built for compute capability {capability}, the {device.name} has {device.compute_capability}"
    if size > device.free_memory:
        needed, free = size / _MIB, device.free_memory / _MIB
        return f"not enough memory: it needs more than {needed:.1f} MiB, {free:.1f} MiB are free on the {device.name}"
    return None


# ---- the engine -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine. `profiles` holds (min, opt, max) per optimisation profile, for inputs."""

    name: str
    dtype: np.dtype
    shape: Shape  # -1 where it is dynamic
    profiles: tuple[tuple[Shape, Shape, Shape], ...] = ()


class _Engine:
    """A deserialised engine and what it takes and gives."""

    def __init__(self, plan: bytes, api: Api, cuda: Cuda, rebuild: str) -> None:
        self.api, self.cuda = api, cuda
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        api.log.drain()
        self.runtime = api.trt.Runtime(api.log.logger)
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
        """The first optimisation profile that takes all `shapes`. Raises ZooError naming the allowed range."""
        count = max(len(tensor.profiles) for tensor in self.inputs.values())
        for index in range(count):
            if all(_fits(shapes[name], tensor, index) for name, tensor in self.inputs.items()):
                return index
        name = next((n for n, t in self.inputs.items() if not any(_fits(shapes[n], t, p) for p in range(count))), None)
        if name is None:
            raise ZooError(f"no optimisation profile of the engine takes {dict(shapes)} together")
        ranges = " or ".join(f"{low} to {high} (fastest at {best})" for low, best, high in self.inputs[name].profiles)
        raise ZooError(
            f"input '{name}' has shape {shapes[name]}, the engine takes {ranges}; "
            "use a shape in that range or build the engine for a wider one"
        )

    def activation(self) -> Buffer:
        """Scratch memory for contexts of this engine that never run at the same time."""
        name = "device_memory_size_v2" if hasattr(self.engine, "device_memory_size_v2") else "device_memory_size"
        return self.cuda.alloc(int(getattr(self.engine, name)))

    def context(self, activation: Buffer, stream: Stream, profile: int = 0) -> Any:
        """An execution context that uses `activation` for scratch. Raises ZooError with TensorRT's words."""
        trt, engine = self.api.trt, self.engine
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

    def close(self) -> None:
        self.engine = self.runtime = None


def _fits(shape: Shape, tensor: Tensor, profile: int) -> bool:
    low, _, high = tensor.profiles[min(profile, len(tensor.profiles) - 1)]
    return len(shape) == len(low) and all(a <= size <= b for a, size, b in zip(low, shape, high))


def record(cuda: Cuda, stream: Stream, work: Callable[[], None]) -> Any | None:
    """`work`, which enqueues to `stream`, as a CUDA graph; None when something in it cannot be captured.

    It runs once first: TensorRT defers work to the first run after a change of shape, and that must not be captured.
    """
    work()
    cuda.begin_capture(stream)
    try:
        work()
    except ZooError:
        try:
            cuda.destroy_graph(cuda.end_capture(stream))
        except ZooError:  # the capture was invalidated, which is why `work` failed
            pass
        return None
    try:
        return cuda.end_capture(stream)
    except ZooError:
        return None


class Bound:
    """An engine with fixed input shapes in an execution context and buffers of its own, to build pipelines with.

    `inputs` and `outputs` are device arrays at fixed addresses; `enqueue(stream)` may be captured in a CUDA graph.
    """

    def __init__(self, engine: _Engine, shapes: Mapping[str, Shape], stream: Stream) -> None:
        profile = engine.profile(shapes)
        self._engine, self._activation = engine, engine.activation()
        self._context = engine.context(self._activation, stream, profile)
        engine.bind(self._context, shapes, {})
        self.inputs = {name: self._array(tensor, shapes[name], stream) for name, tensor in engine.inputs.items()}
        out = engine.output_shapes(self._context)
        self.outputs = {name: self._array(tensor, out[name], stream) for name, tensor in engine.outputs.items()}
        arrays = {**self.inputs, **self.outputs}
        engine.bind(self._context, {}, {name: array.ptr for name, array in arrays.items()})

    def _array(self, tensor: Tensor, shape: Shape, stream: Stream) -> DeviceArray:
        buffer = self._engine.cuda.alloc(byte_count(shape, tensor.dtype))
        return DeviceArray(self._engine.cuda, buffer.ptr, shape, tensor.dtype, stream, buffer)

    def enqueue(self, stream: Stream) -> None:
        self._engine.enqueue(self._context, stream)


# ---- sessions -------------------------------------------------------------------------------------------------------


class _Plan:
    """How to run one combination of shapes and addresses: everything that a call would else work out again."""

    __slots__ = (
        "profile",
        "shapes",
        "addresses",
        "outputs",
        "results",
        "uploads",
        "downloads",
        "context",
        "graph",
        "uses",
    )

    def __init__(self, profile: int, shapes: dict[str, Shape], addresses: dict[str, int]) -> None:
        self.profile, self.shapes, self.addresses = profile, shapes, addresses
        self.outputs: dict[str, DeviceArray] = {}
        self.results: dict[str, Any] = {}  # the outputs as the caller gets them
        self.uploads: dict[str, tuple[np.ndarray, np.ndarray, int]] = {}  # pinned bytes, pinned array, device address
        self.downloads: dict[str, tuple[np.ndarray, np.ndarray, int]] = {}
        self.context: Any = None  # the context that the graph was captured from, and nothing else uses
        self.graph: Any = None
        self.uses = 0


class _Slot:
    """One execution context with its stream and buffers. Its lock serialises the calls."""

    def __init__(self, engine: _Engine, stream: Stream | None, graphs: bool) -> None:
        self.lock = threading.RLock()
        self.engine, self.cuda, self.graphs = engine, engine.cuda, graphs
        self.own_stream = stream is None
        self.stream = stream or self.cuda.stream()
        self.pending: Ticket | None = None
        self.closed = False
        self._side: Stream | None = None  # where graphs are captured: the default stream cannot be
        self._event = self.cuda.event()
        self._activation: Buffer | None = None
        self._context: Any = None
        self._current: _Plan | None = None  # what the context is set to
        self._plans: OrderedDict[Any, _Plan] = OrderedDict()
        self._device: dict[str, Buffer] = {}
        self._pinned: dict[str, np.ndarray] = {}
        self._foreign: dict[int, Stream] = {}
        self._keep: object = None  # the inputs of the last call, which may still be read

    def enqueue(self, images: Any) -> _Plan:
        """Starts the network on `images`; the outputs are complete when the stream gets there."""
        if self.closed:
            raise ZooError(_CLOSED)
        if self.pending is not None:
            self.pending._detach()
        sources = self._sources(images)
        key = sources[0][:3] if len(sources) == 1 else tuple(source[:3] for source in sources)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._remember(key, sources)
        else:
            self._plans.move_to_end(key)
        self._keep = sources
        for (_, pinned, _), source in zip(plan.uploads.values(), sources):
            np.copyto(pinned, source.keep)
        foreign = [s.stream for s in sources if s.stream is not None and s.stream != self.stream.handle]
        for handle in foreign:
            self._order(self._foreign_stream(handle), self.stream)
        self._run(plan)
        for handle in foreign:  # their owner may reuse the memory as soon as its own stream gets there
            self._order(self.stream, self._foreign_stream(handle))
        return plan

    def _sources(self, images: Any) -> list[Source]:
        """The inputs in the engine's order."""
        inputs = self.engine.inputs
        if not isinstance(images, Mapping):
            if len(inputs) != 1:
                raise ZooError(
                    f"the engine has {len(inputs)} inputs ({', '.join(inputs)}); give a dict of arrays by name"
                )
            return [read_source(images, self.stream)]
        for name in images:
            if name not in inputs:
                raise ZooError(f"the engine has no input '{name}'; it has {', '.join(inputs)}{closest(name, inputs)}")
        for name in inputs:
            if name not in images:
                raise ZooError(f"the input '{name}' is missing; the engine has {', '.join(inputs)}")
        return [read_source(images[name], self.stream) for name in inputs]

    def _order(self, first: Stream, then: Stream) -> None:
        self.cuda.record(self._event, first)
        self.cuda.wait(then, self._event)

    def _foreign_stream(self, handle: int) -> Stream:
        if handle not in self._foreign:
            self._foreign[handle] = self.cuda.wrap_stream(handle)
        return self._foreign[handle]

    def _remember(self, key: Any, sources: Sequence[Source]) -> _Plan:
        """A plan for inputs seen for the first time; the one unused for longest goes when there are too many."""
        plan = self._plans[key] = self._make_plan(dict(zip(self.engine.inputs, sources)))
        while len(self._plans) > _MAX_PLANS:
            self._drop(self._plans.popitem(last=False)[1])
        return plan

    def _make_plan(self, sources: Mapping[str, Source]) -> _Plan:
        engine = self.engine
        on_host = all(source.ptr is None for source in sources.values())
        if not on_host and any(source.ptr is None for source in sources.values()):
            raise ZooError("some inputs are on the host and some on the GPU; give all of them in one place")
        for name, source in sources.items():
            if source.dtype != engine.inputs[name].dtype:
                raise ZooError(
                    f"input '{name}' is {source.dtype}, the engine takes {engine.inputs[name].dtype}; convert it first"
                )
        shapes = {name: tuple(source.shape) for name, source in sources.items()}
        profile = engine.profile(shapes)
        self._prepare_context(profile)
        engine.bind(self._context, shapes, {})
        out_shapes = engine.output_shapes(self._context)
        tensors = {**(engine.inputs if on_host else {}), **engine.outputs}
        sizes = {name: byte_count((shapes | out_shapes)[name], tensor.dtype) for name, tensor in tensors.items()}
        self._grow(sizes, pinned=on_host)
        addresses = {name: self._device[name].ptr for name in sizes}
        if not on_host:
            addresses |= {name: source.ptr for name, source in sources.items()}

        plan = _Plan(profile, shapes, addresses)
        for name, tensor in engine.outputs.items():
            plan.outputs[name] = self._array(name, out_shapes[name], tensor.dtype)
        plan.results = {name: self._export(array) for name, array in plan.outputs.items()}
        if on_host:
            plan.uploads = {name: self._staging(name, shapes[name], engine.inputs[name].dtype) for name in shapes}
            plan.downloads = {n: self._staging(n, out_shapes[n], engine.outputs[n].dtype) for n in out_shapes}
        return plan

    def _prepare_context(self, profile: int) -> None:
        if self._activation is None:
            self._activation = self.engine.activation()
        if self._context is None:
            self._context = self.engine.context(self._activation, self.stream, profile)
        self._current = None
        self.engine.select(self._context, profile, self.stream)

    def _grow(self, sizes: Mapping[str, int], pinned: bool) -> None:
        """Makes the buffers at least `sizes` bytes; when one moves, the plans made for its old address go."""
        if any(name in self._device and self._device[name].nbytes < size for name, size in sizes.items()):
            self.cuda.synchronize(self.stream)
            self._drop_all()
        for name, size in sizes.items():
            old = self._device.get(name)
            if old is None or old.nbytes < size:
                self._device[name] = self.cuda.alloc(self._capacity(name, size, old.nbytes if old else 0))
            if pinned and (name not in self._pinned or self._pinned[name].nbytes < size):
                self._pinned[name] = self.cuda.pinned(self._device[name].nbytes)

    def _capacity(self, name: str, size: int, old: int) -> int:
        """Twice the old size at least, so that growing batches move rarely, but no more than the profiles allow."""
        if name not in self.engine.inputs:
            return max(size, 2 * old)
        tensor = self.engine.inputs[name]
        largest = max(byte_count(high, tensor.dtype) for _, _, high in tensor.profiles)
        return max(size, min(2 * old, largest))

    def _array(self, name: str, shape: Shape, dtype: np.dtype) -> DeviceArray:
        buffer = self._device[name]
        return DeviceArray(self.cuda, buffer.ptr, shape, dtype, self.stream, buffer)

    def _staging(self, name: str, shape: Shape, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, int]:
        pinned = self._pinned[name][: byte_count(shape, dtype)]
        return pinned, pinned.view(dtype).reshape(shape), self._device[name].ptr

    def _export(self, array: DeviceArray) -> Any:
        """`array` as callers get it: a GPUArray when they chose PyCUDA."""
        if self.cuda.name != "PyCUDA":
            return array
        from pycuda.gpuarray import GPUArray

        return GPUArray(array.shape, array.dtype, gpudata=array.ptr, base=array.owner)

    def input(self, name: str, shape: Shape) -> Any:
        """This slot's own buffer for the input `name`."""
        tensor = self.engine.inputs.get(name)
        if tensor is None:
            known = self.engine.inputs
            raise ZooError(f"the engine has no input '{name}'; it has {', '.join(known)}{closest(name, known)}")
        if not any(_fits(shape, tensor, profile) for profile in range(len(tensor.profiles))):
            self.engine.profile({n: t.profiles[0][1] for n, t in self.engine.inputs.items()} | {name: shape})
        self._grow({name: byte_count(shape, tensor.dtype)}, pinned=False)
        return self._export(self._array(name, shape, tensor.dtype))

    def _run(self, plan: _Plan) -> None:
        """Replays the plan's graph; the first time it runs without one, the second time it is captured."""
        if plan.graph is not None:
            self.cuda.launch_graph(plan.graph, self.stream)
            return
        plan.uses += 1
        if plan.uses == 2 and self.graphs:
            self._capture(plan)
        if plan.graph is not None:
            self.cuda.launch_graph(plan.graph, self.stream)
            return
        if self._current is not plan:
            self._prepare_context(plan.profile)
            self.engine.bind(self._context, plan.shapes, plan.addresses)
            self._current = plan
        self._work(plan, self._context, self.stream)

    def _work(self, plan: _Plan, context: Any, stream: Stream) -> None:
        for pinned, _, address in plan.uploads.values():
            self.cuda.h2d(address, pinned, stream)
        self.engine.enqueue(context, stream)
        for pinned, _, address in plan.downloads.values():
            self.cuda.d2h(pinned, address, stream)

    def _capture(self, plan: _Plan) -> None:
        """Captures the plan from a context of its own, as TensorRT asks: changing the context would spoil the graph.

        The contexts of a slot share their scratch memory, since its stream runs one after the other. What cannot be
        captured (loops, a profile that no second context may use) runs without graphs from then on.
        """
        if self._side is None:
            self._side = self.stream if self.own_stream else self.cuda.stream()
        side = self._side
        self._order(self.stream, side)
        try:
            assert self._activation is not None
            plan.context = self.engine.context(self._activation, side, plan.profile)
            self.engine.bind(plan.context, plan.shapes, plan.addresses)
            plan.graph = record(self.cuda, side, lambda: self._work(plan, plan.context, side))
        except ZooError:
            plan.graph = None
        self._order(side, self.stream)
        if plan.graph is None:
            plan.context = None
            self.graphs = False
            self.engine.api.log.drain()

    def take(self, plan: _Plan) -> dict[str, Any]:
        """The outputs: host copies once they are complete, or the device arrays, ordered on the stream."""
        if not plan.downloads:
            return dict(plan.results)
        self.cuda.synchronize(self.stream)
        self._keep = None
        return {name: array.copy() for name, (_, array, _) in plan.downloads.items()}

    def _drop(self, plan: _Plan) -> None:
        if plan.graph is not None:
            self.cuda.synchronize(self.stream)
            self.cuda.destroy_graph(plan.graph)
        plan.graph = plan.context = None
        plan.uses = 0
        if self._current is plan:
            self._current = None

    def _drop_all(self) -> None:
        for plan in self._plans.values():
            self._drop(plan)
        self._plans.clear()

    def close(self) -> None:
        if self.pending is not None:
            self.pending._detach()
        self.cuda.synchronize(self.stream)
        self._drop_all()
        self._context = self._keep = self._activation = None
        self._device.clear()
        self._pinned.clear()
        self.cuda.destroy_event(self._event)
        self._foreign.clear()
        self._side = None
        self.closed = True


class Ticket:
    """The promise of `GpuSession.submit`."""

    def __init__(self, slot: _Slot, plan: _Plan) -> None:
        self._slot, self._plan = slot, plan
        self._outputs: dict[str, Any] | None = None

    def result(self) -> dict[str, Any]:
        """The outputs, as `session(images)` gives them; waits for host arrays. Always the same dict."""
        with self._slot.lock:
            if self._outputs is None:
                self._slot.pending = None
                with self._slot.cuda.active():
                    self._outputs = self._slot.take(self._plan)
            return self._outputs

    def _detach(self) -> None:
        """Saves the outputs, because their context is needed for other work."""
        self._slot.pending = None
        outputs = self._slot.take(self._plan)
        if not self._plan.downloads:
            outputs = {name: self._slot._export(array.copy()) for name, array in self._plan.outputs.items()}
        self._outputs = outputs


class GpuSession:
    """An engine that is called like a function: `session(images) -> {output name: array}`.

    Inputs are one array, or a dict of arrays by name: numpy, PyTorch CUDA tensors, anything with
    `__cuda_array_interface__` or `__dlpack__`. numpy in gives numpy out. Device arrays are read where they lie, without
    a copy, and give device arrays (`DeviceArray`; PyCUDA's `GPUArray` with cuda="pycuda"): these are the session's own
    buffers, ordered on its stream and valid until the same thread's next call; `.copy()` keeps one.

    Each shape and address is captured as a CUDA graph the second time it is seen, and replayed. Arrays that stay where
    they are, such as `session.input(name, shape)`, pay no capture again.

    Threads may share a session. It has `contexts` execution contexts, each with its own stream and buffers; a thread
    keeps the one it got first. Results do not depend on the number of threads.

    Raises ZooError when the engine cannot run here; `description` (see `why_not_loadable`) and `rebuild`, the command
    that builds it again, make that message exact.
    """

    def __init__(
        self,
        engine: bytes | str | os.PathLike[str],
        *,
        api: Api,
        cuda: str = "cuda-python",
        stream: Any = None,
        graphs: bool = True,
        contexts: int = 1,
        description: Mapping[str, Any] | None = None,
        rebuild: str = "",
    ) -> None:
        self._slots: list[_Slot] = []
        self._engine: _Engine | None = None
        if contexts < 1:
            raise ZooError(f"contexts is {contexts}; at least 1 is needed")
        if stream is not None and contexts > 1:
            raise ZooError(f"one stream cannot serve {contexts} contexts; give no stream, or contexts=1")
        plan = engine if isinstance(engine, (bytes, bytearray, memoryview)) else _read(Path(engine))
        self._cuda = provider(cuda)
        with self._cuda.active():
            description = description or {"size": len(plan)}
            reason = why_not_loadable(description, api, self._cuda.device(), rebuild)
            if reason:
                raise ZooError(reason)
            rebuild = rebuild or description.get("rebuild") or ""
            self._engine = _Engine(bytes(plan), api, self._cuda, rebuild)
            own = self._cuda.wrap_stream(stream) if stream is not None else None
            graphs = graphs and self._cuda.graphs
            self._slots = [_Slot(self._engine, own, graphs) for _ in range(contexts)]
        self._turns = itertools.count()
        self._homes = threading.local()

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """What the engine takes, by name."""
        return self._open().inputs

    @property
    def outputs(self) -> Mapping[str, Tensor]:
        """What the engine gives, by name."""
        return self._open().outputs

    @property
    def graphs(self) -> bool:
        """Whether CUDA graphs are in use: false when they were declined, or the network cannot be captured."""
        return bool(self._slots) and all(slot.graphs for slot in self._slots)

    @property
    def stream(self) -> int:
        """The address of the stream that this thread's calls run on."""
        self._open()
        return self._home().stream.handle

    def __call__(self, images: Any) -> dict[str, Any]:
        """Runs the network on `images`. Raises ZooError for a wrong name, dtype or shape, naming what is right."""
        self._open()
        slot = self._home()
        with self._cuda.active(), slot.lock:
            return slot.take(slot.enqueue(images))

    def submit(self, images: Any) -> Ticket:
        """Starts the network on `images` and returns at once; host arrays are copied first, device arrays must stay.

        The contexts take turns, so up to `contexts` submissions overlap.
        """
        self._open()
        slot = self._slots[next(self._turns) % len(self._slots)]
        with self._cuda.active(), slot.lock:
            slot.pending = Ticket(slot, slot.enqueue(images))
            return slot.pending

    def input(self, name: str, shape: Shape) -> Any:
        """This thread's own device buffer for the input `name`, to write into (on `session.stream`) and call with.

        A larger shape later moves the buffer: ask for the largest first.
        """
        self._open()
        slot = self._home()
        with self._cuda.active(), slot.lock:
            return slot.input(name, tuple(shape))

    def bind(self, shapes: Mapping[str, Shape], stream: Stream) -> Bound:
        """The engine at fixed shapes in a context of its own, for pipelines on `stream`."""
        with self._cuda.active():
            return Bound(self._open(), {name: tuple(shape) for name, shape in shapes.items()}, stream)

    @property
    def cuda(self) -> Cuda:
        """The CUDA provider of this session."""
        return self._cuda

    def close(self) -> None:
        """Frees streams, graphs, contexts, the engine and every buffer that no array of the caller still uses."""
        slots, self._slots = self._slots, []
        if self._engine is None:
            return
        with self._cuda.active():
            for slot in slots:
                with slot.lock:
                    slot.close()
            self._engine.close()
        self._engine = None
        self._homes = threading.local()  # the threads' contexts go with it

    def __enter__(self) -> GpuSession:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # the interpreter or the driver is shutting down
            pass

    def _open(self) -> _Engine:
        if self._engine is None:
            raise ZooError(_CLOSED)
        return self._engine

    def _home(self) -> _Slot:
        try:
            return self._homes.slot
        except AttributeError:
            self._homes.slot = self._slots[next(self._turns) % len(self._slots)]
            return self._homes.slot


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ZooError(f"cannot read the engine {path}: {error.strerror}") from error
