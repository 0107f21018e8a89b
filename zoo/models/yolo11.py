"""YOLO11 detection (Jocher and Qiu 2024; no paper; ultralytics/cfg/models/11/yolo11.yaml).

What people get wrong: the three larger sizes nest C3k in every C3k2, whatever the yaml says; query, key and value lie
side by side for each head; the classes' branch is separable. Scopes are ultralytics'.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.yolo import c3k2, conv, join, sppf
from zoo.blocks.yolo_attention import c2psa
from zoo.blocks.yolo_head import DetectConfig, configured_by, detect, separable
from zoo.network import Net, Tensor
from zoo.ops import fixed_size, upsample
from zoo.preprocess import letterbox
from zoo.registry import Variant, register


@dataclass(frozen=True)
class Config(DetectConfig):
    nested: bool = False  # C3k in every C3k2


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper="https://docs.ultralytics.com/models/yolo11",
    configure=configured_by(23, repeats=2),
    # parameters: the comments of upstream's yolo11.yaml, which count the 16 constants of the box distribution
    yolo11n=Variant(Config(0.50, 0.25), params=2_624_080, aliases=("yolo11",)),
    yolo11s=Variant(Config(0.50, 0.50), params=9_458_752),
    yolo11m=Variant(Config(0.50, 1.00, 512, nested=True), params=20_114_688),
    yolo11l=Variant(Config(1.00, 1.00, 512, nested=True), params=25_372_160),
    yolo11x=Variant(Config(1.00, 1.50, 512, nested=True), params=56_966_176),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = fixed_size(net, x, 32)
    at, c, n, small = net / "model", cfg.channels, cfg.repeats(2), cfg.nested
    x = conv(at / 1, conv(at / 0, x, c(64), 3, 2), c(128), 3, 2)
    x = c3k2(at / 2, x, c(256), n, small, share=0.25)
    p3 = c3k2(at / 4, conv(at / 3, x, c(256), 3, 2), c(512), n, small, share=0.25)  # stride 8
    p4 = c3k2(at / 6, conv(at / 5, p3, c(512), 3, 2), c(512), n, nested=True)  # stride 16
    x = c3k2(at / 8, conv(at / 7, p4, c(1024), 3, 2), c(1024), n, nested=True)
    p5 = c2psa(at / 10, sppf(at / 9, x, c(1024)), n)  # stride 32

    x = join(at / 12, upsample(at / 11, p5, 2), p4)
    p4 = c3k2(at / 13, x, c(512), n, small)
    x = join(at / 15, upsample(at / 14, p4, 2), p3)
    p3 = c3k2(at / 16, x, c(256), n, small)
    x = join(at / 18, conv(at / 17, p3, c(256), 3, 2), p4)
    p4 = c3k2(at / 19, x, c(512), n, small)
    x = join(at / 21, conv(at / 20, p4, c(512), 3, 2), p5)
    p5 = c3k2(at / 22, x, c(1024), n, nested=True)
    return detect(at / 23, [p3, p4, p5], size, cfg, separable)
