"""yolov6detect: Meituan's YOLOv6 (v0.4.1) with its configurations, in a package of that name."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.verify.references import Library, Published
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    from torch import Tensor, nn

RELEASE = "https://github.com/meituan/YOLOv6/releases/download/0.4.0"


class YOLOv6(Library):
    name = "yolov6"
    package = "yolov6"
    install = "pip install --no-deps yolov6detect==0.4.1 addict==2.4.0"

    def names(self) -> Collection[str]:
        return ["yolov6n", "yolov6s", "yolov6m", "yolov6l"]

    def load(self, name: str, classes: int | None) -> nn.Module:
        import_torchvision()
        warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)
        import yolov6
        from yolov6.models.yolo import build_model
        from yolov6.utils.config import Config

        if name not in self.names():
            raise self.unknown(name)
        config = Config.fromfile(str(Path(yolov6.__file__).parent / "configs" / f"{name}.py"))
        if not hasattr(config, "training_mode"):
            config.training_mode = "repvgg"  # as its command for training does
        module = build_model(config, classes or 80, "cpu")
        del module.detect.proj  # the bins again, for training
        if not config.model.head.use_dfl:
            del module.detect.proj_conv  # nothing calls it
        return module

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        rows = result[0].transpose(1, 2)  # (N, 4 + 1 + classes, A): box, a one, classes
        return {"boxes": rows[:, :4], "scores": rows[:, 5:]}

    def published(self, name: str) -> Published:
        origin = f"{name} of Meituan, 0.4, trained on COCO"
        return Published(f"{RELEASE}/{name}.pt", None, None, "GPL-3.0", origin, "coco")


LIBRARY = YOLOv6()
