"""YOLOv4 of Darknet (Bochkovskiy, Wang, Liao 2020, arXiv:2004.10934; cfg/yolov4.cfg).

What people get wrong: Mish is the trunk's activation and leaky ReLU the neck's; the halves of a stage are both made of
all its channels; centres reach 1.2, 1.1 and 1.05 cells far on strides 8, 16 and 32. Scopes are pytorch-YOLOv4's.
"""

from __future__ import annotations

from zoo.blocks.yolo_v4 import Config, Places, configured_by, detections
from zoo.network import Net, Tensor
from zoo.ops import add, max_pool, open_size, upsample
from zoo.preprocess import Resize
from zoo.registry import Variant, register

ANCHORS = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)
REACH = (1.2, 1.1, 1.05)


def stage(at: Places, x: Tensor, out: int, part: int, hidden: int, repeats: int) -> Tensor:
    """A map half the size; residual blocks on one of two parts of it."""
    x = at.conv(x, out, 3, 2, smooth=True)
    kept = at.conv(x, part, smooth=True)
    at.next()  # a route back to x
    y = at.conv(x, part, smooth=True)
    for _ in range(repeats):
        inner = at.conv(at.conv(y, hidden, smooth=True), part, 3, smooth=True)
        y = add(at.next(), y, inner)
    y = at.conv(y, part, smooth=True)
    return at.conv(at.join(y, kept), out, smooth=True)


def spatial_pyramid(at: Places, x: Tensor) -> Tensor:
    found = [x]
    for i, k in enumerate((5, 9, 13)):
        if i:
            at.next()  # a route back to x
        found.insert(0, max_pool(at.next(), x, k, 1, pad=k // 2))
    return at.join(*found)


def doubled(at: Places, x: Tensor, skip: Tensor, width: int) -> Tensor:
    """x, narrowed, at twice its size, after the finer level."""
    x = at.conv(x, width)
    x = upsample(at.next(), x, 2)
    at.next()  # a route to `skip`
    return at.join(at.conv(skip, width), x)


def raw_levels(at: Places, x: Tensor, cfg: Config) -> list[Tensor]:
    """What the head predicts on strides 8, 16 and 32."""
    x, levels = at.conv(x, 32, 3, smooth=True), []
    for out, part, hidden, repeats in ((64, 64, 32, 1), (128, 64, 64, 2), (256, 128, 128, 8), (512, 256, 256, 8)):
        x = stage(at, x, out, part, hidden, repeats)
        levels.append(x)
    x = at.alternating(stage(at, x, 1024, 512, 512, 4), 512, 3)
    p5 = at.alternating(spatial_pyramid(at, x), 512, 3)
    p4 = at.alternating(doubled(at, p5, levels[3], 256), 256, 5)
    x = at.alternating(doubled(at, p4, levels[2], 128), 128, 5)
    raw = [at.predict(at.conv(x, 256, 3), cfg)]
    for width, skip in ((256, p4), (512, p5)):
        at.next()  # a route back to x
        x = at.conv(x, width, 3, 2)
        x = at.alternating(at.join(x, skip), width, 5)
        raw.append(at.predict(at.conv(x, 2 * width, 3), cfg))
    return raw


@register(
    task="detect",
    reference="yolov4:{name}",
    # as pytorch-YOLOv4 does it: stretched
    preprocess=Resize(608, interpolation="cv2:bilinear", stride=32),
    paper="arXiv:2004.10934",
    configure=configured_by(138, 94),
    options={"iou": 0.6},
    # parameters: the weights in Darknet's yolov4.weights, without the statistics
    yolov4=Variant(Config(), params=64_363_101),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    return detections(net, raw_levels(Places(net), x, cfg), size, ANCHORS, REACH, cfg)
