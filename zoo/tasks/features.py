"""Features: what modules inside a network return, for those who build on it (`zoo.registry.Model.features`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.preprocess import Placement
from zoo.tasks import Result, Task


@dataclass(frozen=True, eq=False)
class FeatureMaps(Result):
    """`features`: by module path, what the module returns for the picture, float32, without the batch dimension."""

    features: dict[str, np.ndarray]


class Features(Task):
    """Any outputs, by the paths of the modules that return them."""

    name = "features"
    outputs = {}

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> FeatureMaps:
        for path, values in outputs.items():
            if not np.isfinite(values).all():
                raise ZooError(f"'{path}' holds NaN or infinity: the network overflowed; build it with fp32 or bf16.")
        return FeatureMaps({path: values.astype(np.float32) for path, values in outputs.items()})

    def draw(self, image: np.ndarray, result: FeatureMaps) -> np.ndarray:
        """The picture as it is: numbers have no place in it."""
        return image.copy()

    def to_json(self, result: FeatureMaps) -> dict[str, Any]:
        return {"features": {path: values.round(6).tolist() for path, values in result.features.items()}}

    def describe(self, result: FeatureMaps) -> list[str]:
        return [
            f"{path}: {'x'.join(map(str, values.shape))}, mean {values.mean():.4g}, deviation {values.std():.4g}"
            for path, values in result.features.items()
        ]
