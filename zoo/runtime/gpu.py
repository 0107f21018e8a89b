"""TensorRT engines on the GPU: numpy or device arrays in, the same kind out, replayed as CUDA graphs.

    with GpuSession("resnet50.engine", api=trt.load()) as session:
        logits = session(images)["logits"]            # numpy in, numpy out
        ticket = session.submit(images)               # asynchronous
        logits = ticket.result()["logits"]

Uses only calls that TensorRT 8.6, 10, 11 and TensorRT-RTX share.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zoo.errors import ZooError, closest
from zoo.runtime.cuda import LEGACY_STREAM, Buffer, Cuda, Device, Stream, driver_problem, provider

if TYPE_CHECKING:
    from zoo.trt import Api

Shape = tuple[int, ...]

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


# ---- arrays on the device -------------------------------------------------------------------------------------------


class DeviceArray:
    """A contiguous array in GPU memory, for PyTorch, CuPy, Numba, cuda.core … through DLPack or __cuda_array_interface__.

    Work on it is ordered on `stream`. `owner` keeps the memory alive.
    """

    __slots__ = ("_cuda", "key", "ptr", "shape", "dtype", "stream", "owner")

    def __init__(self, cuda: Cuda, ptr: int, shape: Shape, dtype: np.dtype, stream: Stream, owner: object) -> None:
        self._cuda, self.ptr, self.shape, self.dtype = cuda, ptr, shape, dtype
        self.stream, self.owner = stream, owner
        self.key = (ptr, shape, dtype)

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype}, ptr={self.ptr:#x})"

    @property
    def nbytes(self) -> int:
        return _nbytes(self.shape, self.dtype)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.ptr, False),
            "strides": None,
            "stream": self.stream.handle or LEGACY_STREAM,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return _DL_CUDA, 0

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule; the consumer's `stream` (-1: none) waits for this array's."""
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError("a DeviceArray is exported without a copy, on its own device")
        if stream != -1:
            with self._cuda.active():
                order_streams(self._cuda, self.stream, self._cuda.wrap_stream(stream or LEGACY_STREAM))
        return _to_capsule(self)

    def numpy(self) -> np.ndarray:
        """A host copy, complete on return."""
        with self._cuda.active():
            return self._cuda.download(self.ptr, self.shape, self.dtype, self.stream)

    def copy(self) -> DeviceArray:
        """A copy in memory of its own."""
        with self._cuda.active():
            buffer = self._cuda.alloc(self.nbytes)
            self._cuda.d2d(buffer.ptr, self.ptr, self.nbytes, self.stream)
        return DeviceArray(self._cuda, buffer.ptr, self.shape, self.dtype, self.stream, buffer)

    def write(self, array: np.ndarray) -> None:
        """Fills this array from a host array of the same shape and dtype; complete on return."""
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ZooError(f"cannot write {array.dtype} {array.shape} to a device array of {self.dtype} {self.shape}")
        with self._cuda.active():
            staging = self._cuda.pinned(self.nbytes)
            np.copyto(staging.view(self.dtype).reshape(self.shape), array)
            self._cuda.h2d(self.ptr, staging, self.stream)
            self._cuda.synchronize(self.stream)


def _nbytes(shape: Shape, dtype: np.dtype) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def order_streams(cuda: Cuda, first: Stream, then: Stream) -> None:
    """Later work on `then` waits for the work on `first` so far."""
    if first.handle == then.handle:
        return
    event = cuda.event()
    cuda.record(event, first)
    cuda.wait(then, event)
    cuda.destroy_event(event)


# DLPack: https://dmlc.github.io/dlpack/latest/c_api.html (unversioned DLManagedTensor, which every consumer takes)

_DL_CPU, _DL_CUDA, _DL_CUDA_MANAGED = 1, 2, 13
_DL_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}


class _DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _DLManagedTensor(ctypes.Structure):
    _fields_ = [("tensor", _DLTensor), ("manager_ctx", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


_exported: dict[int, tuple[Any, ...]] = {}  # address of a DLManagedTensor -> what must live as long as it

_api = ctypes.pythonapi
_capsule_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", _api)
)
# The destructor sees a capsule without references, which ctypes must not wrap: it goes by address.
_capsule_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _release_exported(address: int) -> None:
    _exported.pop(address, None)


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
def _destroy_capsule(capsule: int) -> None:
    if _capsule_is_valid(capsule, b"dltensor"):  # a consumer renames the capsules it takes over
        _exported.pop(_capsule_pointer(capsule, b"dltensor"), None)


def _to_capsule(array: DeviceArray) -> Any:
    shape = (ctypes.c_int64 * len(array.shape))(*array.shape)
    managed = _DLManagedTensor()
    tensor = managed.tensor
    tensor.data, tensor.device_type, tensor.device_id = array.ptr, _DL_CUDA, 0
    tensor.ndim, tensor.shape, tensor.strides = len(array.shape), shape, None
    tensor.code, tensor.bits, tensor.lanes = _DL_CODES[array.dtype.kind], array.dtype.itemsize * 8, 1
    managed.deleter = ctypes.cast(_release_exported, ctypes.c_void_p)
    address = ctypes.addressof(managed)
    _exported[address] = (managed, shape, array)
    return _capsule_new(address, b"dltensor", ctypes.cast(_destroy_capsule, ctypes.c_void_p))


class Source(NamedTuple):
    """An input on the device: where it lies, on which stream it is made (None: ready), and what keeps it alive."""

    ptr: int
    shape: Shape
    dtype: np.dtype
    stream: int | None
    keep: object


def read_source(array: Any, stream: Stream) -> Source | np.ndarray:
    """What `array` is: device memory, or a host array. Raises ZooError for what is neither, or not contiguous."""
    if isinstance(array, np.ndarray):
        return array
    if isinstance(array, DeviceArray):
        return Source(array.ptr, array.shape, array.dtype, array.stream.handle, array)
    if _package(array) == "torch":
        return _torch_source(array)
    if hasattr(array, "__cuda_array_interface__"):
        return _interface_source(array)
    if hasattr(array, "__dlpack__"):
        return _dlpack_source(array, stream)
    raise ZooError(
        f"the input is a {type(array).__name__}; give a numpy array or a CUDA array (DLPack or __cuda_array_interface__)"
    )


def _package(array: Any) -> str:
    return type(array).__module__.partition(".")[0]


def producer_stream(array: Any) -> int | None:
    """The stream on which the owner of a device array works, or None when the array needs no waiting for."""
    package = _package(array)
    if package == "torch":
        return int(sys.modules["torch"].cuda.current_stream(array.device).cuda_stream) or LEGACY_STREAM
    if package == "pycuda":  # says None, yet computes on the default stream
        return LEGACY_STREAM
    return array.__cuda_array_interface__.get("stream")


def _torch_source(tensor: Any) -> Source | np.ndarray:
    if not tensor.is_cuda:
        return tensor.detach().numpy()
    if not tensor.is_contiguous():
        raise ZooError("the input tensor is not contiguous; call .contiguous() on it")
    dtype = _dtype(str(tensor.dtype).removeprefix("torch."))
    return Source(tensor.data_ptr(), tuple(tensor.shape), dtype, producer_stream(tensor), tensor)


def _interface_source(array: Any) -> Source:
    interface = array.__cuda_array_interface__
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    _check_strides(shape, interface.get("strides"), dtype.itemsize)
    return Source(interface["data"][0], shape, dtype, producer_stream(array), array)


def _dlpack_source(array: Any, stream: Stream) -> Source | np.ndarray:
    kind = int(array.__dlpack_device__()[0])
    if kind == _DL_CPU:
        return np.from_dlpack(array)
    if kind not in (_DL_CUDA, _DL_CUDA_MANAGED):
        raise ZooError(f"the input lies on a device of DLPack type {kind}; CUDA or host memory is needed")
    capsule = array.__dlpack__(stream=stream.handle or LEGACY_STREAM)  # the producer orders itself before our stream
    address = _capsule_pointer(id(capsule), b"dltensor")
    tensor = _DLManagedTensor.from_address(address).tensor
    code = {number: letter for letter, number in _DL_CODES.items()}.get(tensor.code)
    if code is None or tensor.lanes != 1:
        raise ZooError(f"the input has DLPack type code {tensor.code}, which the engine cannot take")
    dtype = np.dtype("?" if code == "b" else f"{code}{tensor.bits // 8}")
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    if tensor.strides:
        strides = tuple(tensor.strides[i] * dtype.itemsize for i in range(tensor.ndim))
        _check_strides(shape, strides, dtype.itemsize)
    return Source((tensor.data or 0) + tensor.byte_offset, shape, dtype, None, capsule)


def _check_strides(shape: Shape, strides: tuple[int, ...] | None, itemsize: int) -> None:
    """Raise ZooError unless the array is C-contiguous."""
    expected = itemsize
    for size, stride in zip(reversed(shape), reversed(strides or ())):
        if size != 1 and stride != expected:
            raise ZooError(f"the input of shape {shape} is not contiguous (strides {strides}); make a contiguous copy")
        expected *= size


def _dtype(name: str) -> np.dtype:
    try:
        return np.dtype(name)
    except TypeError as error:
        raise ZooError(f"the input has dtype {name}, which the engine cannot take") from error


# ---- will it load? --------------------------------------------------------------------------------------------------


def device_properties(cuda: str = "cuda-python") -> Device:
    """The GPU's name, compute capability and memory. Raises ZooError when there is none."""
    gpu = provider(cuda)
    with gpu.active():
        return gpu.device()


def why_not_loadable(
    description: Mapping[str, Any], api: Api | None, device: Device | None, rebuild: str = ""
) -> str | None:
    """The sentence that says why an engine cannot run here and how to rebuild it, or None when nothing speaks against it.

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
            raise ZooError(f"{api.name} cannot load the engine ({len(plan)} bytes): {words}{hint}")
        for index in range(self.engine.num_io_tensors):
            self._describe(self.engine.get_tensor_name(index))

    def _describe(self, name: str) -> None:
        trt, engine = self.api.trt, self.engine
        dtype = _DTYPES.get(engine.get_tensor_dtype(name).name)
        if dtype is None:
            raise ZooError(f"'{name}' is {engine.get_tensor_dtype(name).name}, which numpy lacks; build it with fp32 I/O")
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
        if context.active_optimization_profile != profile:
            if not context.set_optimization_profile_async(profile, stream.handle):
                raise self.error(
                    "the optimisation profile is taken by another context; with TensorRT 8.6 build the engine with "
                    "PreviewFeature.PROFILE_SHARING_0806, or use one context and graphs=False"
                )

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
                raise ZooError(f"output '{name}' has shape {shape}, known only after the run; sessions need fixed shapes")
        return shapes

    def error(self, what: str) -> ZooError:
        words = self.api.log.drain()
        return ZooError(f"{self.api.name}: {what}" + (f": {words}" if words else ""))

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
        buffer = self._engine.cuda.alloc(_nbytes(shape, tensor.dtype))
        return DeviceArray(self._engine.cuda, buffer.ptr, shape, tensor.dtype, stream, buffer)

    def enqueue(self, stream: Stream) -> None:
        self._engine.enqueue(self._context, stream)


# ---- sessions -------------------------------------------------------------------------------------------------------


class _Plan:
    """How to run one combination of shapes and addresses: everything that a call would else work out again."""

    __slots__ = ("profile", "shapes", "addresses", "outputs", "results", "uploads", "downloads", "context", "graph", "uses")

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
        if type(images) is DeviceArray:  # the shortest way: 1 input, known address
            plan = self._plans.get(images.key)
            if plan is not None and images.stream.handle == self.stream.handle:
                self._plans.move_to_end(images.key)
                self._keep = images
                self._run(plan)
                return plan
        return self._enqueue_any(self._named(images))

    def _named(self, images: Any) -> dict[str, Any]:
        """The inputs by name, in the engine's order."""
        inputs = self.engine.inputs
        if not isinstance(images, Mapping):
            if len(inputs) != 1:
                raise ZooError(f"the engine has {len(inputs)} inputs ({', '.join(inputs)}); give a dict of arrays by name")
            return {name: images for name in inputs}
        for name in images:
            if name not in inputs:
                raise ZooError(f"the engine has no input '{name}'; it has {', '.join(inputs)}{closest(name, inputs)}")
        for name in inputs:
            if name not in images:
                raise ZooError(f"the input '{name}' is missing; the engine has {', '.join(inputs)}")
        return {name: images[name] for name in inputs}

    def _enqueue_any(self, images: dict[str, Any]) -> _Plan:
        sources = {name: read_source(array, self.stream) for name, array in images.items()}
        on_host = [isinstance(source, np.ndarray) for source in sources.values()]
        if any(on_host) and not all(on_host):
            raise ZooError("some inputs are on the host and some on the GPU; give all of them in one place")
        plan = self._find(sources)
        self._keep = sources
        if plan.uploads:
            for name, array in sources.items():
                np.copyto(plan.uploads[name][1], array)
            self._run(plan)
            return plan
        streams = {source.stream for source in sources.values()} - {None, self.stream.handle}
        for handle in streams:
            self._order(self._foreign_stream(handle), self.stream)
        self._run(plan)
        for handle in streams:  # their owner may reuse the memory as soon as its own stream gets there
            self._order(self.stream, self._foreign_stream(handle))
        return plan

    def _order(self, first: Stream, then: Stream) -> None:
        self.cuda.record(self._event, first)
        self.cuda.wait(then, self._event)

    def _foreign_stream(self, handle: int) -> Stream:
        if handle not in self._foreign:
            self._foreign[handle] = self.cuda.wrap_stream(handle)
        return self._foreign[handle]

    def _find(self, sources: Mapping[str, Any]) -> _Plan:
        """The plan for these inputs, made when they are new."""
        key: Any = tuple(
            (None if isinstance(source, np.ndarray) else source.ptr, tuple(source.shape), source.dtype)
            for source in sources.values()
        )
        key = key[0] if len(key) == 1 else key
        plan = self._plans.get(key)
        if plan is not None:
            self._plans.move_to_end(key)
            return plan
        plan = self._make_plan(sources)
        self._plans[key] = plan
        while len(self._plans) > _MAX_PLANS:
            self._drop(self._plans.popitem(last=False)[1])
        return plan

    def _make_plan(self, sources: Mapping[str, Any]) -> _Plan:
        engine = self.engine
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

        on_host = isinstance(next(iter(sources.values())), np.ndarray)
        tensors = {**(engine.inputs if on_host else {}), **engine.outputs}
        sizes = {name: _nbytes((shapes | out_shapes)[name], tensor.dtype) for name, tensor in tensors.items()}
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
        largest = max(_nbytes(high, tensor.dtype) for _, _, high in tensor.profiles)
        return max(size, min(2 * old, largest))

    def _array(self, name: str, shape: Shape, dtype: np.dtype) -> DeviceArray:
        buffer = self._device[name]
        return DeviceArray(self.cuda, buffer.ptr, shape, dtype, self.stream, buffer)

    def _staging(self, name: str, shape: Shape, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, int]:
        pinned = self._pinned[name][: _nbytes(shape, dtype)]
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
        self._grow({name: _nbytes(shape, tensor.dtype)}, pinned=False)
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
        """Runs the network on `images`. Raises ZooError for a wrong name, dtype, rank or shape, naming what is right."""
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
