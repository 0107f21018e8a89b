"""YOLOv7 and YOLOv7-X (Wang, Bochkovskiy, Liao 2022, arXiv:2207.02696; cfg/deploy of github.com/WongKinYiu/yolov7).

What people get wrong: a block's results are joined from the last to the first; the poolings of the spatial pyramid all
see the same input; training adds a learned number to each channel before the last convolution and multiplies by one
after it, and published weights have both inside. Scopes are upstream's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.yolo import conv
from zoo.blocks.yolo_v7 import Config as HeadConfig
from zoo.blocks.yolo_v7 import Places, configured_by, detect, doubled, elan, places
from zoo.network import Net, Tensor
from zoo.ops import concat, conv2d_of, conv_bn_kernel, max_pool, open_size, silu
from zoo.preprocess import letterbox
from zoo.registry import Variant, register


@dataclass(frozen=True)
class Config(HeadConfig):
    large: bool = False  # X: wider, with longer chains, and plain convolutions before the head

    def channels(self, n: int) -> int:
        return n * 5 // 4 if self.large else n


def halved(at: Places, x: Tensor, width: int, *skips: Tensor) -> Tensor:
    """x at half its size by a maximum and by a convolution, and what else has that size."""
    pooled = max_pool(next(at) / "m", x, 2)
    pooled = conv(next(at), pooled, width)
    strided = conv(next(at), x, width)
    strided = conv(next(at), strided, width, 3, 2)
    joined = next(at)
    return joined.tap(concat(joined, [strided, pooled, *skips]))


def spp_csp(net: Net, x: Tensor, out: int) -> Tensor:
    y = conv(net / "cv4", conv(net / "cv3", conv(net / "cv1", x, out), out, 3), out)
    found = [y, *(max_pool(net / "m" / i, y, k, 1, pad=k // 2) for i, k in enumerate((5, 9, 13)))]
    y = conv(net / "cv6", conv(net / "cv5", concat(net, found), out), out, 3)
    return conv(net / "cv7", concat(net, [y, conv(net / "cv2", x, out, merge=False)]), out)


def rep_conv(net: Net, x: Tensor, out: int) -> Tensor:
    branches = (("rbr_dense", 3), ("rbr_1x1", 1))
    first, second = (conv_bn_kernel(net / name, x, out, k, eps=1e-3, conv="0", bn="1") for name, k in branches)
    return silu(net / "act", conv2d_of(net, x, first + second))


def pyramid(at: Places, x: Tensor, cfg: Config) -> list[Tensor]:
    """Maps of strides 8, 16 and 32 as the head takes them."""
    c, chain = cfg.channels, 6 if cfg.large else 4
    for out, stride in ((32, 1), (64, 2), (64, 1), (128, 2)):
        x = conv(next(at), x, c(out), 3, stride)
    levels = [elan(at, x, c(256), 64, 64, chain)]
    for out, width in ((512, 128), (1024, 256), (1024, 256)):
        x = halved(at, levels[-1], levels[-1].shape[1] // 2)
        levels.append(elan(at, x, c(out), width, width, chain))
    _, p3, p4, p5 = levels

    def mixed(x: Tensor, out: int, width: int) -> Tensor:
        return elan(at, x, c(out), width, width if cfg.large else width // 2, chain, every=not cfg.large)

    p5 = spp_csp(next(at), p5, c(512))
    p4 = mixed(doubled(at, p5, p4, c(256)), 256, 256)
    p3 = mixed(doubled(at, p4, p3, c(128)), 128, 128)
    p4 = mixed(halved(at, p3, c(128), p4), 256, 256)
    p5 = mixed(halved(at, p4, c(256), p5), 512, 512)
    last = (lambda net, x, out: conv(net, x, out, 3)) if cfg.large else rep_conv
    return [last(next(at), x, c(out)) for x, out in ((p3, 256), (p4, 512), (p5, 1024))]


@register(
    task="detect",
    reference="sas_yolov7:{name}",
    preprocess=letterbox(),
    paper="arXiv:2207.02696",
    configure=configured_by(105, 121),
    ignored=("model.*.anchors",),  # the anchors again, in cells
    options={"iou": 0.45},
    # parameters: as upstream's package counts its own models before it folds them; its README has 36.9 and 71.3 million
    yolov7=Variant(Config(), params=37_620_125),
    yolov7x=Variant(Config(large=True), params=71_344_389),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, at = open_size(net, x, 32), places(net)
    levels = pyramid(at, x, cfg)
    return detect(next(at), levels, size, cfg)
