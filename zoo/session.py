"""A loaded network, ready to use, whatever runs it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from zoo.preprocess import Preprocess
from zoo.registry import Model

if TYPE_CHECKING:
    import numpy as np


class Pending(Protocol):
    """What was submitted: `result()` waits for the outputs."""

    def result(self) -> dict[str, Any]: ...


class Executor(Protocol):
    """Runs a network: `executor(images)` maps float32 (N, C, H, W) to the outputs by name."""

    def __call__(self, images: Any) -> dict[str, Any]: ...

    def submit(self, images: Any) -> Pending: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Session:
    """A loaded network and what is needed to use it. Call it with float32 images (N, C, H, W); close it when done.

    `executor` runs it and `runs_on` says in words what that is. `labels` are the class names of the weights, if they
    have any. `size` is the network's input size (H, W), and `weights` says where the weights came from.
    """

    model: Model
    executor: Executor
    runs_on: str
    preprocess: Preprocess
    size: tuple[int, int]
    labels: list[str] | None
    weights: str

    def __call__(self, images: Any) -> dict[str, Any]:
        """The outputs by name: numpy arrays for a numpy array. On a GPU also device arrays for device arrays, PyTorch's
        or any with DLPack or __cuda_array_interface__ (see `zoo.runtime.gpu.GpuSession`)."""
        return self.executor(images)

    def submit(self, images: Any) -> Pending:
        """Starts the network on `images` and returns at once; `.result()` waits for the outputs."""
        return self.executor.submit(images)

    def predict(self, image: str | os.PathLike[str] | np.ndarray, **options: Any) -> Any:
        """The task's result for one picture: a file, or an array (H, W, 3) uint8 BGR.

        `options` are the task's, as `zoo.run` has them (`conf`, `iou`, `top` …). For many pictures,
        `zoo.runtime.predict.make_predictor` keeps what this makes anew for each.
        """
        from zoo.images.sources import read_image
        from zoo.runtime.predict import make_predictor

        with make_predictor(self, **options) as predictor:
            return predictor(image if hasattr(image, "shape") else read_image(image)).result

    def close(self) -> None:
        """Frees what the session holds."""
        self.executor.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
