"""Fully connected layers. Source of the semantics: torch.nn.Linear."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.network import Net, Tensor


def linear(net: Net, x: Tensor, out: int, *, weight: str = "weight", bias: str | None = "bias") -> Tensor:
    """x @ weight.T + bias over the last axis: (…, C) -> (…, out). `weight` and `bias` are the parameters' names."""
    x = net.enter(x)
    kernel = net.weight(weight, out, x.shape[-1])
    shift = None if bias is None else net.weight(bias, out)
    return net.done(affine(net, x, kernel, shift, weight, bias or ""), "linear", x)


def affine(
    net: Net, x: Tensor, kernel: np.ndarray, shift: np.ndarray | None, weight: str = "weight", bias: str = "bias"
) -> Any:
    """The last layer, to be finished, of x @ kernel.T + shift: (…, C), (out, C), (out,) -> (…, out)."""
    trt, network = net.trt, net.network
    lead = (1,) * (len(x.shape) - 2)
    factor = net.constant(kernel.reshape(*lead, *kernel.shape), weight)
    product = network.add_matrix_multiply(x, trt.MatrixOperation.NONE, factor, trt.MatrixOperation.TRANSPOSE)
    if shift is None:
        return product
    product = net.step(product, "matmul", x, factor)
    return network.add_elementwise(
        product, net.constant(shift.reshape(*lead, 1, -1), bias), trt.ElementWiseOperation.SUM
    )
