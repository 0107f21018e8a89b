"""yolox: Megvii's YOLOX in the package pixeltable-yolox, which keeps it up to date."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from zoo.verify.references import Library, Published
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

RELEASE = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"


class YOLOX(Library):
    name = "yolox"
    package = "yolox"
    install = "pip install --no-deps pixeltable-yolox==0.4.3 loguru==0.7.3 tabulate==0.10.0 pycocotools==2.0.11"

    def names(self) -> Collection[str]:
        return [f"yolox_{size}" for size in ("nano", "tiny", "s", "m", "l", "x")]

    def load(self, name: str, classes: int | None) -> nn.Module:
        import_torchvision()
        from yolox.config import YoloxConfig

        config = YoloxConfig.get_named_config(name)
        if config is None:
            raise self.unknown(name)
        if classes is not None:
            config.num_classes = classes
        return config.get_model()

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        rows = result.transpose(1, 2)  # (N, 4 + 1 + classes, A): box, objectness, classes
        return {"boxes": rows[:, :4], "scores": rows[:, 4:5] * rows[:, 5:]}

    def draw(self, name: str, parameter: nn.Parameter, generator: torch.Generator) -> bool:
        """Sizes are exp of what the last two filters give of activations in the hundreds."""
        predicts = ".reg_preds." in name and parameter.ndim == 4
        if predicts:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
            parameter[2:] *= 0.02
        return predicts

    def published(self, name: str) -> Published:
        origin = f"YOLOX {name} of Megvii, trained on COCO"
        return Published(f"{RELEASE}/{name}.pth", None, None, "Apache-2.0", origin, "coco")


LIBRARY = YOLOX()
