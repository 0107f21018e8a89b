"""What networks are for. A task is one file in this folder, found by a scan: what the outputs mean, what a user may
choose, how results are drawn, printed and written as JSON. Importing this imports no library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from zoo import discovery
from zoo.errors import ZooError, closest
from zoo.labels import labels_for

if TYPE_CHECKING:
    import numpy as np

    from zoo.preprocess import Placement, Preprocess, Tile
    from zoo.runtime.arrays import DeviceArray
    from zoo.runtime.cuda import Cuda, Stream
    from zoo.runtime.pipeline import Decoder

CLASSES = "classes"  # the axis of an output that has an entry for each class


@dataclass(frozen=True)
class Option:
    """What a user may choose when outputs become results; `zoo.run` has a flag for it.

    Its type is the default's. `low` and `high` bound a number. `flags` are further spellings on the command line.
    """

    name: str
    default: int | float | str
    help: str
    low: float | None = None
    high: float | None = None
    flags: tuple[str, ...] = ()

    @property
    def type(self) -> type:
        return type(self.default)

    def check(self, value: Any) -> Any:
        """`value` as the option's type. Raises `ZooError` for another type and for a value out of bounds."""
        if self.type is float and type(value) is int:
            value = float(value)
        if type(value) is not self.type:
            raise ZooError(f"{self.name} is {value!r}; it must be of the type {self.type.__name__}.")
        if self.low is not None and not value >= self.low or self.high is not None and not value <= self.high:
            bounds = f"at least {self.low}" if self.high is None else f"between {self.low} and {self.high}"
            raise ZooError(f"{self.name} is {value}; it must be {bounds}.")
        return value


class Result:
    """What one picture gave, in its own pixels: the same object in Python, in JSON and in drawing.

    A task's result is a frozen dataclass with numpy arrays, whose fields have the same names in all tasks: `boxes`
    (K, 4) x1, y1, x2, y2, `scores` (K,), `classes` (K,), `labels` (the K names), `masks` (K, H, W) bool, `keypoints`
    (K, points, 3) x, y, score, `corners` (K, 4, 2), `angles` (K,), `class_map` (H, W), `depth` (H, W), `embedding`
    (D,), `picture` (H, W, 3) uint8 BGR, `texts` (strings).
    """


class Task(ABC):
    """The base of all tasks. A subclass with a `name` is a task; all of them are stateless.

    `outputs` are those of one picture, without the batch dimension: by name, the axes, each its size or a name. Axes of
    one name have one size; the axis called "classes" has an entry for each class. `whole` says that the network must
    see the whole picture: a preprocessing that crops is refused. `finds_many` says that `describe` may have hundreds of
    lines: `zoo.run` then prints `summarize`, and them only when asked to.
    """

    name: ClassVar[str]
    outputs: ClassVar[Mapping[str, tuple[int | str, ...]]]
    options: ClassVar[tuple[Option, ...]] = ()
    whole: ClassVar[bool] = False
    finds_many: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if "name" not in cls.__dict__:
            return
        known = _tasks.setdefault(cls.name, cls())
        if type(known).__module__ != cls.__module__:
            raise ValueError(f"two tasks are named '{cls.name}': in {type(known).__module__} and in {cls.__module__}")

    @abstractmethod
    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> Any:
        """The `Result` of outputs that have their declared shapes. `labels` has a name for each class."""

    @abstractmethod
    def draw(self, image: np.ndarray, result: Any) -> np.ndarray:
        """A new annotated picture (H, W, 3) uint8 BGR; tiny pictures come back enlarged so that text can be read."""

    @abstractmethod
    def to_json(self, result: Any) -> dict[str, Any]:
        """The result as JSON data."""

    @abstractmethod
    def describe(self, result: Any) -> list[str]:
        """The result as lines for people."""

    def summarize(self, result: Any) -> str:
        """The result in a few words, as for one frame of a video: the first line for people."""
        return self.describe(result)[0].strip()

    def compare(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """What the pictures of one run say together, as lines for people. `records` are those of `results.json`: a
        `source`, and what `to_json` gave. Most tasks look at each picture by itself."""
        return []

    def gpu_decoder(
        self, cuda: Cuda, outputs: Mapping[str, DeviceArray], stream: Stream, options: Mapping[str, Any]
    ) -> Decoder | None:
        """What decodes on the GPU, where the outputs lie; None, and `decode` does it on the CPU."""
        return None

    def from_gpu(self, found: Any, labels: Sequence[str]) -> Any:
        """The `Result` of what the GPU's decoder gave for a picture."""
        raise NotImplementedError

    def __call__(
        self,
        outputs: Mapping[str, np.ndarray],
        placement: Placement,
        names: Sequence[str] | None,
        options: Mapping[str, Any],
    ) -> Any:
        """The `Result` of one picture's outputs. `names` are the classes' names, if they are known.

        Raises `ZooError` for outputs that are missing or have another shape, and for what cannot be decoded.
        """
        labels = self.labels({name: output.shape for name, output in outputs.items()}, names)
        return self.decode(outputs, placement, labels, options)

    def labels(self, shapes: Mapping[str, tuple[int, ...]], names: Sequence[str] | None) -> list[str]:
        """A name for each class that outputs of these `shapes` tell apart. Raises `ZooError` for other shapes."""
        sizes: dict[int | str, int] = {}
        for name, axes in self.outputs.items():
            shape = shapes.get(name, ())
            fits = len(shape) == len(axes) and all(
                (axis if isinstance(axis, int) else sizes.setdefault(axis, size)) == size
                for axis, size in zip(axes, shape)
            )
            if not fits:
                raise ZooError(f"Expected {_shapes(self.outputs)} of one picture, got {_shapes(shapes) or 'nothing'}.")
        return labels_for(sizes[CLASSES], names) if CLASSES in sizes else []

    def settings(self, *chosen: Mapping[str, Any]) -> dict[str, Any]:
        """A value for every option: the default, or what is chosen, the last one counts.

        Raises `ZooError` for an option that the task does not have, with the closest, and for a value it cannot have.
        """
        known = {option.name: option for option in self.options}
        values = {name: option.default for name, option in known.items()}
        for choice in chosen:
            for name, value in choice.items():
                if name not in known:
                    has = f"its options are {', '.join(known)}" if known else "it has none"
                    raise ZooError(f"the task '{self.name}' has no option '{name}'; {has}{closest(name, known)}")
                values[name] = known[name].check(value)
        return values

    def check_preprocess(self, preprocess: Preprocess) -> None:
        """Raises `ZooError` for a preprocessing that the task cannot have."""
        if self.whole and not preprocess.whole:
            raise ZooError(
                f"the task '{self.name}' needs the whole picture, and {preprocess} cuts its edges off; "
                "use a preprocessing that stretches it or fits it in"
            )


class TiledTask(Task):
    """A task whose networks see a picture pixel by pixel, none of them resized: one that is larger than the input is
    cut into tiles (`zoo.preprocess.tiles`), a smaller one is continued by its edge. `decode` gets one tile."""

    @abstractmethod
    def overlap(self, options: Mapping[str, Any]) -> int:
        """How many pixels a tile sees beside those that it answers for."""

    @abstractmethod
    def join(self, picture: tuple[int, int], parts: Iterable[tuple[Tile, Any]]) -> Any:
        """The `Result` for a picture (height, width), of those of its tiles."""


_tasks: dict[str, Task] = {}


def _shapes(shapes: Mapping[str, tuple[int | str, ...]]) -> str:
    """«boxes (4, anchors) and scores (classes, anchors)»."""
    return " and ".join(f"{name} ({', '.join(map(str, axes))})" for name, axes in shapes.items())


def all_tasks() -> list[Task]:
    """Every task, by name."""
    discovery.load("zoo.tasks")
    return [_tasks[name] for name in sorted(_tasks)]


def get_task(name: str) -> Task:
    """The task `name`. Raises `ZooError` with the closest names."""
    names = [task.name for task in all_tasks()]
    if name not in names:
        hints = closest(name, names) + discovery.missing("zoo.tasks")
        raise ZooError(f"No task is called '{name}'; there are {', '.join(names)}{hints}.")
    return _tasks[name]
