"""What networks and layers cost at the least: multiplications, bytes, and the time that hardware cannot go below."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zoo.network import Definition

if TYPE_CHECKING:
    from zoo.onnx.reading import Layer

_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2}
_ENDS = 4  # bytes of a number in the network's inputs and outputs, float32 whatever the precision
_WEIGHTS = {"CONVOLUTION": ("kernel", "bias"), "SCALE": ("shift", "scale", "power")}


@dataclass(frozen=True)
class Cost:
    """`macs`: multiply-accumulates of convolutions and matrix products; `parameters`: weights read.

    `bytes` counts every weight once, and the tensors at both ends: what must move even if all else stays on the chip.
    """

    macs: int
    parameters: int
    bytes: int

    @property
    def flops(self) -> int:
        return 2 * self.macs

    def compute_ms(self, tflops: float) -> float:
        """The time of the multiplications on hardware with that matrix rate."""
        return self.flops / (tflops * 1e9)

    def memory_ms(self, gb_per_s: float) -> float:
        """The time of the bytes on hardware with that bandwidth."""
        return self.bytes / (gb_per_s * 1e6)

    def bound_ms(self, tflops: float, gb_per_s: float) -> float:
        """The least time on hardware with that matrix rate and bandwidth: the slower of the two."""
        return max(self.compute_ms(tflops), self.memory_ms(gb_per_s))


@dataclass(frozen=True)
class LayerCost:
    """One layer of a definition: multiply-accumulates, numbers in each weight or constant that it uses, bytes that it
    needs of each tensor, and the tensors that it makes."""

    macs: int
    weights: Mapping[str, int]
    reads: Mapping[str, int]
    makes: tuple[str, ...]


@dataclass(frozen=True)
class LayerCosts:
    """The layers of a definition by name, in its order; the bytes of its tensors; the tensors that are its outputs."""

    layers: Mapping[str, LayerCost]
    tensors: Mapping[str, int]
    outputs: frozenset[str]
    weight_bytes: int

    def group(self, names: Iterable[str]) -> Cost:
        """The cost of these layers as one kernel: what passes from one of them to another does not move."""
        inside = {name: self.layers[name] for name in names}
        outside = (layer for name, layer in self.layers.items() if name not in inside)
        wanted = self.outputs.union(*(layer.reads for layer in outside))
        made = {tensor for layer in inside.values() for tensor in layer.makes}
        read: Counter[str] = Counter()
        weights: dict[str, int] = {}
        for layer in inside.values():
            read.update(layer.reads)
            weights.update(layer.weights)
        moved = sum(min(nbytes, self.tensors[tensor]) for tensor, nbytes in read.items() if tensor not in made)
        moved += sum(self.tensors[tensor] for tensor in made & wanted)
        parameters = sum(weights.values())
        macs = sum(layer.macs for layer in inside.values())
        return Cost(macs, parameters, parameters * self.weight_bytes + moved)


def layer_costs(definition: Definition, precision: str) -> LayerCosts:
    """The costs of all layers of a definition of fixed shape, with weights and tensors of `precision`.

    The network's inputs and outputs are float32.
    """
    from zoo.onnx.reading import Layer

    network, trt = definition.network, definition.api.trt
    nodes = [Layer(network.get_layer(i), trt, {}) for i in range(network.num_layers)]
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = frozenset(network.get_output(i).name for i in range(network.num_outputs))
    ends = outputs.union(tensor.name for tensor in inputs)
    constants = {tensor.name for node in nodes if node.kind == "CONSTANT" for tensor in node.outputs}
    tensors = {
        tensor.name: math.prod(tensor.shape) * (_ENDS if tensor.name in ends else _BYTES[precision])
        for tensor in (*inputs, *(tensor for node in nodes for tensor in node.outputs))
        if tensor.name not in constants
    }
    layers = {node.name: _layer_cost(node, trt, tensors) for node in nodes}
    return LayerCosts(layers, tensors, outputs, _BYTES[precision])


def cost_of(definition: Definition, precision: str) -> Cost:
    """The cost of a definition of fixed shape, with weights of `precision` and float32 input and outputs.

    `parameters` is what PyTorch counts, `bytes` what an engine reads: BatchNorms folded.
    """
    costs = layer_costs(definition, precision)
    parameters = sum(math.prod(shape) for shape in definition.parameters.values())
    return replace(costs.group(costs.layers), parameters=parameters)


def _layer_cost(node: Layer, trt: Any, tensors: Mapping[str, int]) -> LayerCost:
    """`tensors` are the bytes of all tensors but constants."""
    if node.kind == "CONSTANT":  # its numbers count where they are used
        return LayerCost(0, {}, {}, ())
    if node.kind in ("CONVOLUTION", "MATRIX_MULTIPLY", "SCALE"):
        node.downcast(trt)
    weights = {f"{node.name}.{name}": getattr(node.raw, name).size for name in _WEIGHTS.get(node.kind, ())}
    reads = {}
    for tensor in node.inputs:
        if tensor is not None and tensor.name in tensors:
            reads[tensor.name] = round(tensors[tensor.name] * _share(node))
        elif tensor is not None:
            weights[tensor.name] = math.prod(tensor.shape)
    return LayerCost(_macs(node, trt), weights, reads, tuple(tensor.name for tensor in node.outputs))


def _share(node: Layer) -> float:
    """How much of its input a layer needs: a slice, and a convolution that steps over pixels, leave the rest alone."""
    if node.kind == "SLICE":
        return min(1.0, math.prod(node.out_shape()) / math.prod(node.shape(0)))
    if node.kind == "CONVOLUTION":
        return math.prod(min(1.0, k / stride) for k, stride in zip(node.raw.kernel_size_nd, node.raw.stride_nd))
    return 1.0


def _macs(node: Layer, trt: Any) -> int:
    """Of a layer that has its own class."""
    if node.kind == "CONVOLUTION":
        kernel = math.prod(node.raw.kernel_size_nd)
        return math.prod(node.out_shape()) * node.shape(0)[1] // node.raw.num_groups * kernel
    if node.kind == "MATRIX_MULTIPLY":
        transposed = node.raw.op0 == trt.MatrixOperation.TRANSPOSE
        return math.prod(node.out_shape()) * node.shape(0)[-2 if transposed else -1]
    return 0
