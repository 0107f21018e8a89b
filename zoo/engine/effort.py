"""How hard TensorRT tries when it compiles."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import ZooError


@dataclass(frozen=True)
class Effort:
    """`level` is TensorRT's builder optimisation level (0 … 5; None: its own). With `heuristic` TensorRT 8 guesses the
    best kernels and times few of them, which is several times faster. `tf32` lets fp32 convolutions round to TF32.
    """

    level: int | None = None
    heuristic: bool = False
    tf32: bool = False

    def __post_init__(self) -> None:
        if self.level is not None and (type(self.level) is not int or not 0 <= self.level <= 5):
            raise ZooError(f"the level is {self.level!r}; it must be a whole number from 0 to 5")
