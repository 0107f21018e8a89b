"""What a network costs at the least: multiplications, bytes, and the time that the hardware cannot go below."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.network import Definition

if TYPE_CHECKING:
    from zoo.onnx.reading import Layer

_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class Cost:
    """`macs`: multiply-accumulates of convolutions and matrix products; `parameters`: weights read.

    `bytes` counts every weight once, the input and the outputs: what must move even if all else stays on the chip.
    """

    macs: int
    parameters: int
    bytes: int

    @property
    def flops(self) -> int:
        return 2 * self.macs

    def bound_ms(self, tflops: float, gb_per_s: float) -> float:
        """The least time on hardware with that matrix rate and bandwidth: the slower of the two."""
        return max(self.flops / (tflops * 1e9), self.bytes / (gb_per_s * 1e6))


def cost_of(definition: Definition, precision: str) -> Cost:
    """The cost of a definition of fixed shape, with weights of `precision` and float32 input and outputs."""
    from zoo.onnx.reading import Layer

    network, trt = definition.network, definition.api.trt
    nodes = (Layer(network.get_layer(i), trt, {}) for i in range(network.num_layers))
    macs = sum(_macs(node, trt) for node in nodes)
    ends = [network.get_input(i) for i in range(network.num_inputs)]
    ends += [network.get_output(i) for i in range(network.num_outputs)]
    parameters = sum(math.prod(shape) for shape in definition.parameters.values())
    return Cost(macs, parameters, parameters * _BYTES[precision] + 4 * sum(math.prod(end.shape) for end in ends))


def _macs(node: Layer, trt: Any) -> int:
    if node.kind == "CONVOLUTION":
        node.downcast(trt)
        kernel = math.prod(node.raw.kernel_size_nd)
        return math.prod(node.out_shape()) * node.shape(0)[1] // node.raw.num_groups * kernel
    if node.kind == "MATRIX_MULTIPLY":
        node.downcast(trt)
        transposed = node.raw.op0 == trt.MatrixOperation.TRANSPOSE
        return math.prod(node.out_shape()) * node.shape(0)[-2 if transposed else -1]
    return 0
