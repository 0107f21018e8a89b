"""modern-yolonas: YOLO-NAS as Deci's super-gradients has it, whose names of weights it keeps."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from zoo.verify.references import Library
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    from torch import Tensor, nn


class ModernYOLONAS(Library):
    name = "modern_yolonas"
    package = "modern_yolonas"
    install = "pip install --no-deps modern-yolonas==0.5.0 supervision==0.31.2 pydeprecate==0.14.0 defusedxml==0.7.1"

    def names(self) -> Collection[str]:
        return ["yolo_nas_s", "yolo_nas_m", "yolo_nas_l"]

    def load(self, name: str, classes: int | None) -> nn.Module:
        import_torchvision()
        from modern_yolonas.model import YoloNAS
        from modern_yolonas.nn.repvgg import QARepVGGBlock, Residual
        from torch import nn

        if name not in self.names():
            raise self.unknown(name)
        module = YoloNAS.from_config(name, num_classes=classes or 80)
        for block in module.modules():
            if isinstance(block, QARepVGGBlock):
                del block.rbr_reparam  # what the branches become when it fuses them; nothing before
            for part, child in block.named_children():
                if isinstance(child, Residual):
                    setattr(block, part, nn.Identity())  # it returns its input, and so has no tensor of its own
        return module

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        import torch

        corners, scores = (rows.transpose(1, 2) for rows in result)
        left_top, right_bottom = corners.chunk(2, dim=1)
        boxes = torch.cat([(left_top + right_bottom) / 2, right_bottom - left_top], dim=1)
        return {"boxes": boxes, "scores": scores}


LIBRARY = ModernYOLONAS()
