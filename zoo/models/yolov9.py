"""YOLOv9, t to c (Wang, Yeh, Liao 2024, arXiv:2402.13616; ultralytics/cfg/models/v9, with yolov9c-seg).

What people get wrong: before a map is halved it is averaged over 2x2 with stride 1, which makes it one pixel smaller;
RepConv is a 3x3 and a 1x1 convolution here, without an identity; 180 channels of m are rounded to 184. Scopes are
ultralytics', whose weights have no second branch.
"""

from __future__ import annotations

from dataclasses import replace

from zoo.blocks.yolo import conv
from zoo.blocks.yolo_head import MASKS, detect, instances, plain, prototypes
from zoo.blocks.yolo_v9 import Config, configured_by, elan, halved, neck, sppelan
from zoo.network import Net, Tensor
from zoo.ops import open_size
from zoo.preprocess import letterbox
from zoo.registry import Variant, register

C = Config(
    stem=64, repeats=1, split_down=True, stages=((256, 128), (512, 256), (512, 512), (512, 512)),
    down=(256, 512, 512), neck=((512, 512), (256, 256), (512, 512), (512, 512)), neck_down=(256, 512), pooled=256,
)  # fmt: skip


def pyramid(net: Net, x: Tensor, cfg: Config) -> list[Tensor]:
    """Maps of strides 8, 16 and 32."""
    at, levels = net / "model", []
    x = conv(at / 1, conv(at / 0, x, cfg.stem, 3, 2), 2 * cfg.stem, 3, 2)
    x = elan(at / 2, x, cfg.stages[0], cfg, nested=not cfg.simple)
    for i, (down, widths) in enumerate(zip(cfg.down, cfg.stages[1:])):
        x = elan(at / (4 + 2 * i), halved(at / (3 + 2 * i), x, down, cfg), widths, cfg)
        levels.append(x)
    levels[2] = sppelan(at / 9, x, x.shape[1], cfg.pooled)
    return neck(net, levels, 10, cfg)


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper="arXiv:2402.13616",
    configure=configured_by(0, 22),
    # parameters: the comments of upstream's yamls, which count the 16 constants of the box distribution
    yolov9t=Variant(
        Config(
            stem=16, simple=True, stages=((32, 32), (64, 64), (96, 96), (128, 128)), down=(64, 96, 128),
            neck=((96, 96), (64, 64), (96, 96), (128, 128)), neck_down=(48, 64), pooled=64,
        ),
        params=2_128_720,
    ),
    yolov9s=Variant(Config(simple=True), params=7_318_368),
    yolov9m=Variant(
        Config(
            repeats=1, stages=((128, 128), (240, 240), (360, 360), (480, 480)), down=(240, 360, 480),
            neck=((360, 360), (240, 240), (360, 360), (480, 480)), neck_down=(184, 240), pooled=240,
        ),
        params=20_216_160,
    ),
    yolov9c=Variant(C, params=25_590_912),
)  # fmt: skip
def detector(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    return detect(net / "model" / 22, pyramid(net, x, cfg), size, cfg, plain)


@register(
    task="instances",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper="arXiv:2402.13616",
    configure=configured_by(0, 22),
    yolov9c_seg=Variant(replace(C, **MASKS), params=27_897_120),  # the comment of upstream's yaml
)
def segmenter(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, head, levels = open_size(net, x, 32), net / "model" / 22, pyramid(net, x, cfg)
    return instances(head, levels, size, cfg, plain, prototypes(head / "proto", levels[0], 256, cfg.extra))
