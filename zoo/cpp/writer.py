"""From layer to layer: `INetworkDefinition` in, C++ out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from zoo.cpp import layers_math, layers_neural, layers_shape  # noqa: F401  (they fill the table of writers)
from zoo.cpp.code import TYPES, WRITERS, Code, dims, refuse, text
from zoo.errors import ZooError
from zoo.onnx.reading import Layer, topological

_WIDTH = 120


def to_cpp(
    network: Any,
    trt: Any,
    *,
    strong: bool,
    arrays: Mapping[tuple[str, str], np.ndarray] = {},
    islands: Collection[str] = (),
) -> tuple[str, dict[str, np.ndarray]]:
    """The file network.cpp that builds a network which `trt` (the module tensorrt or tensorrt_rtx) holds, and the
    weights that it reads, by name. The network is only read.

    strong: whether the network is strongly typed. One that is not compiles only with TensorRT 8, whose sizes are int32.
    arrays: weights that TensorRT does not give back, as for `zoo.onnx.to_onnx`.
    islands: tensors that are computed in fp32 where the program lets TensorRT 8 or 10 choose half precision.

    Raises ZooError, naming it, for a layer that cannot be written.
    """
    code = Code(strong)
    layers = [Layer(network.get_layer(index), trt, arrays) for index in range(network.num_layers)]
    for layer in layers:
        if layer.kind not in WRITERS:
            refuse(layer, "layers of this type are not supported")
        layer.downcast(trt)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    body = [line for tensor in inputs for line in _input(code, tensor)]
    used = {tensor.name for tensor in (*outputs, *(t for layer in layers for t in layer.inputs if t is not None))}
    module = None
    for layer in topological(layers):
        if module != (module := _module(layer.name)):
            body += ["", f"    // {module}"]
        body += _layer(code, layer, used, any(tensor.name in islands for tensor in layer.outputs[:1]))
    body += ["", *(f"    network.markOutput({code.tensor(tensor)});" for tensor in outputs)]
    return _file(code, body, _typed(inputs, layers)), code.weights


def _typed(inputs: list[Any], layers: list[Layer]) -> bool:
    """Whether the network has halves in it, so that its types are its own and not the builder's choice."""
    tensors = [*inputs, *(tensor for layer in layers for tensor in layer.outputs)]
    return any(tensor.dtype.name in ("HALF", "BF16", "INT8") for tensor in tensors)


def _file(code: Code, body: list[str], typed: bool) -> str:
    (major, minor), what = code.needs
    if typed and code.strong:
        major, minor, what = max((major, minor, what), (10, 0, "a network with types of its own"))
    lines = [
        "// Written by zoo.export from the network definition: a statement for each layer, named by its module.",
        "",
    ]
    lines += ['#include "definition.h"', ""]
    if (major, minor) > (8, 6):
        lines.append(
            f"static_assert(kTensorRT >= {100 * major + minor}, {text(f'{what} needs TensorRT {major}.{minor}')});"
        )
    if not code.strong:
        lines.append('static_assert(kTensorRT < 1000, "written from a network of TensorRT 8, whose sizes are int32");')
    lines += [f"const bool kTyped = {'true' if typed else 'false'};", ""]
    return "\n".join([*lines, "void define(INetworkDefinition& network, WeightsFile& weights)", "{", *body, "}", ""])


def _module(name: str) -> str:
    """The module whose layers stand together: all but the last part of the path, and not the number of a call."""
    return name.rpartition(".")[0].partition(":")[0] or name.partition(":")[0]


def _input(code: Code, tensor: Any) -> list[str]:
    if tensor.dtype.name not in TYPES:
        raise ZooError(f"the input {tensor.name!r} cannot be written in C++: type {tensor.dtype.name}")
    shape, variable = tuple(tensor.shape), code.declare(tensor.name)
    dtype = f"DataType::{TYPES[tensor.dtype.name]}"
    lines = [f"    ITensor* {variable} = checked(network.addInput({text(tensor.name)}, {dtype}, {dims(shape)}));"]
    for axis, size in enumerate(shape):
        if size == -1 and tensor.get_dimension_name(axis):
            lines.append(f"    {variable}->setDimensionName({axis}, {text(tensor.get_dimension_name(axis))});")
    return lines


def _layer(code: Code, layer: Layer, used: Collection[str], island: bool) -> list[str]:
    """The statements of a layer: it is added, what is not TensorRT's default is set, and its outputs get names, those
    that are `used` variables too."""
    call = WRITERS[layer.kind](code, layer)
    helper = call.expression.partition("(")[2].startswith("network, ")  # of definition.h, else a method
    made = f"made({'' if helper else 'network.'}{call.expression}, {text(layer.name)})"
    settings = [*call.settings, *(["keepFp32"] if island else [])]
    if not settings and len(layer.outputs) == 1:
        return [_output(code, layer, made, 0, used)]
    variable = code.layer_variable(layer)
    lines = [_wrapped(f"    auto* {variable} = {made};")]
    for setting in call.settings:
        lines.append(_wrapped(f"    {variable}->{setting};"))
    if island:
        lines.append(f"    keepFp32(*{variable});")
    return lines + [_output(code, layer, variable, index, used) for index in range(len(layer.outputs))]


def _output(code: Code, layer: Layer, made: str, index: int, used: Collection[str]) -> str:
    tensor = layer.outputs[index]
    name = "" if index == 0 and tensor.name == layer.name else f", {index}, {text(tensor.name)}"
    variable = f"ITensor* {code.declare(tensor.name)} = " if tensor.name in used else ""
    return _wrapped(f"    {variable}output({made}{name});")


def _wrapped(statement: str) -> str:
    """The statement in lines of `_WIDTH`, broken between arguments (never inside a text) or before the last call."""
    lines, rest = [], statement
    while len(rest) > _WIDTH:
        cuts = [
            at for at in range(20, _WIDTH) if rest[at] == " " and rest[at - 1] in ",=" and not rest[:at].count('"') % 2
        ]
        if not cuts:
            break
        lines.append(rest[: cuts[-1]])
        rest = f"        {rest[cuts[-1] + 1 :]}"
    return "\n".join([*lines, rest])
