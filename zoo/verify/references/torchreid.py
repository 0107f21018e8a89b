"""torchreid: networks that tell people apart, by Kaiyang Zhou, as its pip package has them."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from types import ModuleType
from typing import TYPE_CHECKING, Any

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
        module = getattr(_networks(FILES[name]), name)(num_classes=1, pretrained=False)
        del module.classifier  # of the people it was trained with
        return module

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        return {"embedding": result}


def _networks(name: str) -> ModuleType:
    """One file of its networks: its package imports what training needs."""
    package = importlib.util.find_spec("torchreid")
    assert package is not None and package.submodule_search_locations
    path = f"{package.submodule_search_locations[0]}/reid/models/{name}.py"
    spec = importlib.util.spec_from_file_location(f"zoo_torchreid_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LIBRARY = TorchReID()
