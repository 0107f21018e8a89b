"""YOLOv3-tiny detection of Darknet (Redmon and Farhadi 2018, arXiv:1804.02767; cfg/yolov3-tiny.cfg).

With anchor boxes and an objectness score, unlike YOLOv3u-tiny. What people get wrong: the last pooling keeps the size,
and in this port the zeros that pad it on the right and below compete for the maximum; the finer level uses anchors 1 to
3 and not 0 to 2. Scopes are pytorchyolo's.
"""

from __future__ import annotations

from zoo.blocks.darknet import Config, configured_by, conv, detections, predict
from zoo.network import Net, Tensor
from zoo.ops import concat, max_pool, open_size, pad, upsample
from zoo.preprocess import Resize
from zoo.registry import Variant, register


@register(
    task="detect",
    reference="pytorchyolo:yolov3-tiny",
    # pytorchyolo pads a picture before it resizes it: some pixels are the next one of the picture there
    preprocess=Resize(416, "fit", interpolation="cv2:nearest", stride=32),
    paper="arXiv:1804.02767",
    configure=configured_by(15),
    ignored=("*.anchors",),  # the anchors again
    options={"iou": 0.45},
    # parameters: the weights in Darknet's yolov3-tiny.weights, without the statistics
    yolov3_tiny=Variant(Config(), params=8_852_366),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, at = open_size(net, x, 32), net / "module_list"
    for i, out in enumerate((16, 32, 64, 128)):
        x = max_pool(at / (2 * i + 1) / f"maxpool_{2 * i + 1}", conv(at, x, 2 * i, out, 3), 2)
    p4 = conv(at, x, 8, 256, 3)  # stride 16
    x = conv(at, max_pool(at / 9 / "maxpool_9", p4, 2), 10, 512, 3)
    x = max_pool(at / 11 / "maxpool_11", pad(at / 11 / "_debug_padding_11", x, (0, 1, 0, 1)), 2, 1)
    x = conv(at, conv(at, x, 12, 1024, 3), 13, 256, 1)
    p5 = predict(at, conv(at, x, 14, 512, 3), 15, size, cfg)  # stride 32
    x = upsample(at / 19 / "upsample_19", conv(at, x, 18, 128, 1), 2)
    x = conv(at, concat(at / 20, [x, p4]), 21, 256, 3)
    return detections(net, [p5, predict(at, x, 22, size, cfg)], cfg)
