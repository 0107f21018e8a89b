"""transformers: networks that Hugging Face publishes, from configurations written here; nothing is asked of its Hub.

Names of modules are those of version 5.24, whose loader renames the tensors of older files.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from zoo.verify.references import PYTORCH, Library
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


class Transformers(Library):
    name = "transformers"
    package = "transformers"
    install = PYTORCH

    def names(self) -> Collection[str]:
        return [*DEPTH_ANYTHING, *SEGFORMER]

    def load(self, name: str, classes: int | None) -> nn.Module:
        import_torchvision()  # which transformers looks for
        if name in DEPTH_ANYTHING:
            return _depth_anything(*DEPTH_ANYTHING[name])
        if name in SEGFORMER:
            return _segformer(*SEGFORMER[name], ADE20K if classes is None else classes)
        raise self.unknown(name)

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
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


LIBRARY = Transformers()
