"""Quantise and dequantise (Q/DQ): how an int8 network says what TensorRT shall compute in int8, and likewise fp8.

TensorRT fuses the pair with the layer that reads it, and 8.6, 10, 11 and TensorRT-RTX take the same pairs; fp8 (e4m3)
from 10 on.
"""

from __future__ import annotations

import numpy as np

from zoo.network import Net, Tensor, configured
from zoo.quantization import quantised_channels


def quantised(net: Net, x: Tensor, site: str) -> Tensor:
    """`x` as the layer `site` reads it: rounded to int8 or fp8 and back, per tensor, where the policy says so."""
    net.definition.sites[site] = x
    step = net.step_of(site)
    if step is None:
        return x
    net.definition.rounded[site] = rounded = _pair(net, x, np.float32(step))
    return rounded


def quantised_kernel(
    net: Net, kernel: np.ndarray, scale: np.ndarray | None, site: str, lead: tuple[int, ...] = ()
) -> Tensor | None:
    """`kernel` (out, …) x `scale` (out,) rounded to int8 and back, per channel; None where the site stays as it is.

    The tensor has the shape (*lead, out, …), with ones for `lead`.

    `scale` is a normalisation that is folded in. The kernel itself is rounded, before that: its whole numbers are then
    those of PyTorch's, and no rounding in the product moves one.
    """
    if net.step_of(site) is None:
        return None
    whole, step = quantised_channels(kernel, net.definition.precision.stored, net.kernel_range(len(kernel)))
    broadcast = (-1, *(1,) * (kernel.ndim - 1))
    if scale is not None:
        whole = whole * np.sign(scale).reshape(broadcast)
        step = np.where(scale != 0, step * np.abs(scale), 1).astype(np.float32)
    values = (whole * step.reshape(broadcast)).astype(np.float32)
    return _pair(net, net.constant(values.reshape(*lead, *values.shape), "kernel"), step, axis=len(lead))


def quantised_shortcut(net: Net, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The operands of an addition: the one that was made first is rounded to int8 and back.

    TensorRT then adds it inside the convolution that makes the other one, in int8.
    """
    made, site = net.definition.made, net.peek_step("add")
    if made.get(x.name, -1) <= made.get(y.name, -1):  # the network's input was not made here
        return quantised(net, x, site), y
    return x, quantised(net, y, site)


def _pair(net: Net, x: Tensor, step: np.ndarray | np.float32, axis: int | None = None) -> Tensor:
    """Quantise and dequantise; `step` is one number, or one per index along `axis`."""
    trt, network, strong = net.trt, net.network, net.definition.api.strong
    along = {} if axis is None else {"axis": axis}
    scale = net.fp32.constant(np.asarray(step, np.float32), "step")
    stored = trt.fp8 if net.definition.precision.stored == "fp8" else trt.int8
    rounded = network.add_quantize(x, scale, *((stored,) if strong else ()))
    rounded = net.step(configured(rounded, **along), "quantize", x)
    back = network.add_dequantize(rounded, scale, *((net.dtype,) if strong else ()))
    return net.step(configured(back, **along), "dequantize", rounded)
