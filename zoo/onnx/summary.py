"""What an ONNX file says of itself, read as data: nothing is run, and weights that lie beside it are not opened."""

from __future__ import annotations

import math
import os
from collections import Counter
from typing import Any, NamedTuple

import onnx

from zoo.errors import ZooError


class Summary(NamedTuple):
    """`facts` of the whole file, and its modules by path: the kinds of their operators, the shape of what the last one
    gives (-1 where it is open, None where the file does not say it), and the values in their constants."""

    facts: dict[str, Any]
    modules: dict[str, tuple[str, tuple[int, ...] | None, int]]


def summary(path: str | os.PathLike[str]) -> Summary:
    """Raises ZooError for what is no ONNX file."""
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ZooError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # protobuf's, of which there is one for each of its implementations
        raise ZooError(f"{path} is no ONNX file: {error}") from None
    if not model.graph.node:
        raise ZooError(f"{path} is no ONNX file with a network: it has no operators")
    graph = model.graph
    indices = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)  # shapes and places, which nobody calls parameters
    constants = {t.name: 0 if t.data_type in indices else math.prod(t.dims) for t in graph.initializer}
    shapes = {value.name: _shape(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    facts = {
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "inputs": {v.name: _described(v) for v in graph.input if v.name not in constants},
        "outputs": {value.name: _described(value) for value in graph.output},
        "operators": dict(Counter(node.op_type for node in graph.node).most_common()),
        "parameters": sum(constants.values()),
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
    }
    return Summary(facts, _modules(graph, constants, shapes))


def _modules(
    graph: onnx.GraphProto, constants: dict[str, int], shapes: dict[str, tuple[int, ...] | None]
) -> dict[str, tuple[str, tuple[int, ...] | None, int]]:
    found: dict[str, tuple[str, tuple[int, ...] | None, int]] = {}
    counted: set[str] = set()  # a constant that several operators read belongs to the first
    for node in graph.node:
        path = _module_of(node.name)
        kinds, _, values = found.get(path, ("", None, 0))
        own = {name for name in node.input if name in constants} - counted
        counted |= own
        kinds = ", ".join(dict.fromkeys([*filter(None, kinds.split(", ")), node.op_type]))
        shape = shapes.get(node.output[0]) if node.output else None
        found[path] = kinds, shape, values + sum(constants[name] for name in own)
    return found


def _module_of(name: str) -> str:
    """The module that a node belongs to: `layer1.0.conv1` of `layer1.0.conv1/Cast`, as the zoo names them, and of
    `/layer1/layer1.0/conv1/Conv`, as PyTorch does."""
    if not name.startswith("/"):
        return name.partition("/")[0]
    path: list[str] = []
    for part in name.split("/")[1:-1]:
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return ".".join(path)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)


def _described(value: onnx.ValueInfoProto) -> str:
    """ "float batchx3x224x224", in the words of ONNX."""
    kinds = {code: name.lower() for name, code in onnx.TensorProto.DataType.items()}
    kind = kinds.get(value.type.tensor_type.elem_type, "unknown")
    dims = value.type.tensor_type.shape.dim
    return f"{kind} {'x'.join(str(d.dim_value) if d.HasField('dim_value') else d.dim_param or '?' for d in dims)}"
