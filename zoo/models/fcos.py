"""FCOS on a ResNet-50 with a feature pyramid (Tian et al. 2019, arXiv:1904.01355).

Every cell is one anchor, a square of the level's stride around the cell's corner. Four distances, never negative and in
units of that square, lead to a box's sides; the score is the root of a class's times how central the cell is. The two
towers normalise groups; the one of the boxes tells centrality. Scopes, what decides (a score of 0.2, an overlap of 0.6)
and the parameters, with those of frozen normalisations, are torchvision's; for its resizing see `retinanet`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.blocks.anchors import anchors, clipped, values
from zoo.blocks.feature_pyramid import WIDTH, coarser, pyramid
from zoo.blocks.resnet import FROZEN_RESNET50, Stages, features
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, fixed_size, group_norm, mul, narrow, relu, sigmoid, sqrt, sub
from zoo.preprocess import pasted
from zoo.registry import Variant, classes_from, register

SIZES = [(8,), (16,), (32,), (64,), (128,)]
GROUPS, DEPTH = 32, 4


@dataclass(frozen=True)
class Config:
    num_classes: int = 91


def tower(net: Net, x: Tensor) -> Tensor:
    for i in range(0, 3 * DEPTH, 3):
        x = relu(net / (i + 2), group_norm(net / (i + 1), conv2d(net / i, x, WIDTH, 3), GROUPS))
    return x


@register(
    task="detect",
    reference="torchvision:{name}",
    preprocess=pasted(),
    paper="arXiv:1904.01355",
    configure=classes_from("head.classification_head.cls_logits.bias"),
    options={"conf": 0.2, "iou": 0.6, "max_det": 100, "multi_label": True, "topk_candidates": 1000},
    fcos_resnet50_fpn=Variant(Config(), params=32_269_600 + FROZEN_RESNET50),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, backbone = fixed_size(net, x, 32, "the anchors are placed for one size"), net / "backbone"
    *_, c3, c4, c5 = features(backbone / "body", x, Stages()).values()
    levels = pyramid(backbone / "fpn", [c3, c4, c5])
    levels += coarser(backbone / "fpn" / "extra_blocks", levels[-1])
    of_class, of_box = net / "head" / "classification_head", net / "head" / "regression_head"
    logits = [values(of_class / "cls_logits", tower(of_class / "conv", x), cfg.num_classes) for x in levels]
    maps = [tower(of_box / "conv", x) for x in levels]
    central = concat(of_box, [values(of_box / "bbox_ctrness", x, 1) for x in maps], axis=2)
    share = sigmoid(of_class.functional, concat(of_class, logits, axis=2))
    scores = sqrt(of_class, mul(of_class, share, sigmoid(of_box.functional, central)))

    at = of_box.fp32
    far = relu(at.functional, concat(at, [values(at / "bbox_reg", x, 4) for x in maps], axis=2))
    centre, extent = (at.constant(part[None], "anchors") for part in np.split(anchors(size, levels, SIZES, (1.0,)), 2))
    before, after = (mul(at, narrow(at, far, 1, start, 2), extent) for start in (0, 2))
    return {"boxes": clipped(at, sub(at, centre, before), add(at, centre, after), size), "scores": scores}
