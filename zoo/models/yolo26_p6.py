"""YOLO26-p6, for large pictures (Jocher and Qiu 2025; no paper; ultralytics/cfg/models/26/yolo26-p6.yaml).

What people get wrong: stride 32 has 768 channels before scaling; the spatial pyramid pooling has no shortcut here.
Scopes are ultralytics'.
"""

from __future__ import annotations

from zoo.blocks.yolo import c3k2, conv, join
from zoo.blocks.yolo_26 import PAPER, PREFIX, Config, attended, for_training, sppf, trunk
from zoo.blocks.yolo_attention import c2psa
from zoo.blocks.yolo_head import configured_by, detect, separable
from zoo.network import Net, Tensor
from zoo.ops import open_size, upsample
from zoo.preprocess import letterbox
from zoo.registry import Variant, register


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(1280, stride=64),
    paper=PAPER,
    configure=configured_by(31, repeats=2, prefix=PREFIX),
    ignored=for_training(31),
    options={"nms": False},
    # parameters: as ultralytics 8.4 counts its own models without the head for training
    yolo26n_p6=Variant(Config(0.50, 0.25), params=3_847_408),
    yolo26s_p6=Variant(Config(0.50, 0.50), params=15_177_488),
    yolo26m_p6=Variant(Config(0.50, 1.00, 512, nested=True), params=30_380_176),
    yolo26l_p6=Variant(Config(1.00, 1.00, 512, nested=True), params=37_345_680),
    yolo26x_p6=Variant(Config(1.00, 1.50, 512, nested=True), params=83_875_248),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = open_size(net, x, 64)
    at, c, n = net / "model", cfg.channels, cfg.repeats(2)
    _, p3, p4, p5, x = trunk(net, x, cfg, deeper=(768, 1024))
    p6 = c2psa(at / 12, sppf(at / 11, x, shortcut=False), n)
    p5 = c3k2(at / 15, join(at / 14, upsample(at / 13, p6, 2), p5), c(768), n, nested=True)
    p4 = c3k2(at / 18, join(at / 17, upsample(at / 16, p5, 2), p4), c(512), n, nested=True)
    p3 = c3k2(at / 21, join(at / 20, upsample(at / 19, p4, 2), p3), c(256), n, nested=True)
    p4 = c3k2(at / 24, join(at / 23, conv(at / 22, p3, c(256), 3, 2), p4), c(512), n, nested=True)
    p5 = c3k2(at / 27, join(at / 26, conv(at / 25, p4, c(512), 3, 2), p5), c(768), n, nested=True)
    p6 = attended(at / 30, join(at / 29, conv(at / 28, p5, c(768), 3, 2), p6), c(1024))
    return detect(at / 31, [p3, p4, p5, p6], size, cfg, separable, PREFIX)
