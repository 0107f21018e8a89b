"""Handlers: arithmetic, reductions, products, comparisons, conversions."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.onnx.graph import FLOAT, INT32, INT64, Graph, Operand, numpy_type
from zoo.onnx.handlers import handles
from zoo.onnx.reading import Layer, bits, dims

_ELEMENTWISE = {
    "SUM": "Add", "PROD": "Mul", "MAX": "Max", "MIN": "Min", "SUB": "Sub", "DIV": "Div", "POW": "Pow",
    "AND": "And", "OR": "Or", "XOR": "Xor", "EQUAL": "Equal", "GREATER": "Greater", "LESS": "Less",
}  # fmt: skip
_UNARY = {
    "EXP": "Exp", "LOG": "Log", "SQRT": "Sqrt", "RECIP": "Reciprocal", "ABS": "Abs", "NEG": "Neg", "SIN": "Sin",
    "COS": "Cos", "TAN": "Tan", "SINH": "Sinh", "COSH": "Cosh", "ASIN": "Asin", "ACOS": "Acos", "ATAN": "Atan",
    "ASINH": "Asinh", "ACOSH": "Acosh", "ATANH": "Atanh", "CEIL": "Ceil", "FLOOR": "Floor", "ERF": "Erf", "NOT": "Not",
    "SIGN": "Sign", "ROUND": "Round", "ISINF": "IsInf", "ISNAN": "IsNaN",
}  # fmt: skip
_REDUCE = {"SUM": "ReduceSum", "PROD": "ReduceProd", "MAX": "ReduceMax", "MIN": "ReduceMin", "AVG": "ReduceMean"}


def without_leading_ones(g: Graph, value: str) -> str:
    """A constant without its leading dimensions of 1, which broadcasting adds; onnxruntime fuses more without."""
    array = g.known(value)
    if array is None or array.ndim < 2 or array.shape[0] != 1:
        return value
    keep = next((axis for axis, size in enumerate(array.shape) if size != 1), array.ndim - 1)
    return g.reshape(value, array.shape[keep:])


@handles("ELEMENTWISE")
def elementwise(g: Graph, layer: Layer, a: str, b: str) -> str:
    operation = layer.raw.op.name
    if operation == "FLOOR_DIV":
        return _floor_divide(g, layer, a, b)
    if operation not in _ELEMENTWISE:
        layer.refuse(f"operation {operation}")
    if g.known(a) is None:
        b = without_leading_ones(g, b)
    elif g.known(b) is None:
        a = without_leading_ones(g, a)
    return g.op(_ELEMENTWISE[operation], a, b)


def _floor_divide(g: Graph, layer: Layer, a: str, b: str) -> str:
    if np.issubdtype(numpy_type(g.type_code(layer.inputs[0])), np.floating):
        return g.op("Floor", g.op("Div", a, b))
    # ONNX divides integers towards zero; a - (a mod b) is a multiple of b.
    return g.op("Div", g.op("Sub", a, g.op("Mod", a, b)), b)


@handles("UNARY")
def unary(g: Graph, layer: Layer, x: str) -> str:
    operation = layer.raw.op.name
    if operation == "ISINF" and g.type_code(layer.inputs[0]) != FLOAT:
        g.require(20, "IsInf of 16 bits")
    return g.op(_UNARY[operation], x) if operation in _UNARY else layer.refuse(f"operation {operation}")


@handles("REDUCE")
def reduce(g: Graph, layer: Layer, x: str) -> str:
    operation = layer.raw.op.name
    if operation not in _REDUCE:
        layer.refuse(f"operation {operation}")
    return g.reduce(_REDUCE[operation], x, bits(layer.raw.axes), layer.raw.keep_dims)


@handles("TOPK")
def topk(g: Graph, layer: Layer, x: str, k: str | None = None) -> tuple[str, str]:
    count = [layer.raw.k] if k is None else g.op("Reshape", g.ints(k), [1])
    largest = int(layer.raw.op.name == "MAX")
    values, indices = g.op("TopK", x, count, outputs=2, axis=layer.axis(), largest=largest)
    g.types[indices] = INT64
    return values, indices


@handles("CUMULATIVE")
def cumulative(g: Graph, layer: Layer, x: str, axis: str) -> str:
    return g.op("CumSum", x, g.ints(axis), exclusive=int(layer.raw.exclusive), reverse=int(layer.raw.reverse))


@handles("MATRIX_MULTIPLY")
def matrix_multiply(g: Graph, layer: Layer, a: str, b: str) -> str:
    ops = [layer.raw.op0.name, layer.raw.op1.name]
    ranks = [len(layer.shape(0)), len(layer.shape(1))]
    a, b = (_transposed(g, value, rank) if op == "TRANSPOSE" else value for value, rank, op in zip((a, b), ranks, ops))
    if "VECTOR" not in ops:
        return g.op("MatMul", a, _matrix(g, b))
    a = g.op("Unsqueeze", a, [-2]) if ops[0] == "VECTOR" else a
    b = g.op("Unsqueeze", b, [-1]) if ops[1] == "VECTOR" else b
    axes = [axis for axis, op in zip((-2, -1), ops) if op == "VECTOR"]
    return g.op("Squeeze", g.op("MatMul", a, b), axes)


def _matrix(g: Graph, value: str) -> str:
    """A constant stack of one matrix as that matrix: onnxruntime packs it once, when it loads the model."""
    array = g.known(value)
    single = array is not None and array.ndim > 2 and set(array.shape[:-2]) == {1}
    return g.reshape(value, array.shape[-2:]) if single else value


def _transposed(g: Graph, value: str, rank: int) -> str:
    return g.transpose(value, [*range(rank - 2), rank - 1, rank - 2])


@handles("EINSUM")
def einsum(g: Graph, layer: Layer, *inputs: str) -> str:
    return g.op("Einsum", *inputs, equation=layer.raw.equation)


@handles("CONSTANT", moves=True)
def constant(g: Graph, layer: Layer) -> str:
    array = layer.weights("weights")
    if array is None:
        array = np.zeros(0, numpy_type(g.type_code(layer.outputs[0])))
    return g.constant(array.reshape(dims(layer.raw.shape)), code=g.type_code(layer.outputs[0]))


@handles("IDENTITY", "CAST")
def cast(g: Graph, layer: Layer, x: str) -> str:
    return x if layer.inputs[0].dtype == layer.outputs[0].dtype else g.cast(x, g.type_code(layer.outputs[0]))


@handles("SELECT", moves=True)
def select(g: Graph, layer: Layer, condition: str, a: str, b: str) -> str:
    return g.op("Where", condition, a, b)


@handles("FILL")
def fill(g: Graph, layer: Layer, shape: str | None = None, alpha: str | None = None, beta: str | None = None) -> str:
    """LINSPACE: alpha + beta[0] * i + beta[1] * j + ..."""
    if layer.raw.operation.name != "LINSPACE":
        layer.refuse(f"operation {layer.raw.operation.name}")
    sizes: Operand = g.ints(shape) if shape else np.array(dims(layer.raw.shape), np.int64)
    code, rank = g.type_code(layer.outputs[0]), len(layer.out_shape())
    dtype = numpy_type(code)
    result = alpha or g.constant(np.array(layer.raw.alpha, dtype))
    beta = beta and g.cast(beta, code)
    steps = g.known(beta) if beta else np.array(layer.raw.beta, dtype)
    result = g.op("Expand", g.cast(result, code), sizes)
    for axis in range(rank):
        if steps is not None and steps.reshape(-1)[axis] == 0:
            continue
        step = g.op("Gather", beta, axis) if steps is None else g.constant(steps.reshape(-1)[axis].astype(dtype))
        index = g.op("Range", 0, g.op("Gather", sizes, axis), 1, dtype=INT64)
        index = g.op("Reshape", index, [-1] + [1] * (rank - 1 - axis))
        result = g.op("Add", result, g.op("Mul", g.op("Cast", index, to=code), step))
    return result


@handles("NON_ZERO")
def non_zero(g: Graph, layer: Layer, x: str) -> str:
    return g.op("NonZero", x, dtype=INT64)


@handles("ONE_HOT")
def one_hot(g: Graph, layer: Layer, indices: str, values: str, depth: str) -> str:
    code = g.type_code(layer.outputs[0])
    computed = INT64 if code in (INT32, INT64) else FLOAT  # the types of values that onnxruntime has a kernel for
    values = g.cast(values, computed)
    result = g.op("OneHot", g.ints(indices), g.ints(depth), values, axis=layer.raw.axis, dtype=computed)
    return g.cast(result, code)


@handles("ASSERTION")
def assertion(g: Graph, layer: Layer, condition: str) -> tuple[()]:
    return ()


@handles("QUANTIZE")
def quantize(g: Graph, layer: Layer, x: str, scale: str, zero: str | None = None) -> str:
    scale, zero = _quantization(g, layer, scale, zero, layer.outputs[0])
    if g.type_code(layer.inputs[0]) != FLOAT:
        g.require(19, "quantization of 16 bits")
    return g.op("QuantizeLinear", x, scale, zero, axis=_quantization_axis(layer))


@handles("DEQUANTIZE")
def dequantize(g: Graph, layer: Layer, x: str, scale: str, zero: str | None = None) -> str:
    scale, zero = _quantization(g, layer, scale, zero, layer.inputs[0])
    if g.type_code(layer.outputs[0]) != FLOAT:
        g.require(19, "dequantization to 16 bits")
    return g.op("DequantizeLinear", x, scale, zero, axis=_quantization_axis(layer))


def _quantization(g: Graph, layer: Layer, scale: str, zero: str | None, stored: Any) -> tuple[str, str]:
    """Scale and zero point; the zero point states the stored type and must be there."""
    shape = layer.shape(1)
    if len(shape) > 1:
        layer.refuse(f"a scale of {len(shape)} dimensions (block quantization)")
    if shape == (1,):  # per tensor
        scale, zero, shape = g.reshape(scale, ()), zero and g.reshape(zero, ()), ()
    if zero and layer.inputs[2].dtype != stored.dtype:
        layer.refuse(f"a zero point of type {layer.inputs[2].dtype.name} with numbers of type {stored.dtype.name}")
    return scale, zero or g.constant(np.zeros(shape, numpy_type(g.type_code(stored))))


def _quantization_axis(layer: Layer) -> int | None:
    return layer.raw.axis if layer.raw.axis >= 0 else None
