"""Fully connected layers. Source of the semantics: torch.nn.Linear."""

from __future__ import annotations

from zoo.network import Net, Tensor


def linear(net: Net, x: Tensor, out: int, *, weight: str = "weight", bias: str | None = "bias") -> Tensor:
    """x @ weight.T + bias over the last axis: (…, C) -> (…, out). `weight` and `bias` are the parameters' names."""
    trt, network = net.trt, net.network
    x = net.enter(x)
    lead = (1,) * (len(x.shape) - 2)
    kernel = net.constant(net.weight(weight, out, x.shape[-1]).reshape(*lead, out, x.shape[-1]), weight)
    product = network.add_matrix_multiply(x, trt.MatrixOperation.NONE, kernel, trt.MatrixOperation.TRANSPOSE)
    if bias is None:
        return net.done(product, "linear", x)
    product = net.step(product, "matmul", x, kernel)
    shift = net.constant(net.weight(bias, out).reshape(*lead, 1, out), bias)
    return net.done(network.add_elementwise(product, shift, trt.ElementWiseOperation.SUM), "linear", product)
