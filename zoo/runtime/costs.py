"""What a network costs at the least: multiplications, bytes, and the time that the hardware cannot go below."""

from __future__ import annotations

import math
from dataclasses import dataclass

from zoo.network import Definition

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
    layers = (Layer(network.get_layer(i), trt, {}) for i in range(network.num_layers))
    macs = sum(_macs(layer, trt) for layer in layers)
    ends = [network.get_input(i) for i in range(network.num_inputs)]
    ends += [network.get_output(i) for i in range(network.num_outputs)]
    parameters = sum(math.prod(shape) for shape in definition.parameters.values())
    return Cost(macs, parameters, parameters * _BYTES[precision] + 4 * sum(math.prod(end.shape) for end in ends))


def _macs(layer, trt) -> int:  # noqa: ANN001
    if layer.kind == "CONVOLUTION":
        layer.downcast(trt)
        kernel = math.prod(layer.raw.kernel_size_nd)
        return math.prod(layer.out_shape()) * layer.shape(0)[1] // layer.raw.num_groups * kernel
    if layer.kind == "MATRIX_MULTIPLY":
        layer.downcast(trt)
        transposed = layer.raw.op0 == trt.MatrixOperation.TRANSPOSE
        return math.prod(layer.out_shape()) * layer.shape(0)[-2 if transposed else -1]
    return 0
