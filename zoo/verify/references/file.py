"""A file of this repository: "scripts/train_lenet5.py:LeNet5" is the class LeNet5 in it."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import ZooError, closest
from zoo.verify.references import PYTORCH, Library

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).resolve().parents[3]


class File(Library):
    name = "FILE.py"
    package = "torch"
    install = PYTORCH

    def split(self, source: str) -> str | None:
        return source if source.rpartition(":")[0].endswith(".py") else None

    def names(self) -> Collection[str]:
        return [f"{path.relative_to(ROOT)}" for path in (ROOT / "scripts").glob("*.py")]

    def load(self, name: str, classes: int | None) -> nn.Module:
        file, _, wanted = name.rpartition(":")
        path = ROOT / file
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if not path.is_file() or spec is None or spec.loader is None:
            raise ZooError(f"there is no {path}, expected the file that defines {wanted}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not hasattr(module, wanted):
            raise ZooError(f"{file} defines no {wanted!r}{closest(wanted, vars(module))}")
        return getattr(module, wanted)(*() if classes is None else (classes,))


LIBRARY = File()
