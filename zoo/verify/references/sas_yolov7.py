"""sas-yolov7: the original YOLOv7 with its descriptions, in a package of SAS.

Its descriptions for training have learned sums and factors at the head, which those for deployment hold in the last
convolutions, as the published weights do.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.verify.references import Library, Published
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

RELEASE = "https://github.com/WongKinYiu/yolov7/releases/download/v0.1"
TRAINING = "_training"  # ends the names of networks as they are trained


class SASYOLOv7(Library):
    name = "sas_yolov7"
    package = "sas_yolov7"
    install = "pip install --no-deps sas-yolov7==1.0.7"

    def names(self) -> Collection[str]:
        return [f"{name}{end}" for name in ("yolov7", "yolov7x", "yolov7_tiny") for end in ("", TRAINING)]

    def load(self, name: str, classes: int | None) -> nn.Module:
        import_torchvision()
        warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)
        import sas_yolov7
        from sas_yolov7.models import yolo

        if name not in self.names():
            raise self.unknown(name)
        yolo.logger.setLevel(logging.WARNING)
        file = f"{name.removesuffix(TRAINING).replace('_', '-')}.yaml"
        folder = Path(sas_yolov7.__file__).parent / "cfg" / ("training" if name.endswith(TRAINING) else "deploy")
        return yolo.Model(str(folder / file), nc=classes or 80)

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        rows = result[0].transpose(1, 2)  # (N, 4 + 1 + classes, A): box, objectness, classes
        return {"boxes": rows[:, :4], "scores": rows[:, 4:5] * rows[:, 5:]}

    def draw(self, name: str, parameter: nn.Parameter, generator: torch.Generator) -> bool:
        """What the head adds to its input and multiplies its output by."""
        implicit = name.endswith(".implicit")
        if implicit:
            parameter.normal_(1.0 if ".im." in name else 0.0, 0.3, generator=generator)
        return implicit

    def forget(self, module: nn.Module) -> None:
        """Its head keeps the grid of the last input."""
        for head in module.modules():
            if hasattr(head, "anchor_grid"):
                head.grid = [head.anchors.new_zeros(1) for _ in head.grid]

    def published(self, name: str) -> Published:
        file = f"{name.replace('_', '-')}.pt"
        return Published(f"{RELEASE}/{file}", None, None, "GPL-3.0", f"YOLOv7 v0.1 {name}, trained on COCO")


LIBRARY = SASYOLOv7()
