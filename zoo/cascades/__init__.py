"""Answers that take several networks. A cascade is one file in this folder, found by a scan: host code that runs
networks on what earlier ones found, and puts a task's result together.

It is no model: a model is one network, which is built, exported, proven and timed as such, and no single one can crop
as many faces out of a picture as another one found. The parts of a cascade are models with files, weights and proofs of
their own, whose task is "part" where they answer nothing alone. Importing this imports no library.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from zoo import discovery
from zoo.tasks import get_task

if TYPE_CHECKING:
    import numpy as np


class Run(Protocol):
    """What runs the parts of a cascade."""

    def __call__(self, part: str, images: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of a part by name for float32 images (N, C, H, W) of any size that the part can have."""

    def results(self, part: str, pictures: Iterable[np.ndarray], **options: Any) -> list[Any]:
        """What a part with a task of its own says of pictures (H, W, 3) uint8 BGR; `options` are that task's."""


class Cascade(ABC):
    """The base of all cascades. A subclass with a `name` is a cascade; all of them are stateless.

    `task` is the one whose `Result` it gives, `parts` are the models that it runs, `options` its own defaults for the
    options of the task.
    """

    name: ClassVar[str]
    task: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    paper: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        get_task(cls.task).settings(cls.options)
        known = _cascades.setdefault(cls.name, cls())
        if type(known).__module__ != cls.__module__:
            raise ValueError(f"two cascades are named '{cls.name}': in {type(known).__module__} and {cls.__module__}")

    @abstractmethod
    def __call__(self, image: np.ndarray, run: Run, options: Mapping[str, Any]) -> Any:
        """The `Result` for a picture (H, W, 3) uint8 BGR."""


_cascades: dict[str, Cascade] = {}


def all_cascades() -> list[Cascade]:
    """Every cascade, by name."""
    discovery.load("zoo.cascades")
    return [_cascades[name] for name in sorted(_cascades)]


def find_cascade(name: str) -> Cascade | None:
    """The cascade `name`, if there is one of that name."""
    return next((cascade for cascade in all_cascades() if cascade.name == name), None)
