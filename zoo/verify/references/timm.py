"""timm: PyTorch image models, with `timm.create_model`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from zoo.verify.references import Library
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    from torch import nn


class Timm(Library):
    name = "timm"
    package = "timm"
    install = "pip install timm"

    def names(self) -> Collection[str]:
        import timm

        return timm.list_models()

    def load(self, name: str, classes: int | None) -> nn.Module:
        import_torchvision()  # which timm imports
        import timm

        if name not in timm.list_models():
            raise self.unknown(name)
        return timm.create_model(name, **{} if classes is None else {"num_classes": classes})


LIBRARY = Timm()
