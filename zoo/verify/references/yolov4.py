"""wf-pytorch-yolo-v4: Darknet's YOLOv4 as ported to PyTorch by Tianxiaomo, from Darknet's own descriptions."""

from __future__ import annotations

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


class PyTorchYOLOv4(Library):
    name = "yolov4"
    package = "yolov4"
    install = "pip install --no-deps wf-pytorch-yolo-v4==0.2.2"

    def names(self) -> Collection[str]:
        return ["yolov4", "yolov4_tiny"]

    def load(self, name: str, classes: int | None) -> nn.Module:
        import_torchvision()
        import yolov4
        from yolov4.tool.darknet2pytorch import Darknet

        if name not in self.names():
            raise self.unknown(name)
        description = Path(yolov4.__path__[0]) / "cfg" / f"{name.replace('_', '-')}.cfg"
        text = description.read_text(encoding="utf-8")
        if classes is not None:
            text = text.replace("classes=80", f"classes={classes}")
            text = re.sub(r"filters=255\b", f"filters={3 * (5 + classes)}", text)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / description.name
            file.write_text(text, encoding="utf-8")
            module = Darknet(str(file), inference=True)
        module.register_forward_pre_hook(_remember_size)
        return module

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        import torch

        boxes, scores = result  # (N, A, 1, 4) x1, y1, x2, y2 as shares of the input, and (N, A, classes)
        height, width = module.input_size
        left_top, right_bottom = (
            (boxes[:, :, 0] * boxes.new_tensor([width, height] * 2)).transpose(1, 2).chunk(2, dim=1)
        )
        boxes = torch.cat([(left_top + right_bottom) / 2, right_bottom - left_top], dim=1)
        return {"boxes": boxes, "scores": scores.transpose(1, 2)}

    def draw(self, name: str, parameter: nn.Parameter, generator: torch.Generator) -> bool:
        """Sizes are exp of what two filters of each anchor give of activations in the tens."""
        predicts = parameter.ndim == 4 and len(parameter) % 3 == 0  # three anchors; all others are powers of two
        if predicts:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
            parameter.view(3, -1, *parameter.shape[1:])[:, 2:4] *= 0.05
        return predicts


def _remember_size(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    module.input_size = inputs[0].shape[2:]


LIBRARY = PyTorchYOLOv4()
