"""facexlib: what Real-ESRGAN's authors use on faces: RetinaFace of biubug6, ArcFace and MobileFaceNet of TreB1eN."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from zoo.verify.references import Library, Published
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

URL = "https://github.com/xinntao/facexlib/releases/download/v0.1.0/"
FILES = {
    "arcface_ir_se50": "recognition_arcface_ir_se50.pth",
}
SLOPES = re.compile(r"(.*\.)?prelu\.weight|(.*\.)?(res|input)_layer\.2\.weight")  # of PReLUs


class Facexlib(Library):
    name = "facexlib"
    package = "facexlib"
    install = "pip install --no-deps facexlib==0.3.0"

    def names(self) -> Collection[str]:
        return [*FILES, "mobilefacenet"]

    def load(self, name: str, classes: int | None) -> nn.Module:
        import_torchvision()  # which it imports
        from facexlib.recognition.arcface_arch import Backbone, MobileFaceNet

        if name not in self.names():
            raise self.unknown(name)
        return MobileFaceNet(512) if name == "mobilefacenet" else Backbone(50, 0.4, "ir_se")

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        return {"embedding": result}

    def draw(self, name: str, parameter: nn.Parameter, generator: torch.Generator) -> bool:
        """Slopes of a PReLU are no scales: with those around 1 nothing would bend."""
        if not SLOPES.fullmatch(name):
            return False
        parameter.data.uniform_(0.05, 0.5, generator=generator)
        return True

    def published(self, name: str) -> Published:
        if name not in FILES:
            return super().published(name)
        return Published(URL + FILES[name], None, None, "MIT", "facexlib v0.1.0 on GitHub, by Xintao Wang")


LIBRARY = Facexlib()
