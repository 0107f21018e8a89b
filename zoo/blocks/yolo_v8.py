"""The trunk and the neck of YOLOv8, with upstream's scopes."""

from __future__ import annotations

from zoo.blocks.yolo import Scale, c2f, conv, join, sppf
from zoo.network import Net, Tensor
from zoo.ops import upsample


def trunk(net: Net, x: Tensor, cfg: Scale) -> list[Tensor]:
    """Maps of strides 4, 8, 16 and 32, the last one before any pooling of spatial pyramids."""
    at, c, n = net / "model", cfg.channels, cfg.repeats
    x = conv(at / 1, conv(at / 0, x, c(64), 3, 2), c(128), 3, 2)
    p2 = c2f(at / 2, x, c(128), n(3), shortcut=True)
    p3 = c2f(at / 4, conv(at / 3, p2, c(256), 3, 2), c(256), n(6), shortcut=True)
    p4 = c2f(at / 6, conv(at / 5, p3, c(512), 3, 2), c(512), n(6), shortcut=True)
    p5 = c2f(at / 8, conv(at / 7, p4, c(1024), 3, 2), c(1024), n(3), shortcut=True)
    return [p2, p3, p4, p5]


def pyramid(net: Net, x: Tensor, cfg: Scale) -> list[Tensor]:
    """Maps of strides 8, 16 and 32 after the neck."""
    at, c, n = net / "model", cfg.channels, cfg.repeats(3)
    _, p3, p4, p5 = trunk(net, x, cfg)
    p5 = sppf(at / 9, p5, c(1024))
    p4 = c2f(at / 12, join(at / 11, upsample(at / 10, p5, 2), p4), c(512), n)
    p3 = c2f(at / 15, join(at / 14, upsample(at / 13, p4, 2), p3), c(256), n)
    p4 = c2f(at / 18, join(at / 17, conv(at / 16, p3, c(256), 3, 2), p4), c(512), n)
    p5 = c2f(at / 21, join(at / 20, conv(at / 19, p4, c(512), 3, 2), p5), c(1024), n)
    return [p3, p4, p5]
