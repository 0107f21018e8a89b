"""The PyTorch references: published models as their authors wrote them, one file per library.

A reference is named by a string: "torchvision:resnet50", "ultralytics:yolov8n", "scripts/train_lenet5.py:LeNet5" (a
class in a file of this repository). What stands before the colon says which file here knows it. Only what loads or runs
a model imports PyTorch; where published weights are to be had is known without.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from zoo import discovery
from zoo.errors import ZooError, closest
from zoo.verify.environments import Environment
from zoo.verify.remote import RemoteReference, create

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from zoo.verify.rounding import Rounding

PYTORCH = "pip install 'tensorrt-zoo[reference]'"


@dataclass(frozen=True)
class Published:
    """Where the trained weights of a model are published, and under which licence.

    `sha256` is the hash, or the beginning of it, that the project publishes; `size` is in bytes. `origin` is a sentence
    for the metadata of a dump. `labels` is the label set of classes that the file does not name. `file` is what it is
    kept as, where its own name is not unique.
    """

    url: str
    sha256: str | None
    size: int | None
    licence: str
    origin: str
    labels: str | None = None
    file: str | None = None


class MissingLibrary(ZooError):
    """A library of references that lacks a `package`."""

    def __init__(self, message: str, package: str) -> None:
        super().__init__(message)
        self.package = package


class Library:
    """What the zoo knows of one library of published models; each file here makes one, as `LIBRARY`.

    `name` is the prefix of its references, `package` the module that must be importable, `install` the command that
    installs it. A library that cannot share the zoo's environment has `requirements` in place of that command: exact
    versions of all that it needs and the zoo has not, or not so. Then it runs in a process of its own.
    """

    name: str
    package: str
    install: str = ""
    requirements: tuple[str, ...] = ()

    @property
    def environment(self) -> Environment | None:
        """Its own environment, if it has one."""
        return Environment(self.name, self.requirements) if self.requirements else None

    @property
    def elsewhere(self) -> Environment | None:
        """The environment whose process its references run in; None where that is this process."""
        return None if self.environment is None or self.environment.entered else self.environment

    def split(self, source: str) -> str | None:
        """The name of the model, where `source` is one of this library."""
        prefix, _, name = source.partition(":")
        return name if prefix == self.name else None

    def names(self) -> Collection[str]:
        """The names of its models."""
        raise NotImplementedError

    def load(self, name: str, classes: int | None) -> nn.Module:
        """The model with its own random initialisation. `classes` is the size of its classifier, None: upstream's."""
        raise NotImplementedError

    def adopt(self, module: nn.Module) -> nn.Module:
        """`module`, which a user trained and pickled, so that it returns what `outputs` reads."""
        return module

    def resized(self, module: nn.Module, size: tuple[int, int, int]) -> nn.Module:
        """`module`, just loaded, or one in its place that is made for pictures of `size` (C, H, W), where parameters of
        it are for one size, such as positions.
        """
        return module

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        """What `module` returned in eval mode, as our outputs: a tensor is "logits", a dictionary or a dataclass has
        their names. What is no tensor in those is left out.
        """
        import torch

        if isinstance(result, torch.Tensor):
            return {"logits": result}
        found = result if isinstance(result, dict) else {f.name: getattr(result, f.name) for f in fields(result)}
        return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}

    def draw(self, name: str, parameter: nn.Parameter, generator: torch.Generator) -> bool:
        """Whether calibration shall leave this parameter as it is: as the model initialises it, or as drawn here.

        By default a 1-D parameter is drawn as the scale of a normalisation, around 1 and up to 6; a "bias" around 0; a
        "weight" so that it keeps the variance of its input; any other as an embedding, around 0 and small.
        """
        return False

    def spreads(self, module: nn.Module) -> Mapping[str, float]:
        """The standard deviations that calibration gives each channel of what layers return, by their paths: of those
        by which `module` chooses, whose random scores would otherwise be all alike or all saturated."""
        return {}

    def choosers(self, module: nn.Module) -> Collection[str]:
        """The paths of modules by whose results `module` chooses what goes on, such as queries by their scores.

        Of two that are nearly equal rounding decides. So the reference chooses by our results there, which are judged
        as those of any other module.
        """
        return ()

    def forget(self, module: nn.Module) -> None:
        """Drops what `module` remembers of its last input: the next may have another size or precision."""

    def published(self, name: str) -> Published:
        """Where the trained weights of a model are. Raises ZooError when its authors publish none."""
        raise ZooError(f"{self.name} publishes no weights of {name!r}; give --checkpoint FILE, or --random SEED")

    def unknown(self, name: str) -> ZooError:
        """The error of a model that this library does not have."""
        return ZooError(f"{self.name} has no model {name!r}{closest(name, self.names())}")

    def require(self) -> None:
        """Raises ZooError, with the command that installs it, where the library is missing."""
        if self.elsewhere is not None and not self.elsewhere.ready:
            raise MissingLibrary(
                f"the references of {self.name} need an environment of their own, which is not there in the versions "
                f"that are asked for: python -m zoo.verify.install {self.name}",
                self.package,
            )
        needed = {"torch": PYTORCH} if self.elsewhere else {"torch": PYTORCH, self.package: self.install}
        for package, install in needed.items():
            if importlib.util.find_spec(package) is None:
                raise MissingLibrary(
                    f"the references of {self.name} need the package {package!r}, which is missing: {install}", package
                )


@dataclass(frozen=True)
class Reference:
    """A published model: `module` is in eval mode, `library` knows how to read what it returns.

    `rounding` makes an int8 network of it.
    """

    source: str
    module: nn.Module
    library: Library
    rounding: Rounding | None = None

    def outputs(self, result: Any) -> dict[str, Tensor]:
        """What the module returned, as the outputs of our definitions, by name."""
        return self.library.outputs(self.module, result)

    def describe(self) -> str:
        """Its modules, as PyTorch prints them."""
        return str(self.module)

    @property
    def choosers(self) -> Collection[str]:
        """The modules by whose results it chooses what goes on."""
        return self.library.choosers(self.module)

    def forget(self) -> None:
        """Drops what the module remembers of its last input."""
        self.library.forget(self.module)


AnyReference = Reference | RemoteReference


def libraries() -> dict[str, Library]:
    """Every library by the prefix of its references: those of this folder and other people's."""
    found: dict[str, Library] = {}
    for library in discovery.find("zoo.references", "LIBRARY"):
        known = found.setdefault(library.name, library)
        if known is not library:
            modules = f"{type(known).__module__} and in {type(library).__module__}"
            raise ZooError(f"two libraries of references are named '{library.name}': in {modules}; rename the second")
    return found


def library_of(source: str) -> tuple[Library, str]:
    """The library of a reference, and the model's name in it. Raises ZooError for an unknown one."""
    for library in libraries().values():
        name = library.split(source)
        if name is not None:
            return library, name
    prefixes = [library.name for library in libraries().values()]
    known = ", ".join(prefixes)
    raise ZooError(
        f"reference {source!r} is unknown, expected PREFIX:NAME with a prefix among {known}"
        f"{closest(source.partition(':')[0], prefixes)}{discovery.missing('zoo.references')}"
    )


def load_reference(source: str, classes: int | None = None) -> AnyReference:
    """The reference that `source` names, in eval mode, with its own random initialisation. Nothing is downloaded.

    `classes` is the size of its classifier, upstream's (1000, 80, 10) by default.
    Raises ZooError for an unknown source and for a library that is not installed.
    """
    library, name = library_of(source)
    library.require()
    if library.elsewhere is not None:
        return create(library.elsewhere, "load_reference", source, classes=classes)
    return Reference(source, library.load(name, classes).eval(), library)


def published(source: str) -> Published:
    """Where the trained weights of a reference are published; needs no PyTorch. Raises ZooError when there are none."""
    library, name = library_of(source)
    return library.published(name)
