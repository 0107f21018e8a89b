"""YOLOv5, v6.0 to v7.0 (Jocher 2020; no paper; models/yolov5s.yaml of github.com/ultralytics/yolov5).

The original, with anchor boxes and an objectness score. What people get wrong: BatchNorm's eps is 1e-3; the first
convolution is 6x6 with padding 2; the anchors are part of the weights, in cells; prototypes of masks are enlarged by
repeating pixels, and not learned as from YOLOv8 on. Scopes are upstream's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zoo.blocks.yolo import STRIDE, Scale, check_scale, conv
from zoo.blocks.yolo_anchors import ANCHORS, anchored, values_first
from zoo.blocks.yolo_v5 import large_pyramid, pyramid
from zoo.network import Net, Tensor
from zoo.ops import conv2d, open_size, upsample
from zoo.ops._sizes import Size
from zoo.preprocess import letterbox
from zoo.registry import Configure, Variant, register
from zoo.weights import Weights


@dataclass(frozen=True)
class Config(Scale):
    num_classes: int = 80
    masks: int = 0  # prototypes of masks


def detect(net: Net, levels: list[Tensor], size: tuple[Size, Size], cfg: Config) -> dict[str, Tensor]:
    """What `anchored` gives; where there are masks also coefficients (N, masks, A)."""
    values = 5 + cfg.num_classes + cfg.masks
    found = [conv2d(net / "m" / i, x, ANCHORS * values, 1, order=values_first(values)) for i, x in enumerate(levels)]
    anchors = net.buffer("anchors", len(levels), ANCHORS, 2)[..., None] * np.array(STRIDE)  # they are in cells
    outputs, more = anchored(net, found, anchors, size, cfg.num_classes)
    return {**outputs, "coefficients": more} if cfg.masks else outputs


def prototypes(net: Net, x: Tensor, width: int, out: int) -> Tensor:
    """(N, C, H, W) -> (N, out, 2H, 2W)."""
    x = upsample(net / "upsample", conv(net / "cv1", x, width, 3), 2)
    return net.tap(conv(net / "cv3", conv(net / "cv2", x, width, 3), out))


def configured_by(head: int) -> Configure:
    """A `configure` for a head at `model.HEAD`: its classes and prototypes. Width and depth must be those of the
    model's name.
    """

    def configure(weights: Weights, cfg: Config) -> Config:
        check_scale(weights, cfg)
        bias, last = f"model.{head}.m.0.bias", f"model.{head}.proto.cv3.bn.weight"
        if cfg.masks and last in weights:
            cfg = replace(cfg, masks=weights.size(last))
        return replace(cfg, num_classes=weights.size(bias) // ANCHORS - 5 - cfg.masks) if bias in weights else cfg

    return configure


@register(
    task="detect",
    reference="yolov5:{name}",
    preprocess=letterbox(),
    paper="https://github.com/ultralytics/yolov5",
    configure=configured_by(24),
    ignored=("model.24.anchor_grid", "model.24.strides"),  # the anchors again, in pixels, from older exporters
    options={"iou": 0.45},
    # parameters: the summaries that upstream's train.py prints (v7.0, 80 classes)
    yolov5n=Variant(Config(depth=0.33, width=0.25), params=1_872_157),
    yolov5s=Variant(Config(depth=0.33, width=0.50), params=7_235_389, aliases=("yolov5",)),
    yolov5m=Variant(Config(depth=0.67, width=0.75), params=21_190_557),
    yolov5l=Variant(Config(depth=1.00, width=1.00), params=46_563_709),
    yolov5x=Variant(Config(depth=1.33, width=1.25), params=86_749_405),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    return detect(net / "model" / 24, pyramid(net, x, cfg), size, cfg)


@register(
    task="detect",
    reference="yolov5:{name}",
    preprocess=letterbox(1280, stride=64),
    paper="https://github.com/ultralytics/yolov5",
    configure=configured_by(33),
    ignored=("model.33.anchor_grid", "model.33.strides"),
    options={"iou": 0.45},
    # parameters: as the package counts its own models (v7.0, 80 classes)
    yolov5n6=Variant(Config(0.33, 0.25), params=3_246_940),
    yolov5s6=Variant(Config(0.33, 0.50), params=12_626_620),
    yolov5m6=Variant(Config(0.67, 0.75), params=35_731_932),
    yolov5l6=Variant(Config(1.00, 1.00), params=76_770_172),
    yolov5x6=Variant(Config(1.33, 1.25), params=140_794_780),
)
def build_p6(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = open_size(net, x, 64)
    return detect(net / "model" / 33, large_pyramid(net, x, cfg), size, cfg)


@register(
    task="instances",
    reference="yolov5:{name}",
    preprocess=letterbox(),
    paper="https://github.com/ultralytics/yolov5",
    configure=configured_by(24),
    options={"iou": 0.45},
    # parameters: as the package counts its own models (v7.0, 80 classes)
    yolov5n_seg=Variant(Config(0.33, 0.25, masks=32), params=1_991_549),
    yolov5s_seg=Variant(Config(0.33, 0.50, masks=32), params=7_621_277),
    yolov5m_seg=Variant(Config(0.67, 0.75, masks=32), params=21_990_397),
    yolov5l_seg=Variant(Config(1.00, 1.00, masks=32), params=47_924_957),
    yolov5x_seg=Variant(Config(1.33, 1.25, masks=32), params=88_819_517),
)
def segmenter(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, head, levels = open_size(net, x, 32), net / "model" / 24, pyramid(net, x, cfg)
    maps = prototypes(head / "proto", levels[0], cfg.channels(256), cfg.masks)
    return {**detect(head, levels, size, cfg), "prototypes": maps}
