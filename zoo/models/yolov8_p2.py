"""YOLOv8-p2, for small objects (Jocher, Chaurasia, Qiu 2023; no paper; ultralytics/cfg/models/v8/yolov8-p2.yaml).

What people get wrong: there are four levels, from stride 4 on, and the width of the head's branches follows the first.
Scopes are ultralytics'.
"""

from __future__ import annotations

from zoo.blocks.yolo import c2f, conv, join, sppf
from zoo.blocks.yolo_head import DetectConfig, configured_by, detect, plain
from zoo.blocks.yolo_v8 import trunk
from zoo.network import Net, Tensor
from zoo.ops import open_size, upsample
from zoo.preprocess import letterbox
from zoo.registry import Variant, register


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper="https://docs.ultralytics.com/models/yolov8",
    configure=configured_by(28, repeats=3),
    # parameters: as ultralytics 8.4 counts its own models, the 16 constants of the box distribution included
    yolov8n_p2=Variant(DetectConfig(0.33, 0.25), params=3_354_144),
    yolov8s_p2=Variant(DetectConfig(0.33, 0.50), params=10_884_336),
    yolov8m_p2=Variant(DetectConfig(0.67, 0.75, 768), params=25_082_496),
    yolov8l_p2=Variant(DetectConfig(1.00, 1.00, 512), params=42_888_080),
    yolov8x_p2=Variant(DetectConfig(1.00, 1.25, 512), params=66_637_536),
)
def build(net: Net, x: Tensor, cfg: DetectConfig) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    at, c, n = net / "model", cfg.channels, cfg.repeats(3)
    p2, p3, p4, x = trunk(net, x, cfg)
    p5 = sppf(at / 9, x, c(1024))
    p4 = c2f(at / 12, join(at / 11, upsample(at / 10, p5, 2), p4), c(512), n)
    p3 = c2f(at / 15, join(at / 14, upsample(at / 13, p4, 2), p3), c(256), n)
    p2 = c2f(at / 18, join(at / 17, upsample(at / 16, p3, 2), p2), c(128), n)
    p3 = c2f(at / 21, join(at / 20, conv(at / 19, p2, c(128), 3, 2), p3), c(256), n)
    p4 = c2f(at / 24, join(at / 23, conv(at / 22, p3, c(256), 3, 2), p4), c(512), n)
    p5 = c2f(at / 27, join(at / 26, conv(at / 25, p4, c(512), 3, 2), p5), c(1024), n)
    return detect(at / 28, [p2, p3, p4, p5], size, cfg, plain)
