"""lwcc: networks that count crowds; CSRNet of Yuhong Li."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from zoo.verify.alone import load_alone
from zoo.verify.references import Library, Published

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

URL = "https://github.com/tersekmatija/lwcc_weights/releases/download/v0.1/CSRNet_SHA.pth"


class Lwcc(Library):
    name = "lwcc"
    package = "lwcc"
    install = "pip install --no-deps lwcc==0.0.7"

    def names(self) -> Collection[str]:
        return ["csrnet"]

    def load(self, name: str, classes: int | None) -> nn.Module:
        if name not in self.names():
            raise self.unknown(name)
        return load_alone("lwcc", "models/CSRNet.py", ["lwcc.util.functions"]).CSRNet()

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        return {"density": result[:, 0]}

    def draw(self, name: str, parameter: nn.Parameter, generator: torch.Generator) -> bool:
        """Sixteen layers without a normalisation, each with a ReLU that takes half of what there is."""
        if parameter.ndim == 4:
            parameter.data.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=generator)
        return parameter.ndim == 4

    def published(self, name: str) -> Published:
        return Published(URL, None, None, "MIT", "lwcc v0.1 on GitHub, trained on ShanghaiTech A")


LIBRARY = Lwcc()
