"""YOLO26-p2, for small objects (Jocher and Qiu 2025; no paper; ultralytics/cfg/models/26/yolo26-p2.yaml).

What people get wrong: there are four levels, from stride 4 on, and the width of the head's branches follows the first.
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
    preprocess=letterbox(),
    paper=PAPER,
    configure=configured_by(29, repeats=2, prefix=PREFIX),
    ignored=for_training(29),
    options={"nms": False},
    # parameters: as ultralytics 8.4 counts its own models without the head for training
    yolo26n_p2=Variant(Config(0.50, 0.25), params=2_483_536),
    yolo26s_p2=Variant(Config(0.50, 0.50), params=9_474_192),
    yolo26m_p2=Variant(Config(0.50, 1.00, 512, nested=True), params=20_390_672),
    yolo26l_p2=Variant(Config(1.00, 1.00, 512, nested=True), params=25_061_904),
    yolo26x_p2=Variant(Config(1.00, 1.50, 512, nested=True), params=56_288_880),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    at, c, n = net / "model", cfg.channels, cfg.repeats(2)
    p2, p3, p4, x = trunk(net, x, cfg)
    p5 = c2psa(at / 10, sppf(at / 9, x), n)
    p4 = c3k2(at / 13, join(at / 12, upsample(at / 11, p5, 2), p4), c(512), n, nested=True)
    p3 = c3k2(at / 16, join(at / 15, upsample(at / 14, p4, 2), p3), c(256), n, nested=True)
    p2 = c3k2(at / 19, join(at / 18, upsample(at / 17, p3, 2), p2), c(128), n, nested=True)
    p3 = c3k2(at / 22, join(at / 21, conv(at / 20, p2, c(128), 3, 2), p3), c(256), n, nested=True)
    p4 = c3k2(at / 25, join(at / 24, conv(at / 23, p3, c(256), 3, 2), p4), c(512), n, nested=True)
    p5 = attended(at / 28, join(at / 27, conv(at / 26, p4, c(512), 3, 2), p5), c(1024))
    return detect(at / 29, [p2, p3, p4, p5], size, cfg, separable, PREFIX)
