"""The stages, the neck and the configuration of YOLOv9, with ultralytics' scopes.

Before a map is halved it is averaged over 2x2 with stride 1, which makes it one pixel smaller; RepConv is a 3x3 and a
1x1 convolution here, without an identity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zoo.blocks.yolo import conv, csp, join, linear_conv
from zoo.blocks.yolo_head import Head, with_head
from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import add, avg_pool, concat, max_pool, silu, split, upsample
from zoo.weights import Weights

Widths = tuple[int, int]  # of a stage's output, and inside it


@dataclass(frozen=True)
class Config(Head):
    stem: int = 32
    simple: bool = False  # the first stage has no nested blocks
    stages: tuple[Widths, Widths, Widths, Widths] = ((64, 64), (128, 128), (192, 192), (256, 256))
    down: tuple[int, int, int] = (128, 192, 256)
    neck: tuple[Widths, Widths, Widths, Widths] = ((192, 192), (128, 128), (192, 192), (256, 256))
    neck_down: tuple[int, int] = (96, 128)
    pooled: int = 128  # inside the spatial pyramid
    repeats: int = 3
    split_down: bool = False  # ADown: half of the channels are halved by a maximum


def rep_bottleneck(net: Net, x: Tensor) -> Tensor:
    at, width = net / "cv1", x.shape[1]
    y = add(at, linear_conv(at / "conv1", x, width, 3), linear_conv(at / "conv2", x, width))
    return add(net, x, conv(net / "cv2", silu(at / "act", y), width, 3))


def elan(net: Net, x: Tensor, widths: Widths, cfg: Config, nested: bool = True) -> Tensor:
    """RepNCSPELAN4, or ELAN1 where nothing is nested."""
    out, width = widths
    found = split(net, conv(net / "cv1", x, width), (width // 2, width // 2))
    for name in ("cv2", "cv3"):
        at, y = net / name, found[-1]
        if nested:
            y = conv(at / 1, csp(at / 0, y, width // 2, [rep_bottleneck] * cfg.repeats), width // 2, 3)
        else:
            y = conv(at, y, width // 2, 3)
        found.append(y)
    return conv(net / "cv4", concat(net, found), out)


def halved(net: Net, x: Tensor, out: int, cfg: Config) -> Tensor:
    """AConv or ADown."""
    x = avg_pool(net.functional, x, 2, 1)
    if not cfg.split_down:
        return conv(net / "cv1", x, out, 3, 2)
    first, second = split(net, x, (x.shape[1] // 2, x.shape[1] // 2))
    second = conv(net / "cv2", max_pool(net.functional, second, 3, 2, pad=1), out // 2)
    return net.tap(concat(net, [conv(net / "cv1", first, out // 2, 3, 2), second]))


def sppelan(net: Net, x: Tensor, out: int, width: int) -> Tensor:
    found = [conv(net / "cv1", x, width)]
    for i in (2, 3, 4):
        found.append(max_pool(net / f"cv{i}", found[-1], 5, 1, pad=2))
    return conv(net / "cv5", concat(net, found), out)


def neck(net: Net, levels: list[Tensor], place: int, cfg: Config) -> list[Tensor]:
    """Maps of strides 8, 16 and 32, in both directions across the levels; its first module is `model.PLACE`."""
    at = [net / "model" / (place + i) for i in range(12)]
    p3, p4, p5 = levels
    p4 = elan(at[2], join(at[1], upsample(at[0], p5, 2), p4), cfg.neck[0], cfg)
    p3 = elan(at[5], join(at[4], upsample(at[3], p4, 2), p3), cfg.neck[1], cfg)
    p4 = elan(at[8], join(at[7], halved(at[6], p3, cfg.neck_down[0], cfg), p4), cfg.neck[2], cfg)
    p5 = elan(at[11], join(at[10], halved(at[9], p4, cfg.neck_down[1], cfg), p5), cfg.neck[3], cfg)
    return [p3, p4, p5]


def configured_by(stem: int, head: int) -> Callable[[Weights, Config], Config]:
    """A `configure` that reads the classes and bins of the head at `model.HEAD`.

    The widths of the first convolution, `model.STEM`, and of the second stage must be those of the model's name.
    """

    def configure(weights: Weights, cfg: Config) -> Config:
        first, stage = f"model.{stem}.bn.weight", f"model.{stem + 4}.cv4.bn.weight"
        if first in weights and stage in weights:
            found, wanted = (weights.size(first), weights.size(stage)), (cfg.stem, cfg.stages[1][0])
            if found != wanted:
                raise ZooError(
                    f"{weights.name} is {found} channels wide in model.{stem} and model.{stem + 4}, "
                    f"the definition {wanted}"
                )
        return with_head(weights, cfg, head)

    return configure
