"""YOLOv5u detection (Jocher et al. 2023; no paper; ultralytics/cfg/models/v5/yolov5.yaml and -p6).

YOLOv5's trunk, v8's head. What people get wrong: these are the weights that ultralytics downloads for "yolov5n"; they
are not YOLOv5's. Scopes are ultralytics'.
"""

from __future__ import annotations

from zoo.blocks.yolo_head import DetectConfig, configured_by, detect, plain
from zoo.blocks.yolo_v5 import large_pyramid, pyramid
from zoo.network import Net, Tensor
from zoo.ops import open_size
from zoo.preprocess import letterbox
from zoo.registry import Variant, register


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper="https://docs.ultralytics.com/models/yolov5",
    configure=configured_by(24, repeats=3),
    # parameters: as ultralytics 8.4 counts its own models, the 16 constants of the box distribution included
    yolov5nu=Variant(DetectConfig(0.33, 0.25), params=2_654_816, aliases=("yolov5u",)),
    yolov5su=Variant(DetectConfig(0.33, 0.50), params=9_153_152),
    yolov5mu=Variant(DetectConfig(0.67, 0.75), params=25_111_456),
    yolov5lu=Variant(DetectConfig(1.00, 1.00), params=53_225_024),
    yolov5xu=Variant(DetectConfig(1.33, 1.25), params=97_276_448),
)
def build(net: Net, x: Tensor, cfg: DetectConfig) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    return detect(net / "model" / 24, pyramid(net, x, cfg), size, cfg, plain)


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(1280, stride=64),
    paper="https://docs.ultralytics.com/models/yolov5",
    configure=configured_by(33, repeats=3),
    # parameters: as ultralytics 8.4 counts its own models, the 16 constants of the box distribution included
    yolov5n6u=Variant(DetectConfig(0.33, 0.25), params=4_334_896),
    yolov5s6u=Variant(DetectConfig(0.33, 0.50), params=15_309_328),
    yolov5m6u=Variant(DetectConfig(0.67, 0.75), params=41_222_064),
    yolov5l6u=Variant(DetectConfig(1.00, 1.00), params=86_099_920),
    yolov5x6u=Variant(DetectConfig(1.33, 1.25), params=155_544_432),
)
def build_p6(net: Net, x: Tensor, cfg: DetectConfig) -> dict[str, Tensor]:
    size = open_size(net, x, 64)
    return detect(net / "model" / 33, large_pyramid(net, x, cfg), size, cfg, plain)
