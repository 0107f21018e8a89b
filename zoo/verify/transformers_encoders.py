"""Image encoders of transformers, of which only the part for pictures is made: CLIP, SigLIP and Segment Anything; and
ViTPose, whose positions are for one size too."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn


class Siglip(nn.Module):
    """SigLIP's image encoder under the name that it has in published checkpoints."""

    def __init__(self, config: Any) -> None:
        from transformers import SiglipVisionModel

        super().__init__()
        self.config, self.vision_model = config, SiglipVisionModel(config)

    def forward(self, images: Tensor) -> Any:
        return self.vision_model(images)


def clip(width: int, layers: int, out: int, patch: int, image: int) -> nn.Module:
    """CLIP's image encoder and the projection of what it returns to `out` numbers."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=out,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            patch_size=patch,
            image_size=image,
        )
    )


def siglip(width: int, layers: int, heads: int, hidden: int, patch: int, image: int) -> nn.Module:
    """SigLIP's image encoder."""
    from transformers import SiglipVisionConfig

    return Siglip(
        SiglipVisionConfig(
            hidden_size=width,
            intermediate_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            patch_size=patch,
            image_size=image,
        )
    )


def sam(width: int, layers: int, heads: int, whole: list[int]) -> nn.Module:
    """Segment Anything's image encoder."""
    from transformers import SamVisionConfig, SamVisionModel

    return SamVisionModel(
        SamVisionConfig(
            hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, global_attn_indexes=whole
        )
    )


def vitpose(simple: bool) -> nn.Module:
    """ViTPose, base, with one of its two heads."""
    from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

    backbone = VitPoseBackboneConfig(out_indices=[12])
    config = VitPoseConfig(backbone_config=backbone, use_simple_decoder=simple, num_labels=17)
    return VitPoseForPoseEstimation(config)


def resized(module: nn.Module, size: tuple[int, int, int]) -> nn.Module:
    """The same network for pictures of `size` (C, H, W), squares but for ViTPose; others take any size."""
    kind = type(module).__name__
    if kind not in ("CLIPVisionModelWithProjection", "Siglip", "SamVisionModel", "VitPoseForPoseEstimation"):
        return module
    config = copy.deepcopy(module.config)
    if kind == "VitPoseForPoseEstimation":
        config.backbone_config.image_size = size[1:]
    else:
        config.image_size = size[1]
    return type(module)(config).eval()
