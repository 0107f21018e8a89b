"""torchvision's detectors as our definitions are: of inputs that were prepared before, giving every anchor, or a fixed
number of detections.

Imported after `import_torchvision`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import clip_boxes_to_image

ZERO_EPSILON = ("retinanet_resnet50_fpn", "fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn")
LEAST = 1e-30  # for 0, with which PyTorch measures no statistics


class AsItIs(GeneralizedRCNNTransform):
    """Pictures are prepared before, and boxes stay in pixels of the input."""

    def __init__(self, classes: int = 0) -> None:
        nn.Module.__init__(self)
        self.classes = classes

    def forward(self, images: Tensor, targets: None = None) -> tuple[ImageList, None]:
        return ImageList(images, [tuple(images.shape[-2:])] * len(images)), targets

    def postprocess(self, result: Any, image_shapes: Any, original_image_sizes: Any) -> Any:
        return _detections(result, self.classes) if self.classes else result


def as_published(name: str, module: nn.Module) -> None:
    """Gives a detector the epsilon of its normalisations that torchvision sets with its published weights."""
    if name in ZERO_EPSILON:
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.eps = LEAST


def bare(module: nn.Module) -> nn.Module:
    """A detector without what it does before its network, and a dense one without what it selects afterwards."""
    module.transform = AsItIs()
    if isinstance(module, FasterRCNN):
        module.transform = AsItIs(module.roi_heads.box_predictor.cls_score.out_features)
        module.rpn.filter_proposals = partial(_filled_proposals, module.rpn)
        module.roi_heads.postprocess_detections = partial(_filled_detections, module.roi_heads)
        module.rpn.register_forward_hook(_in_the_type_of_maps)
        for pool in filter(None, (module.roi_heads.box_roi_pool, module.roi_heads.mask_roi_pool)):
            pool.forward = partial(_pooled, pool)
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


def choosers(module: nn.Module) -> list[str]:
    """What an R-CNN chooses proposals and detections by."""
    if not isinstance(module, FasterRCNN):
        return []
    calls = ["", *(f":{i}" for i in range(1, len(module.rpn.anchor_generator.sizes)))]
    heads = [f"rpn.head.{name}{call}" for name in ("cls_logits", "bbox_pred") for call in calls]
    return [*heads, "roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"]


def _filled(x: Tensor, rows: int) -> Tensor:
    """`x` with rows of zeros, as many as are missing."""
    return torch.cat([x, x.new_zeros(rows - len(x), *x.shape[1:])])


def _filled_proposals(rpn: Any, *given: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The published proposals, filled up to as many as there could be."""
    boxes, scores = type(rpn).filter_proposals(rpn, *given)
    rows = min(rpn.post_nms_top_n(), sum(min(rpn.pre_nms_top_n(), count) for count in given[-1]))
    return [_filled(x, rows) for x in boxes], [_filled(x, rows) for x in scores]


def _filled_detections(
    heads: Any, logits: Tensor, codes: Tensor, proposals: list[Tensor], shapes: Any
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The published detections, filled up to as many as there may be, of class 0: chosen in the type of the run, but
    never in half precision."""
    kind = torch.promote_types(proposals[0].dtype, torch.float32)
    found = type(heads).postprocess_detections(heads, logits.to(kind), codes.to(kind), proposals, shapes)
    return tuple([_filled(x, heads.detections_per_img) for x in each] for each in found)  # type: ignore[return-value]


def _in_the_type_of_maps(rpn: nn.Module, given: Any, found: Any) -> Any:
    """Proposals that were chosen in float64 go on in the type of the run."""
    boxes, losses = found
    dtype = next(iter(given[1].values())).dtype
    return [x.to(dtype) for x in boxes], losses


def _pooled(pool: Any, maps: dict[str, Tensor], boxes: list[Tensor], shapes: Any) -> Tensor:
    """torchvision pools no bfloat16 on the CPU: its values are pooled as float32."""
    dtype = next(iter(maps.values())).dtype
    if dtype == torch.bfloat16:
        maps, boxes = {name: x.float() for name, x in maps.items()}, [x.float() for x in boxes]
    return type(pool).forward(pool, maps, boxes, shapes).to(dtype)


def _detections(result: list[dict[str, Tensor]], classes: int) -> dict[str, Tensor]:
    """boxes (N, 4, D) as cx, cy, w, h and scores (N, classes, D), of each detection for its class; masks (N, D, 28, 28)
    where there are some."""
    corners = torch.stack([found["boxes"] for found in result])
    low, high = corners[..., :2], corners[..., 2:]
    known = nn.functional.one_hot(torch.stack([found["labels"] for found in result]), classes)
    scores = known * torch.stack([found["scores"] for found in result])[..., None]
    boxes = torch.cat([(low + high) / 2, high - low], 2)
    masks = {"masks": torch.stack([found["masks"][:, 0] for found in result])} if "masks" in result[0] else {}
    return {"boxes": boxes.transpose(1, 2), "scores": scores.transpose(1, 2), **masks}
