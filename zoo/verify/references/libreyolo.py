"""libreyolo: CenterNet as ported from github.com/xingyizhou/CenterNet, with its names of weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.verify.references import Library
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor, nn


class LibreYOLO(Library):
    name = "libreyolo"
    package = "libreyolo"
    install = "pip install --no-deps libreyolo==1.6.0"

    def names(self) -> Collection[str]:
        return ["centernet_resdcn18"]

    def load(self, name: str, classes: int | None) -> nn.Module:
        import_torchvision()
        if name not in self.names():
            raise self.unknown(name)
        return _networks().build_centernet(name.removeprefix("centernet_"), classes or 80)

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        """As its postprocessing reads them: a cell counts where no neighbour scores more. Stride 4."""
        import torch
        from torch.nn.functional import max_pool2d

        heat = result["hm"].sigmoid()
        scores = heat * (max_pool2d(heat, 3, 1, 1) == heat)
        rows, columns = torch.meshgrid(
            *(torch.arange(side, dtype=heat.dtype) for side in heat.shape[2:]), indexing="ij"
        )
        centres = result["reg"] + torch.stack([columns, rows])
        boxes = 4 * torch.cat([centres, result["wh"]], dim=1)
        return {"boxes": boxes.flatten(2), "scores": scores.flatten(2)}


def _networks() -> ModuleType:
    """The one file of its networks: its package imports some two hundred others."""
    package = importlib.util.find_spec("libreyolo")
    assert package is not None and package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]) / "models" / "centernet" / "nn.py"
    spec = importlib.util.spec_from_file_location("zoo_libreyolo_centernet", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.deform_conv2d = _deform_conv2d
    return module


def _deform_conv2d(x: Tensor, *arguments: Any) -> Tensor:
    """torchvision's, which has no bfloat16 on a CPU: its operator computes in float32 there."""
    import torch
    from torchvision.ops import deform_conv2d

    if x.dtype != torch.bfloat16:
        return deform_conv2d(x, *arguments)
    wide = [value.float() if isinstance(value, torch.Tensor) else value for value in (x, *arguments)]
    return deform_conv2d(*wide).to(x.dtype)


LIBRARY = LibreYOLO()
