"""Random weights: any tensor, made up from a seed, its name and its shape."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import numpy as np

from zoo.errors import ZooError
from zoo.weights.base import Weights


class RandomWeights(Weights):
    """Any tensor one asks for, made up from (seed, name, shape) alone: the same in any order and in any process.

    Drawn so that a deep network keeps a signal: matrices and kernels with variance 2 / fan-in, scales of normalisations
    near 1, variances in 0.5 … 1.5, biases and means small. All uniform: fast, and without outliers.
    """

    generated = True

    def __init__(self, seed: int = 0) -> None:
        super().__init__(f"random:{seed}")
        self.seed = seed

    def __contains__(self, name: object) -> bool:
        return True

    def size(self, name: str) -> int:
        raise ZooError(f"{self.name} has a '{name}' of any size: random weights do not tell a configuration")

    def shape(self, name: str) -> None:
        return None

    def read(self, name: str, shape: Iterable[int]) -> np.ndarray:
        """float32 values for this name and shape."""
        shape = tuple(int(n) for n in shape)
        low, high = _range(name, shape)
        seed = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
        generator = np.random.Generator(np.random.SFC64(int.from_bytes(seed, "big")))
        array = generator.random(math.prod(shape), dtype=np.float32)
        array *= high - low
        array += low
        array.flags.writeable = False
        return array.reshape(shape)


def _range(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    kind = name.rpartition(".")[2]
    if kind == "running_var":
        return 0.5, 1.5
    if len(shape) >= 2:
        bound = math.sqrt(6 / max(1, math.prod(shape[1:])))  # uniform in ±b has the variance b² / 3
        return -bound, bound
    if kind in ("weight", "gamma", "scale"):
        return 0.8, 1.2
    return -0.1, 0.1
