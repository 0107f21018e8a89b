"""RetinaNet on a ResNet-50 with a feature pyramid (Lin et al. 2017, arXiv:1708.02002; v2: 1912.02424).

All levels share one head. The published weights of the first variant run with an epsilon of 0 in the normalisations of
the backbone; v2 has the usual one there, normalises groups in its head, and makes its two coarsest levels of the last
map of the backbone, not of the pyramid's. Scopes are torchvision's, and so is what decides: a score of 0.05 for any
class counts, and an anchor may count for several. Parameters are torchvision's with the scales and shifts of frozen
normalisations, which it does not count. It resizes the short side of a picture to 800, the long one to 1333 at most,
and pads to multiples of 32; here a picture is fitted into the corner of an input of 800x1344.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zoo.blocks.anchors import anchors, decode, values
from zoo.blocks.feature_pyramid import WIDTH, coarser, pyramid
from zoo.blocks.resnet import FROZEN_RESNET50, Stages, features
from zoo.network import Net, Tensor
from zoo.ops import concat, conv2d, fixed_size, group_norm, relu, sigmoid
from zoo.preprocess import pasted
from zoo.registry import Variant, register
from zoo.weights import Weights

SIZES = [tuple(int(size * 2 ** (third / 3)) for third in range(3)) for size in (32, 64, 128, 256, 512)]
ANCHORS, GROUPS, DEPTH = 9, 32, 4


@dataclass(frozen=True)
class Config:
    second: bool = False
    num_classes: int = 91


def tower(net: Net, x: Tensor, cfg: Config) -> Tensor:
    for i in range(DEPTH):
        x = conv2d(net / i / 0, x, WIDTH, 3, bias=not cfg.second)
        x = relu(net / i / 2, group_norm(net / i / 1, x, GROUPS)) if cfg.second else relu(net / i / 1, x)
    return x


def configure(weights: Weights, cfg: Config) -> Config:
    bias = "head.classification_head.cls_logits.bias"
    return replace(cfg, num_classes=weights.size(bias) // ANCHORS) if bias in weights else cfg


@register(
    task="detect",
    reference="torchvision:{name}",
    preprocess=pasted(),
    paper="arXiv:1708.02002",
    configure=configure,
    options={"conf": 0.05, "iou": 0.5, "max_det": 300, "multi_label": True, "topk_candidates": 1000},
    retinanet_resnet50_fpn=Variant(Config(), params=34_014_999 + FROZEN_RESNET50),
    retinanet_resnet50_fpn_v2=Variant(Config(second=True), params=38_198_935, paper="arXiv:1912.02424"),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, backbone, head = fixed_size(net, x, 32, "the anchors are placed for one size"), net / "backbone", net / "head"
    body = backbone / "body" if cfg.second else backbone.having(eps=0.0) / "body"
    *_, c3, c4, c5 = features(body, x, Stages()).values()
    levels = pyramid(backbone / "fpn", [c3, c4, c5])
    levels += coarser(backbone / "fpn" / "extra_blocks", c5 if cfg.second else levels[-1])
    of_class, of_box = head / "classification_head", head / "regression_head"
    logits = [
        values(of_class / "cls_logits", tower(of_class / "conv", x, cfg), cfg.num_classes, ANCHORS) for x in levels
    ]
    scores = sigmoid(of_class.functional, concat(of_class, logits, axis=2))
    at = of_box.fp32  # sizes are exponentials: half precision of a code is pixels of a box
    codes = concat(at, [values(at / "bbox_reg", tower(of_box / "conv", x, cfg), 4, ANCHORS) for x in levels], axis=2)
    centre, extent = (at.constant(part[None], "anchors") for part in np.split(anchors(size, levels, SIZES), 2))
    return {"boxes": decode(at, codes, centre, extent, size), "scores": scores}
