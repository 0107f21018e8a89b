"""From layer to layer: `INetworkDefinition` in, `onnx.ModelProto` out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx

from zoo.errors import ZooError, closest
from zoo.onnx import layers_math, layers_neural, layers_shape  # noqa: F401  (they fill the table of handlers)
from zoo.onnx.graph import BF16, FLOAT, HALF, LATEST_OPSET, Graph, Half, declared_code
from zoo.onnx.handlers import HANDLERS, MOVES
from zoo.onnx.reading import Layer, needed, shape_of, topological


def to_onnx(
    network: Any,
    trt: Any,
    *,
    arrays: Mapping[tuple[str, str], np.ndarray] = {},
    taps: Iterable[str] = (),
    half: Half = "declared",
    weights: dict[str, np.ndarray] | None = None,
    opset: int = LATEST_OPSET,
) -> onnx.ModelProto:
    """Translate a network that `trt` (the module tensorrt or tensorrt_rtx) holds; the network is only read.

    Layer names become node names and tensor names value names. Where one layer takes several nodes, the node that makes
    its output has the layer's name and the others `name/Operator`. Layers that do nothing leave no node, nor do those
    that no output needs.

    arrays: (layer name, attribute such as "kernel", "bias", "scale", "shift", "weights") -> the array, for weights that
        TensorRT does not give back, such as bf16 (as `ml_dtypes.bfloat16`).
    taps: names of tensors to return too, after the network's own outputs and in this order. One that is an input or
        an output already is returned again, under its name with a number.
    half: what becomes of fp16 and bf16. "declared" keeps them; but on a CPU onnxruntime has few 16-bit kernels, and
        silently computes in fp32 where it has none. "float" computes in fp32, with the weights rounded as they are.
        "round" computes in fp32 and rounds after every layer, so that an overflow gives inf. In the last two, 16-bit
        inputs and outputs of the network are fp32.
    weights: a dictionary that takes the large constants, by name, instead of the model, which then refers to them as
        external data. Nothing is copied (they stay views of what the network points to) and no limit of 2 GiB applies.

    opset: 17 to 20. Lower ones have more readers; Gelu, means and paddings are written as they have them.

    Raises ZooError for a layer or an option that has no translation, and for more than 2 GiB of weights; NewerOpset,
    which names the opset to ask for, where only a later one than `opset` has what a layer needs.
    """
    taps = tuple(taps)
    layers = [Layer(network.get_layer(i), trt, arrays) for i in range(network.num_layers)]
    for layer in layers:
        if layer.kind not in HANDLERS:
            layer.refuse("layers of this type are not supported")
        layer.downcast(trt)
    layers = topological(layers)
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    tensors = {tensor.name: tensor for tensor in (*inputs, *(t for layer in layers for t in layer.outputs))}

    walk = _Walk(Graph(network.name or "network", half, opset), tensors)
    for tensor in inputs:
        walk.input(tensor)
    for name in taps:
        if name not in tensors:
            raise ZooError(f"the network has no tensor named {name!r} to tap{closest(name, tensors)}")
    for layer in needed(layers, (*(tensor.name for tensor in outputs), *taps)):
        walk.layer(layer)
    for tensor in (*outputs, *(tensors[name] for name in taps)):
        walk.output(tensor)
    return walk.graph.finish(weights)


class _Walk:
    """Binds the tensors of the network to the values of the graph, layer by layer."""

    def __init__(self, graph: Graph, tensors: Mapping[str, Any]) -> None:
        self.graph = graph
        self.graph.taken.update(tensors)
        self.bound: set[str] = set()  # values that hold a tensor already

    def input(self, tensor: Any) -> None:
        code = self.graph.type_code(tensor)
        _describe(self.graph.model.graph.input.add(), tensor, code)
        self.graph.types[tensor.name] = code
        self.graph.scope = tensor.name
        self.graph.values[tensor.name] = self.rounded(tensor, tensor.name)
        self.bound.add(self.graph.values[tensor.name])

    def layer(self, layer: Layer) -> None:
        graph = self.graph
        graph.scope, first = layer.name, len(graph.nodes)
        found = HANDLERS[layer.kind](graph, layer, *(t and graph.values.get(t.name) for t in layer.inputs))
        results = (found,) if isinstance(found, str) else found
        for node in graph.nodes[first:]:
            if results and results[0] in node.output:
                node.name = layer.name
        for tensor, value in zip(layer.outputs, results):
            value = graph.cast(value, graph.type_code(tensor)) if value in graph.types else value
            if layer.kind not in MOVES:
                value = self.rounded(tensor, value)
            if value not in self.bound:
                graph.rename(value, tensor.name, first)
                value = tensor.name
                _describe(graph.model.graph.value_info.add(), tensor, graph.type_code(tensor))
            graph.types[value] = graph.type_code(tensor)
            graph.values[tensor.name] = value
            self.bound.add(value)

    def rounded(self, tensor: Any, value: str) -> str:
        """In the mode "round": the value as its declared 16-bit type can hold it."""
        code = declared_code(tensor)
        if self.graph.half != "round" or code not in (HALF, BF16):
            return value
        return self.graph.op("Cast", self.graph.op("Cast", value, to=code, dtype=code), to=FLOAT, dtype=FLOAT)

    def output(self, tensor: Any) -> None:
        graph = self.graph
        value, name = graph.values[tensor.name], tensor.name
        declared = {info.name for info in (*graph.model.graph.input, *graph.model.graph.output)}
        if name in declared:
            name = graph.unique(name)
        if value != name:
            graph.rename(graph.op("Identity", value), name, len(graph.nodes) - 1)
        _describe(graph.model.graph.output.add(), tensor, graph.type_code(tensor), name)


def _describe(info: onnx.ValueInfoProto, tensor: Any, code: int, name: str | None = None) -> None:
    """Name, type and shape; a dynamic dimension keeps its name and one of an input without a name is given one."""
    info.name = name or tensor.name
    info.type.tensor_type.elem_type = code
    shape = shape_of(tensor)
    for axis, size in enumerate(shape or ()):
        dim = info.type.tensor_type.shape.dim.add()
        if size >= 0:
            dim.dim_value = size
        elif label := tensor.get_dimension_name(axis) or (tensor.is_network_input and f"{tensor.name}_{axis}"):
            dim.dim_param = label
    if shape == ():
        info.type.tensor_type.shape.SetInParent()
