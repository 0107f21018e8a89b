"""YOLOv8-p6, for large pictures (Jocher, Chaurasia, Qiu 2023; no paper; ultralytics/cfg/models/v8/yolov8-p6.yaml).

What people get wrong: stride 32 has 768 channels before scaling; the neck is of C2, of which only the last result is
kept, and not of C2f. Scopes are ultralytics'.
"""

from __future__ import annotations

from zoo.blocks.yolo import bottleneck, c2f, conv, join, sppf
from zoo.blocks.yolo_head import DetectConfig, configured_by, detect, plain
from zoo.network import Net, Tensor
from zoo.ops import concat, open_size, split, upsample
from zoo.preprocess import letterbox
from zoo.registry import Variant, register


def c2(net: Net, x: Tensor, out: int, repeats: int) -> Tensor:
    """Half of the channels pass `repeats` bottlenecks, the other half passes by."""
    x, kept = split(net, conv(net / "cv1", x, out), (out // 2, out // 2))
    for i in range(repeats):
        x = bottleneck(net / "m" / i, x, shortcut=False)
    return conv(net / "cv2", concat(net, [x, kept]), out)


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(1280, stride=64),
    paper="https://docs.ultralytics.com/models/yolov8",
    configure=configured_by(30, repeats=3),
    # parameters: the comments of upstream's yolov8-p6.yaml, which count the 16 constants of the box distribution
    yolov8n_p6=Variant(DetectConfig(0.33, 0.25), params=4_984_352),
    yolov8s_p6=Variant(DetectConfig(0.33, 0.50), params=17_911_792),
    yolov8m_p6=Variant(DetectConfig(0.67, 0.75, 768), params=44_887_488),
    yolov8l_p6=Variant(DetectConfig(1.00, 1.00, 512), params=62_384_016),
    yolov8x_p6=Variant(DetectConfig(1.00, 1.25, 512), params=97_423_072),
)
def build(net: Net, x: Tensor, cfg: DetectConfig) -> dict[str, Tensor]:
    size = open_size(net, x, 64)
    at, c, n, levels = net / "model", cfg.channels, cfg.repeats, []
    x = conv(at / 0, x, c(64), 3, 2)
    for i, (out, repeats) in enumerate(((128, 3), (256, 6), (512, 6), (768, 3), (1024, 3))):
        x = conv(at / (1 + 2 * i), x, c(out), 3, 2)
        x = c2f(at / (2 + 2 * i), x, c(out), n(repeats), shortcut=True)
        levels.append(x)
    _, p3, p4, p5, _ = levels  # strides 8, 16, 32
    p6 = sppf(at / 11, x, c(1024))

    p5 = c2(at / 14, join(at / 13, upsample(at / 12, p6, 2), p5), c(768), n(3))
    p4 = c2(at / 17, join(at / 16, upsample(at / 15, p5, 2), p4), c(512), n(3))
    p3 = c2(at / 20, join(at / 19, upsample(at / 18, p4, 2), p3), c(256), n(3))
    p4 = c2(at / 23, join(at / 22, conv(at / 21, p3, c(256), 3, 2), p4), c(512), n(3))
    p5 = c2(at / 26, join(at / 25, conv(at / 24, p4, c(512), 3, 2), p5), c(768), n(3))
    p6 = c2(at / 29, join(at / 28, conv(at / 27, p5, c(768), 3, 2), p6), c(1024), n(3))
    return detect(at / 30, [p3, p4, p5, p6], size, cfg, plain)
