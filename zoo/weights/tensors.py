"""Tensors and arrays of a pickle, as PyTorch and numpy describe them there: views of storages, read when asked for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.weights.pickles import Damaged, Global, Inert

# PyTorch's types: their codes in numpy, or their names in ml_dtypes.
DTYPES = {
    "float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "bfloat16",
    "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "|i1", "bool": "|b1",
    "uint8": "|u1", "uint16": "<u2", "uint32": "<u4", "uint64": "<u8", "complex64": "<c8", "complex128": "<c16",
    "float8_e4m3fn": "float8_e4m3fn", "float8_e5m2": "float8_e5m2",
    "float8_e4m3fnuz": "float8_e4m3fnuz", "float8_e5m2fnuz": "float8_e5m2fnuz",
}  # fmt: skip
_STORAGES = {
    "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128", "QInt8": "int8", "QUInt8": "uint8", "QInt32": "int32", "Untyped": "uint8",
}  # fmt: skip
LARGEST = 1 << 40  # values of one tensor
RANK = 64  # numpy's limit
STRETCH = 1 << 24  # an expanded tensor may have so many values, however few its storage has


def storage_dtype(kind: Any) -> str:
    """The PyTorch type that the storage class `kind` holds. Raises Damaged for no such class."""
    name = kind.name.removesuffix("Storage") if isinstance(kind, Global) and kind.module.startswith("torch") else ""
    if name not in _STORAGES or not kind.name.endswith("Storage"):
        raise Damaged(f"a storage is of the unknown class {kind if isinstance(kind, Global) else type(kind).__name__}")
    return _STORAGES[name]


def itemsize(dtype: str) -> int:
    """Bytes of one value of a PyTorch type."""
    code = DTYPES[dtype]
    return np.dtype(code).itemsize if code[0] in "<|" else 2 if code == "bfloat16" else 1


@dataclass(eq=False)
class Storage:
    """The memory that tensors share: `size` bytes, which `load` gets (a view of the mapped file where possible)."""

    dtype: str
    size: int
    load: Callable[[], np.ndarray]  # uint8, (size,)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage: values of a PyTorch type, with offset and strides in values.

    `unreadable` says why a tensor has no plain values (quantised, sparse …); it is told when one asks for them.
    """

    storage: Storage | None
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] = ()
    offset: int = 0
    unreadable: str = ""

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def array(self) -> np.ndarray:
        """The values, as a view where numpy has the type; the 8- and 16-bit floats that it lacks come as float32."""
        if self.storage is None:
            raise Damaged(self.unreadable)
        code, raw = DTYPES[self.dtype], self.storage.load()
        width = itemsize(self.dtype)
        values = raw[: len(raw) // width * width].view(code if code[0] in "<|" else f"<u{width}")
        steps = [stride * width for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps, writeable=False)
        if code[0] in "<|":
            return view
        if code == "bfloat16":  # the upper half of a float32
            return (view.astype(np.uint32) << 16).view(np.float32)
        import ml_dtypes

        return np.ascontiguousarray(view).view(getattr(ml_dtypes, code)).astype(np.float32)

    def set_state(self, _: Any) -> None:
        """Attributes of a tensor mean nothing for its values."""


def make_tensor(storage: Any, dtype: str, offset: Any, shape: Any, strides: Any) -> Tensor:
    """A tensor that lies within its storage. Raises Damaged for any other."""
    if not isinstance(storage, Storage) or type(shape) is not tuple or type(strides) is not tuple:
        raise Damaged("a tensor is made of something else than a storage, a shape and strides")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > RANK or any(type(n) is not int or n < 0 for n in numbers):
        raise Damaged(f"a tensor has the impossible shape {_short(shape)} with strides {_short(strides)}")
    count, values = math.prod(shape), storage.size // itemsize(dtype)
    if count > min(LARGEST, max(4 * values, STRETCH)):
        raise Damaged(f"a tensor of shape {_short(shape)} is made of {values} values")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides)) if count else -1
    if last >= values:
        raise Damaged(f"a tensor of shape {_short(shape)} reaches beyond its storage of {values} values")
    return Tensor(storage, dtype, shape, strides, offset if count else 0)


def _short(numbers: tuple[Any, ...]) -> str:
    return str(tuple(n if type(n) is int else "?" for n in numbers[:8]))[:200]


# What a pickle calls to build tensors. Each gets the arguments that it would have been called with.


def _rebuild(storage: Any, offset: Any = 0, shape: Any = (), strides: Any = (), *_: Any) -> Tensor:
    return make_tensor(storage, getattr(storage, "dtype", "uint8"), offset, shape, strides)


def _rebuild_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> Any:
    """For types that have no storage class of their own: an untyped storage, and the type beside it."""
    return make_tensor(storage, torch_dtype(dtype), offset, shape, strides)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _rebuild_from_numpy(array: Any, dtype: Any = None, *_: Any) -> Tensor:
    """A tensor that was on a device with no storage of its own (XLA and others)."""
    if not isinstance(array, Array):
        raise Damaged("a tensor is made of no array")
    return array.tensor()


def _rebuild_subclass(function: Any, _type: Any, arguments: Any, *_: Any) -> Any:
    make = TENSORS.get(function) if isinstance(function, Global) else None
    if make is None or type(arguments) is not tuple:
        return Inert(_type if isinstance(_type, Global) else Global("torch", "Tensor"))
    return make(*arguments)


def _without_values(why: str, shape_at: int) -> Callable[..., Tensor]:
    def make(*arguments: Any) -> Tensor:
        shape = arguments[shape_at] if len(arguments) > shape_at else ()
        known = type(shape) is tuple and len(shape) <= RANK and all(type(n) is int and n >= 0 for n in shape)
        return Tensor(None, "float32", shape if known else (), unreadable=why)

    return make


def torch_dtype(dtype: Any) -> str:
    """The name of a PyTorch type that stands in a pickle as `torch.float32`. Raises Damaged for any other."""
    if not isinstance(dtype, Global) or dtype.module != "torch" or dtype.name not in DTYPES:
        raise Damaged(f"a tensor is of the unknown type {dtype if isinstance(dtype, Global) else type(dtype).__name__}")
    return dtype.name


def _size(items: Any = ()) -> tuple[Any, ...]:
    return tuple(items)


_UTILS = "torch._utils"
_PLAIN = "it is not made of plain values"
TENSORS: dict[Global, Callable[..., Any]] = {
    Global(_UTILS, "_rebuild_tensor"): _rebuild,
    Global(_UTILS, "_rebuild_tensor_v2"): _rebuild,
    Global(_UTILS, "_rebuild_tensor_v3"): _rebuild_v3,
    Global(_UTILS, "_rebuild_parameter"): _rebuild_parameter,
    Global(_UTILS, "_rebuild_parameter_with_state"): _rebuild_parameter,
    Global(_UTILS, "_rebuild_device_tensor_from_numpy"): _rebuild_from_numpy,
    Global(_UTILS, "_rebuild_xla_tensor"): _rebuild_from_numpy,
    Global(_UTILS, "_rebuild_device_tensor_from_cpu_tensor"): _rebuild_parameter,
    Global("torch._tensor", "_rebuild_from_type_v2"): _rebuild_subclass,
    Global("torch._tensor", "_rebuild_from_type"): _rebuild_subclass,
    Global(_UTILS, "_rebuild_qtensor"): _without_values(
        "it is quantised; use the checkpoint from before quantisation", 2
    ),
    Global(_UTILS, "_rebuild_sparse_tensor"): _without_values("it is sparse; save it dense", 9),
    Global(_UTILS, "_rebuild_nested_tensor"): _without_values(f"{_PLAIN} but nested", 9),
    Global(_UTILS, "_rebuild_meta_tensor_no_storage"): _without_values("it is a meta tensor, which has no values", 1),
    Global(_UTILS, "_rebuild_wrapper_subclass"): _without_values(f"{_PLAIN}; its class keeps them elsewhere", 2),
    Global("torch", "Size"): _size,
}


# numpy

_CODE = re.compile(r"[<>|=]?([biufc?])([1248]|16)?\Z")


class Dtype:
    """`numpy.dtype` of a pickle: a code such as "<f4"; None for types that are no numbers."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        match = _CODE.match(code) if type(code) is str else None
        self.dtype = np.dtype(code) if match and _exists(code) else None

    def set_state(self, state: Any) -> None:
        if type(state) is tuple and len(state) > 1 and state[1] in ("<", ">") and self.dtype is not None:
            self.dtype = self.dtype.newbyteorder(state[1])


def _exists(code: str) -> bool:
    try:
        return np.dtype(code) is not None
    except TypeError:  # such as f1
        return False


class Array:
    """A numpy array of a pickle, filled by its state; `array` is None while it has none, and for arrays of objects."""

    def __init__(self, *_: Any) -> None:
        self.array: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        """(version, shape, dtype, whether in Fortran's order, bytes)"""
        if type(state) is not tuple or len(state) != 5 or not isinstance(state[2], Dtype):
            raise Damaged("an array is described in a way that numpy does not use")
        _, shape, kind, fortran, data = state
        if type(data) is bytes and kind.dtype is not None:
            self.array = _array(data, kind.dtype, shape, "F" if fortran else "C")

    def tensor(self) -> Tensor:
        if self.array is None or self.array.dtype.name not in DTYPES:
            return Tensor(None, "float32", (), unreadable="it is an array without numbers")
        values = np.ascontiguousarray(self.array, self.array.dtype.newbyteorder("<"))
        strides = tuple(step // values.itemsize for step in values.strides)
        raw = values.reshape(-1).view(np.uint8)
        return Tensor(Storage(values.dtype.name, raw.nbytes, lambda: raw), values.dtype.name, values.shape, strides)


def _array(data: Any, dtype: np.dtype, shape: Any, order: str) -> np.ndarray:
    plain = type(shape) is tuple and len(shape) <= 32 and all(type(n) is int and n >= 0 for n in shape)
    if not plain or math.prod(shape) * dtype.itemsize != len(data):
        raise Damaged(f"an array of {len(data)} bytes has another shape")
    return np.frombuffer(data, dtype).reshape(shape, order=order)  # type: ignore[call-overload]


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> Array:
    """How numpy writes contiguous arrays in protocol 5."""
    made = Array()
    if isinstance(dtype, Dtype) and dtype.dtype is not None and isinstance(data, (bytes, bytearray)):
        made.array = _array(data, dtype.dtype, shape, "F" if order == "F" else "C")
    return made


def _scalar(dtype: Any = None, data: Any = b"", *_: Any) -> Any:
    """A numpy scalar, as Python's."""
    if not isinstance(dtype, Dtype) or dtype.dtype is None or type(data) is not bytes:
        return Inert(Global("numpy", "generic"))
    return _array(data, dtype.dtype, (), "C").item()


NUMPY: dict[Global, Callable[..., Any]] = {
    Global("numpy", "dtype"): Dtype,
    Global("numpy.core.multiarray", "_reconstruct"): Array,
    Global("numpy.core.multiarray", "scalar"): _scalar,
    Global("numpy.core.numeric", "_frombuffer"): _from_buffer,
}
