"""yolov5: the original YOLOv5 in the package of that name; newer than it is only its `setuptools`."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.verify.references import Library, Published
from zoo.verify.references.ultralytics import quiet

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor, nn

RELEASE = "https://github.com/ultralytics/yolov5/releases/download/v7.0"


class YOLOv5(Library):
    name = "yolov5"
    package = "yolov5"
    install = 'pip install --no-deps yolov5==7.0.14 && pip install ultralytics pandas seaborn "setuptools<81"'

    def split(self, source: str) -> str | None:
        """Names here have no hyphens: yolov5n_seg is yolov5n-seg there."""
        name = super().split(source)
        return None if name is None else name.replace("_", "-")

    def names(self) -> Collection[str]:
        return _configs(_package())

    def load(self, name: str, classes: int | None) -> nn.Module:
        yolo = _package()
        configs = _configs(yolo)
        if name not in configs:
            raise self.unknown(name)
        kind = yolo.SegmentationModel if name.endswith("-seg") else yolo.DetectionModel
        return kind(str(configs[name]), nc=classes or 80)

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        rows = result[0].transpose(1, 2)  # (N, 4 + 1 + classes + masks, A): box, objectness, classes, coefficients
        end = 5 + module.model[-1].nc
        found = {"boxes": rows[:, :4], "scores": rows[:, 4:5] * rows[:, 5:end]}
        return {**found, "coefficients": rows[:, end:], "prototypes": result[1]} if rows.shape[1] > end else found

    def forget(self, module: nn.Module) -> None:
        """Its head keeps the grid and the anchors of the last input, in the precision of that run."""
        for head in module.modules():
            if hasattr(head, "anchor_grid"):
                head.grid = [head.anchors.new_empty(0) for _ in head.grid]

    def published(self, name: str) -> Published:
        return Published(f"{RELEASE}/{name}.pt", None, None, "AGPL-3.0", f"YOLOv5 v7.0 {name}, trained on COCO")


def _package() -> ModuleType:
    """Its module of models, imported without a word and without installing anything."""
    quiet()
    os.environ.setdefault("YOLOv5_AUTOINSTALL", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pkg_resources
        from yolov5.models import yolo
    yolo.LOGGER.setLevel(logging.WARNING)
    return yolo


def _configs(yolo: ModuleType) -> dict[str, Path]:
    folder = Path(yolo.__file__ or "").parent
    return {
        path.stem: path
        for path in (*folder.glob("*.yaml"), *folder.glob("hub/yolo*.yaml"), *folder.glob("segment/*.yaml"))
    }


LIBRARY = YOLOv5()
