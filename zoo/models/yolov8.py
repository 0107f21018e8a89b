"""YOLOv8 detection (Jocher, Chaurasia, Qiu 2023; no paper; ultralytics/cfg/models/v8/yolov8.yaml).

What people get wrong: BatchNorm's eps is 1e-3; the three larger sizes cap their channels (768, 512, 512) before scaling
them; the bottlenecks of the neck have no shortcut. Scopes are ultralytics'.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zoo.blocks.yolo import Scale, boxes_around, c2f, check_scale, conv, distances, join, sppf
from zoo.network import Net, Tensor
from zoo.ops import concat, conv2d, fixed_size, reshape, sigmoid, upsample
from zoo.preprocess import letterbox
from zoo.registry import Variant, register
from zoo.weights import Weights


@dataclass(frozen=True)
class Config(Scale):
    num_classes: int = 80
    reg_max: int = 16  # bins of the distribution that stands for a distance


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

    boxes = boxes_around(net, distances(net / "dfl", logits, cfg.reg_max), size, levels)
    return {"boxes": boxes, "scores": scores}


def configure(weights: Weights, cfg: Config) -> Config:
    """The classes and bins that the weights have; their width and depth must be those of the model's name."""
    check_scale(weights, cfg)
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
