"""Arrays in GPU memory, ours and those of other packages, through DLPack and __cuda_array_interface__."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from zoo.errors import ZooError
from zoo.runtime.cuda import LEGACY_STREAM, Buffer, Cuda, Stream

Shape = tuple[int, ...]
CLOSED = "the session is closed; load the model again"
MASKED = "the input is a masked array, which a network cannot take; fill it first"


class DeviceArray:
    """A contiguous array in GPU memory, for PyTorch, CuPy, Numba … through DLPack or __cuda_array_interface__.

    Work on it is ordered on `stream`. `owner` is its memory.
    """

    __slots__ = ("_cuda", "ptr", "shape", "dtype", "stream", "owner")

    def __init__(self, cuda: Cuda, ptr: int, shape: Shape, dtype: np.dtype, stream: Stream, owner: Buffer) -> None:
        self._cuda, self.ptr, self.shape, self.dtype = cuda, ptr, shape, dtype
        self.stream, self.owner = stream, owner

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype}, ptr={self.ptr:#x})"

    @property
    def nbytes(self) -> int:
        return byte_count(self.shape, self.dtype)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        self.owner.untold = True
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.ptr, False),
            "strides": None,
            "stream": self.stream.handle or LEGACY_STREAM,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return _DL_CUDA, self._cuda.ordinal

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule; the consumer's `stream` (-1: none) waits for this array's.

        As long as the consumer has the array, sessions that read or overwrite it wait for that stream, and for what it
        had to do when it let the array go.
        """
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError("a DeviceArray is exported without a copy, on its own device")
        if stream == -1:
            self.owner.untold = True
            return _to_capsule(self, None)
        stream = stream or LEGACY_STREAM
        with self._cuda.active():
            order_streams(self._cuda, self.stream, self._cuda.wrap_stream(stream))
        return _to_capsule(self, stream)

    def numpy(self) -> np.ndarray:
        """A host copy, complete on return."""
        with self._cuda.active():
            return self._cuda.download(self.ptr, self.shape, self.dtype, self.stream)

    def copy(self, alloc: Callable[[int], Buffer] | None = None) -> DeviceArray:
        """A copy in memory of its own, which is that of `alloc` where one is given."""
        with self._cuda.active():
            buffer = (alloc or self._cuda.alloc)(self.nbytes)
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


def byte_count(shape: Shape, dtype: np.dtype) -> int:
    """The bytes of a contiguous array."""
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def order_streams(cuda: Cuda, first: Stream, then: Stream) -> None:
    """Later work on `then` waits for the work on `first` so far."""
    if first.handle == then.handle:
        return
    event = cuda.event()
    cuda.record(event, first)
    cuda.wait(then, event)


# DLPack: https://dmlc.github.io/dlpack/latest/c_api.html (unversioned DLManagedTensor, which every consumer takes)

_DL_CPU, _DL_CUDA, _DL_CUDA_MANAGED = 1, 2, 13
_DL_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_DL_NAME = b"dltensor"


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


class _Export(NamedTuple):
    """What must live as long as a DLManagedTensor of ours, and the stream that took it."""

    managed: _DLManagedTensor
    shape: Any
    array: DeviceArray
    stream: int | None


_exported: dict[int, _Export] = {}  # by the address of the DLManagedTensor

_api = ctypes.pythonapi
_capsule_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", _api)
)
# The destructor sees a capsule without references, which ctypes must not wrap: it goes by address.
_capsule_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))


def _end_export(address: int | None) -> None:
    export = _exported.pop(address, None) if address is not None else None
    if export is None or export.stream is None:
        return
    try:
        export.array.owner.take_back(export.stream)
    except Exception:  # CUDA is failing, or the interpreter is shutting down: nothing more is computed on the array
        pass


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _release_exported(address: int) -> None:
    _end_export(address)


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
def _destroy_capsule(capsule: int) -> None:
    if _capsule_is_valid(capsule, _DL_NAME):  # a consumer renames the capsules it takes over
        _end_export(_capsule_pointer(capsule, _DL_NAME))


def _to_capsule(array: DeviceArray, stream: int | None) -> Any:
    shape = (ctypes.c_int64 * len(array.shape))(*array.shape)
    managed = _DLManagedTensor()
    tensor = managed.tensor
    tensor.data, (tensor.device_type, tensor.device_id) = array.ptr, array.__dlpack_device__()
    tensor.ndim, tensor.shape, tensor.strides = len(array.shape), shape, None
    tensor.code, tensor.bits, tensor.lanes = _DL_CODES[array.dtype.kind], array.dtype.itemsize * 8, 1
    managed.deleter = ctypes.cast(_release_exported, ctypes.c_void_p)
    address = ctypes.addressof(managed)
    _exported[address] = _Export(managed, shape, array, stream)
    if stream is not None:
        array.owner.lend(stream)
    return _capsule_new(address, _DL_NAME, ctypes.cast(_destroy_capsule, ctypes.c_void_p))


class Source(NamedTuple):
    """An input: its address on the device (None: `keep` is a host array), the stream it is made on (None: it is ready),
    what keeps it alive, and its memory where that is ours."""

    ptr: int | None
    shape: Shape
    dtype: np.dtype
    stream: int | None
    keep: Any
    buffer: Buffer | None = None


def read_source(array: Any, stream: Stream, cuda: Cuda) -> Source:
    """Where `array` lies, for use on `stream` of `cuda`.

    Raises ZooError for what is no array, is not contiguous, or says that it lies on another GPU.
    """
    return _reader(type(array))(array, stream, cuda)


def check_device(device: int | None, cuda: Cuda) -> None:
    """Raises ZooError unless `device`, where it is known, is that of `cuda`."""
    if device is not None and device != cuda.ordinal:
        raise ZooError(
            f"the input lies on gpu:{device}, this session runs on gpu:{cuda.ordinal}; copy it there first, "
            f'or load the model with device="gpu:{device}"'
        )


@functools.lru_cache(maxsize=64)
def _reader(kind: type) -> Callable[[Any, Stream, Cuda], Source]:
    """How to read arrays of a type: looked up once, since calls count in microseconds."""
    if issubclass(kind, np.ndarray):
        return _host_source
    if kind is DeviceArray:
        return _own_source
    if _is(kind, "torch"):
        return _torch_source
    if _is(kind, "pycuda"):  # says that its stream is None, yet computes on the default stream
        return lambda array, stream, cuda: _interface_source(array, LEGACY_STREAM)
    return _protocol_source


def _is(kind: type, package: str) -> bool:
    """Whether a type is `package`'s or made from one of its own, as torchvision's tensors are from PyTorch's."""
    return any(base.__module__.partition(".")[0] == package for base in kind.__mro__)


def _host_source(array: np.ndarray, stream: Stream, cuda: Cuda) -> Source:
    return Source(None, array.shape, array.dtype, None, host_array(array))


def _own_source(array: DeviceArray, stream: Stream, cuda: Cuda) -> Source:
    check_device(array._cuda.ordinal, cuda)
    return Source(array.ptr, array.shape, array.dtype, array.stream.handle, array, array.owner)


def _torch_source(tensor: Any, stream: Stream, cuda: Cuda) -> Source:
    if not tensor.is_cuda:
        array = _torch_host(tensor)
        return Source(None, array.shape, array.dtype, None, array)
    check_device(tensor.get_device(), cuda)
    dtype = _dtype(str(tensor.dtype).removeprefix("torch."))
    try:
        if not tensor.is_contiguous():
            raise ZooError("the input tensor is not contiguous; call .contiguous() on it")
        return Source(tensor.data_ptr(), tuple(tensor.shape), dtype, producer_stream(tensor), tensor)
    except (TypeError, RuntimeError, NotImplementedError) as error:  # sparse, without storage …
        raise _unreadable(tensor, error) from None


def on_gpu(array: Any) -> bool:
    """Whether an array of any package says that it does not lie in host memory."""
    if _is(type(array), "torch"):
        return bool(array.is_cuda)
    if hasattr(array, "__cuda_array_interface__"):
        return True
    return hasattr(array, "__dlpack_device__") and int(array.__dlpack_device__()[0]) != _DL_CPU


def host_array(array: Any) -> np.ndarray:
    """`array` as numpy, not copied. Raises ZooError for what is no array, and for one that lies on a GPU."""
    if isinstance(array, np.ma.MaskedArray):
        raise ZooError(MASKED)
    if isinstance(array, np.ndarray):
        return array
    if on_gpu(array):
        raise ZooError("the input lies on a GPU and this session runs on the CPU; copy it to the host first")
    if _is(type(array), "torch"):
        return _torch_host(array)
    if hasattr(array, "__dlpack__"):
        return _from_dlpack(array)
    raise ZooError(
        f"the input is a {type(array).__name__}; give a numpy array, a tensor of PyTorch, or an array with DLPack"
    )


def _torch_host(tensor: Any) -> np.ndarray:
    try:
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:  # bfloat16, sparse, on a device that is none of CUDA's …
        raise _unreadable(tensor, error) from None


def _unreadable(tensor: Any, error: Exception) -> ZooError:
    reason = str(error).partition("\n")[0].rstrip(".")
    return ZooError(f"the input, a tensor of {tensor.dtype}, cannot be read ({reason}); convert it first")


def _from_dlpack(array: Any) -> np.ndarray:
    try:
        return np.from_dlpack(array)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ZooError(
            f"the input, a {type(array).__name__}, cannot be read through DLPack ({error}); convert it to numpy first"
        ) from None


def producer_stream(array: Any) -> int | None:
    """The stream on which the owner of a device array works, or None when the array needs no waiting for."""
    if _is(type(array), "torch"):
        return int(sys.modules["torch"].cuda.current_stream(array.device).cuda_stream) or LEGACY_STREAM
    return LEGACY_STREAM if _is(type(array), "pycuda") else interface_of(array).get("stream")


def _protocol_source(array: Any, stream: Stream, cuda: Cuda) -> Source:
    if hasattr(array, "__cuda_array_interface__"):
        return _interface_source(array)
    if hasattr(array, "__dlpack__"):
        return _dlpack_source(array, stream, cuda)
    raise ZooError(
        f"the input is a {type(array).__name__}; give a numpy array, a tensor of PyTorch, or an array with DLPack or "
        "__cuda_array_interface__"
    )


def interface_of(array: Any) -> dict[str, Any]:
    """The `__cuda_array_interface__` of `array`. Raises ZooError where it lacks something, or masks elements out."""
    interface = array.__cuda_array_interface__
    try:
        shape, (address, _) = tuple(interface["shape"]), interface["data"]
        found = {
            **interface, "shape": shape, "typestr": str(interface["typestr"]), "data": (int(address or 0), False),
        }  # fmt: skip
        found["strides"] = None if interface.get("strides") is None else tuple(interface["strides"])
    except (KeyError, TypeError, ValueError) as error:
        raise ZooError(
            f"the input, a {type(array).__name__}, has a __cuda_array_interface__ without a proper shape, typestr or "
            f"data ({type(error).__name__}: {error})"
        ) from None
    if interface.get("mask") is not None:
        raise ZooError(MASKED)
    return found


def _interface_source(array: Any, default_stream: int | None = None) -> Source:
    interface = interface_of(array)
    shape, dtype, strides = interface["shape"], _dtype(interface["typestr"]), interface["strides"]
    if strides is not None:
        _check_strides(shape, strides, dtype.itemsize)
    return Source(interface["data"][0], shape, dtype, interface.get("stream") or default_stream, array)


def _dlpack_source(array: Any, stream: Stream, cuda: Cuda) -> Source:
    kind, device = map(int, array.__dlpack_device__())
    if kind == _DL_CPU:
        return read_source(_from_dlpack(array), stream, cuda)
    if kind not in (_DL_CUDA, _DL_CUDA_MANAGED):
        raise ZooError(f"the input lies on a device of DLPack type {kind}; CUDA or host memory is needed")
    if kind == _DL_CUDA:  # every GPU may read managed memory
        check_device(device, cuda)
    capsule = _capsule_of(array, stream)
    address = _capsule_pointer(id(capsule), _DL_NAME)
    tensor = _DLManagedTensor.from_address(address).tensor
    code = {number: letter for letter, number in _DL_CODES.items()}.get(tensor.code)
    if code is None or tensor.lanes != 1:
        raise ZooError(f"the input has DLPack type code {tensor.code}, which the engine cannot take")
    dtype = _dtype("?" if code == "b" else f"{code}{tensor.bits // 8}")
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    if tensor.strides:
        strides = tuple(tensor.strides[i] * dtype.itemsize for i in range(tensor.ndim))
        _check_strides(shape, strides, dtype.itemsize)
    return Source((tensor.data or 0) + tensor.byte_offset, shape, dtype, None, (capsule, array))


def _capsule_of(array: Any, stream: Stream) -> Any:
    """The DLPack capsule of `array`, whose producer orders itself before `stream`."""
    try:
        capsule = array.__dlpack__(stream=stream.handle or LEGACY_STREAM)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ZooError(f"the input, a {type(array).__name__}, cannot be read through DLPack ({error})") from None
    if not _capsule_is_valid(id(capsule), _DL_NAME):
        raise ZooError(
            f"the input, a {type(array).__name__}, answers DLPack with no unversioned capsule, which was asked for"
        )
    return capsule


@functools.lru_cache(maxsize=256)
def _check_strides(shape: Shape, strides: tuple[int, ...], itemsize: int) -> None:
    """Raise ZooError unless the array is C-contiguous."""
    expected = itemsize
    for size, stride in zip(reversed(shape), reversed(strides)):
        if size != 1 and stride != expected:
            raise ZooError(f"the input of shape {shape} is not contiguous (strides {strides}); make a contiguous copy")
        expected *= size


@functools.lru_cache(maxsize=64)
def _dtype(name: str) -> np.dtype:
    try:
        return np.dtype(name)
    except TypeError as error:
        raise ZooError(f"the input has dtype {name}, which the engine cannot take") from error
