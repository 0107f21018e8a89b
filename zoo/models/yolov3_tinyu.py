"""YOLOv3u-tiny detection (Redmon and Farhadi 2018, arXiv:1804.02767; ultralytics/cfg/models/v3/yolov3-tiny.yaml).

What people get wrong: the last pooling keeps the size, and the zeros that pad it on the right and below compete for the
maximum. Two levels, of strides 16 and 32, and v8's head. Scopes are ultralytics'.
"""

from __future__ import annotations

from zoo.blocks.yolo import conv, join
from zoo.blocks.yolo_head import Head, detect, plain, with_head
from zoo.network import Net, Tensor
from zoo.ops import max_pool, open_size, pad, upsample
from zoo.preprocess import letterbox
from zoo.registry import Variant, register
from zoo.weights import Weights


def configure(weights: Weights, cfg: Head) -> Head:
    """The classes and bins that the weights have."""
    return with_head(weights, cfg, 20)


@register(
    task="detect",
    reference="ultralytics:yolov3-tinyu",
    preprocess=letterbox(),
    paper="arXiv:1804.02767",
    configure=configure,
    # parameters: as ultralytics 8.4 counts its own models, the 16 constants of the box distribution included
    yolov3_tinyu=Variant(Head(), params=12_173_248),
)
def build(net: Net, x: Tensor, cfg: Head) -> dict[str, Tensor]:
    size, at = open_size(net, x, 32), net / "model"
    for i, out in enumerate((16, 32, 64, 128)):
        x = max_pool(at / (2 * i + 1), conv(at / (2 * i), x, out, 3), 2)
    p4 = conv(at / 8, x, 256, 3)  # stride 16
    x = conv(at / 10, max_pool(at / 9, p4, 2), 512, 3)
    x = max_pool(at / 12, pad(at / 11, x, (0, 1, 0, 1)), 2, 1)
    x = conv(at / 14, conv(at / 13, x, 1024, 3), 256)
    p5 = conv(at / 15, x, 512, 3)  # stride 32
    x = join(at / 18, upsample(at / 17, conv(at / 16, x, 128), 2), p4)
    p4 = conv(at / 19, x, 256, 3)
    return detect(at / 20, [p4, p5], size, cfg, plain)
