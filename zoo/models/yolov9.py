"""YOLOv9 detection, t to c (Wang, Yeh, Liao 2024, arXiv:2402.13616; ultralytics/cfg/models/v9).

What people get wrong: before a map is halved it is averaged over 2x2 with stride 1, which makes it one pixel smaller;
RepConv is a 3x3 and a 1x1 convolution here, without an identity; 180 channels of m are rounded to 184. Scopes are
ultralytics', whose weights have no second branch.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.yolo import conv, csp, join, linear_conv
from zoo.blocks.yolo_head import Head, detect, plain, with_head
from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import add, avg_pool, concat, fixed_size, max_pool, silu, split, upsample
from zoo.preprocess import letterbox
from zoo.registry import Variant, register
from zoo.weights import Weights

Widths = tuple[int, int]  # of a stage's output, and inside it


@dataclass(frozen=True)
class Config(Head):
    stem: int = 32
    simple: bool = False  # the first stage has no nested blocks
    stages: tuple[Widths, Widths, Widths, Widths] = ((64, 64), (128, 128), (192, 192), (256, 256))
    down: tuple[int, int, int] = (128, 192, 256)
    neck: tuple[Widths, Widths, Widths, Widths] = ((192, 192), (128, 128), (192, 192), (256, 256))
    neck_down: tuple[int, int] = (96, 128)
    pooled: int = 128  # inside the spatial pyramid
    repeats: int = 3
    split_down: bool = False  # ADown: half of the channels are halved by a maximum


def rep_bottleneck(net: Net, x: Tensor) -> Tensor:
    at, width = net / "cv1", x.shape[1]
    y = add(at, linear_conv(at / "conv1", x, width, 3), linear_conv(at / "conv2", x, width))
    return add(net, x, conv(net / "cv2", silu(at / "act", y), width, 3))


def elan(net: Net, x: Tensor, widths: Widths, cfg: Config, nested: bool = True) -> Tensor:
    """RepNCSPELAN4, or ELAN1 where nothing is nested."""
    out, width = widths
    found = split(net, conv(net / "cv1", x, width), (width // 2, width // 2))
    for name in ("cv2", "cv3"):
        at, y = net / name, found[-1]
        if nested:
            y = conv(at / 1, csp(at / 0, y, width // 2, [rep_bottleneck] * cfg.repeats), width // 2, 3)
        else:
            y = conv(at, y, width // 2, 3)
        found.append(y)
    return conv(net / "cv4", concat(net, found), out)


def halved(net: Net, x: Tensor, out: int, cfg: Config) -> Tensor:
    """AConv or ADown."""
    x = avg_pool(net.functional, x, 2, 1)
    if not cfg.split_down:
        return conv(net / "cv1", x, out, 3, 2)
    first, second = split(net, x, (x.shape[1] // 2, x.shape[1] // 2))
    second = conv(net / "cv2", max_pool(net.functional, second, 3, 2, pad=1), out // 2)
    return net.tap(concat(net, [conv(net / "cv1", first, out // 2, 3, 2), second]))


def sppelan(net: Net, x: Tensor, out: int, width: int) -> Tensor:
    found = [conv(net / "cv1", x, width)]
    for i in (2, 3, 4):
        found.append(max_pool(net / f"cv{i}", found[-1], 5, 1, pad=2))
    return conv(net / "cv5", concat(net, found), out)


def configure(weights: Weights, cfg: Config) -> Config:
    """The classes and bins that the weights have; their widths must be those of the model's name."""
    stem, out = "model.0.bn.weight", "model.4.cv4.bn.weight"
    if stem in weights and out in weights:
        found, wanted = (weights.size(stem), weights.size(out)), (cfg.stem, cfg.stages[1][0])
        if found != wanted:
            raise ZooError(f"{weights.name} is {found} channels wide in model.0 and model.4, the definition {wanted}")
    return with_head(weights, cfg, 22)


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper="arXiv:2402.13616",
    configure=configure,
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
    yolov9c=Variant(
        Config(
            stem=64, repeats=1, split_down=True, stages=((256, 128), (512, 256), (512, 512), (512, 512)),
            down=(256, 512, 512), neck=((512, 512), (256, 256), (512, 512), (512, 512)), neck_down=(256, 512),
            pooled=256,
        ),
        params=25_590_912,
    ),
)  # fmt: skip
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = fixed_size(net, x, 32)
    at, levels = net / "model", []
    x = conv(at / 1, conv(at / 0, x, cfg.stem, 3, 2), 2 * cfg.stem, 3, 2)
    x = elan(at / 2, x, cfg.stages[0], cfg, nested=not cfg.simple)
    for i, (down, widths) in enumerate(zip(cfg.down, cfg.stages[1:])):
        x = elan(at / (4 + 2 * i), halved(at / (3 + 2 * i), x, down, cfg), widths, cfg)
        levels.append(x)  # strides 8, 16, 32
    p3, p4, _ = levels
    p5 = sppelan(at / 9, x, x.shape[1], cfg.pooled)

    p4 = elan(at / 12, join(at / 11, upsample(at / 10, p5, 2), p4), cfg.neck[0], cfg)
    p3 = elan(at / 15, join(at / 14, upsample(at / 13, p4, 2), p3), cfg.neck[1], cfg)
    p4 = elan(at / 18, join(at / 17, halved(at / 16, p3, cfg.neck_down[0], cfg), p4), cfg.neck[2], cfg)
    p5 = elan(at / 21, join(at / 20, halved(at / 19, p4, cfg.neck_down[1], cfg), p5), cfg.neck[3], cfg)
    return detect(at / 22, [p3, p4, p5], size, cfg, plain)
