"""An ONNX graph while it is written: names, constants, types and nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto

from zoo.errors import ZooError

OPSET = 17  # what the readers have: TensorRT 8.6, onnxruntime 1.13, converters; the first with LayerNormalization
LATEST_OPSET = 20  # the newest that is written, the first with Gelu and with GridSample in three dimensions
LARGEST = 2**31 - 2**20  # protobuf ends at 2 GB; the rest is left for the nodes
SMALL = 1024  # bytes up to which a constant may be a shape, that must be in the model itself

Half = Literal["declared", "float", "round"]
# What an operand can be: the name of a value, integers, an array, or None for an optional input that is not given.
Operand = str | int | Sequence[int] | np.ndarray | None

FLOAT, HALF, BF16, INT64, INT32, BOOL = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.INT64,
    TensorProto.INT32,
    TensorProto.BOOL,
)
_FP8 = np.dtype(ml_dtypes.float8_e4m3fn)  # of zero points alone, which onnxruntime takes inside the model only
_TYPES = {  # by the name of trt.DataType
    "FLOAT": (FLOAT, np.float32),
    "HALF": (HALF, np.float16),
    "BF16": (BF16, ml_dtypes.bfloat16),
    "INT64": (INT64, np.int64),
    "INT32": (INT32, np.int32),
    "INT8": (TensorProto.INT8, np.int8),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "FP8": (TensorProto.FLOAT8E4M3FN, _FP8),
    "BOOL": (BOOL, np.bool_),
}
_NUMPY = {code: np.dtype(dtype) for code, dtype in _TYPES.values()}
_CODES = {dtype: code for code, dtype in _NUMPY.items()}

# Integer arithmetic on shapes is done here where all numbers are known, so that static networks stay free of it.
_FOLD: dict[str, Callable[..., np.ndarray]] = {
    "Add": np.add,
    "Equal": np.equal,
    "Less": np.less,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Sub": np.subtract,
    "Where": np.where,
}


def numpy_type(code: int) -> np.dtype[Any]:
    return _NUMPY[code]


def declared_code(tensor: Any) -> int:
    """The ONNX type that a TensorRT tensor declares."""
    if tensor.dtype.name not in _TYPES:
        raise ZooError(f"tensor {tensor.name!r} cannot be translated to ONNX: type {tensor.dtype.name}")
    return _TYPES[tensor.dtype.name][0]


class NewerOpset(ZooError):
    """What a layer needs is only in a later `opset` than the one that was asked for."""

    def __init__(self, text: str, opset: int) -> None:
        super().__init__(text)
        self.opset = opset


class Graph:
    """Nodes are appended with `op`. Constants stay views of the caller's arrays; `finish` writes those in use."""

    def __init__(self, name: str, half: Half, opset: int) -> None:
        if not OPSET <= opset <= LATEST_OPSET:
            raise ZooError(f"the opset is {opset}; it must be {OPSET} to {LATEST_OPSET}")
        self.half = half
        self.opset = opset
        imported = onnx.helper.make_opsetid("", opset)
        ir_version = onnx.helper.find_min_ir_version_for([imported])
        self.model = onnx.ModelProto(ir_version=ir_version, producer_name="zoo", opset_import=[imported])
        self.model.graph.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.scope = ""  # name of the layer that is being written
        self.constants: dict[str, np.ndarray] = {}
        self.types: dict[str, int] = {}
        self.values: dict[str, str] = {}  # tensor name -> the value that holds it
        self.taken: set[str] = set()

    def require(self, opset: int, what: str) -> None:
        """Raises NewerOpset where the graph's opset does not have `what`."""
        if self.opset < opset:
            text = f"layer {self.scope!r} cannot be written in opset {self.opset}: {what} is of opset {opset}"
            raise NewerOpset(text, opset)

    def type_code(self, tensor: Any) -> int:
        """The ONNX type of a TensorRT tensor: as declared, or fp32 for 16-bit floats that are executed in fp32."""
        code = declared_code(tensor)
        return FLOAT if code in (HALF, BF16) and self.half != "declared" else code

    def unique(self, name: str) -> str:
        """The name itself, or with a number where it is taken."""
        found, count = name, 1
        while found in self.taken:
            found, count = f"{name}.{count}", count + 1
        self.taken.add(found)
        return found

    def rename(self, old: str, new: str, first: int) -> None:
        """Give a new name to a constant or to an output of the nodes from `first` on."""
        if old in self.constants:
            self.constants[new] = self.constants.pop(old)
        for node in self.nodes[first:]:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == old:
                        names[index] = new
        if old in self.types:
            self.types[new] = self.types.pop(old)

    def constant(self, array: np.ndarray, name: str | None = None, code: int | None = None) -> str:
        """Register an array and return its name. A wanted type converts it, except that `half` may keep it in fp32."""
        if self.half != "declared" and array.dtype in (np.float16, ml_dtypes.bfloat16):
            array = array.astype(np.float32)
        if code is not None and array.dtype != _NUMPY[code]:
            array = array.astype(_NUMPY[code])
        value = self.unique(name or f"{self.scope}/const")
        self.constants[value] = array
        self.types[value] = _CODES[array.dtype]
        return value

    def known(self, value: Operand) -> np.ndarray | None:
        """The numbers behind an operand, if they are constant."""
        if value is None or isinstance(value, str):
            return self.constants.get(value) if value else None
        return np.asarray(value) if isinstance(value, np.ndarray) else np.asarray(value, np.int64)

    def op(self, kind: str, *inputs: Operand, outputs: int = 1, dtype: int | None = None, **attributes: Any) -> Any:
        """Append a node and return the name of its output (a tuple of names for more). `dtype`: its type, if known."""
        values = list(inputs)
        while values and values[-1] is None:
            values.pop()
        names = ["" if v is None else v if isinstance(v, str) else self.constant(self.known(v)) for v in values]
        results = [self.unique(f"{self.scope}/{kind}") for _ in range(outputs)]
        attributes = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(onnx.helper.make_node(kind, names, results, name=results[0], **attributes))
        if dtype is not None:
            self.types.update(dict.fromkeys(results, dtype))
        return results[0] if outputs == 1 else tuple(results)

    def calc(self, kind: str, *operands: Operand) -> Any:
        """Integer arithmetic: an array where all operands are known, the name of a value otherwise."""
        numbers = [self.known(operand) for operand in operands]
        if all(number is not None for number in numbers):
            return _FOLD[kind](*numbers)
        return self.op(kind, *operands, dtype=BOOL if kind in ("Equal", "Less") else INT64)

    def cast(self, value: str, code: int) -> str:
        """The value in a type; the value itself if it is known to have it."""
        if self.types.get(value) == code:
            return value
        if value in self.constants:
            return self.constant(self.constants[value], f"{value}/cast", code)
        return self.op("Cast", value, to=code, dtype=code)

    def ints(self, value: Operand) -> Any:
        """An operand as int64, which most ONNX operators want of sizes and indices: an array if known, else a name."""
        number = self.known(value)
        return self.cast(value, INT64) if number is None else number.astype(np.int64)

    def transpose(self, value: str, order: Sequence[int]) -> str:
        if list(order) == sorted(order):
            return value
        if value in self.constants:
            return self.constant(self.constants[value].transpose(order), f"{value}/transposed")
        return self.op("Transpose", value, perm=list(order), dtype=self.types.get(value))

    def reshape(self, value: str, shape: Operand, **attributes: Any) -> str:
        """Reshape; a constant is only viewed in another shape."""
        if value in self.constants and not isinstance(shape, str) and 0 not in shape:
            return self.constant(self.constants[value].reshape(shape), f"{value}/reshaped")
        return self.op("Reshape", value, shape, dtype=self.types.get(value), **attributes)

    def reduce(self, kind: str, value: str, axes: Sequence[int], keepdims: bool = True) -> str:
        """A reduction over axes, which are an input from opset 18 on (13 for sums) and an attribute before."""
        if kind == "ReduceSum" or self.opset >= 18:
            return self.op(kind, value, axes, keepdims=int(keepdims))
        return self.op(kind, value, axes=list(axes), keepdims=int(keepdims))

    def dim(self, value: str, shape: tuple[int, ...], axes: Sequence[int]) -> Any:
        """The sizes along axes: an array if TensorRT knows them, else read at run time."""
        if all(shape[axis] >= 0 for axis in axes):
            return np.array([shape[axis] for axis in axes], np.int64)
        sizes = self.op("Shape", value, dtype=INT64)
        return sizes if list(axes) == list(range(len(shape))) else self.op("Gather", sizes, list(axes), dtype=INT64)

    def finish(self, weights: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
        """Write the nodes and the constants that they use; the large ones go into `weights` instead, if given."""
        graph = self.model.graph
        graph.node.extend(self.nodes)
        wanted = [name for node in self.nodes for name in node.input] + [output.name for output in graph.output]
        used = {name: self.constants[name] for name in wanted if name in self.constants}
        apart = {name: array for name, array in used.items() if array.nbytes > SMALL and array.dtype != _FP8}
        for name, array in used.items():
            tensor = graph.initializer.add(name=name, data_type=_CODES[array.dtype], dims=array.shape)
            if name in apart:
                tensor.data_location = TensorProto.EXTERNAL
                tensor.external_data.add(key="location", value="memory")
            else:
                tensor.raw_data = array.tobytes()
        if weights is None:
            put_inside(self.model, apart)
        else:
            weights.update(apart)
        return self.model


def put_inside(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> None:
    """Writes the weights that were left out into the model. Raises ZooError where it ends: at 2 GiB."""
    size = sum(array.nbytes for array in weights.values())
    if size > LARGEST:
        raise ZooError(f"the network holds {size / 2**30:.1f} GiB of weights; an ONNX file ends at 2 GiB")
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            tensor.raw_data = weights[tensor.name].tobytes()
