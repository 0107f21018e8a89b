"""YOLOv6 of ultralytics (after Li et al. 2022, arXiv:2209.02976; ultralytics/cfg/models/v6/yolov6.yaml).

What people get wrong: it is not Meituan's, whose weights do not fit: plain convolutions stand where that has RepVGG
blocks, and the head is YOLOv8's. Every activation is ReLU, those of the head too. Scopes are ultralytics'.
"""

from __future__ import annotations

from zoo.blocks.yolo import conv, join, sppf
from zoo.blocks.yolo_head import DetectConfig, detect, plain, with_head
from zoo.network import Net, Tensor
from zoo.ops import conv_transpose2d, open_size, relu
from zoo.preprocess import letterbox
from zoo.registry import Variant, register
from zoo.weights import Weights


def chain(net: Net, x: Tensor, repeats: int) -> Tensor:
    """3x3 convolutions one after the other; a single one has no scope of its own."""
    for i in range(repeats):
        x = conv(net / i if repeats > 1 else net, x, x.shape[1], 3)
    return x


def configure(weights: Weights, cfg: DetectConfig) -> DetectConfig:
    """The classes and bins that the weights have."""
    return with_head(weights, cfg, 28)


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper="arXiv:2209.02976",
    configure=configure,
    # parameters: as ultralytics 8.4 counts its own models, the 16 constants of the box distribution included
    yolov6n=Variant(DetectConfig(0.33, 0.25), params=4_500_080, aliases=("yolov6",)),
    yolov6s=Variant(DetectConfig(0.33, 0.50), params=16_452_192),
    yolov6m=Variant(DetectConfig(0.67, 0.75, 768), params=52_020_496),
    yolov6l=Variant(DetectConfig(1.00, 1.00, 512), params=110_926_464),
    yolov6x=Variant(DetectConfig(1.00, 1.25, 512), params=173_061_616),
)
def build(net: Net, x: Tensor, cfg: DetectConfig) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    at, c, n = net.having(activation=relu) / "model", cfg.channels, cfg.repeats
    x = conv(at / 0, x, c(64), 3, 2)
    levels = []
    for i, (out, repeats) in enumerate(((128, 6), (256, 12), (512, 18), (1024, 6))):
        x = chain(at / (2 + 2 * i), conv(at / (1 + 2 * i), x, c(out), 3, 2), n(repeats))
        levels.append(x)
    _, p3, p4, _ = levels  # strides 8, 16
    p5 = conv(at / 10, sppf(at / 9, x, c(1024)), c(256))  # stride 32

    x = join(at / 12, conv_transpose2d(at / 11, p5, c(256), 2, 2), p4)
    p4 = conv(at / 15, chain(at / 14, conv(at / 13, x, c(256), 3), n(9)), c(128))
    x = join(at / 17, conv_transpose2d(at / 16, p4, c(128), 2, 2), p3)
    p3 = chain(at / 19, conv(at / 18, x, c(128), 3), n(9))
    x = join(at / 21, conv(at / 20, p3, c(128), 3, 2), p4)
    p4 = chain(at / 23, conv(at / 22, x, c(256), 3), n(9))
    x = join(at / 25, conv(at / 24, p4, c(256), 3, 2), p5)
    p5 = chain(at / 27, conv(at / 26, x, c(512), 3), n(9))
    return detect(at / 28, [p3, p4, p5], size, cfg, plain)
