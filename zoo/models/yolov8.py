"""YOLOv8 (Jocher, Chaurasia, Qiu 2023; no paper; ultralytics/cfg/models/v8/yolov8.yaml, -pose, -seg, -obb and -cls).

What people get wrong: BatchNorm's eps is 1e-3; the three larger sizes cap their channels (768, 512, 512) before scaling
them, but not in classifiers; the bottlenecks of the neck have no shortcut. Scopes are ultralytics'.
"""

from __future__ import annotations

from zoo.blocks.yolo_head import (
    DOTA,
    MASKS,
    PERSON,
    DetectConfig,
    angle_of,
    classified_by,
    classify,
    configured_by,
    detect,
    instances,
    keypoints,
    plain,
    prototypes,
    turned,
)
from zoo.blocks.yolo_v8 import pyramid, trunk
from zoo.network import Net, Tensor
from zoo.ops import open_size
from zoo.preprocess import Resize, letterbox
from zoo.registry import Variant, register

PAPER = "https://docs.ultralytics.com/models/yolov8"


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper=PAPER,
    configure=configured_by(22, repeats=3),
    # parameters: the comments of upstream's yolov8.yaml, which count the 16 constants of the box distribution
    yolov8n=Variant(DetectConfig(0.33, 0.25), params=3_157_200, aliases=("yolov8",)),
    yolov8s=Variant(DetectConfig(0.33, 0.50), params=11_166_560),
    yolov8m=Variant(DetectConfig(0.67, 0.75, 768), params=25_902_640),
    yolov8l=Variant(DetectConfig(1.00, 1.00, 512), params=43_691_520),
    yolov8x=Variant(DetectConfig(1.00, 1.25, 512), params=68_229_648),
)
def detector(net: Net, x: Tensor, cfg: DetectConfig) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    return detect(net / "model" / 22, pyramid(net, x, cfg), size, cfg, plain)


@register(
    task="pose",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper=PAPER,
    configure=configured_by(22, repeats=3),
    # parameters: as ultralytics 8.4 counts its own models
    yolov8n_pose=Variant(DetectConfig(0.33, 0.25, **PERSON), params=3_295_470),
    yolov8s_pose=Variant(DetectConfig(0.33, 0.50, **PERSON), params=11_626_046),
    yolov8m_pose=Variant(DetectConfig(0.67, 0.75, 768, **PERSON), params=26_464_462),
    yolov8l_pose=Variant(DetectConfig(1.00, 1.00, 512, **PERSON), params=44_489_196),
    yolov8x_pose=Variant(DetectConfig(1.00, 1.25, 512, **PERSON), params=69_491_724),
)
def poser(net: Net, x: Tensor, cfg: DetectConfig) -> dict[str, Tensor]:
    size, head, levels = open_size(net, x, 32), net / "model" / 22, pyramid(net, x, cfg)
    return {**detect(head, levels, size, cfg, plain), "keypoints": keypoints(head, levels, size, cfg)}


@register(
    task="instances",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper=PAPER,
    configure=configured_by(22, repeats=3),
    # parameters: as ultralytics 8.4 counts its own models, the 16 constants of the box distribution included
    yolov8n_seg=Variant(DetectConfig(0.33, 0.25, **MASKS), params=3_409_968),
    yolov8s_seg=Variant(DetectConfig(0.33, 0.50, **MASKS), params=11_821_056),
    yolov8m_seg=Variant(DetectConfig(0.67, 0.75, 768, **MASKS), params=27_285_968),
    yolov8l_seg=Variant(DetectConfig(1.00, 1.00, 512, **MASKS), params=45_997_728),
    yolov8x_seg=Variant(DetectConfig(1.00, 1.25, 512, **MASKS), params=71_827_888),
)
def segmenter(net: Net, x: Tensor, cfg: DetectConfig) -> dict[str, Tensor]:
    size, head, levels = open_size(net, x, 32), net / "model" / 22, pyramid(net, x, cfg)
    maps = prototypes(head / "proto", levels[0], cfg.channels(256), cfg.extra)
    return instances(head, levels, size, cfg, plain, maps)


@register(
    task="obb",
    reference="ultralytics:{name}",
    preprocess=letterbox(1024),
    paper=PAPER,
    configure=configured_by(22, repeats=3),
    # parameters: as ultralytics 8.4 counts its own models of 15 classes
    yolov8n_obb=Variant(DetectConfig(0.33, 0.25, **DOTA), params=3_085_440),
    yolov8s_obb=Variant(DetectConfig(0.33, 0.50, **DOTA), params=11_427_584),
    yolov8m_obb=Variant(DetectConfig(0.67, 0.75, 768, **DOTA), params=26_425_600),
    yolov8l_obb=Variant(DetectConfig(1.00, 1.00, 512, **DOTA), params=44_490_240),
    yolov8x_obb=Variant(DetectConfig(1.00, 1.25, 512, **DOTA), params=69_493_056),
)
def turned_detector(net: Net, x: Tensor, cfg: DetectConfig) -> dict[str, Tensor]:
    size, levels = open_size(net, x, 32), pyramid(net, x, cfg)
    return turned(net / "model" / 22, levels, size, cfg, plain, angle_of)


@register(
    task="classify",
    reference="ultralytics:{name}",
    preprocess=Resize(224, "crop", 224),
    paper=PAPER,
    configure=classified_by(9, repeats=3),
    # parameters: as ultralytics 8.4 counts its own models of 1000 classes
    yolov8n_cls=Variant(DetectConfig(0.33, 0.25, num_classes=1000), params=2_719_288),
    yolov8s_cls=Variant(DetectConfig(0.33, 0.50, num_classes=1000), params=6_361_736),
    yolov8m_cls=Variant(DetectConfig(0.67, 0.75, num_classes=1000), params=17_053_336),
    yolov8l_cls=Variant(DetectConfig(1.00, 1.00, num_classes=1000), params=37_480_744),
    yolov8x_cls=Variant(DetectConfig(1.00, 1.25, num_classes=1000), params=57_422_840),
)
def classifier(net: Net, x: Tensor, cfg: DetectConfig) -> Tensor:
    net = net.having(eps=1e-5)
    return classify(net / "model" / 9, trunk(net, x, cfg)[-1], cfg.num_classes)
