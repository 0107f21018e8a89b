"""YOLOv4-tiny of Darknet (Bochkovskiy, Wang, Liao 2020, arXiv:2011.08036; cfg/yolov4-tiny.cfg).

What people get wrong: a stage goes on with the second half of its channels; the finer level reads a stage before its
last join; the finer level has the anchors 1 to 3, and none has the first. Scopes are pytorch-YOLOv4's.
"""

from __future__ import annotations

from zoo.blocks.yolo_v4 import Config, Places, configured_by, detections
from zoo.network import Net, Tensor
from zoo.ops import max_pool, narrow, open_size, upsample
from zoo.preprocess import Resize
from zoo.registry import Variant, register

ANCHORS = (((81, 82), (135, 169), (344, 319)), ((23, 27), (37, 58), (81, 82)))
REACH = (1.05, 1.05)


def stage(at: Places, x: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """(x halved, what is at full size before it is joined with x)."""
    x = at.conv(x, width, 3)
    first = at.conv(narrow(at.next(), x, 1, width // 2, width // 2), width // 2, 3)
    second = at.conv(first, width // 2, 3)
    y = at.conv(at.join(second, first), width)
    joined = at.join(x, y)
    return max_pool(at.next(), joined, 2), y


def raw_levels(at: Places, x: Tensor, cfg: Config) -> list[Tensor]:
    """What the head predicts on strides 32 and 16."""
    x = at.conv(x, 32, 3, 2)
    x = at.conv(x, 64, 3, 2)
    for width in (64, 128, 256):
        x, skip = stage(at, x, width)
    kept = at.conv(at.conv(x, 512, 3), 256)
    raw = [at.predict(at.conv(kept, 512, 3), cfg)]
    at.next()  # a route back
    x = at.conv(kept, 128)
    x = upsample(at.next(), x, 2)
    x = at.conv(at.join(x, skip), 256, 3)
    return [*raw, at.predict(x, cfg)]


@register(
    task="detect",
    reference="yolov4:{name}",
    # as pytorch-YOLOv4 does it: stretched
    preprocess=Resize(416, interpolation="cv2:bilinear", stride=32),
    paper="arXiv:2011.08036",
    configure=configured_by(29, 18),
    options={"iou": 0.6},
    # parameters: the weights in Darknet's yolov4-tiny.weights, without the statistics
    yolov4_tiny=Variant(Config(), params=6_056_606),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    return detections(net, raw_levels(Places(net), x, cfg), size, ANCHORS, REACH, cfg)
