"""Which network tensors belong to, by their names: a refusal says what a file is and not only what it lacks."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import NamedTuple

from zoo.weights.base import Weights, is_counter
from zoo.weights.older import current_names


class Family(NamedTuple):
    """`what` a file holds in words, a pattern of the zoo's names for such `models`, and `advice` that helps without."""

    what: str
    models: str
    advice: str = ""


_FUSED = (
    "take the checkpoint as the training wrote it (runs/…/weights/best.pt): predicting and exporting fold the "
    "normalisation of a model in memory"
)
_OLD = "train it again with YOLOv5 v6.0 or later, which have a convolution there"


def family_of(weights: Weights) -> Family | None:
    """The family that the names of the tensors tell, or None for names that are not known here."""
    names = set(weights.names())
    head = max((int(m[1]) for m in map(re.compile(r"model\.(\d+)\.").match, names) if m), default=None)
    if head is not None and any(name.startswith(("model.0.", "model.1.conv.")) for name in names):
        return _yolo(weights, names, head)
    return next((family for family, holds in _OTHERS if holds(names)), None)


def _yolo(weights: Weights, names: Collection[str], head: int) -> Family | None:
    """The YOLOs of ultralytics and yolov5: `model.N.` with the head last."""

    def has(part: str) -> bool:
        return any(name.startswith(f"model.{head}.{part}") for name in names)

    if "model.0.conv.bias" in names and not any(".bn." in name for name in names):
        return Family("a fused YOLO, its BatchNorms folded into the convolutions", "", _FUSED)
    if "model.0.conv.conv.weight" in names:
        return Family("a YOLOv5 from before v6.0, whose stem is a Focus", "", _OLD)
    if has("enc_score_head."):
        return Family("an RT-DETR of ultralytics", "rtdetr_[lx]")
    if has("linear.weight"):
        return _classifier(names, head)
    if has("anchors"):
        return _anchors(names, head, has)
    if not (has("cv2.") and has("cv3.") or has("one2one_cv2.")):
        return None
    name, pattern = _generation(names, head)
    if has("proto."):
        return Family(f"a {name} for segmentation", f"{pattern}_seg")
    if has("cv4."):
        last = f"model.{head}.cv4.0.2.bias"
        if last in names and weights.size(last) == 1:
            return Family(f"a {name} for oriented boxes", f"{pattern}_obb")
        return Family(f"a {name} for poses", f"{pattern}_pose")
    return Family(f"a {name} detector", pattern)


def _classifier(names: Collection[str], head: int) -> Family:
    if "model.6.m.0.0.attn.qkv.conv.weight" in names:
        return Family("a YOLO12 classifier", "yolo12?_cls")
    if head == 10:
        return Family("a YOLO11 or YOLO26 classifier", "yolo[12][16]?_cls")
    if "model.2.m.0.cv1.conv.weight" in names and "model.2.cv3.conv.weight" not in names:
        return Family("a YOLOv8 classifier", "yolov8?_cls")
    return Family("a YOLOv5 classifier", "yolov5?_cls")


def _anchors(names: Collection[str], head: int, has: Callable[[str], bool]) -> Family:
    if has("proto."):
        return Family("a YOLOv5 for segmentation", "yolov5[nsmlx]_seg")
    if head == 33:
        return Family("a YOLOv5 P6, which has four strides", "yolov5[nsmlx]6")
    if head in (20, 28):
        return Family("a YOLOv3 with anchors", "", "train it as a YOLOv3u, which has none: yolov3u.yaml of ultralytics")
    if head in (77, 105, 121):
        size = {77: "_tiny", 105: "", 121: "x"}[head]
        return Family(f"a YOLOv7{size.replace('_', '-')}", f"yolov7{size}")
    if head > 33:
        return Family("a YOLOv7 of another size", "")
    return Family("a YOLOv5 detector", "yolov5[nsmlx]")


def _generation(names: Collection[str], head: int) -> tuple[str, str]:
    """(name, pattern of model names) of an ultralytics network with a head without anchors."""
    if any(name.startswith(f"model.{head}.one2one_") for name in names):
        if head in (29, 31):
            return f"YOLO26-p{2 if head == 29 else 6}", f"yolo26?_p{2 if head == 29 else 6}"
        return ("YOLO26", "yolo26?") if "model.10.m.0.attn.qkv.conv.weight" in names else ("YOLOv10", "yolov10?")
    if "model.11.weight" in names and "model.16.weight" in names:  # transposed convolutions
        return "YOLOv6", "yolov6?"
    if "model.1.cv1.conv.weight" in names or any(re.match(r"model\.\d+\.conv\.cv2\.conv", name) for name in names):
        return "YOLO with ghost convolutions as a", "yolo*_ghost"
    if any(re.match(r"model\.\d+\.cv2\.0\.m\.|model\.2\.cv4\.conv", name) for name in names):
        return ("YOLOv9e", "yolov9e") if head == 42 else ("YOLOv9", "yolov9[tsmc]")
    if head == 20:
        return "YOLOv3-tinyu", "yolov3_tinyu"
    if "model.4.0.cv1.conv.weight" in names:  # Darknet-53's stages are plain bottlenecks
        return "YOLOv3u", "yolov3*u"
    known = {
        22: ("YOLOv8", "yolov8[nsmlx]"), 23: ("YOLO11", "yolo11?"), 24: ("YOLOv5u", "yolov5?u"),
        21: ("YOLO12", "yolo12?"), 28: ("YOLOv8-p2", "yolov8?_p2"), 30: ("YOLOv8-p6", "yolov8?_p6"),
        33: ("YOLOv5u P6", "yolov5?6u"),
    }  # fmt: skip
    return known.get(head, ("YOLO of another generation", ""))


_OTHERS: tuple[tuple[Family, Callable[[Collection[str]], bool]], ...] = (
    (
        Family(
            "a detection transformer under the names of transformers before 5",
            "",
            "load it with transformers 5.24 and save its state_dict(), whose names are new",
        ),
        lambda names: "model.decoder.layers.0.self_attn.out_proj.weight" in names,
    ),
    (Family("a YOLO-NAS", "yolo_nas_*"), lambda names: "backbone.stage1.blocks.bottlenecks.0.alpha" in names),
    (
        Family("a YOLOv6 of Meituan", "yolov6?_meituan"),
        lambda names: {"detect.stems.0.conv.weight", "neck.Bifusion0.cv1.conv.weight"} <= names,
    ),
    (Family("a YOLOv4 of pytorch-YOLOv4", "yolov4*"), lambda names: "models.0.conv1.weight" in names),
    (
        Family("a CenterNet with deformable convolutions", "centernet_res*"),
        lambda names: "deconv_layers.0.conv_offset_mask.weight" in names,
    ),
    (Family("a YOLOX", "yolox_*"), lambda names: "backbone.backbone.stem.conv.conv.weight" in names),
    (
        Family("a DeepLabV3+ of segmentation-models-pytorch", "deeplabv3plus_*"),
        lambda names: "decoder.aspp.0.project.0.weight" in names,
    ),
    (
        Family("a network of segmentation-models-pytorch", "[uflp][npis][enp]*_resnet??"),  # unet, fpn, linknet, pspnet
        lambda names: {"encoder.layer1.0.conv1.weight", "segmentation_head.0.weight"} <= names,
    ),
    (
        Family("a Keypoint R-CNN of torchvision", ""),
        lambda names: "roi_heads.keypoint_predictor.kps_score_lowres.weight" in names,
    ),
    (
        Family("a Mask R-CNN of torchvision", "maskrcnn_*"),
        lambda names: "roi_heads.mask_predictor.conv5_mask.weight" in names,
    ),
    (
        Family("a Faster R-CNN of torchvision", "fasterrcnn_*"),
        lambda names: "roi_heads.box_predictor.cls_score.weight" in names,
    ),
    (Family("an FCOS of torchvision", "fcos_*"), lambda names: "head.regression_head.bbox_ctrness.weight" in names),
    (
        Family("a RetinaNet of torchvision", "retinanet_*"),
        lambda names: "head.regression_head.bbox_reg.weight" in names,
    ),
    (
        Family("an FCN of torchvision", "fcn_*"),
        lambda names: {"backbone.layer4.0.conv1.weight", "classifier.4.weight"} <= names,
    ),
    (Family("a DeepLabV3 of torchvision", "deeplabv3_*"), lambda names: "classifier.0.convs.0.0.weight" in names),
    (Family("an LR-ASPP of torchvision", "lraspp_*"), lambda names: "classifier.low_classifier.weight" in names),
    (
        Family("a Depth Anything of transformers", "depth_anything_*"),
        lambda names: "neck.reassemble_stage.layers.0.projection.weight" in names,
    ),
    (Family("an RT-DETR of transformers", "rtdetr_r*"), lambda names: "model.enc_score_head.weight" in names),
    (Family("a DETR of transformers", "detr_*"), lambda names: "class_labels_classifier.weight" in names),
    (Family("a SegFormer of transformers", "segformer_*"), lambda names: "decode_head.linear_fuse.weight" in names),
    (
        Family(
            "a network of OpenMMLab, with backbone. and head. in its names", "", "rename them as torchvision has them"
        ),
        lambda names: any(name.startswith("backbone.") for name in names) and "head.fc.weight" in names,
    ),
    (Family("a ResNet with torchvision's names", "*res*"), lambda names: "layer1.0.conv1.weight" in names),
    (Family("a ConvMixer of timm", "convmixer_*"), lambda names: "blocks.0.0.fn.0.weight" in names),
    (
        Family("a ResNet of Big Transfer", "resnetv2_*_bit"),
        lambda names: {"stem.conv.weight", "stages.0.blocks.0.downsample.conv.weight"} <= names,
    ),
    (
        Family("an EfficientViT of MSRA", "efficientvit_m?"),
        lambda names: "patch_embed.conv1.conv.weight" in names and "stages.0.blocks.0.dw0.m.conv.weight" in names,
    ),
    (
        Family("a LeViT of timm", "levit_*"),
        lambda names: "stages.1.downsample.attn_downsample.kv.linear.weight" in names,
    ),
    (Family("a ResMLP of timm", "resmlp_*"), lambda names: "blocks.0.linear_tokens.weight" in names),
    (Family("an MLP-Mixer of timm", "*mixer_*_224"), lambda names: "blocks.0.mlp_tokens.fc1.weight" in names),
    (Family("a gMLP of timm", "gmlp_*"), lambda names: "blocks.0.mlp_channels.gate.proj.weight" in names),
    (Family("a PiT of timm", "pit_*"), lambda names: "transformers.1.pool.fc.weight" in names),
    (Family("a Visformer of timm", "visformer_*"), lambda names: "patch_embed1.norm.running_mean" in names),
    (Family("a Twins of timm", "twins_*"), lambda names: "pos_block.0.proj.0.weight" in names),
    (Family("a ConViT of timm", "convit_*"), lambda names: "blocks.0.attn.gating_param" in names),
    (Family("a CLIP of transformers", "clip_*"), lambda names: "vision_model.pre_layrnorm.weight" in names),
    (Family("a SigLIP of transformers", "siglip_*"), lambda names: "vision_model.head.probe" in names),
    (Family("an NFNet of timm", "*nfnet_*"), lambda names: {"stem.conv4.gain", "final_conv.gain"} <= names),
    (
        Family("a MaxViT of torchvision", "maxvit_t"),
        lambda names: "blocks.0.layers.0.layers.MBconv.layers.conv_a.0.weight" in names,
    ),
    (Family("a NesT of timm", "nest_*"), lambda names: "levels.0.transformer_encoder.0.attn.qkv.weight" in names),
    (Family("a TNT of timm", "tnt_*"), lambda names: "blocks.0.attn_in.qk.weight" in names),
    (
        Family("a Segment Anything of transformers", "sam_vit_*"),
        lambda names: "vision_encoder.layers.0.attn.rel_pos_h" in names,
    ),
    (
        Family("a FasterNet of timm", "fasternet_*"),
        lambda names: "stages.0.blocks.0.spatial_mixing.partial_conv3.weight" in names,
    ),
    (
        Family("an InceptionNeXt of timm", "inception_next_*"),
        lambda names: "stages.0.blocks.0.token_mixer.dwconv_hw.weight" in names,
    ),
    (
        Family("a ViTPose of transformers", "vitpose_*"),
        lambda names: {"backbone.embeddings.position_embeddings", "head.conv.weight"} <= names,
    ),
    (Family("a CaiT of timm", "cait_*"), lambda names: "blocks_token_only.0.gamma_1" in names),
    (Family("a BEiT of timm", "beit*"), lambda names: "blocks.0.attn.relative_position_bias_table" in names),
    (
        Family("an EVA-02 of timm", "eva02_*"),
        lambda names: {"blocks.0.attn.q_bias", "pos_embed"} <= names or "blocks.0.attn.q_proj.weight" in names,
    ),
    (Family("a vision transformer of timm", "*vit*"), lambda names: "blocks.0.attn.qkv.weight" in names),
    (Family("a vision transformer of torchvision", "vit_*"), lambda names: "class_token" in names),
    (
        Family("a network of Hugging Face's transformers", "", "load it there, or rename its tensors"),
        lambda names: any(re.match(r"(\w+\.)?(embeddings|encoder\.layer\.0)\.", name) for name in names),
    ),
)


_STEMS = ("conv1.weight", "features.0.0.weight", "features.0.weight", "model.0.conv.weight", "conv_stem.weight")


def other_form(weights: Weights, refusal: str, channels: int) -> str:
    """«; FILE is for pictures of 1 channel …» where a network's stem or a layer of it has another form, else nothing.

    `refusal` is what was said of the first tensor that does not fit, `channels` those of the definition's input.
    """
    names = set(weights.names())
    stem = next((weights.shape(name) for name in _STEMS if name in names), None)
    if stem is not None and len(stem) == 4 and stem[1] != channels:
        return f"; it is for pictures of {stem[1]} channel{'s'[: stem[1] != 1]}, and the definition for {channels}"
    missing = re.search(r" has no '(.+)\.(?:weight|bias)'", refusal)
    inner = [name for name in names if missing and re.fullmatch(re.escape(missing[1]) + r"\.\d+\.weight", name)]
    if missing and len(inner) == 1:
        layer = inner[0].removesuffix(".weight")
        return (
            f"; '{missing[1]}' is a Sequential there, with one layer '{layer}': rename its tensors to '{missing[1]}.'"
        )
    return ""


def realigned(weights: Weights, wanted: Collection[str]) -> Weights | None:
    """`weights` under names that a definition asks for, when the only difference is a prefix of them all, or a newer
    version of the library that wrote them; else None."""
    names = [name for name in weights.names() if not is_counter(name)]
    if not names or not wanted:
        return None
    newer = current_names(names, wanted)
    if newer:
        return weights.renamed(lambda name: newer.get(name, name))
    wanted, best, change = set(wanted), len(wanted & set(names)), ("", "")
    for prefix in _shared_prefixes(names):
        hits = sum(name.removeprefix(prefix) in wanted for name in names)
        best, change = max((best, change), (hits, (prefix, "")), key=lambda pair: pair[0])
    for added in {name.removesuffix(names[0]) for name in wanted if name.endswith(f".{names[0]}")}:
        hits = sum(added + name in wanted for name in names)
        best, change = max((best, change), (hits, ("", added)), key=lambda pair: pair[0])
    if change == ("", "") or 2 * best < len(wanted):
        return None
    removed, added = change
    return weights.renamed(lambda name: added + name.removeprefix(removed))


def _shared_prefixes(names: list[str]) -> list[str]:
    """`a.`, `a.b.` … that stand before every name."""
    found, parts = [], names[0].split(".")
    for count in range(1, min(len(parts), 5)):
        prefix = ".".join(parts[:count]) + "."
        if all(name.startswith(prefix) for name in names):
            found.append(prefix)
    return found
