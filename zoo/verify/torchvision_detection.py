"""torchvision's detectors as our definitions are: of inputs that were prepared before, and giving every anchor.

Imported after `import_torchvision`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import clip_boxes_to_image

ZERO_EPSILON = ("retinanet_resnet50_fpn", "fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn")
LEAST = 1e-30  # for 0, with which PyTorch measures no statistics


class AsItIs(GeneralizedRCNNTransform):
    """Pictures are prepared before, and boxes stay in pixels of the input."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, images: Tensor, targets: None = None) -> tuple[ImageList, None]:
        return ImageList(images, [tuple(images.shape[-2:])] * len(images)), targets

    def postprocess(self, result: Any, image_shapes: Any, original_image_sizes: Any) -> Any:
        return result


def as_published(name: str, module: nn.Module) -> None:
    """Gives a detector the epsilon of its normalisations that torchvision sets with its published weights."""
    if name in ZERO_EPSILON:
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.eps = LEAST


def bare(module: nn.Module) -> nn.Module:
    """A detector without what it does before its network and what it selects afterwards."""
    module.transform = AsItIs()
    if isinstance(module, (RetinaNet, FCOS)):
        per_cell = module.anchor_generator.num_anchors_per_location()[0]
        score = _score_fcos if isinstance(module, FCOS) else _score_retinanet
        decode = module.box_coder.decode if isinstance(module, FCOS) else module.box_coder.decode_single
        module.postprocess_detections = partial(_every_anchor, decode, score, per_cell)
    return module


def _score_retinanet(head: dict[str, list[Tensor]], level: int) -> Tensor:
    return head["cls_logits"][level].sigmoid()


def _score_fcos(head: dict[str, list[Tensor]], level: int) -> Tensor:
    return torch.sqrt(head["cls_logits"][level].sigmoid() * head["bbox_ctrness"][level].sigmoid())


def _every_anchor(
    decode: Any, score: Any, per_cell: int, head: dict[str, list[Tensor]], anchors: Any, image_shapes: Any
) -> dict[str, Tensor]:
    """All boxes (N, 4, A) as cx, cy, w, h and scores (N, classes, A) in place of the best: level by level, and in a
    level for each anchor of a cell all cells."""
    boxes, scores = [], []
    for level, codes in enumerate(head["bbox_regression"]):
        corners = torch.stack([decode(one, anchors[0][level]) for one in codes])
        corners = clip_boxes_to_image(corners, image_shapes[0])
        boxes.append(torch.cat([corners[..., :2] + corners[..., 2:], 2 * (corners[..., 2:] - corners[..., :2])], 2) / 2)
        scores.append(score(head, level))
    found = [
        torch.cat([x.unflatten(1, (-1, per_cell)).transpose(1, 2).flatten(1, 2) for x in levels], 1)
        for levels in (boxes, scores)
    ]
    return dict(zip(("boxes", "scores"), (x.transpose(1, 2) for x in found)))
