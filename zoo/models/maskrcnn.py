"""Mask R-CNN on a ResNet-50 with a feature pyramid (He et al. 2017, arXiv:1703.06870; v2: 2111.11429).

Faster R-CNN, and a head that draws a mask of 28x28 for each detection, not for each proposal: it has one for every
class, of which the detection's is taken. Scopes, what decides and the parameters, with those of frozen normalisations,
are torchvision's; for the rest see `fasterrcnn`.
"""

from __future__ import annotations

from zoo.blocks import rcnn
from zoo.blocks.feature_pyramid import WIDTH
from zoo.blocks.rcnn import Config
from zoo.blocks.resnet import FROZEN_RESNET50
from zoo.network import Net, Tensor
from zoo.ops import conv2d, conv_bn, conv_transpose2d, fixed_size, relu, reshape, sigmoid
from zoo.preprocess import pasted
from zoo.registry import Variant, classes_from, register

SIDE, DEPTH = 28, 4


def draw(net: Net, x: Tensor, cfg: Config) -> Tensor:
    """What is pooled of detections (N D, C, 14, 14) -> logits of each class (N D, classes, 28, 28)."""
    for i in range(DEPTH):
        at = net / "mask_head" / i
        if cfg.second:
            x = relu(at / 2, conv_bn(at, x, WIDTH, 3, conv=0, bn=1))
        else:
            x = relu(at / 1, conv2d(at / 0, x, WIDTH, 3))
    at = net / "mask_predictor"
    x = relu(at / "relu", conv_transpose2d(at / "conv5_mask", x, WIDTH, 2, 2))
    return conv2d(at / "mask_fcn_logits", x, cfg.num_classes, 1)


@register(
    task="masks",
    reference="torchvision:{name}",
    preprocess=pasted(),
    paper="arXiv:1703.06870",
    configure=classes_from("roi_heads.box_predictor.cls_score.bias"),
    options={"conf": rcnn.CONF, "max_det": 100, "nms": False},
    maskrcnn_resnet50_fpn=Variant(Config(), params=44_401_393 + FROZEN_RESNET50),
    maskrcnn_resnet50_fpn_v2=Variant(Config(second=True), params=46_359_409, paper="arXiv:2111.11429"),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, heads = fixed_size(net, x, 32, "the anchors are placed for one size"), net / "roi_heads"
    levels = rcnn.resnet_levels(net / "backbone", x, cfg.second)
    boxes, scores, label = rcnn.find(net, levels, size, rcnn.SIZES, cfg)
    pooled = rcnn.pool(heads / "mask_roi_pool", levels[:-1], boxes, size, SIDE // 2)
    masks = sigmoid(heads.functional, rcnn.of_class(heads, draw(heads, pooled, cfg), label))
    masks = reshape(heads, masks, (-1, cfg.detections, SIDE, SIDE))
    return {**rcnn.as_outputs(heads, boxes, scores, label, cfg.num_classes), "masks": masks}
