"""The heads of ultralytics' YOLOs from v8 on, anchor-free, and of their classifiers, with upstream's scopes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from zoo.blocks.yolo import Scale, boxes_around, check_scale, conv, distances
from zoo.network import Net, Tensor
from zoo.ops import concat, conv2d, flatten, global_avg_pool, linear, reshape, sigmoid
from zoo.weights import Weights

Branch = Callable[[Net, Tensor, int], Tensor]


@dataclass(frozen=True)
class Head:
    num_classes: int = 80
    reg_max: int = 16  # bins of the distribution that stands for a distance; 1: the distance itself


@dataclass(frozen=True)
class DetectConfig(Head, Scale):
    """A size that scales the depths and widths of its yaml."""


AnyHead = TypeVar("AnyHead", bound=Head)
AnyConfig = TypeVar("AnyConfig", bound=DetectConfig)


def plain(net: Net, x: Tensor, width: int) -> Tensor:
    """Two 3x3 convolutions."""
    return conv(net / 1, conv(net / 0, x, width, 3), width, 3)


def separable(net: Net, x: Tensor, width: int) -> Tensor:
    """Twice a 3x3 convolution of each channel and a 1x1 one across them."""
    for i in range(2):
        x = conv(net / i / 0, x, x.shape[1], 3, groups=x.shape[1])
        x = conv(net / i / 1, x, width)
    return x


def each_level(net: Net, levels: list[Tensor], branch: Branch, width: int, out: int) -> list[Tensor]:
    """The branch and a last 1x1 convolution on each level: (N, out, H, W)."""
    return [conv2d(net / i / 2, branch(net / i, x, width), out, 1) for i, x in enumerate(levels)]


def detect(
    net: Net, levels: list[Tensor], size: tuple[int, int], cfg: Head, branch: Branch, prefix: str = ""
) -> dict[str, Tensor]:
    """Boxes (N, 4, A) as cx, cy, w, h in pixels and scores (N, classes, A). `branch` is that of the classes."""
    first = levels[0].shape[1]
    width = max(16, first // 4, 4 * cfg.reg_max)
    sides = each_level(net / f"{prefix}cv2", levels, plain, width, 4 * cfg.reg_max)
    width = max(first, min(cfg.num_classes, 100))
    classes = each_level(net / f"{prefix}cv3", levels, branch, width, cfg.num_classes)
    scores = [sigmoid(net.functional, x) for x in classes]  # here it fuses into the convolution
    scores = concat(net, [reshape(net, x, (0, cfg.num_classes, -1)) for x in scores], axis=2)
    if cfg.reg_max > 1:
        far = distances(net / "dfl", sides, cfg.reg_max)
    else:
        far = concat(net.fp32, [reshape(net.fp32, x, (0, 4, -1)) for x in sides], axis=2)
    return {"boxes": boxes_around(net, far, size, levels), "scores": scores}


def classify(net: Net, x: Tensor, classes: int) -> Tensor:
    """Logits (N, classes)."""
    x = global_avg_pool(net / "pool", conv(net / "conv", x, 1280))
    return linear(net / "linear", flatten(net, x), classes)


def configured_by(head: int, repeats: int, prefix: str = "") -> Callable[[Weights, AnyConfig], AnyConfig]:
    """A `configure` for a head at `model.HEAD`: its classes and bins. Width and depth (the first stage has `repeats`
    blocks before scaling) must be those of the name."""

    def configure(weights: Weights, cfg: AnyConfig) -> AnyConfig:
        check_scale(weights, cfg, repeats)
        return with_head(weights, cfg, head, prefix)

    return configure


def classified_by(head: int, repeats: int) -> Callable[[Weights, AnyConfig], AnyConfig]:
    """The same for a classifier, which has nothing but classes."""

    def configure(weights: Weights, cfg: AnyConfig) -> AnyConfig:
        check_scale(weights, cfg, repeats)
        bias = f"model.{head}.linear.bias"
        return replace(cfg, num_classes=weights.size(bias)) if bias in weights else cfg

    return configure


def with_head(weights: Weights, cfg: AnyHead, head: int, prefix: str = "") -> AnyHead:
    """`cfg` with the classes and bins that `weights` have."""
    found = {"num_classes": f"model.{head}.{prefix}cv3.0.2.bias"}
    if cfg.reg_max > 1:
        found["reg_max"] = f"model.{head}.dfl.conv.weight"
    return replace(cfg, **{field: weights.size(name) for field, name in found.items() if name in weights})
