"""YOLO11 (Jocher and Qiu 2024; no paper; ultralytics/cfg/models/11/yolo11.yaml, -pose, -seg, -obb and -cls).

What people get wrong: the three larger sizes nest C3k in every C3k2, whatever the yaml says; query, key and value lie
side by side for each head; the classes' branch is separable. YOLO26's classifiers are YOLO11's with other weights.
Scopes are ultralytics'.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.yolo import c3k2, conv, join, sppf
from zoo.blocks.yolo_attention import c2psa
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
    prototypes,
    separable,
    turned,
)
from zoo.network import Net, Tensor
from zoo.ops import open_size, upsample
from zoo.preprocess import Resize, letterbox
from zoo.registry import Variant, register

PAPER = "https://docs.ultralytics.com/models/yolo11"


@dataclass(frozen=True)
class Config(DetectConfig):
    nested: bool = False  # C3k in every C3k2


def trunk(net: Net, x: Tensor, cfg: Config) -> list[Tensor]:
    """Maps of strides 8, 16 and 32, the last one before any pooling of spatial pyramids."""
    at, c, n, small = net / "model", cfg.channels, cfg.repeats(2), cfg.nested
    x = conv(at / 1, conv(at / 0, x, c(64), 3, 2), c(128), 3, 2)
    x = c3k2(at / 2, x, c(256), n, small, share=0.25)
    p3 = c3k2(at / 4, conv(at / 3, x, c(256), 3, 2), c(512), n, small, share=0.25)  # stride 8
    p4 = c3k2(at / 6, conv(at / 5, p3, c(512), 3, 2), c(512), n, nested=True)  # stride 16
    p5 = c3k2(at / 8, conv(at / 7, p4, c(1024), 3, 2), c(1024), n, nested=True)  # stride 32
    return [p3, p4, p5]


def pyramid(net: Net, x: Tensor, cfg: Config) -> list[Tensor]:
    """The same maps after the neck."""
    at, c, n, small = net / "model", cfg.channels, cfg.repeats(2), cfg.nested
    p3, p4, p5 = trunk(net, x, cfg)
    p5 = c2psa(at / 10, sppf(at / 9, p5, c(1024)), n)

    x = join(at / 12, upsample(at / 11, p5, 2), p4)
    p4 = c3k2(at / 13, x, c(512), n, small)
    x = join(at / 15, upsample(at / 14, p4, 2), p3)
    p3 = c3k2(at / 16, x, c(256), n, small)
    x = join(at / 18, conv(at / 17, p3, c(256), 3, 2), p4)
    p4 = c3k2(at / 19, x, c(512), n, small)
    x = join(at / 21, conv(at / 20, p4, c(512), 3, 2), p5)
    p5 = c3k2(at / 22, x, c(1024), n, nested=True)
    return [p3, p4, p5]


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper=PAPER,
    configure=configured_by(23, repeats=2),
    # parameters: the comments of upstream's yolo11.yaml, which count the 16 constants of the box distribution
    yolo11n=Variant(Config(0.50, 0.25), params=2_624_080, aliases=("yolo11",)),
    yolo11s=Variant(Config(0.50, 0.50), params=9_458_752),
    yolo11m=Variant(Config(0.50, 1.00, 512, nested=True), params=20_114_688),
    yolo11l=Variant(Config(1.00, 1.00, 512, nested=True), params=25_372_160),
    yolo11x=Variant(Config(1.00, 1.50, 512, nested=True), params=56_966_176),
)
def detector(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    return detect(net / "model" / 23, pyramid(net, x, cfg), size, cfg, separable)


@register(
    task="pose",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper=PAPER,
    configure=configured_by(23, repeats=2),
    # parameters: as ultralytics 8.4 counts its own models
    yolo11n_pose=Variant(Config(0.50, 0.25, **PERSON), params=2_874_462),
    yolo11s_pose=Variant(Config(0.50, 0.50, **PERSON), params=9_918_238),
    yolo11m_pose=Variant(Config(0.50, 1.00, 512, **PERSON, nested=True), params=20_912_364),
    yolo11l_pose=Variant(Config(1.00, 1.00, 512, **PERSON, nested=True), params=26_169_836),
    yolo11x_pose=Variant(Config(1.00, 1.50, 512, **PERSON, nested=True), params=58_798_636),
)
def poser(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, head, levels = open_size(net, x, 32), net / "model" / 23, pyramid(net, x, cfg)
    return {**detect(head, levels, size, cfg, separable), "keypoints": keypoints(head, levels, size, cfg)}


@register(
    task="instances",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper=PAPER,
    configure=configured_by(23, repeats=2),
    # parameters: as ultralytics 8.4 counts its own models, the 16 constants of the box distribution included
    yolo11n_seg=Variant(Config(0.50, 0.25, **MASKS), params=2_876_848),
    yolo11s_seg=Variant(Config(0.50, 0.50, **MASKS), params=10_113_248),
    yolo11m_seg=Variant(Config(0.50, 1.00, 512, **MASKS, nested=True), params=22_420_896),
    yolo11l_seg=Variant(Config(1.00, 1.00, 512, **MASKS, nested=True), params=27_678_368),
    yolo11x_seg=Variant(Config(1.00, 1.50, 512, **MASKS, nested=True), params=62_142_656),
)
def segmenter(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, head, levels = open_size(net, x, 32), net / "model" / 23, pyramid(net, x, cfg)
    maps = prototypes(head / "proto", levels[0], cfg.channels(256), cfg.extra)
    return instances(head, levels, size, cfg, separable, maps)


@register(
    task="obb",
    reference="ultralytics:{name}",
    preprocess=letterbox(1024),
    paper=PAPER,
    configure=configured_by(23, repeats=2),
    # parameters: as ultralytics 8.4 counts its own models of 15 classes
    yolo11n_obb=Variant(Config(0.50, 0.25, **DOTA), params=2_664_432),
    yolo11s_obb=Variant(Config(0.50, 0.50, **DOTA), params=9_719_776),
    yolo11m_obb=Variant(Config(0.50, 1.00, 512, **DOTA, nested=True), params=20_913_408),
    yolo11l_obb=Variant(Config(1.00, 1.00, 512, **DOTA, nested=True), params=26_170_880),
    yolo11x_obb=Variant(Config(1.00, 1.50, 512, **DOTA, nested=True), params=58_800_256),
)
def turned_detector(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, levels = open_size(net, x, 32), pyramid(net, x, cfg)
    return turned(net / "model" / 23, levels, size, cfg, separable, angle_of)


@register(
    task="classify",
    reference="ultralytics:{name}",
    preprocess=Resize(224, "crop", 224),
    paper=PAPER,
    configure=classified_by(10, repeats=2),
    # parameters: as ultralytics 8.4 counts its own models of 1000 classes
    yolo11n_cls=Variant(Config(0.50, 0.25, num_classes=1000), params=2_812_104),
    yolo11s_cls=Variant(Config(0.50, 0.50, num_classes=1000), params=6_724_008),
    yolo11m_cls=Variant(Config(0.50, 1.00, 512, num_classes=1000, nested=True), params=11_634_216),
    yolo11l_cls=Variant(Config(1.00, 1.00, 512, num_classes=1000, nested=True), params=14_115_624),
    yolo11x_cls=Variant(Config(1.00, 1.50, 512, num_classes=1000, nested=True), params=29_637_064),
    yolo26n_cls=Variant(Config(0.50, 0.25, num_classes=1000), params=2_812_104),
    yolo26s_cls=Variant(Config(0.50, 0.50, num_classes=1000), params=6_724_008),
    yolo26m_cls=Variant(Config(0.50, 1.00, 512, num_classes=1000, nested=True), params=11_634_216),
    yolo26l_cls=Variant(Config(1.00, 1.00, 512, num_classes=1000, nested=True), params=14_115_624),
    yolo26x_cls=Variant(Config(1.00, 1.50, 512, num_classes=1000, nested=True), params=29_637_064),
)
def classifier(net: Net, x: Tensor, cfg: Config) -> Tensor:
    net = net.having(eps=1e-5)
    x = c2psa(net / "model" / 9, trunk(net, x, cfg)[-1], cfg.repeats(2))
    return classify(net / "model" / 10, x, cfg.num_classes)
