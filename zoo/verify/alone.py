"""One file of a package of published models, where importing the whole package needs what only training does."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


def load_alone(package: str, file: str, without: Collection[str] = ()) -> ModuleType:
    """The module `file` ("models/net.py") of an installed `package`, with the modules that it imports from there.

    No `__init__` of the package runs, nor the modules `without` which it does; names that are imported from these are
    classes without anything, of which others can be made.
    """
    found = importlib.util.find_spec(package)
    assert found is not None and found.submodule_search_locations
    root = Path(found.submodule_search_locations[0])
    folders = [path.parent for path in root.rglob("__init__.py")]
    stand_ins = {".".join([package, *folder.relative_to(root).parts]): _empty(folder) for folder in folders}
    stand_ins |= {name: _empty(root) for name in without}
    name = ".".join([package, *Path(file).with_suffix("").parts])
    spec = importlib.util.spec_from_file_location(name, root / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _known(package, stand_ins):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _known(package: str, modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """While entered, `modules` are all that is imported of a package; what else is imported meanwhile stays."""

    def imported() -> dict[str, ModuleType]:
        return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == package}

    before = imported()
    try:
        for name in before:
            del sys.modules[name]
        sys.modules.update(modules)
        yield
    finally:
        for name in imported():
            del sys.modules[name]
        sys.modules.update(before)


def _empty(folder: Path) -> ModuleType:
    """A package without code, in whose folder modules are found."""
    package = ModuleType(folder.name)
    package.__path__ = [str(folder)]

    def absent(name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})

    package.__getattr__ = absent  # type: ignore[method-assign]
    return package
