"""YOLOv10 detection (Wang et al. 2024, arXiv:2405.14458; ultralytics/cfg/models/v10).

The head that needs no suppression: of its two heads only `one2one` is read, whose boxes are final; parameters are
counted without the other, which serves training. What people get wrong: which stages are C2fCIB differs by size, and
the large kernels of n and s with them; nothing follows the depthwise half of SCDown. Scopes are ultralytics'.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from zoo.blocks.yolo import c2f, conv, halves, join, linear_conv, sppf
from zoo.blocks.yolo_attention import psa
from zoo.blocks.yolo_head import DetectConfig, configured_by, detect, separable
from zoo.network import Net, Tensor
from zoo.ops import add, open_size, silu, upsample
from zoo.preprocess import letterbox
from zoo.registry import Variant, register


@dataclass(frozen=True)
class Config(DetectConfig):
    inverted: tuple[int, ...] = (8, 19, 22)  # the stages of compact inverted blocks
    large_kernel: bool = False


def cib(net: Net, x: Tensor, large_kernel: bool) -> Tensor:
    """Compact inverted block: depthwise and 1x1 convolutions in turn, beside a shortcut."""
    at, width = net / "cv1", x.shape[1]
    y = conv(at / 1, conv(at / 0, x, width, 3, groups=width), 2 * width)
    if large_kernel:
        wide = linear_conv(at / 2 / "conv", y, 2 * width, 7, groups=2 * width)
        y = silu(at / 2 / "act", add(at / 2, wide, linear_conv(at / 2 / "conv1", y, 2 * width, 3, groups=2 * width)))
    else:
        y = conv(at / 2, y, 2 * width, 3, groups=2 * width)
    return add(net, x, conv(at / 4, conv(at / 3, y, width), width, 3, groups=width))


def stage(net: Net, x: Tensor, index: int, out: int, repeats: int, cfg: Config, shortcut: bool = False) -> Tensor:
    if index in cfg.inverted:
        return halves(net / index, x, out, out // 2, [partial(cib, large_kernel=cfg.large_kernel)] * repeats)
    return c2f(net / index, x, out, repeats, shortcut)


def scdown(net: Net, x: Tensor, out: int) -> Tensor:
    """Widens with a 1x1 convolution, halves with a depthwise one."""
    return linear_conv(net / "cv2", conv(net / "cv1", x, out), out, 3, 2, groups=out)


@register(
    task="detect",
    reference="ultralytics:{name}",
    preprocess=letterbox(),
    paper="arXiv:2405.14458",
    configure=configured_by(23, repeats=3, prefix="one2one_"),
    ignored=("model.23.cv2.*", "model.23.cv3.*"),  # the head for training
    options={"nms": False},
    # parameters: as ultralytics 8.4 counts its own models without the head for training
    yolov10n=Variant(Config(0.33, 0.25, inverted=(22,), large_kernel=True), params=2_310_624, aliases=("yolov10",)),
    yolov10s=Variant(Config(0.33, 0.50, inverted=(8, 22), large_kernel=True), params=7_277_920),
    yolov10m=Variant(Config(0.67, 0.75, 768), params=15_389_968),
    yolov10b=Variant(Config(0.67, 1.00, 512, inverted=(8, 13, 19, 22)), params=19_101_696),
    yolov10l=Variant(Config(1.00, 1.00, 512, inverted=(8, 13, 19, 22)), params=24_416_000),
    yolov10x=Variant(Config(1.00, 1.25, 512, inverted=(6, 8, 13, 19, 22)), params=29_539_408),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    at, c, n = net / "model", cfg.channels, cfg.repeats
    x = conv(at / 1, conv(at / 0, x, c(64), 3, 2), c(128), 3, 2)
    x = stage(at, x, 2, c(128), n(3), cfg, shortcut=True)
    p3 = stage(at, conv(at / 3, x, c(256), 3, 2), 4, c(256), n(6), cfg, shortcut=True)  # stride 8
    p4 = stage(at, scdown(at / 5, p3, c(512)), 6, c(512), n(6), cfg, shortcut=True)  # stride 16
    x = stage(at, scdown(at / 7, p4, c(1024)), 8, c(1024), n(3), cfg, shortcut=True)
    p5 = psa(at / 10, sppf(at / 9, x, c(1024)))  # stride 32

    p4 = stage(at, join(at / 12, upsample(at / 11, p5, 2), p4), 13, c(512), n(3), cfg)
    p3 = stage(at, join(at / 15, upsample(at / 14, p4, 2), p3), 16, c(256), n(3), cfg)
    p4 = stage(at, join(at / 18, conv(at / 17, p3, c(256), 3, 2), p4), 19, c(512), n(3), cfg)
    p5 = stage(at, join(at / 21, scdown(at / 20, p4, c(512)), p5), 22, c(1024), n(3), cfg)
    return detect(at / 23, [p3, p4, p5], size, cfg, separable, prefix="one2one_")
