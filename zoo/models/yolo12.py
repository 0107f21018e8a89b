"""YOLO12 (Tian, Ye, Doermann 2025, arXiv:2502.12524; ultralytics/cfg/models/12/yolo12.yaml, -pose, -seg,
-obb and -cls).

What people get wrong: areas are runs of positions in reading order; the feed-forward network widens twofold, but
1.2-fold in the two largest sizes, which alone scale their residuals by a learned gamma. Scopes are ultralytics'.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.yolo import c3k, c3k2, conv, join
from zoo.blocks.yolo_attention import feed_forward, strip_attention
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
from zoo.ops import add, concat, mul, open_size, upsample
from zoo.preprocess import Resize, letterbox
from zoo.registry import Variant, register

PAPER = "arXiv:2502.12524"


@dataclass(frozen=True)
class Config(DetectConfig):
    nested: bool = False  # C3k in every C3k2
    large: bool = False  # gamma, and a narrower feed-forward network


def area_block(net: Net, x: Tensor, areas: int, ratio: float) -> Tensor:
    width = x.shape[1]
    x = add(net, x, strip_attention(net / "attn", x, width // 32, areas))
    return net.tap(add(net, x, feed_forward(net / "mlp", x, int(width * ratio))))


def a2c2f(net: Net, x: Tensor, out: int, repeats: int, areas: int, cfg: Config) -> Tensor:
    """R-ELAN: pairs of area attention (`areas`), or C3k where there are none; every result reaches the last one."""
    found = [conv(net / "cv1", x, out // 2)]
    for i in range(repeats):
        at, y = net / "m" / i, found[-1]
        if areas:
            for j in range(2):
                y = area_block(at / j, y, areas, 1.2 if cfg.large else 2.0)
        else:
            y = c3k(at, y, out // 2)
        found.append(y)
    y = conv(net / "cv2", concat(net, found), out)
    if areas and cfg.large:
        gamma = net.constant(net.weight("gamma", out).reshape(1, out, 1, 1), "gamma")
        y = net.tap(add(net, x, mul(net, y, gamma)))
    return y


def trunk(net: Net, x: Tensor, cfg: Config) -> list[Tensor]:
    """Maps of strides 8, 16 and 32."""
    at, c, n = net / "model", cfg.channels, cfg.repeats
    x = conv(at / 1, conv(at / 0, x, c(64), 3, 2), c(128), 3, 2)
    x = c3k2(at / 2, x, c(256), n(2), cfg.nested, share=0.25)
    p3 = c3k2(at / 4, conv(at / 3, x, c(256), 3, 2), c(512), n(2), cfg.nested, share=0.25)  # stride 8
    p4 = a2c2f(at / 6, conv(at / 5, p3, c(512), 3, 2), c(512), n(4), 4, cfg)  # stride 16
    p5 = a2c2f(at / 8, conv(at / 7, p4, c(1024), 3, 2), c(1024), n(4), 1, cfg)  # stride 32
    return [p3, p4, p5]


def pyramid(net: Net, x: Tensor, cfg: Config) -> list[Tensor]:
    """The same maps after the neck."""
    at, c, n = net / "model", cfg.channels, cfg.repeats(2)
    p3, p4, p5 = trunk(net, x, cfg)
    p4 = a2c2f(at / 11, join(at / 10, upsample(at / 9, p5, 2), p4), c(512), n, 0, cfg)
    p3 = a2c2f(at / 14, join(at / 13, upsample(at / 12, p4, 2), p3), c(256), n, 0, cfg)
    p4 = a2c2f(at / 17, join(at / 16, conv(at / 15, p3, c(256), 3, 2), p4), c(512), n, 0, cfg)
    return [p3, p4, c3k2(at / 20, join(at / 19, conv(at / 18, p4, c(512), 3, 2), p5), c(1024), n, nested=True)]


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper=PAPER,
    configure=configured_by(21, repeats=2),
    # parameters: the comments of upstream's yolo12.yaml; they count the 16 constants of the box distribution
    yolo12n=Variant(Config(0.50, 0.25), params=2_602_288, aliases=("yolo12",)),
    yolo12s=Variant(Config(0.50, 0.50), params=9_284_096),
    yolo12m=Variant(Config(0.50, 1.00, 512, nested=True), params=20_199_168),
    yolo12l=Variant(Config(1.00, 1.00, 512, nested=True, large=True), params=26_450_784),
    yolo12x=Variant(Config(1.00, 1.50, 512, nested=True, large=True), params=59_210_784),
)
def detector(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    return detect(net / "model" / 21, pyramid(net, x, cfg), size, cfg, separable)


@register(
    task="pose",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper=PAPER,
    configure=configured_by(21, repeats=2),
    # parameters: as ultralytics 8.4 counts its own models
    yolo12n_pose=Variant(Config(0.50, 0.25, **PERSON), params=2_852_670),
    yolo12s_pose=Variant(Config(0.50, 0.50, **PERSON), params=9_743_582),
    yolo12m_pose=Variant(Config(0.50, 1.00, 512, **PERSON, nested=True), params=20_996_844),
    yolo12l_pose=Variant(Config(1.00, 1.00, 512, **PERSON, nested=True, large=True), params=27_248_460),
    yolo12x_pose=Variant(Config(1.00, 1.50, 512, **PERSON, nested=True, large=True), params=61_043_244),
)
def poser(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, head, levels = open_size(net, x, 32), net / "model" / 21, pyramid(net, x, cfg)
    return {**detect(head, levels, size, cfg, separable), "keypoints": keypoints(head, levels, size, cfg)}


@register(
    task="obb",
    reference="ultralytics:{name}",
    preprocess=letterbox(1024),
    paper=PAPER,
    configure=configured_by(21, repeats=2),
    # parameters: as ultralytics 8.4 counts its own models of 15 classes
    yolo12n_obb=Variant(Config(0.50, 0.25, **DOTA), params=2_642_640),
    yolo12s_obb=Variant(Config(0.50, 0.50, **DOTA), params=9_545_120),
    yolo12m_obb=Variant(Config(0.50, 1.00, 512, **DOTA, nested=True), params=20_997_888),
    yolo12l_obb=Variant(Config(1.00, 1.00, 512, **DOTA, nested=True, large=True), params=27_249_504),
    yolo12x_obb=Variant(Config(1.00, 1.50, 512, **DOTA, nested=True, large=True), params=61_044_864),
)
def turned_detector(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, levels = open_size(net, x, 32), pyramid(net, x, cfg)
    return turned(net / "model" / 21, levels, size, cfg, separable, angle_of)


@register(
    task="instances",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper=PAPER,
    configure=configured_by(21, repeats=2),
    # parameters: the comments of upstream's yaml, which count the 16 constants of the box distribution
    yolo12n_seg=Variant(Config(0.50, 0.25, **MASKS), params=2_855_056),
    yolo12s_seg=Variant(Config(0.50, 0.50, **MASKS), params=9_938_592),
    yolo12m_seg=Variant(Config(0.50, 1.00, 512, **MASKS, nested=True), params=22_505_376),
    yolo12l_seg=Variant(Config(1.00, 1.00, 512, **MASKS, nested=True, large=True), params=28_756_992),
    yolo12x_seg=Variant(Config(1.00, 1.50, 512, **MASKS, nested=True, large=True), params=64_387_264),
)
def segmenter(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, head, levels = open_size(net, x, 32), net / "model" / 21, pyramid(net, x, cfg)
    maps = prototypes(head / "proto", levels[0], cfg.channels(256), cfg.extra)
    return instances(head, levels, size, cfg, separable, maps)


@register(
    task="classify",
    reference="ultralytics:{name}",
    preprocess=Resize(224, "crop", 224, stride=32),
    paper=PAPER,
    configure=classified_by(9, repeats=2),
    # parameters: as ultralytics 8.4 counts its own models of 1000 classes
    yolo12n_cls=Variant(Config(0.50, 0.25, num_classes=1000), params=2_999_496),
    yolo12s_cls=Variant(Config(0.50, 0.50, num_classes=1000), params=7_385_512),
    yolo12m_cls=Variant(Config(0.50, 1.00, 512, num_classes=1000, nested=True), params=13_261_608),
    yolo12l_cls=Variant(Config(1.00, 1.00, 512, num_classes=1000, nested=True, large=True), params=16_737_160),
    yolo12x_cls=Variant(Config(1.00, 1.50, 512, num_classes=1000, nested=True, large=True), params=35_351_112),
)
def classifier(net: Net, x: Tensor, cfg: Config) -> Tensor:
    open_size(net, x, 32)  # so that areas divide the cells
    net = net.having(eps=1e-5)
    return classify(net / "model" / 9, trunk(net, x, cfg)[-1], cfg.num_classes)
