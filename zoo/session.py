"""A loaded network, ready to use, whatever runs it."""

from __future__ import annotations

import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from zoo.cascades import Cascade
from zoo.engine.io import DTYPES, Io, outer
from zoo.engine.shapes import Shapes, nearest
from zoo.errors import ZooError
from zoo.preprocess import Placement, Preprocess, Resize
from zoo.registry import Model

if TYPE_CHECKING:
    import numpy as np

L = TypeVar("L", bound="Loaded")


class Pending(Protocol):
    """What was submitted: `result()` waits for the outputs."""

    def result(self) -> dict[str, Any]: ...


class Executor(Protocol):
    """Runs a network: `executor(images)` maps float32 (N, C, H, W) to the outputs by name, which are the caller's own.

    With `views` they may be the executor's memory, good until its next call, where that saves a copy.
    """

    def __call__(self, images: Any, *, views: bool = False) -> dict[str, Any]: ...

    def submit(self, images: Any) -> Pending: ...

    def close(self) -> None: ...


class Loaded:
    """What can be asked of anything loaded: results for pictures, until it is closed."""

    def predict(self, image: str | os.PathLike[str] | np.ndarray, **options: Any) -> Any:
        """The task's result for one picture: a file, or an array (H, W, 3) uint8 BGR.

        `options` are the task's, as `zoo.run` has them (`conf`, `iou`, `top` …). For many pictures,
        `zoo.runtime.predict.make_predictor` keeps what this makes anew for each.
        """
        from zoo.images.sources import read_image
        from zoo.runtime.predict import make_predictor

        with make_predictor(self, **options) as predictor:  # type: ignore[arg-type]  # one of the two below
            return predictor(image if hasattr(image, "shape") else read_image(image)).result

    def close(self) -> None:
        """Frees what it holds."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        raise ZooError(
            "a session holds threads and memory of its process, and cannot be copied nor handed to another one; hand "
            "the model's name over and load it there"
        )

    def __enter__(self: L) -> L:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Session(Loaded):
    """A loaded network and what is needed to use it. Call it with float32 images (N, C, H, W), or what
    `io` says (`zoo.engine.io`); close it when done.

    Where `shapes` leave the height or the width open, `size` is what pictures become at most, and `predict` runs each
    in the smallest rectangle of that size that holds it, if the preprocessing is a letterbox.

    `executor` runs it and `runs_on` says in words what that is. `labels` are the class names of the weights, if they
    have any. `size` is the network's input size (H, W), and `weights` says where the weights came from. More images
    than `step` are run in steps of that many (None: all at once); those in GPU memory are never divided.
    """

    model: Model
    executor: Executor
    runs_on: str
    preprocess: Preprocess
    size: tuple[int, int]
    labels: list[str] | None
    weights: str
    step: int | None = None
    io: Io = "fp32"
    shapes: Shapes | None = None

    def __call__(self, images: Any, *, views: bool = False) -> dict[str, Any]:
        """The outputs by name: numpy arrays for a numpy array. On a GPU also device arrays for device arrays, PyTorch's
        or any with DLPack or __cuda_array_interface__ (see `zoo.runtime.gpu.GpuSession`).

        They are the caller's own. With `views` those on a GPU are the session's buffers, good until its next call.
        """
        parts = self._parts(images)
        if parts is None:
            return self.executor(images, views=views)
        return _joined([self.executor(part) for part in parts])

    def submit(self, images: Any) -> Pending:
        """Starts the network on `images` and returns at once; `.result()` waits for the outputs."""
        parts = self._parts(images)
        return self.executor.submit(images) if parts is None else _Parts([self.executor.submit(p) for p in parts])

    def _parts(self, images: Any) -> list[Any] | None:
        """Images on the host (also in a dict by the input's name) in pieces of at most `step`, where there are more."""
        from zoo.runtime.arrays import host_array, on_gpu

        if self.step is None:
            return None
        if isinstance(images, Mapping):
            parts = self._parts(*images.values()) if len(images) == 1 else None
            return None if parts is None else [dict.fromkeys(images, part) for part in parts]
        if not hasattr(images, "shape") or not images.shape or images.shape[0] <= self.step or on_gpu(images):
            return None
        array = host_array(images)
        return [array[start : start + self.step] for start in range(0, len(array), self.step)]

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, Placement]:
        """What the network takes for one picture (H, W, 3) uint8 BGR, and where the picture lies in it."""
        size = self._size_of(image)
        if self.io == "uint8":
            return self.preprocess.apply_bytes(image, size)
        pixels, placement = self.preprocess.apply(image, size)
        return pixels.astype(DTYPES[self.io], copy=False), placement

    @property
    def open_sides(self) -> bool:
        """Whether pictures need not all become one size."""
        return self.shapes is not None and self.shapes.open_sides

    def _size_of(self, image: np.ndarray) -> tuple[int, int]:
        """The network's size for one picture."""
        if self.shapes is None or not self.open_sides or not isinstance(self.preprocess, Resize):
            return self.size
        size = self.preprocess.rectangle(image.shape[:2], self.size)
        return nearest(size, ((part.min[2:], part.opt[2:], part.max[2:]) for part in self.shapes.profiles))

    def warm_up(self, batch: int = 1, runs: int = 3) -> None:
        """Runs the network on black images of this batch, since the first calls of a session take longer: memory is
        found, kernels are loaded, and on a GPU the CUDA graph of the shape is captured."""
        import numpy as np

        images = np.zeros(outer((batch, self.model.input[0], *self.size), self.io), DTYPES[self.io])
        for _ in range(runs):
            self(images)

    def close(self) -> None:
        """Frees what the session holds."""
        self.executor.close()


@dataclass(frozen=True)
class _Parts:
    """Submissions that make up one."""

    pending: list[Pending]

    def result(self) -> dict[str, Any]:
        return self._joined

    @functools.cached_property
    def _joined(self) -> dict[str, Any]:
        return _joined([part.result() for part in self.pending])


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    import numpy as np

    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


MOST_OPEN = 64  # networks of a cascade, one for each size in which a part was used


@dataclass(frozen=True)
class CascadeSession(Loaded):
    """A cascade, ready to use: `predict` gives its results for pictures.

    `open(part, size)` loads a part for images of a size (H, W), None: its own; that happens when a picture first asks
    for it, and the sizes that were used last stay. `weights` says where those of all parts came from, `runs_on` what
    runs them.
    """

    model: Cascade
    open: Callable[[str, tuple[int, int] | None], Session]
    runs_on: str
    weights: str
    _sessions: OrderedDict[tuple[str, tuple[int, int] | None], Session] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, part: str, images: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of a part by name for float32 images (N, C, H, W)."""
        import numpy as np

        with self._lock:
            found = self._opened(part, images.shape[2:])(np.ascontiguousarray(images))
        return {name: np.asarray(value) for name, value in found.items()}

    def results(self, part: str, pictures: Iterable[np.ndarray], **options: Any) -> list[Any]:
        """What a part with a task of its own says of pictures (H, W, 3) uint8 BGR; `options` are that task's."""
        from zoo.runtime.predict import make_predictor

        with self._lock, make_predictor(self._opened(part, None), **options) as predictor:
            return [predictor(picture).result for picture in pictures]

    def _opened(self, part: str, size: tuple[int, int] | None) -> Session:
        key = part, size
        if key not in self._sessions:
            self._sessions[key] = self.open(*key)
        self._sessions.move_to_end(key)
        while len(self._sessions) > MOST_OPEN:
            self._sessions.popitem(last=False)[1].close()
        return self._sessions[key]

    def close(self) -> None:
        """Frees the networks."""
        while self._sessions:
            self._sessions.popitem()[1].close()
