"""torchreid: networks that tell people apart, by Kaiyang Zhou, as its pip package has them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from zoo.verify.alone import load_alone
from zoo.verify.references import Library

if TYPE_CHECKING:
    from torch import Tensor, nn

FILES = {  # the file that each is in
    "osnet_x0_25": "osnet",
    "osnet_x0_5": "osnet",
    "osnet_x0_75": "osnet",
    "osnet_x1_0": "osnet",
    "osnet_ibn_x1_0": "osnet",
    "resnet50_ibn_a": "resnet_ibn_a",
    "resnet50_ibn_b": "resnet_ibn_b",
}


class TorchReID(Library):
    name = "torchreid"
    package = "torchreid"
    install = "pip install --no-deps torchreid==0.2.5"

    def names(self) -> Collection[str]:
        return list(FILES)

    def load(self, name: str, classes: int | None) -> nn.Module:
        if name not in FILES:
            raise self.unknown(name)
        module = getattr(load_alone("torchreid", f"reid/models/{FILES[name]}.py"), name)(
            num_classes=1, pretrained=False
        )
        del module.classifier  # of the people it was trained with
        return module

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        return {"embedding": result}


LIBRARY = TorchReID()
