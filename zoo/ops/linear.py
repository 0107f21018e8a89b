"""Fully connected layers. Source of the semantics: torch.nn.Linear."""

from __future__ import annotations

from zoo.network import Net, Tensor
from zoo.ops._quantize import quantised, quantised_kernel


def linear(net: Net, x: Tensor, out: int, *, weight: str = "weight", bias: str | None = "bias") -> Tensor:
    """x @ weight.T + bias over the last axis: (…, C) -> (…, out). `weight` and `bias` are the parameters' names.

    int8 rounds what reads tokens or maps. What reads one vector of each picture, as classifiers do, costs next to
    nothing and stays higher.
    """
    trt, network = net.trt, net.network
    x = net.enter(x)
    lead = (1,) * (len(x.shape) - 2)
    values, site = net.weight(weight, out, x.shape[-1]), net.peek("linear")
    kernel = quantised_kernel(net, values, None, site, lead) if lead else None
    if kernel is None:
        kernel = net.constant(values.reshape(*lead, *values.shape), weight)
    read = quantised(net, x, site) if lead else x
    product = network.add_matrix_multiply(read, trt.MatrixOperation.NONE, kernel, trt.MatrixOperation.TRANSPOSE)
    if bias is None:
        return net.done(product, "linear", x)
    product = net.step(product, "matmul", x, kernel)
    shift = net.constant(net.weight(bias, out).reshape(*lead, 1, out), bias)
    return net.done(network.add_elementwise(product, shift, trt.ElementWiseOperation.SUM), "linear", product)
