"""The stem of PP-HGNetV2, whose scopes are the same in timm and in ultralytics."""

from __future__ import annotations

from collections.abc import Callable

from zoo.network import Net, Tensor
from zoo.ops import concat, max_pool, pad

Conv = Callable[..., Tensor]  # net, x, channels, kernel; `stride` and `pad` by name


def stem(net: Net, x: Tensor, middle: int, out: int, conv: Conv) -> Tensor:
    """(N, 3, H, W) -> (N, out, H / 4, W / 4)."""
    x = conv(net / "stem1", x, middle, 3, stride=2)
    x = pad(net.functional, x, (0, 1, 0, 1))
    y = conv(net / "stem2a", x, middle // 2, 2, pad=0)
    y = conv(net / "stem2b", pad(net.functional, y, (0, 1, 0, 1)), middle, 2, pad=0)
    x = concat(net, [max_pool(net / "pool", x, 2, 1, ceil_mode=True), y])
    return conv(net / "stem4", conv(net / "stem3", x, middle, 3, stride=2), out, 1)
