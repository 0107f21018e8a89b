"""DeepLab's pyramid of dilated convolutions (arXiv:1706.05587, 1802.02611), with the scopes that all its users have."""

from __future__ import annotations

from collections.abc import Callable

from zoo.network import Net, Tensor
from zoo.ops import concat, conv_bn, global_avg_pool, open_size, relu, upsample

RATES = (12, 24, 36)
WIDTH = 256


def conv(net: Net, x: Tensor, k: int, dilation: int = 1) -> Tensor:
    """Convolution, normalisation and ReLU: the modules 0, 1 and 2."""
    return net.tap(relu(net / 2, conv_bn(net, x, WIDTH, k, dilation=dilation, conv=0, bn=1)))


def whole(net: Net, x: Tensor) -> Tensor:
    """What the mean of the map says, at each of its places."""
    y = conv_bn(net, global_avg_pool(net / 0, x), WIDTH, 1, conv=1, bn=2)
    return net.tap(upsample(net.functional, relu(net / 3, y), size=open_size(net, x), mode="bilinear"))


def pyramid(net: Net, x: Tensor, around: Callable[[Net, Tensor, int], Tensor]) -> Tensor:
    """Atrous spatial pyramid pooling: neighbourhoods of several sizes, each by `around(net, x, rate)`, side by side."""
    convs = net / "convs"
    found = [conv(convs / 0, x, 1), *(around(convs / i, x, rate) for i, rate in enumerate(RATES, 1))]
    found.append(whole(convs / (len(RATES) + 1), x))
    return net.tap(conv(net / "project", concat(net, found), 1))
