"""Writers: arithmetic, reductions, products, constants, conversions, quantisation."""

from __future__ import annotations

import numpy as np

from zoo.cpp.code import TYPES, Call, Code, boolean, constant, dims, number, refuse, text, writes
from zoo.onnx.reading import Layer
from zoo.onnx.reading import dims as set_dims

_INTEGERS = {"INT64": "indices", "INT32": "integers", "BOOL": "booleans"}
_PER_LINE = 24


@writes("ELEMENTWISE")
def elementwise(c: Code, layer: Layer) -> Call:
    operation = constant("ElementWiseOperation", layer.raw.op)
    return Call(f"addElementWise({c.input(layer)}, {c.input(layer, 1)}, {operation})")


@writes("UNARY")
def unary(c: Code, layer: Layer) -> Call:
    return Call(f"addUnary({c.input(layer)}, {constant('UnaryOperation', layer.raw.op)})")


@writes("REDUCE")
def reduce(c: Code, layer: Layer) -> Call:
    raw = layer.raw
    operation, keep = constant("ReduceOperation", raw.op), boolean(raw.keep_dims)
    return Call(f"addReduce({c.input(layer)}, {operation}, {raw.axes}U, {keep})")


@writes("TOPK")
def topk(c: Code, layer: Layer) -> Call:
    raw, given = layer.raw, c.further_inputs(layer, 1)
    operation, count = constant("TopKOperation", raw.op), 1 if given else raw.k
    return Call(f"addTopK({c.input(layer)}, {operation}, {count}, {raw.axes}U)", given)


@writes("CUMULATIVE")
def cumulative(c: Code, layer: Layer) -> Call:
    c.require((10, 8), layer)
    raw = layer.raw
    how = f"{constant('CumulativeOperation', raw.op)}, {boolean(raw.exclusive)}, {boolean(raw.reverse)}"
    return Call(f"addCumulative({c.input(layer)}, {c.input(layer, 1)}, {how})")


@writes("MATRIX_MULTIPLY")
def matrix_multiply(c: Code, layer: Layer) -> Call:
    a, b = (constant("MatrixOperation", operation) for operation in (layer.raw.op0, layer.raw.op1))
    return Call(f"addMatrixMultiply({c.input(layer)}, {a}, {c.input(layer, 1)}, {b})")


@writes("EINSUM")
def einsum(c: Code, layer: Layer) -> Call:
    return Call(f"addEinsum({tensors(c, layer)}, {len(layer.inputs)}, {text(layer.raw.equation)})")


def tensors(c: Code, layer: Layer) -> str:
    """All inputs as an array that lives as long as the call."""
    pointers = ", ".join(c.input(layer, index)[1:] for index in range(len(layer.inputs)))
    return f"std::vector<ITensor*>{{{pointers}}}.data()"


@writes("CONSTANT")
def constant_(c: Code, layer: Layer) -> Call:
    shape, dtype = set_dims(layer.raw.shape) or (), layer.outputs[0].dtype.name
    if dtype == "INT32" and not c.strong:
        dtype = "INT64"  # TensorRT 8 has no other integers: whether these are indices is not known
    if dtype not in _INTEGERS:
        return Call(f"addConstant({dims(shape)}, {c.stored(layer, 'weights', layer.name, dtype)})")
    array = layer.weights("weights")
    values = [] if array is None else [str(int(value)) for value in np.asarray(array).reshape(-1)]
    lines = [", ".join(values[at : at + _PER_LINE]) for at in range(0, len(values), _PER_LINE)]
    listed = ",\n        ".join(lines)
    return Call(f"addConstant({dims(shape)}, {_INTEGERS[dtype]}({{{listed}}}))")


@writes("IDENTITY")
def identity(c: Code, layer: Layer) -> Call:
    before, after = layer.inputs[0], layer.outputs[0]
    settings = [] if before.dtype == after.dtype else [f"setOutputType(0, {c.type_of(layer, after)})"]
    return Call(f"addIdentity({c.input(layer)})", settings)


@writes("CAST")
def cast(c: Code, layer: Layer) -> Call:
    return Call(f"addCast({c.input(layer)}, {c.type_of(layer, layer.outputs[0])})")


@writes("SELECT")
def select(c: Code, layer: Layer) -> Call:
    return Call(f"addSelect({c.input(layer)}, {c.input(layer, 1)}, {c.input(layer, 2)})")


@writes("FILL")
def fill(c: Code, layer: Layer) -> Call:
    raw = layer.raw
    given = c.further_inputs(layer, 0)
    whole = layer.outputs[0].dtype.name in ("INT64", "INT32")
    if whole and len(given) < 3:
        refuse(layer, "a fill of whole numbers whose start and step are no tensors")
    settings = [] if len(given) == 3 else [f"setAlpha({number(raw.alpha)})", f"setBeta({number(raw.beta)})"]
    operation = constant("FillOperation", raw.operation)
    shape = set_dims(raw.shape) or (1,) * len(layer.out_shape())
    return Call(f"fill(network, {dims(shape)}, {operation}, {c.type_of(layer, layer.outputs[0])})", [*settings, *given])


@writes("NON_ZERO")
def non_zero(c: Code, layer: Layer) -> Call:
    return Call(f"addNonZero({c.input(layer)})")


@writes("ONE_HOT")
def one_hot(c: Code, layer: Layer) -> Call:
    inputs = ", ".join(c.input(layer, index) for index in range(3))
    return Call(f"addOneHot({inputs}, {layer.raw.axis})")


@writes("ASSERTION")
def assertion(c: Code, layer: Layer) -> Call:
    return Call(f"addAssertion({c.input(layer)}, {text(layer.raw.message)})")


@writes("QUANTIZE", "DEQUANTIZE")
def quantize(c: Code, layer: Layer) -> Call:
    dtype = layer.outputs[0].dtype.name
    if dtype not in TYPES:
        refuse(layer, f"type {dtype}")
    settings = [f"setAxis({layer.raw.axis})"] if layer.raw.axis >= 0 else []
    function = layer.kind.lower()
    expression = f"{function}(network, {c.input(layer)}, {c.input(layer, 1)}, DataType::{TYPES[dtype]})"
    return Call(expression, [*settings, *c.further_inputs(layer, 2)])
