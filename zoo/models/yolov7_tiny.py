"""YOLOv7-tiny (Wang, Bochkovskiy, Liao 2022, arXiv:2207.02696; cfg/deploy/yolov7-tiny.yaml of WongKinYiu/yolov7).

What people get wrong: every activation is a leaky ReLU of slope 0.1; maps are halved by a maximum alone on the way down
and by a convolution alone on the way back; the spatial pyramid joins its poolings from the largest window to the
smallest. Scopes are upstream's.
"""

from __future__ import annotations

from functools import partial

from zoo.blocks.yolo import conv, join
from zoo.blocks.yolo_v7 import Config, Places, configured_by, detect, doubled, elan, places
from zoo.network import Net, Tensor
from zoo.ops import concat, leaky_relu, max_pool, open_size
from zoo.preprocess import letterbox
from zoo.registry import Variant, register


def spatial_pyramid(at: Places, x: Tensor) -> Tensor:
    kept, x = conv(next(at), x, 256), conv(next(at), x, 256)
    found = [x, *(max_pool(next(at) / "m", x, k, 1, pad=k // 2) for k in (5, 9, 13))]
    joined = next(at)
    x = conv(next(at), joined.tap(concat(joined, found[::-1])), 256)
    x = join(next(at), x, kept)
    return conv(next(at), x, 256)


def pyramid(at: Places, x: Tensor) -> list[Tensor]:
    """Maps of strides 8, 16 and 32 as the head takes them."""
    mixed = partial(elan, at, repeats=2, every=True)
    x = conv(next(at), x, 32, 3, 2)
    x = conv(next(at), x, 64, 3, 2)
    levels = [mixed(x, out=64, width=32, inner=32)]
    for width in (64, 128, 256):
        levels.append(mixed(max_pool(next(at) / "m", levels[-1], 2), out=2 * width, width=width, inner=width))
    _, p3, p4, p5 = levels

    p5 = spatial_pyramid(at, p5)
    p4 = mixed(doubled(at, p5, p4, 128), out=128, width=64, inner=64)
    p3 = mixed(doubled(at, p4, p3, 64), out=64, width=32, inner=32)
    x = conv(next(at), p3, 128, 3, 2)
    p4 = mixed(join(next(at), x, p4), out=128, width=64, inner=64)
    x = conv(next(at), p4, 256, 3, 2)
    p5 = mixed(join(next(at), x, p5), out=256, width=128, inner=128)
    return [conv(next(at), x, out, 3) for x, out in ((p3, 128), (p4, 256), (p5, 512))]


@register(
    task="detect",
    reference="sas_yolov7:{name}",
    preprocess=letterbox(),
    paper="arXiv:2207.02696",
    configure=configured_by(77),
    ignored=("model.*.anchors",),  # the anchors again, in cells
    options={"iou": 0.45},
    yolov7_tiny=Variant(Config(), params=6_227_101),  # as upstream's package counts its own; its README has 6.2 million
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    at = places(net.having(activation=partial(leaky_relu, slope=0.1)))
    levels = pyramid(at, x)
    return detect(next(at), levels, size, cfg)
