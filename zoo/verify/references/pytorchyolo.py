"""pytorchyolo: Darknet's YOLOv3 as ported to PyTorch by Erik Linder-Norén, from Darknet's own descriptions.

Its augmentations need NumPy 1. The descriptions are not in its package but in that of wf-pytorch-yolo-v4.
"""

from __future__ import annotations

import importlib.util
import re
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.verify.references import Library
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class PyTorchYOLO(Library):
    name = "pytorchyolo"
    package = "pytorchyolo"
    requirements = (
        "numpy==1.26.4",
        "pytorchyolo==1.8.0",
        "wf-pytorch-yolo-v4==0.2.2",
        "imgaug==0.4.0",
        "imageio==2.37.0",
        "scikit-image==0.25.2",
        "lazy-loader==0.4",
        "shapely==2.1.1",
        "six==1.17.0",
    )

    def names(self) -> Collection[str]:
        return ["yolov3", "yolov3-tiny"]

    def load(self, name: str, classes: int | None) -> nn.Module:
        import_torchvision()
        from pytorchyolo.models import Darknet

        if name not in self.names():
            raise self.unknown(name)
        text = _description(name)
        if classes is not None:
            text = text.replace("classes=80", f"classes={classes}")
            text = re.sub(r"filters=255\b", f"filters={3 * (5 + classes)}", text)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{name}.cfg"
            file.write_text(text, encoding="utf-8")
            return Darknet(str(file))

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        rows = result.transpose(1, 2)  # (N, 4 + 1 + classes, A): box, objectness, classes
        return {"boxes": rows[:, :4], "scores": rows[:, 4:5] * rows[:, 5:]}

    def draw(self, name: str, parameter: nn.Parameter, generator: torch.Generator) -> bool:
        """Sizes are exp of what the convolutions before the heads give, which half precision must be able to hold."""
        predicts = parameter.ndim == 4 and len(parameter) % 3 == 0  # three anchors; all others are powers of two
        if predicts:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        return predicts

    def forget(self, module: nn.Module) -> None:
        """Its heads keep the grid of the last input."""
        for head in module.modules():
            if hasattr(head, "anchor_grid"):
                head.grid = head.anchor_grid.new_zeros(1)


def _description(name: str) -> str:
    package = importlib.util.find_spec("yolov4")
    assert package is not None and package.submodule_search_locations
    return (Path(package.submodule_search_locations[0]) / "cfg" / f"{name}.cfg").read_text(encoding="utf-8")


LIBRARY = PyTorchYOLO()
