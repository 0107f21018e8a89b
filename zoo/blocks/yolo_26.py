"""The trunk of YOLO26 and what its models share, with ultralytics' scopes."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.yolo import bottleneck, c3k2, conv, halves, linear_conv
from zoo.blocks.yolo_attention import psa_block
from zoo.blocks.yolo_head import DetectConfig
from zoo.network import Net, Tensor
from zoo.ops import add, concat, max_pool

PAPER = "https://docs.ultralytics.com/models/yolo26"
PREFIX = "one2one_"  # of the head that answers


@dataclass(frozen=True)
class Config(DetectConfig):
    reg_max: int = 1
    nested: bool = False  # C3k in the first two C3k2


def for_training(head: int) -> tuple[str, str]:
    """Patterns of the weights of the head at `model.HEAD` that serve training only."""
    return f"model.{head}.cv2.*", f"model.{head}.cv3.*"


def trunk(net: Net, x: Tensor, cfg: Config, deeper: tuple[int, ...] = (1024,)) -> list[Tensor]:
    """Maps of strides 4, 8 and 16, and one more for each width of `deeper`, the last before any pooling."""
    at, c, n, levels = net / "model", cfg.channels, cfg.repeats(2), []
    x = conv(at / 0, x, c(64), 3, 2)
    for i, (width, out) in enumerate(((128, 256), (256, 512), (512, 512), *((width, width) for width in deeper))):
        x = conv(at / (1 + 2 * i), x, c(width), 3, 2)
        wide = i > 1
        x = c3k2(at / (2 + 2 * i), x, c(out), n, nested=wide or cfg.nested, share=0.5 if wide else 0.25)
        levels.append(x)
    return levels


def sppf(net: Net, x: Tensor, shortcut: bool = True) -> Tensor:
    found = [linear_conv(net / "cv1", x, x.shape[1] // 2)]
    for _ in range(3):
        found.append(max_pool(net / "m", found[-1], 5, 1, pad=2))
    y = conv(net / "cv2", concat(net, found), x.shape[1])
    return net.tap(add(net, y, x)) if shortcut else y


def attended(net: Net, x: Tensor, out: int) -> Tensor:
    """`c3k2` whose one block is a bottleneck and attention after it."""

    def block(net: Net, x: Tensor) -> Tensor:
        return psa_block(net / 1, bottleneck(net / 0, x, shortcut=True, hidden=x.shape[1] // 2))

    return halves(net, x, out, out // 2, [block])
