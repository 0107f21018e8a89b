"""YOLOv3 detection of Darknet (Redmon and Farhadi 2018, arXiv:1804.02767; cfg/yolov3.cfg).

With anchor boxes and an objectness score, unlike YOLOv3u. What people get wrong: a finer level goes on from the fifth
convolution of the coarser one, not from the sixth, which predicts. Scopes are pytorchyolo's.
"""

from __future__ import annotations

from zoo.blocks.darknet import Config, alternating, configured_by, conv, detections, predict, residuals
from zoo.network import Net, Tensor
from zoo.ops import concat, open_size, upsample
from zoo.preprocess import Resize
from zoo.registry import Variant, register


@register(
    task="detect",
    reference="pytorchyolo:{name}",
    # pytorchyolo pads a picture before it resizes it: some pixels are the next one of the picture there
    preprocess=Resize(416, "fit", interpolation="cv2:nearest", stride=32),
    paper="arXiv:1804.02767",
    configure=configured_by(81),
    ignored=("*.anchors",),  # the anchors again
    options={"iou": 0.45},
    # parameters: the weights in Darknet's yolov3.weights, without the statistics
    yolov3=Variant(Config(), params=61_949_149),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, at = open_size(net, x, 32), net / "module_list"
    x = residuals(at, conv(at, conv(at, x, 0, 32, 3), 1, 64, 3, 2), 2, 1)
    x = residuals(at, conv(at, x, 5, 128, 3, 2), 6, 2)
    p3 = residuals(at, conv(at, x, 12, 256, 3, 2), 13, 8)  # stride 8
    p4 = residuals(at, conv(at, p3, 37, 512, 3, 2), 38, 8)  # stride 16
    x = residuals(at, conv(at, p4, 62, 1024, 3, 2), 63, 4)  # stride 32

    x, levels = alternating(at, x, 75, 512, 5), []
    levels.append(predict(at, conv(at, x, 80, 1024, 3), 81, size, cfg))
    for place, width, skip in ((84, 256, p4), (96, 128, p3)):
        x = upsample(at / (place + 1) / f"upsample_{place + 1}", conv(at, x, place, width, 1), 2)
        x = alternating(at, concat(at / (place + 2), [x, skip]), place + 3, width, 5)
        levels.append(predict(at, conv(at, x, place + 8, 2 * width, 3), place + 9, size, cfg))
    return detections(net, levels, cfg)
