"""How hard TensorRT tries when it compiles."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """`level` is TensorRT's builder optimisation level (0 … 5; None: its own). With `heuristic` TensorRT 8 guesses the
    best kernels and times few of them, which is several times faster. `tf32` lets fp32 convolutions round to TF32.
    """

    level: int | None = None
    heuristic: bool = False
    tf32: bool = False
