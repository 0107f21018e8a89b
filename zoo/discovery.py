"""The one place that finds what registers itself: commands, and models, tasks, cascades, references, plugins and
formats of export, each a group of modules.

A group is a folder of this package, where one file is one of them. Other packages add modules by entry points of the
group's name, in their pyproject.toml:

    [project.entry-points."zoo.models"]
    mynet = "mypackage.mynet"

A file that the user names belongs to every group. A package that cannot be imported is told in one sentence on stderr,
and everything else works.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from zoo.errors import ZooError
from zoo.text import clean

FOLDERS = {
    "zoo.models": "zoo.models",
    "zoo.tasks": "zoo.tasks",
    "zoo.cascades": "zoo.cascades",
    "zoo.references": "zoo.verify.references",
    "zoo.plugins": "zoo.plugins",
    "zoo.formats": "zoo.formats",
}

_files: dict[Path, ModuleType] = {}
_broken: dict[str, list[str]] = {group: [] for group in FOLDERS}  # what is wrong with other packages


def load(group: str) -> list[ModuleType]:
    """The modules of a group, imported: ours, other packages' and the user's files, in this order."""
    return [*_ours(group), *_theirs(group), *_files.values()]


def find(group: str, attribute: str) -> list[Any]:
    """What the modules of a group call `attribute`. A file of the user's, which is in every group, need not have it."""
    return [getattr(module, attribute) for module in load(group) if hasattr(module, attribute)]


def commands() -> dict[str, ModuleType]:
    """What `python -m zoo.NAME` runs, by NAME: each module of this package, or of a folder in it, with a `run` and the
    `main` that `zoo.cli.command` makes of it."""
    package = Path(__file__).parent
    names = {path.stem: f"zoo.{path.stem}" for path in package.glob("*.py") if not path.stem.startswith("_")}
    names |= {path.parent.name: f"zoo.{path.parent.name}.__main__" for path in package.glob("*/__main__.py")}
    modules = {name: importlib.import_module(path) for name, path in sorted(names.items())}
    return {name: module for name, module in modules.items() if hasattr(module, "run") and hasattr(module, "main")}


def missing(group: str) -> str:
    """«; the package … cannot be loaded: …» for each package of a group that failed, or an empty string.

    It ends the error of a name that nobody registered.
    """
    _theirs(group)
    return "".join(f"; {sentence}" for sentence in _broken[group])


def import_file(path: Path) -> None:
    """Runs a Python file of the user's, which registers models or has a task, a reference or a plugin; once.

    Raises ZooError when it is not there or fails.
    """
    path = path.resolve()
    if path in _files:
        return
    load("zoo.models")  # first, so that a name which is taken already is the file's fault
    spec = importlib.util.spec_from_file_location(str(path), path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ZooError(f"{path} cannot be imported; give a Python file (.py) that is there")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f", line {lines[-1]}," if lines else ""
        raise ZooError(f"{path}{where} cannot be imported: {_words(error)}") from error
    _files[path] = module


def imported_files() -> list[Path]:
    """The files of the user's that were imported."""
    return list(_files)


@functools.cache
def _ours(group: str) -> list[ModuleType]:
    """Our own modules of a group, one a file. What begins with _ and folders are their helpers."""
    folder = importlib.import_module(FOLDERS[group])
    found = [module for module in pkgutil.iter_modules(folder.__path__) if not module.ispkg]
    return [importlib.import_module(f"{FOLDERS[group]}.{m.name}") for m in found if not m.name.startswith("_")]


@functools.cache
def _theirs(group: str) -> list[ModuleType]:
    """The modules that other packages add to a group. What fails is told on stderr, and kept for `missing`."""
    found = []
    for point in _entry_points().select(group=group):
        try:
            module = point.load()
            if not isinstance(module, ModuleType):
                raise TypeError(f"an entry point of {group} must name a module, not {point.value}")
        except (Exception, SystemExit) as error:
            package = f"{point.dist.name} {point.dist.version}" if point.dist else "of no name"
            sentence = f"the package {package} cannot be loaded ({group}, {point.value}): {_words(error)}"
            _broken[group].append(sentence)
            if sys.stderr is not None:
                print(f"warning: {clean(sentence)}", file=sys.stderr)
        else:
            found.append(module)
    return found


@functools.cache
def _entry_points() -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points()


def _words(error: BaseException) -> str:
    """An exception as one line."""
    text = str(error) if isinstance(error, ZooError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
