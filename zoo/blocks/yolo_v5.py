"""The trunk of YOLOv5 (v6.0 and later), which YOLOv5u keeps, with upstream's scopes."""

from __future__ import annotations

from zoo.blocks.yolo import Scale, c3, conv, join, sppf
from zoo.network import Net, Tensor
from zoo.ops import upsample


def pyramid(net: Net, x: Tensor, cfg: Scale) -> list[Tensor]:
    """Maps of strides 8, 16 and 32. The first convolution is 6x6 with padding 2."""
    at, c, n = net / "model", cfg.channels, cfg.repeats
    x = conv(at / 0, x, c(64), 6, 2, pad=2)
    x = conv(at / 1, x, c(128), 3, 2)
    x = c3(at / 2, x, c(128), n(3))
    x = conv(at / 3, x, c(256), 3, 2)
    p3 = c3(at / 4, x, c(256), n(6))  # stride 8
    x = conv(at / 5, p3, c(512), 3, 2)
    p4 = c3(at / 6, x, c(512), n(9))  # stride 16
    x = conv(at / 7, p4, c(1024), 3, 2)
    x = c3(at / 8, x, c(1024), n(3))
    x = sppf(at / 9, x, c(1024))  # stride 32

    p5 = conv(at / 10, x, c(512))
    x = join(at / 12, upsample(at / 11, p5, 2), p4)
    p4 = conv(at / 14, c3(at / 13, x, c(512), n(3), shortcut=False), c(256))
    x = join(at / 16, upsample(at / 15, p4, 2), p3)
    p3 = c3(at / 17, x, c(256), n(3), shortcut=False)
    x = join(at / 19, conv(at / 18, p3, c(256), 3, 2), p4)
    p4 = c3(at / 20, x, c(512), n(3), shortcut=False)
    x = join(at / 22, conv(at / 21, p4, c(512), 3, 2), p5)
    p5 = c3(at / 23, x, c(1024), n(3), shortcut=False)
    return [p3, p4, p5]


def large_pyramid(net: Net, x: Tensor, cfg: Scale) -> list[Tensor]:
    """P6: maps of strides 8, 16, 32 and 64, of which stride 32 has 768 channels before scaling."""
    at, c, n = net / "model", cfg.channels, cfg.repeats
    x, levels = conv(at / 0, x, c(64), 6, 2, pad=2), []
    for i, (out, repeats) in enumerate(((128, 3), (256, 6), (512, 9), (768, 3), (1024, 3))):
        x = c3(at / (2 + 2 * i), conv(at / (1 + 2 * i), x, c(out), 3, 2), c(out), n(repeats))
        levels.append(x)
    x, skips = sppf(at / 11, x, c(1024)), []
    for i, (out, level) in enumerate(((768, levels[3]), (512, levels[2]), (256, levels[1]))):
        skips.append(conv(at / (12 + 4 * i), x, c(out)))
        x = join(at / (14 + 4 * i), upsample(at / (13 + 4 * i), skips[-1], 2), level)
        x = c3(at / (15 + 4 * i), x, c(out), n(3), shortcut=False)
    found = [x]
    for i, (out, skip) in enumerate(zip((512, 768, 1024), reversed(skips))):
        x = join(at / (25 + 3 * i), conv(at / (24 + 3 * i), x, skip.shape[1], 3, 2), skip)
        x = c3(at / (26 + 3 * i), x, c(out), n(3), shortcut=False)
        found.append(x)
    return found
