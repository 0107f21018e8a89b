"""The feature pyramid of torchvision's detectors (Lin et al. 2016, arXiv:1612.03144), with its scopes.

A coarser map is resized to the size of the finer one, which is not always twice its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from zoo.network import Net, Tensor
from zoo.ops import add, conv2d, conv_bn, relu, upsample

WIDTH = 256


def pyramid(net: Net, maps: Sequence[Tensor], normalised: bool = False) -> list[Tensor]:
    """Maps of falling resolution -> as many of 256 channels, each of them `normalised` or not."""

    def conv(net: Net, x: Tensor, k: int) -> Tensor:
        return conv_bn(net, x, WIDTH, k, conv=0, bn=1) if normalised else conv2d(net / 0, x, WIDTH, k)

    inner = [conv(net / "inner_blocks" / i, x, 1) for i, x in enumerate(maps)]
    for i in range(len(maps) - 2, -1, -1):
        above = upsample(net.functional, inner[i + 1], size=tuple(inner[i].shape[2:]))
        inner[i] = add(net, inner[i], above)
    return [conv(net / "layer_blocks" / i, x, 3) for i, x in enumerate(inner)]


def coarser(net: Net, x: Tensor) -> list[Tensor]:
    """Two more levels, of strides 2 and 4 from x on."""
    first = conv2d(net / "p6", x, WIDTH, 3, 2)
    return [first, conv2d(net / "p7", relu(net.functional, first), WIDTH, 3, 2)]
