"""How hard TensorRT tries when it compiles."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import ZooError
from zoo.units import parse_bytes


@dataclass(frozen=True)
class Effort:
    """`level` is TensorRT's builder optimisation level (0 … 5; None: its own). With `heuristic` TensorRT 8 guesses the
    best kernels and times few of them, which is several times faster. `tf32` lets fp32 convolutions round to TF32.
    `workspace` is how many bytes of scratch memory kernels may use (None: all that the GPU has).
    """

    level: int | None = None
    heuristic: bool = False
    tf32: bool = False
    workspace: int | None = None

    def __post_init__(self) -> None:
        if self.level is not None and (type(self.level) is not int or not 0 <= self.level <= 5):
            raise ZooError(f"the level is {self.level!r}; it must be a whole number from 0 to 5")
        if self.workspace is not None and (type(self.workspace) is not int or not 0 <= self.workspace < 2**53):
            raise ZooError(f"the workspace is {self.workspace!r}; it must be a number of bytes")


def parse_workspace(text: str) -> int:
    """ "512M" in bytes, or trtexec's "workspace:512"; a bare number is in MiB, as there."""
    pool, colon, amount = text.rpartition(":")
    if colon and pool != "workspace" or "," in text:
        raise ZooError(f"the memory pools are '{text}'; only workspace can be bounded, as in workspace:512M")
    return parse_bytes("the workspace", amount, unit="m")
