"""Faster R-CNN on a ResNet-50 or a MobileNetV3 with a feature pyramid (Ren et al. 2015, arXiv:1506.01497).

Boxes are final: the network proposes 1000, and gives the best 100 detections. The published weights of the ResNet run
with an epsilon of 0 in its normalisations, the others with 1e-5, MobileNetV3's 1e-3 notwithstanding; its two maps have
one stride, so that only the first is pooled from. Scopes, what decides (a score of 0.05, an overlap of 0.5) and the
parameters, with those of frozen normalisations, are torchvision's; for its resizing see `retinanet`, the smallest
fits pictures into 320x640.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks import mobilenet_v3, rcnn
from zoo.blocks.feature_pyramid import pyramid
from zoo.blocks.resnet import FROZEN_RESNET50
from zoo.network import Net, Tensor
from zoo.ops import fixed_size
from zoo.preprocess import pasted
from zoo.registry import Variant, classes_from, register

MOBILE_SIZES = ((32, 64, 128, 256, 512),) * 3
FROZEN_MOBILE = 24_400  # scales and shifts of its normalisations


@dataclass(frozen=True)
class Config(rcnn.Config):
    mobile: bool = False


def mobile_levels(net: Net, x: Tensor) -> list[Tensor]:
    found = mobilenet_v3.features(net / "body", x, mobilenet_v3.LARGE, eps=1e-5)
    return rcnn.with_last(net, pyramid(net / "fpn", [found[-4], found[-1]]))


@register(
    task="detect",
    reference="torchvision:{name}",
    preprocess=pasted(),
    paper="arXiv:1506.01497",
    configure=classes_from("roi_heads.box_predictor.cls_score.bias"),
    options={"conf": rcnn.CONF, "max_det": 100, "nms": False},
    fasterrcnn_mobilenet_v3_large_320_fpn=Variant(
        Config(mobile=True, proposals=150, proposal_conf=0.05),
        params=19_386_354 + FROZEN_MOBILE,
        preprocess=pasted((320, 640)),
    ),
    fasterrcnn_mobilenet_v3_large_fpn=Variant(
        Config(mobile=True, proposal_conf=0.05), params=19_386_354 + FROZEN_MOBILE
    ),
    fasterrcnn_resnet50_fpn=Variant(Config(), params=41_755_286 + FROZEN_RESNET50),
    fasterrcnn_resnet50_fpn_v2=Variant(Config(second=True), params=43_712_278, paper="arXiv:2111.11429"),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, backbone = fixed_size(net, x, 32, "the anchors are placed for one size"), net / "backbone"
    levels = mobile_levels(backbone, x) if cfg.mobile else rcnn.resnet_levels(backbone, x, cfg.second)
    found = rcnn.find(net, levels, size, MOBILE_SIZES if cfg.mobile else rcnn.SIZES, cfg)
    return rcnn.as_outputs(net / "roi_heads", *found, cfg.num_classes)
