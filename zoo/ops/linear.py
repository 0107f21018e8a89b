"""Fully connected layers. Source of the semantics: torch.nn.Linear."""

from __future__ import annotations

from zoo.network import Net, Tensor
from zoo.ops._affine import batch_norm_affine
from zoo.ops._quantize import quantised, quantised_kernel


def linear_bn(net: Net, x: Tensor, out: int, *, linear: str = "linear", bn: str = "bn", eps: float = 1e-5) -> Tensor:
    """The Linear without bias and the BatchNorm1d of features after it, folded on the host: (N, T, C) -> (N, T, out).

    Its tensor is that of the module of both: PyTorch's own have the tokens of all images as one axis.
    """
    x = net.enter(x)
    scale, shift = batch_norm_affine(net / bn, out, eps)
    kernel = (net / linear).weight("weight", out, x.shape[2]) * scale[:, None]
    (net / linear).fold("linear")
    (net / bn).fold("batch_norm1d")
    kernel = net.constant(kernel[None], "kernel")
    none, transposed = net.trt.MatrixOperation.NONE, net.trt.MatrixOperation.TRANSPOSE
    product = net.step(net.network.add_matrix_multiply(x, none, kernel, transposed), "matmul", x, kernel)
    shift = net.constant(shift[None, None], "shift")
    return net.tap(
        net.step(net.network.add_elementwise(product, shift, net.trt.ElementWiseOperation.SUM), "add", product)
    )


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
