"""Sizes that are known only when the network runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zoo.network import Net, Tensor


def shape_with(net: Net, x: Tensor, sizes: Mapping[int, int]) -> Tensor:
    """The run-time shape of x with other sizes along some axes, as a tensor: shape * mask + offset."""
    network, ops = net.network, net.trt.ElementWiseOperation
    mask, offset = np.ones(len(x.shape)), np.zeros(len(x.shape))
    for axis, size in sizes.items():
        mask[axis], offset[axis] = 0, size
    shape = net.step(network.add_shape(x), "shape", x)
    kept = net.step(network.add_elementwise(shape, net.index(mask, "mask"), ops.PROD), "kept", shape)
    return net.step(network.add_elementwise(kept, net.index(offset, "offset"), ops.SUM), "size", kept)
