"""torchvision: networks by `torchvision.models.get_model`, and their first weights: IMAGENET1K_V1 of classifiers,
COCO_WITH_VOC_LABELS_V1 for segmentation, COCO_V1 of detectors, whose classes begin with the background.

Arguments of its builder that are whole numbers may follow a name:
"fasterrcnn_resnet50_fpn?rpn_post_nms_top_n_test=300".
The weights are published beside the code, under its BSD licence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from zoo.errors import ZooError
from zoo.verify.references import PYTORCH, Library, Published
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    from torch import Tensor, nn

FOLDER = "https://download.pytorch.org/models"
# The files of its first ImageNet weights; what stands behind the last hyphen begins the file's SHA-256.
FILES = """
convnext_base-6075fbad convnext_large-ea097f82 convnext_small-0c510722 convnext_tiny-983f1562 densenet121-a639ec97
densenet161-8d451a50 densenet169-b2777c0a densenet201-c1103571 efficientnet_v2_l-59c71312 efficientnet_v2_m-dc08266a
efficientnet_v2_s-dd5fe13b googlenet-1378be20 maxvit_t-bc5ab103 mnasnet0_75-7090bc5f mnasnet1_3-a4c69d6f
mobilenet_v2-b0353104 mobilenet_v3_large-8738ca79 mobilenet_v3_small-047dcff4 regnet_x_16gf-2007eb11
regnet_x_1_6gf-e3633e7f regnet_x_32gf-9d47f8d0 regnet_x_3_2gf-f342aeae regnet_x_400mf-adf1edd5 regnet_x_800mf-ad17e45c
regnet_x_8gf-03ceed89 regnet_y_16gf-9e6ed7dd regnet_y_1_6gf-b11a554e regnet_y_32gf-4dee3f7a regnet_y_3_2gf-b5a9779c
regnet_y_400mf-c65dace8 regnet_y_800mf-1b27b58c regnet_y_8gf-d0d0e4a8 resnet101-63fe2227 resnet152-394f9c45
resnet18-f37072fd resnet34-b627a593 resnet50-0676ba61 resnext101_32x8d-8ba56ff5 resnext101_64x4d-173b62eb
resnext50_32x4d-7cdf4587 squeezenet1_0-b66bff10 squeezenet1_1-b8a52dc0 swin_b-68c6b09e swin_s-5e29d889 swin_t-704ceda3
swin_v2_b-781e5279 swin_v2_s-637d8ceb swin_v2_t-b137f0e2 vgg11-8a719046 vgg11_bn-6002323d vgg13-19584684
vgg13_bn-abd245e5 vgg16-397923af vgg16_bn-6c64b313 vgg19-dcbb9e9d vgg19_bn-c79401a0 vit_b_16-c867db91
vit_b_32-d86f8d99 vit_l_16-852ce7e3 vit_l_32-c7638314 wide_resnet101_2-32ee1156 wide_resnet50_2-95faca4d
"""
OTHERS = {
    "alexnet": "alexnet-owt-7be5be79",
    "efficientnet_b0": "efficientnet_b0_rwightman-7f5810bc",
    "efficientnet_b1": "efficientnet_b1_rwightman-bac287d4",
    "efficientnet_b2": "efficientnet_b2_rwightman-c35c1473",
    "efficientnet_b3": "efficientnet_b3_rwightman-b3899882",
    "efficientnet_b4": "efficientnet_b4_rwightman-23ab8bcd",
    "efficientnet_b5": "efficientnet_b5_lukemelas-1a07897c",
    "efficientnet_b6": "efficientnet_b6_lukemelas-24a108a5",
    "efficientnet_b7": "efficientnet_b7_lukemelas-c5b4e57e",
    "inception_v3": "inception_v3_google-0cc3c7bd",
    "mnasnet0_5": "mnasnet0.5_top1_67.823-3ffadce67e",
    "mnasnet1_0": "mnasnet1.0_top1_73.512-f206786ef8",
    "shufflenet_v2_x0_5": "shufflenetv2_x0.5-f707e7126e",
    "shufflenet_v2_x1_0": "shufflenetv2_x1-5666bf0f80",
    "shufflenet_v2_x1_5": "shufflenetv2_x1_5-3c479a10",
    "shufflenet_v2_x2_0": "shufflenetv2_x2_0-8be3c8ee",
    "vit_h_14": "vit_h_14_lc_swag-c1eb923e",
}  # whose files are not called as the models
SEGMENTATION = {
    "deeplabv3_mobilenet_v3_large": "deeplabv3_mobilenet_v3_large-fc3c493d",
    "deeplabv3_resnet101": "deeplabv3_resnet101_coco-586e9e4e",
    "deeplabv3_resnet50": "deeplabv3_resnet50_coco-cd0a2569",
    "fcn_resnet101": "fcn_resnet101_coco-7ecb50ca",
    "fcn_resnet50": "fcn_resnet50_coco-1167a1af",
    "lraspp_mobilenet_v3_large": "lraspp_mobilenet_v3_large-d234d4ea",
}
DETECTION = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9",
    "fasterrcnn_mobilenet_v3_large_fpn": "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7",
    "fasterrcnn_resnet50_fpn": "fasterrcnn_resnet50_fpn_coco-258fb6c6",
    "fasterrcnn_resnet50_fpn_v2": "fasterrcnn_resnet50_fpn_v2_coco-dd69338a",
    "fcos_resnet50_fpn": "fcos_resnet50_fpn_coco-99b0c9b7",
    "maskrcnn_resnet50_fpn": "maskrcnn_resnet50_fpn_coco-bf2d0c1e",
    "maskrcnn_resnet50_fpn_v2": "maskrcnn_resnet50_fpn_v2_coco-73cbd019",
    "retinanet_resnet50_fpn": "retinanet_resnet50_fpn_coco-eeacb38b",
    "retinanet_resnet50_fpn_v2": "retinanet_resnet50_fpn_v2_coco-5905b1c5",
}
# How far apart an R-CNN's random weights shall put what it chooses by: without, scores are all 1 or all too little, and
# boxes end at the border.
SPREADS = {
    "rpn.head.cls_logits": 2.0,
    "rpn.head.bbox_pred": 0.3,
    "roi_heads.box_predictor.cls_score": 2.5,
    "roi_heads.box_predictor.bbox_pred": 1.0,
}
_FILES = {file.rpartition("-")[0]: file for file in FILES.split()} | OTHERS | SEGMENTATION | DETECTION


class Torchvision(Library):
    name = "torchvision"
    package = "torchvision"
    install = PYTORCH

    def names(self) -> Collection[str]:
        models = import_torchvision().models
        parts = (models, models.segmentation, models.detection)
        return [name for part in parts for name in models.list_models(module=part)]

    def load(self, name: str, classes: int | None) -> nn.Module:
        name, _, given = name.partition("?")
        if name not in self.names():
            raise self.unknown(name)
        # Both have classifiers for training only; published weights are used without.
        options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
        models = import_torchvision().models
        detects = name in models.list_models(module=models.detection)
        if name in SEGMENTATION or detects:
            options["weights_backbone"] = None
        if classes is not None:
            options["num_classes"] = classes
        try:
            options |= {option: int(value) for option, value in parse_qsl(given, strict_parsing=bool(given))}
            module = models.get_model(name, weights=None, **options)
        except (TypeError, ValueError) as error:
            if not given:
                raise
            raise ZooError(f"torchvision:{name} takes no {given!r}: {error}; expected ARGUMENT=NUMBER&...") from None
        if detects:
            from zoo.verify.torchvision_detection import as_published

            as_published(name, module)
        return self.adopt(module)

    def adopt(self, module: nn.Module) -> nn.Module:
        if not hasattr(module, "transform"):  # as detectors have, which resize and select
            return module
        from zoo.verify.torchvision_detection import bare

        return bare(module)

    def spreads(self, module: nn.Module) -> Mapping[str, float]:
        return SPREADS if hasattr(module, "roi_heads") else {}

    def choosers(self, module: nn.Module) -> Collection[str]:
        if not hasattr(module, "transform"):
            return ()
        from zoo.verify.torchvision_detection import choosers

        return choosers(module)

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        if isinstance(result, dict):
            return {"logits": result["out"]} if "out" in result else result
        return {"logits": result}

    def published(self, name: str) -> Published:
        file = _FILES.get(name)
        if file is None:
            return super().published(name)
        trained, labels, licence = "IMAGENET1K_V1", "imagenet", "BSD-3-Clause"
        if name == "vit_h_14":  # a linear classifier on frozen features, which alone are of its usual size
            trained, licence = "IMAGENET1K_SWAG_LINEAR_V1", "CC-BY-NC-4.0"
        if name in SEGMENTATION:
            trained, labels = ("COCO_WITH_VOC_LABELS_V1", "voc")
        elif name in DETECTION:
            trained, labels = ("COCO_V1", "coco91")
        url, sha256 = f"{FOLDER}/{file}.pth", file.rpartition("-")[2]
        return Published(url, sha256, None, licence, f"torchvision {name}, {trained}", labels)


LIBRARY = Torchvision()
