"""transformers: networks that Hugging Face publishes, from configurations written here; nothing is asked of its Hub.

Names of modules are those of version 5.24, whose loader renames the tensors of older files.
"""

from __future__ import annotations

from collections.abc import Collection
from types import MethodType
from typing import TYPE_CHECKING, Any

from zoo.verify.references import PYTORCH, Library, Published
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    from torch import Tensor, nn

DEPTH_ANYTHING = {  # width and heads of the backbone, widths of the maps, of their fusion
    "depth_anything_v2_small": (384, 6, [48, 96, 192, 384], 64),
    "depth_anything_v2_base": (768, 12, [96, 192, 384, 768], 128),
}
SMALL, LARGE = [32, 64, 160, 256], [64, 128, 320, 512]
SEGFORMER = {  # widths and depths of the stages, width of the head
    "segformer_b0": (SMALL, [2, 2, 2, 2], 256),
    "segformer_b1": (LARGE, [2, 2, 2, 2], 256),
    "segformer_b2": (LARGE, [3, 4, 6, 3], 768),
    "segformer_b3": (LARGE, [3, 4, 18, 3], 768),
    "segformer_b4": (LARGE, [3, 8, 27, 3], 768),
    "segformer_b5": (LARGE, [3, 6, 40, 3], 768),
}
ADE20K = 150  # classes
BASIC, BOTTLENECK = ("basic", [64, 128, 256, 512], 0.5), ("bottleneck", [256, 512, 1024, 2048], 1.0)
RTDETR = {  # blocks, widths, share of the encoder's inner layers; depths, layers of the decoder, widths of the encoder
    "rtdetr_r18": (*BASIC, [2, 2, 2, 2], 3, 256, 1024),
    "rtdetr_r34": (*BASIC, [3, 4, 6, 3], 4, 256, 1024),
    "rtdetr_r50": (*BOTTLENECK, [3, 4, 6, 3], 6, 256, 1024),
    "rtdetr_r101": (*BOTTLENECK, [3, 4, 23, 3], 6, 384, 2048),
}
CLIP = {  # width, layers, projected width, patch, image
    "clip_vit_base_patch32": (768, 12, 512, 32, 224),
    "clip_vit_base_patch16": (768, 12, 512, 16, 224),
    "clip_vit_large_patch14": (1024, 24, 768, 14, 224),
    "clip_vit_large_patch14_336": (1024, 24, 768, 14, 336),
}
VIT_B, VIT_L, SO400M = (768, 12, 12, 3072, 16), (1024, 24, 16, 4096, 16), (1152, 27, 16, 4304, 14)
SIGLIP = {  # width, layers, heads, inner width, patch; image
    "siglip_base_patch16_224": (*VIT_B, 224),
    "siglip_base_patch16_256": (*VIT_B, 256),
    "siglip_base_patch16_384": (*VIT_B, 384),
    "siglip_base_patch16_512": (*VIT_B, 512),
    "siglip_large_patch16_256": (*VIT_L, 256),
    "siglip_large_patch16_384": (*VIT_L, 384),
    "siglip_so400m_patch14_224": (*SO400M, 224),
    "siglip_so400m_patch14_384": (*SO400M, 384),
}
SAM = {  # width, layers, heads, which of them attend to the whole map
    "sam_vit_base": (768, 12, 12, [2, 5, 8, 11]),
    "sam_vit_large": (1024, 24, 16, [5, 11, 17, 23]),
    "sam_vit_huge": (1280, 32, 16, [7, 15, 23, 31]),
}
VITPOSE = {"vitpose_base_simple": True, "vitpose_base": False}  # whether its head is the simple one
COCO = 80
DETR = {"detr_r50": "resnet50", "detr_r101": "resnet101"}  # timm's name of the backbone
HUB = "https://huggingface.co"
COCO_NUMBERS = 91  # of which 80 are classes


class Transformers(Library):
    name = "transformers"
    package = "transformers"
    install = PYTORCH

    def names(self) -> Collection[str]:
        return [*CLIP, *SIGLIP, *SAM, *VITPOSE, *DEPTH_ANYTHING, *SEGFORMER, *RTDETR, *DETR, "superpoint"]

    def load(self, name: str, classes: int | None) -> nn.Module:
        import_torchvision()  # which transformers looks for
        if name in CLIP or name in SIGLIP:
            from zoo.verify.transformers_encoders import clip, siglip

            return clip(*CLIP[name]) if name in CLIP else siglip(*SIGLIP[name])
        if name in SAM:
            from zoo.verify.transformers_encoders import sam

            return sam(*SAM[name])
        if name in VITPOSE:
            from zoo.verify.transformers_encoders import vitpose

            return vitpose(VITPOSE[name])
        if name in DEPTH_ANYTHING:
            return _depth_anything(*DEPTH_ANYTHING[name])
        if name in SEGFORMER:
            return _segformer(*SEGFORMER[name], ADE20K if classes is None else classes)
        if name in RTDETR:
            return self.adopt(_rtdetr(*RTDETR[name], COCO if classes is None else classes))
        if name in DETR:
            return self.adopt(_detr(DETR[name], COCO_NUMBERS if classes is None else classes))
        if name == "superpoint":
            return self.adopt(_superpoint())
        raise self.unknown(name)

    def resized(self, module: nn.Module, size: tuple[int, int, int]) -> nn.Module:
        from zoo.verify.transformers_encoders import resized

        return resized(module, size)

    def adopt(self, module: nn.Module) -> nn.Module:
        if type(module).__name__.endswith("ForObjectDetection"):
            module.register_forward_pre_hook(_keep_size)
        if type(module).__name__ == "SuperPointForKeypointDetection":
            module.forward = MethodType(_dense, module)
        if type(module).__name__ == "RTDetrForObjectDetection":
            _without_training(module.model.decoder, module.config.num_labels)
        return module

    def choosers(self, module: nn.Module) -> Collection[str]:
        return ["model.enc_score_head"] if hasattr(getattr(module, "model", None), "enc_score_head") else []

    def published(self, name: str) -> Published:
        if name in DETR:
            repository, labels = f"facebook/detr-{DETR[name].replace('resnet', 'resnet-')}", "coco91"
        elif name in RTDETR:
            repository, labels = f"PekingU/{name}vd", "coco"
        else:
            return super().published(name)
        address, file = f"{HUB}/{repository}/resolve/main/model.safetensors", f"{name}.safetensors"
        return Published(address, None, None, "Apache-2.0", f"{repository} on Hugging Face", labels, file)

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        if isinstance(result, tuple):
            return dict(zip(("scores", "descriptors"), result))
        for embedding in ("image_embeds", "pooler_output"):
            if embedding in result:
                return {"embedding": result[embedding]}
        if "heatmaps" in result:
            return {"heatmaps": result.heatmaps}
        if type(module).__name__ == "SamVisionModel":
            return {"image_embeddings": result.last_hidden_state}
        if "pred_boxes" in result:
            height, width = module.input_size
            boxes = result.pred_boxes * result.pred_boxes.new_tensor([width, height] * 2)
            none = type(module).__name__ == "DetrForObjectDetection"  # the last class
            scores = result.logits.softmax(-1)[..., :-1] if none else result.logits.sigmoid()
            return {"boxes": boxes.transpose(1, 2), "scores": scores.transpose(1, 2)}
        return {"depth": result.predicted_depth} if "predicted_depth" in result else {"logits": result.logits}


def _depth_anything(width: int, heads: int, maps: list[int], fused: int) -> nn.Module:
    from torch import nn
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=width,
        num_attention_heads=heads,
        image_size=518,
        patch_size=14,
        out_indices=[3, 6, 9, 12],
        apply_layernorm=True,
        reshape_hidden_states=False,
        use_mask_token=False,  # for training
    )
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=width, neck_hidden_sizes=maps, fusion_hidden_size=fused
    )
    module = DepthAnythingForDepthEstimation(config)
    module.neck.fusion_stage.layers[0].residual_layer1 = nn.Identity()  # the deepest map joins no other: it never runs
    return module


def _segformer(widths: list[int], depths: list[int], head: int, classes: int) -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        hidden_sizes=widths,
        depths=depths,
        decoder_hidden_size=head,
        num_labels=classes,
        drop_path_rate=0.0,  # for training
    )
    return SegformerForSemanticSegmentation(config)


def _rtdetr(
    blocks: str, widths: list[int], share: float, depths: list[int], layers: int, width: int, hidden: int, classes: int
) -> nn.Module:
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    config = RTDetrConfig(
        backbone_config=RTDetrResNetConfig(
            hidden_sizes=widths, depths=depths, layer_type=blocks, out_indices=[2, 3, 4]
        ),
        freeze_backbone_batch_norms=False,  # computes the same, and can be measured
        encoder_in_channels=widths[1:],
        hidden_expansion=share,
        encoder_hidden_dim=width,
        encoder_ffn_dim=hidden,
        decoder_in_channels=[width] * 3,
        decoder_layers=layers,
        num_labels=classes,
        num_denoising=0,  # for training
    )
    return RTDetrForObjectDetection(config)


def _detr(backbone: str, classes: int) -> nn.Module:
    from unittest import mock

    from transformers import DetrConfig, DetrForObjectDetection

    config = DetrConfig(backbone=backbone, num_labels=classes)
    # a frozen normalisation computes the same as the one in its place, which can be measured
    with mock.patch("transformers.models.detr.modeling_detr.replace_batch_norm", lambda model: None):
        return DetrForObjectDetection(config).requires_grad_(True)


def _superpoint() -> nn.Module:
    from transformers import SuperPointConfig, SuperPointForKeypointDetection

    return SuperPointForKeypointDetection(SuperPointConfig())


def _dense(module: Any, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
    """The scores of all pixels and the descriptors of all cells, before points are chosen picture by picture."""
    from torch.nn.functional import normalize

    encoded = module.encoder(pixel_values)[0]
    finder, describer = module.keypoint_decoder, module.descriptor_decoder
    radius, finder.nms_radius = finder.nms_radius, 0
    try:
        scores = finder._get_pixel_scores(encoded)
    finally:
        finder.nms_radius = radius
    found = describer.conv_descriptor_b(describer.relu(describer.conv_descriptor_a(encoded)))
    return scores, normalize(found, p=2, dim=1)


def _keep_size(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """The size of the picture, in parts of which boxes are returned."""
    module.input_size = inputs[0].shape[2:]  # type: ignore[assignment]


def _without_training(decoder: Any, classes: int) -> None:
    """The class heads of all layers but the last serve training: what has the shape of their logits stands there."""
    from torch import nn

    for i in range(len(decoder.class_embed) - 1):
        decoder.class_embed[i] = nn.ZeroPad2d((0, classes - decoder.config.d_model, 0, 0))


LIBRARY = Transformers()
