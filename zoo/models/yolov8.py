"""YOLOv8 detection (Jocher, Chaurasia, Qiu 2023; no paper; ultralytics/cfg/models/v8/yolov8.yaml).

What people get wrong: BatchNorm's eps is 1e-3; the three larger sizes cap their channels (768, 512, 512) before scaling
them; the bottlenecks of the neck have no shortcut. Scopes are ultralytics'.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    concat,
    conv2d,
    conv2d_each,
    conv_bn,
    fixed_size,
    max_pool,
    mul,
    narrow,
    reshape,
    sigmoid,
    silu,
    softmax,
    split,
    sub,
    upsample,
)
from zoo.preprocess import letterbox
from zoo.registry import Variant, register
from zoo.weights import Weights


@dataclass(frozen=True)
class Config:
    depth: float
    width: float
    max_channels: int
    num_classes: int = 80
    reg_max: int = 16  # bins of the distribution that stands for a distance

    def channels(self, n: int) -> int:
        """`n` capped, scaled, and rounded up to a multiple of 8."""
        return int(-(-min(n, self.max_channels) * self.width // 8) * 8)

    def repeats(self, n: int) -> int:
        return max(round(n * self.depth), 1)


def conv(net: Net, x: Tensor, out: int, k: int = 1, stride: int = 1) -> Tensor:
    return silu(net / "act", conv_bn(net, x, out, k, stride, eps=1e-3))


def bottleneck(net: Net, x: Tensor, shortcut: bool) -> Tensor:
    y = conv(net / "cv2", conv(net / "cv1", x, x.shape[1], 3), x.shape[1], 3)
    return add(net, x, y) if shortcut else y


def c2f(net: Net, x: Tensor, out: int, repeats: int, shortcut: bool = False) -> Tensor:
    """Half of the channels pass `repeats` bottlenecks, and every intermediate result reaches the last convolution."""
    x = conv(net / "cv1", x, out)
    found, y = [x], narrow(net, x, axis=1, start=out // 2, size=out // 2)
    for i in range(repeats):
        y = bottleneck(net / "m" / i, y, shortcut)
        found.append(y)
    return conv(net / "cv2", concat(net, found), out)


def sppf(net: Net, x: Tensor, out: int) -> Tensor:
    """Spatial pyramid pooling: three 5x5 poolings in a row see 5, 9 and 13 cells."""
    found = [conv(net / "cv1", x, x.shape[1] // 2)]
    for _ in range(3):
        found.append(max_pool(net / "m", found[-1], 5, 1, pad=2))
    return conv(net / "cv2", concat(net, found), out)


def join(net: Net, x: Tensor, skip: Tensor) -> Tensor:
    return net.tap(concat(net, [x, skip]))


def distances(net: Net, levels: list[Tensor], bins: int) -> Tensor:
    """Logits (N, 4 * bins, H, W) of each level -> (N, 4, A): the mean of each distribution over 0 … bins - 1."""
    means, at = [], (net / "conv").fp32
    for x in levels:
        height, width = x.shape[2:]
        x = softmax(net.functional, reshape(net, x, (0, 4, bins, -1)), axis=2)
        x = conv2d_each(at, reshape(net, x, (0, 4 * bins, height, width)), groups=4)
        means.append(reshape(at, x, (0, 4, -1)))
    mean = concat(at, means, axis=2)
    mean = at.tap(reshape(at, mean, (0, 1, 4, mean.shape[2])))
    return net.tap(reshape(at, mean, (0, 4, mean.shape[3])))


def cells(size: tuple[int, int], levels: list[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Centres (2, A) as x, y and strides (A,) of all cells of the levels, in pixels of an input of `size` (H, W)."""
    centres, strides = [], []
    for height, width in (level.shape[2:] for level in levels):
        y, x = np.mgrid[:height, :width].reshape(2, -1) + 0.5
        centres.append(np.stack([x * size[1] / width, y * size[0] / height]))
        strides.append(np.full(height * width, size[0] / height))
    return np.concatenate(centres, axis=1), np.concatenate(strides)


def branch(net: Net, levels: list[Tensor], width: int, out: int) -> list[Tensor]:
    """Three convolutions on each level: (N, out, H, W)."""
    found = []
    for i, x in enumerate(levels):
        x = conv(net / i / 1, conv(net / i / 0, x, width, 3), width, 3)
        found.append(conv2d(net / i / 2, x, out, 1))
    return found


def detect(net: Net, levels: list[Tensor], size: tuple[int, int], cfg: Config) -> dict[str, Tensor]:
    """Boxes (N, 4, A) as cx, cy, w, h in pixels and scores (N, classes, A)."""
    first = levels[0].shape[1]
    logits = branch(net / "cv2", levels, max(16, first // 4, 4 * cfg.reg_max), 4 * cfg.reg_max)
    classes = branch(net / "cv3", levels, max(first, min(cfg.num_classes, 100)), cfg.num_classes)
    scores = [sigmoid(net.functional, x) for x in classes]  # here it fuses into the convolution
    scores = concat(net, [reshape(net, x, (0, cfg.num_classes, -1)) for x in scores], axis=2)

    at = net.fp32  # beyond 512 pixels half precision counts in halves
    left_top, right_bottom = split(at, distances(net / "dfl", logits, cfg.reg_max), (2, 2))
    boxes = concat(at, [sub(at, right_bottom, left_top), add(at, right_bottom, left_top)])
    centres, strides = cells(size, levels)
    scale = at.constant(np.stack([strides / 2] * 2 + [strides] * 2)[None], "scale")
    offset = at.constant(np.concatenate([centres, np.zeros_like(centres)])[None], "offset")
    return {"boxes": add(at, mul(at, boxes, scale), offset), "scores": scores}


def configure(weights: Weights, cfg: Config) -> Config:
    """The classes and bins that the weights have; their width and depth must be those of the model's name."""
    if "model.0.bn.weight" not in weights:
        return cfg  # of another architecture: the definition says what is missing
    width = weights.size("model.0.bn.weight")
    depth = sum(f"model.2.m.{i}.cv1.bn.weight" in weights for i in range(99))
    if (width, depth) != (cfg.channels(64), cfg.repeats(3)):
        raise ZooError(
            f"{weights.name} is {width} channels wide in model.0 and {depth} deep in model.2, "
            f"the definition {cfg.channels(64)} and {cfg.repeats(3)}"
        )
    found = {"num_classes": "model.22.cv3.0.2.bias", "reg_max": "model.22.dfl.conv.weight"}
    return replace(cfg, **{field: weights.size(name) for field, name in found.items() if name in weights})


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper="https://docs.ultralytics.com/models/yolov8",
    configure=configure,
    # parameters: the comments of upstream's yolov8.yaml, which count the 16 constants of the box distribution
    yolov8n=Variant(Config(depth=0.33, width=0.25, max_channels=1024), params=3_157_200, aliases=("yolov8",)),
    yolov8s=Variant(Config(depth=0.33, width=0.50, max_channels=1024), params=11_166_560),
    yolov8m=Variant(Config(depth=0.67, width=0.75, max_channels=768), params=25_902_640),
    yolov8l=Variant(Config(depth=1.00, width=1.00, max_channels=512), params=43_691_520),
    yolov8x=Variant(Config(depth=1.00, width=1.25, max_channels=512), params=68_229_648),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = fixed_size(net, x, 32)
    at, c, n = net / "model", cfg.channels, cfg.repeats
    x = conv(at / 0, x, c(64), 3, 2)
    x = conv(at / 1, x, c(128), 3, 2)
    x = c2f(at / 2, x, c(128), n(3), shortcut=True)
    x = conv(at / 3, x, c(256), 3, 2)
    p3 = c2f(at / 4, x, c(256), n(6), shortcut=True)  # stride 8
    x = conv(at / 5, p3, c(512), 3, 2)
    p4 = c2f(at / 6, x, c(512), n(6), shortcut=True)  # stride 16
    x = conv(at / 7, p4, c(1024), 3, 2)
    x = c2f(at / 8, x, c(1024), n(3), shortcut=True)
    p5 = sppf(at / 9, x, c(1024))  # stride 32

    x = join(at / 11, upsample(at / 10, p5, 2), p4)
    p4 = c2f(at / 12, x, c(512), n(3))
    x = join(at / 14, upsample(at / 13, p4, 2), p3)
    p3 = c2f(at / 15, x, c(256), n(3))
    x = join(at / 17, conv(at / 16, p3, c(256), 3, 2), p4)
    p4 = c2f(at / 18, x, c(512), n(3))
    x = join(at / 20, conv(at / 19, p4, c(512), 3, 2), p5)
    p5 = c2f(at / 21, x, c(1024), n(3))
    return detect(at / 22, [p3, p4, p5], size, cfg)
