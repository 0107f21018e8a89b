"""YOLOv9e (Wang, Yeh, Liao 2024, arXiv:2402.13616; ultralytics/cfg/models/v9/yolov9e.yaml and yolov9e-seg.yaml).

Two trunks: what each stage of the first gives is split among the stages of the second that see as much or more of the
picture's detail. What people get wrong: the second trunk begins with the picture again. Scopes are ultralytics'.
"""

from __future__ import annotations

from dataclasses import replace

from zoo.blocks.yolo import conv
from zoo.blocks.yolo_head import MASKS, detect, instances, plain, prototypes
from zoo.blocks.yolo_v9 import Config, configured_by, elan, halved, neck, sppelan
from zoo.network import Net, Tensor
from zoo.ops import add, conv2d, open_size, split, upsample
from zoo.preprocess import letterbox
from zoo.registry import Variant, register

E = Config(
    stem=64, repeats=2, split_down=True, stages=((256, 128), (512, 256), (1024, 512), (1024, 512)),
    down=(256, 512, 1024), neck=((512, 512), (256, 256), (512, 512), (512, 1024)), neck_down=(256, 512), pooled=256,
)  # fmt: skip


def fused(net: Net, x: Tensor, parts: list[list[Tensor]], level: int) -> Tensor:
    """CBFuse: x at `level`, and what that and the coarser levels of the first trunk have for it."""
    for i, of_level in enumerate(parts[level:]):
        x = add(net, x, upsample(net.functional, of_level[level], 2**i) if i else of_level[level])
    return net.tap(x)


def pyramid(net: Net, x: Tensor, cfg: Config) -> list[Tensor]:
    """Maps of strides 8, 16 and 32."""
    at, picture = net / "model", x
    x = conv(at / 1, picture, cfg.stem, 3, 2)
    found = [x, elan(at / 3, conv(at / 2, x, 2 * cfg.stem, 3, 2), cfg.stages[0], cfg)]
    for i, (down, widths) in enumerate(zip(cfg.down, cfg.stages[1:])):
        found.append(elan(at / (5 + 2 * i), halved(at / (4 + 2 * i), found[-1], down, cfg), widths, cfg))
    widths, parts = [cfg.stem * 2**i for i in range(5)], []
    for i, x in enumerate(found):  # CBLinear
        x = conv2d(at / (10 + i) / "conv", x, sum(widths[: i + 1]), 1)
        parts.append(split(net, x, widths[: i + 1]))

    x = fused(at / 16, conv(at / 15, picture, cfg.stem, 3, 2), parts, 0)
    x = fused(at / 18, conv(at / 17, x, 2 * cfg.stem, 3, 2), parts, 1)
    x, levels = elan(at / 19, x, cfg.stages[0], cfg), []
    for i, (down, stage) in enumerate(zip(cfg.down, cfg.stages[1:])):
        x = fused(at / (21 + 3 * i), halved(at / (20 + 3 * i), x, down, cfg), parts, 2 + i)
        x = elan(at / (22 + 3 * i), x, stage, cfg)
        levels.append(x)
    levels[2] = sppelan(at / 29, x, cfg.neck[3][0], cfg.pooled)
    return neck(net, levels, 30, cfg)


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper="arXiv:2402.13616",
    configure=configured_by(1, 42),
    yolov9e=Variant(E, params=58_206_592),  # the comment of upstream's yaml
)
def detector(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    return detect(net / "model" / 42, pyramid(net, x, cfg), size, cfg, plain)


@register(
    task="instances",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper="arXiv:2402.13616",
    configure=configured_by(1, 42),
    yolov9e_seg=Variant(replace(E, **MASKS), params=60_512_800),  # the comment of upstream's yaml
)
def segmenter(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, head, levels = open_size(net, x, 32), net / "model" / 42, pyramid(net, x, cfg)
    return instances(head, levels, size, cfg, plain, prototypes(head / "proto", levels[0], 256, cfg.extra))
