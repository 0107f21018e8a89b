"""YOLOv8 detection (Jocher, Chaurasia, Qiu 2023; no paper; ultralytics/cfg/models/v8/yolov8.yaml).

What people get wrong: BatchNorm's eps is 1e-3; the three larger sizes cap their channels (768, 512, 512) before scaling
them; the bottlenecks of the neck have no shortcut. Scopes are ultralytics'.
"""

from __future__ import annotations

from zoo.blocks.yolo import c2f, conv, join, sppf
from zoo.blocks.yolo_head import DetectConfig, configured_by, detect, plain
from zoo.network import Net, Tensor
from zoo.ops import fixed_size, upsample
from zoo.preprocess import letterbox
from zoo.registry import Variant, register


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper="https://docs.ultralytics.com/models/yolov8",
    configure=configured_by(22, repeats=3),
    # parameters: the comments of upstream's yolov8.yaml, which count the 16 constants of the box distribution
    yolov8n=Variant(DetectConfig(depth=0.33, width=0.25, max_channels=1024), params=3_157_200, aliases=("yolov8",)),
    yolov8s=Variant(DetectConfig(depth=0.33, width=0.50, max_channels=1024), params=11_166_560),
    yolov8m=Variant(DetectConfig(depth=0.67, width=0.75, max_channels=768), params=25_902_640),
    yolov8l=Variant(DetectConfig(depth=1.00, width=1.00, max_channels=512), params=43_691_520),
    yolov8x=Variant(DetectConfig(depth=1.00, width=1.25, max_channels=512), params=68_229_648),
)
def build(net: Net, x: Tensor, cfg: DetectConfig) -> dict[str, Tensor]:
    size = fixed_size(net, x, 32)
    at, c, n = net / "model", cfg.channels, cfg.repeats
    x = conv(at / 0, x, c(64), 3, 2)
    x = conv(at / 1, x, c(128), 3, 2)
    x = c2f(at / 2, x, c(128), n(3), shortcut=True)
    x = conv(at / 3, x, c(256), 3, 2)
    p3 = c2f(at / 4, x, c(256), n(6), shortcut=True)  # stride 8
    x = conv(at / 5, p3, c(512), 3, 2)
    p4 = c2f(at / 6, x, c(512), n(6), shortcut=True)  # stride 16
    x = conv(at / 7, p4, c(1024), 3, 2)
    x = c2f(at / 8, x, c(1024), n(3), shortcut=True)
    p5 = sppf(at / 9, x, c(1024))  # stride 32

    x = join(at / 11, upsample(at / 10, p5, 2), p4)
    p4 = c2f(at / 12, x, c(512), n(3))
    x = join(at / 14, upsample(at / 13, p4, 2), p3)
    p3 = c2f(at / 15, x, c(256), n(3))
    x = join(at / 17, conv(at / 16, p3, c(256), 3, 2), p4)
    p4 = c2f(at / 18, x, c(512), n(3))
    x = join(at / 20, conv(at / 19, p4, c(512), 3, 2), p5)
    p5 = c2f(at / 21, x, c(1024), n(3))
    return detect(at / 22, [p3, p4, p5], size, cfg, plain)
