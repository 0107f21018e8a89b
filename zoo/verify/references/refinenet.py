"""refinenet: the light-weight RefineNet of Vladimir Nekrasov, as the Australian Centre for Robotic Vision packs it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from zoo.verify.alone import load_alone
from zoo.verify.references import Library

if TYPE_CHECKING:
    from torch import nn


class RefineNet(Library):
    name = "refinenet"
    package = "refinenet"
    install = "pip install --no-deps refinenet==0.9.5"

    def names(self) -> Collection[str]:
        return ["refinenet_lw50", "refinenet_lw101", "refinenet_lw152"]

    def load(self, name: str, classes: int | None) -> nn.Module:
        if name not in self.names():
            raise self.unknown(name)
        unused = ["refinenet.helpers", "refinenet.models.helpers"]  # for downloads and evaluation
        networks = load_alone("refinenet", "models/refinenet_lw.py", unused)
        return getattr(networks, name)(21 if classes is None else classes, pretrained=None)


LIBRARY = RefineNet()
