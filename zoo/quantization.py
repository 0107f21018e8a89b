"""The scales of an int8 network: which tensors are quantised, and over which range.

A site is a tensor that a layer reads: the input of a convolution or of a fully connected layer bears that layer's name,
and of an addition it is the operand that is not fused into the convolution before it. What stands in no file is
quantised nowhere: ranges of weights are computed from the weights.
"""

from __future__ import annotations

import fnmatch
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zoo.errors import ZooError
from zoo.files import replacing

LEVELS = 127  # of either sign: symmetric, so that zero is zero
TRAINED = "the checkpoint's quantisers"  # a method: the ranges, of weights too, stand in the weights' file
Stored = Literal["int8", "fp8"]
LARGEST: dict[str, int] = {"int8": LEVELS, "fp8": 448}  # what a range's end is stored as; fp8 is e4m3, without infinity


@dataclass(frozen=True)
class Scales:
    """The largest magnitude (`amax`) that each site represents, by name; larger values saturate.

    `weights` is the digest of the weights that ran, `keep` are patterns of sites that stay in higher precision. `name`
    says where the scales come from.
    """

    model: str
    weights: str
    amax: Mapping[str, float]
    method: str = "max"
    samples: int = 0
    keep: tuple[str, ...] = ()
    name: str = field(default="scales", compare=False)

    def of(self, site: str, stored: Stored = "int8") -> float | None:
        """What 1 means at `site`, stored as `stored`: the step of int8. None where it stays in higher precision.

        Raises ZooError for one of another network.
        """
        if any(fnmatch.fnmatchcase(site, pattern) for pattern in self.keep):
            return None
        if site not in self.amax:
            raise ZooError(f"{self.name} has no range for '{site}': it is of another network; calibrate again")
        return self.amax[site] / LARGEST[stored] or None  # nothing but zeros: nothing to quantise

    def check(self, model: str, digest: str) -> None:
        """Raises ZooError unless these are the scales of `model` with the weights of this digest."""
        if self.model != model:
            raise ZooError(f"{self.name} holds scales of {self.model}, not of {model}; calibrate {model}")
        if self.weights != digest:
            raise ZooError(
                f"{self.name} was calibrated with other weights (sha256 {self.weights[:12]}…, these are "
                f"{digest[:12]}…); calibrate again"
            )

    def to_dict(self) -> dict[str, Any]:
        """As JSON data, which `scales_from` reads."""
        return {
            "model": self.model, "weights": self.weights, "method": self.method, "samples": self.samples,
            "keep": list(self.keep), "amax": dict(self.amax), "file": self.name,
        }  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the file that `load_scales` reads."""
        content = {"scales": self.to_dict() | {"file": str(path)}}
        with replacing(Path(path)) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())
        return Path(path)


def load_scales(path: str | os.PathLike[str]) -> Scales:
    """The scales in a file of `python -m zoo.calibrate`, or in the description of an int8 engine.

    Raises ZooError for any other content.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ZooError(
            f"the scales {path} cannot be read: {error.strerror}; python -m zoo.calibrate MODEL --data DIR writes them"
        ) from None
    except (ValueError, RecursionError):
        raise ZooError(f"{path} is no JSON, expected the scales that python -m zoo.calibrate writes") from None
    found = content.get("scales") if isinstance(content, dict) else None
    if not isinstance(found, dict):
        raise ZooError(f"{path} holds no scales, expected the file that python -m zoo.calibrate writes")
    return scales_from(found, str(path))


def scales_from(content: dict[str, Any], name: str) -> Scales:
    """The scales in JSON data that came from the file `name`. Raises ZooError naming the first field that is wrong."""
    return Scales(
        _text(name, content, "model"), _text(name, content, "weights"), _ranges(name, content),
        _text(name, content, "method"), _count(name, content), _patterns(name, content), name,
    )  # fmt: skip


def _text(path: Any, content: dict[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or len(value) > 256 or not value.isprintable():
        raise ZooError(f"'{key}' in {path} must be a short text; calibrate again")
    return value


def _count(path: Any, content: dict[str, Any]) -> int:
    value = content.get("samples")
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ZooError(f"'samples' in {path} must be a number of pictures; calibrate again")
    return value


def _patterns(path: Any, content: dict[str, Any]) -> tuple[str, ...]:
    value = content.get("keep", [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ZooError(f"'keep' in {path} must be a list of patterns of module paths")
    return tuple(value)


def _ranges(path: Any, content: dict[str, Any]) -> dict[str, float]:
    value = content.get("amax")
    if not isinstance(value, dict) or not value:
        raise ZooError(f"'amax' in {path} must hold a number per tensor; calibrate again")
    for site, amax in value.items():
        if isinstance(amax, bool) or not isinstance(amax, (int, float)) or not math.isfinite(amax) or amax < 0:
            raise ZooError(
                f"the range of '{site[:80]}' in {path} must be a finite number of 0 or more; calibrate again"
            )
    return {site: float(amax) for site, amax in value.items()}


def quantised_channels(
    weights: np.ndarray, stored: Stored = "int8", amax: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`weights` (out, …) as they are stored, in float32, and the step of each channel (out,), float32: for int8 whole
    steps of -127 to 127, for fp8 its own numbers of -448 to 448.

    `amax` (out,) are ranges that training chose, by default the largest magnitudes; of larger ones int8 takes one step
    more below zero, as quantisers do. A channel of zeros has a step of 1. For int8 values are multiplied by 1 / step,
    as PyTorch's fake quantisation does.
    """
    largest = LARGEST[stored]
    lowest = -largest if amax is None or stored == "fp8" else -largest - 1
    if amax is None:
        amax = np.abs(weights).reshape(len(weights), -1).max(1)
    step = np.where(amax > 0, amax / np.float32(largest), 1).astype(np.float32)
    of_each = step.reshape(-1, *(1,) * (weights.ndim - 1))
    if stored == "fp8":
        import ml_dtypes

        return np.clip(weights / of_each, -largest, largest).astype(ml_dtypes.float8_e4m3fn).astype(np.float32), step
    whole = np.rint(weights * (np.float32(1) / of_each))
    return np.clip(whole, lowest, largest).astype(np.float32), step
