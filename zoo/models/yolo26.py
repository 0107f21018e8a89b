"""YOLO26 (Jocher and Qiu 2025; no paper; ultralytics/cfg/models/26/yolo26.yaml, -pose, -seg and -obb).

The head that needs no suppression: of its two heads only `one2one` is read, whose boxes are final; parameters are
counted without the other, which serves training. What people get wrong: there is no distribution, the four outputs are
the distances; nothing follows the first convolution of SPPF, which has a shortcut; the last stage holds attention.
Scopes are ultralytics'.
"""

from __future__ import annotations

from zoo.blocks.yolo import c3k2, conv, join
from zoo.blocks.yolo_26 import PAPER, PREFIX, Config, attended, for_training, sppf, trunk
from zoo.blocks.yolo_attention import c2psa
from zoo.blocks.yolo_head import (
    DOTA,
    MASKS,
    PERSON,
    configured_by,
    detect,
    instances,
    plain,
    points_around,
    prototypes,
    separable,
    turned,
)
from zoo.network import Net, Tensor
from zoo.ops import add, conv2d, open_size, upsample
from zoo.preprocess import letterbox
from zoo.registry import Variant, register

TRAINING = for_training(23)


def pyramid(net: Net, x: Tensor, cfg: Config) -> list[Tensor]:
    """Maps of strides 8, 16 and 32."""
    at, c, n = net / "model", cfg.channels, cfg.repeats(2)
    _, p3, p4, x = trunk(net, x, cfg)
    p5 = c2psa(at / 10, sppf(at / 9, x), n)
    p4 = c3k2(at / 13, join(at / 12, upsample(at / 11, p5, 2), p4), c(512), n, nested=True)
    p3 = c3k2(at / 16, join(at / 15, upsample(at / 14, p4, 2), p3), c(256), n, nested=True)
    p4 = c3k2(at / 19, join(at / 18, conv(at / 17, p3, c(256), 3, 2), p4), c(512), n, nested=True)
    p5 = attended(at / 22, join(at / 21, conv(at / 20, p4, c(512), 3, 2), p5), c(1024))
    return [p3, p4, p5]


@register(
    task="detect",
    options={"nms": False},
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper=PAPER,
    configure=configured_by(23, repeats=2, prefix=PREFIX),
    ignored=TRAINING,
    # parameters: as ultralytics 8.4 counts its own models without the head for training
    yolo26n=Variant(Config(0.50, 0.25), params=2_417_452, aliases=("yolo26",)),
    yolo26s=Variant(Config(0.50, 0.50), params=9_512_892),
    yolo26m=Variant(Config(0.50, 1.00, 512, nested=True), params=20_435_260),
    yolo26l=Variant(Config(1.00, 1.00, 512, nested=True), params=24_838_716),
    yolo26x=Variant(Config(1.00, 1.50, 512, nested=True), params=55_772_892),
)
def detector(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    return detect(net / "model" / 23, pyramid(net, x, cfg), size, cfg, separable, PREFIX)


@register(
    task="pose",
    options={"nms": False},
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper=PAPER,
    configure=configured_by(23, repeats=2, prefix=PREFIX, extra="cv4_kpts.0"),
    ignored=(*TRAINING, "model.23.cv4*", "model.23.one2one_cv4_sigma.*", "model.23.flow_model.*"),
    # parameters: as ultralytics 8.4 counts its own models without what serves training
    yolo26n_pose=Variant(Config(0.50, 0.25, **PERSON), params=2_935_380),
    yolo26s_pose=Variant(Config(0.50, 0.50, **PERSON), params=10_377_012),
    yolo26m_pose=Variant(Config(0.50, 1.00, 512, **PERSON, nested=True), params=21_562_804),
    yolo26l_pose=Variant(Config(1.00, 1.00, 512, **PERSON, nested=True), params=25_966_260),
    yolo26x_pose=Variant(Config(1.00, 1.50, 512, **PERSON, nested=True), params=57_605_352),
)
def poser(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, head, levels = open_size(net, x, 32), net / "model" / 23, pyramid(net, x, cfg)
    width = max(levels[0].shape[1] // 4, cfg.extra // 3 * 5)
    raw = []
    for i, level in enumerate(levels):
        y = plain(head / f"{PREFIX}cv4" / i, level, width)
        raw.append(conv2d(head / f"{PREFIX}cv4_kpts" / i, y, cfg.extra, 1))
    points = points_around(head, raw, size, levels, scale=1.0, shift=0.0)
    return {**detect(head, levels, size, cfg, separable, PREFIX), "keypoints": points}


def fused_prototypes(net: Net, levels: list[Tensor], width: int, out: int) -> Tensor:
    """`prototypes` of all levels, the coarser ones enlarged and added to the first."""
    x = levels[0]
    for i, level in enumerate(levels[1:]):
        level = conv(net / "feat_refine" / i, level, x.shape[1])
        x = add(net, x, upsample(net.functional, level, 2 ** (i + 1)))
    return prototypes(net, conv(net / "feat_fuse", x, width, 3), width, out)


@register(
    task="instances",
    options={"nms": False},
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper=PAPER,
    configure=configured_by(23, repeats=2, prefix=PREFIX),
    ignored=(*TRAINING, "model.23.cv4.*", "model.23.proto.semseg.*"),
    # parameters: as ultralytics 8.4 counts its own models without what serves training
    yolo26n_seg=Variant(Config(0.50, 0.25, **MASKS), params=2_732_044),
    yolo26s_seg=Variant(Config(0.50, 0.50, **MASKS), params=10_413_916),
    yolo26m_seg=Variant(Config(0.50, 1.00, 512, **MASKS, nested=True), params=23_594_972),
    yolo26l_seg=Variant(Config(1.00, 1.00, 512, **MASKS, nested=True), params=27_998_428),
    yolo26x_seg=Variant(Config(1.00, 1.50, 512, **MASKS, nested=True), params=62_868_604),
)
def segmenter(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, head, levels = open_size(net, x, 32), net / "model" / 23, pyramid(net, x, cfg)
    maps = fused_prototypes(head / "proto", levels, cfg.channels(256), cfg.extra)
    return instances(head, levels, size, cfg, separable, maps, PREFIX)


@register(
    task="obb",
    options={"nms": False},
    reference="ultralytics:{name}",
    preprocess=letterbox(1024),
    paper=PAPER,
    configure=configured_by(23, repeats=2, prefix=PREFIX),
    ignored=(*TRAINING, "model.23.cv4.*"),
    # parameters: as ultralytics 8.4 counts its own models without what serves training
    yolo26n_obb=Variant(Config(0.50, 0.25, **DOTA), params=2_457_804),
    yolo26s_obb=Variant(Config(0.50, 0.50, **DOTA), params=9_773_916),
    yolo26m_obb=Variant(Config(0.50, 1.00, 512, **DOTA, nested=True), params=21_233_980),
    yolo26l_obb=Variant(Config(1.00, 1.00, 512, **DOTA, nested=True), params=25_637_436),
    yolo26x_obb=Variant(Config(1.00, 1.50, 512, **DOTA, nested=True), params=57_606_972),
)
def turned_detector(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, levels = open_size(net, x, 32), pyramid(net, x, cfg)
    return turned(net / "model" / 23, levels, size, cfg, separable, lambda _, angles: angles, PREFIX)
