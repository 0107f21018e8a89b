"""YOLOv3u detection (Redmon and Farhadi 2018, arXiv:1804.02767; ultralytics/cfg/models/v3): YOLOv3's trunk, v8's head.

What people get wrong: there are no anchors and no objectness, so that Darknet's weights are not these. Scopes are
ultralytics'.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.yolo import bottleneck, conv, join
from zoo.blocks.yolo_head import Head, detect, plain, with_head
from zoo.network import Net, Tensor
from zoo.ops import concat, max_pool, open_size, upsample
from zoo.preprocess import letterbox
from zoo.registry import Variant, register
from zoo.weights import Weights


@dataclass(frozen=True)
class Config(Head):
    pyramid: tuple[int, ...] = ()  # kernels of the spatial pyramid pooling; without one a convolution stands there


def residuals(net: Net, x: Tensor, repeats: int) -> Tensor:
    """Bottlenecks that narrow to a half, one after the other."""
    for i in range(repeats):
        x = bottleneck(net / i, x, shortcut=True, hidden=x.shape[1] // 2)
    return x


def unjoined(net: Net, x: Tensor, out: int) -> Tensor:
    """A bottleneck without a shortcut, to `out` channels."""
    return conv(net / "cv2", conv(net / "cv1", x, out // 2, 3), out, 3)


def spp(net: Net, x: Tensor, out: int, kernels: tuple[int, ...]) -> Tensor:
    """Spatial pyramid pooling: the map beside its poolings of several sizes."""
    x = conv(net / "cv1", x, x.shape[1] // 2)
    pooled = [max_pool(net / "m" / i, x, k, 1, pad=k // 2) for i, k in enumerate(kernels)]
    return conv(net / "cv2", concat(net, [x, *pooled]), out)


def configure(weights: Weights, cfg: Config) -> Config:
    """The classes and bins that the weights have."""
    return with_head(weights, cfg, 28)


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper="arXiv:1804.02767",
    configure=configure,
    # parameters: as ultralytics 8.4 counts its own models, the 16 constants of the box distribution included
    yolov3u=Variant(Config(), params=103_754_144),
    yolov3_sppu=Variant(Config(pyramid=(5, 9, 13)), params=104_803_744),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, at = open_size(net, x, 32), net / "model"
    x = conv(at / 1, conv(at / 0, x, 32, 3), 64, 3, 2)
    x = bottleneck(at / 2, x, shortcut=True, hidden=32)
    x = residuals(at / 4, conv(at / 3, x, 128, 3, 2), 2)
    p3 = residuals(at / 6, conv(at / 5, x, 256, 3, 2), 8)  # stride 8
    p4 = residuals(at / 8, conv(at / 7, p3, 512, 3, 2), 8)  # stride 16
    x = residuals(at / 10, conv(at / 9, p4, 1024, 3, 2), 4)  # stride 32

    x = unjoined(at / 11, x, 1024)
    x = spp(at / 12, x, 512, cfg.pyramid) if cfg.pyramid else conv(at / 12, x, 512)
    x = conv(at / 14, conv(at / 13, x, 1024, 3), 512)
    p5 = conv(at / 15, x, 1024, 3)
    x = join(at / 18, upsample(at / 17, conv(at / 16, x, 256), 2), p4)
    x = unjoined(at / 20, unjoined(at / 19, x, 512), 512)
    x = conv(at / 21, x, 256)
    p4 = conv(at / 22, x, 512, 3)
    x = join(at / 25, upsample(at / 24, conv(at / 23, x, 128), 2), p3)
    x = unjoined(at / 26, x, 256)
    p3 = unjoined(at / 27 / 1, unjoined(at / 27 / 0, x, 256), 256)
    return detect(at / 28, [p3, p4, p5], size, cfg, plain)
