"""What GoogLeNet and Inception v3 share (arXiv:1409.4842, 1512.00567), with torchvision's scopes."""

from __future__ import annotations

from zoo.network import Net, Tensor
from zoo.ops import conv_bn, relu
from zoo.ops._window import Padding, Pair


def conv(net: Net, x: Tensor, out: int, k: Pair = 1, stride: int = 1, pad: Padding = 0) -> Tensor:
    """Convolution, normalisation with an epsilon of 1e-3, and a ReLU that is no module."""
    return net.tap(relu(net.functional, conv_bn(net, x, out, k, stride, pad, eps=1e-3)))
