"""Golden files that bring their weights along: with nothing else a machine without PyTorch proves itself.

The weights of a network are megabytes. So every tensor of two or more dimensions is drawn by
`zoo.weights.RandomWeights`, which gives the same bits everywhere, times one factor per filter; a file holds these
factors, the small tensors (BatchNorm statistics measured from data, scales, biases, constants) and a checksum of every
tensor. To that come an image and the reference's outputs in fp32, fp64 and fp16. A file is also a golden file in the
sense of `zoo.verify.golden`. `tests/gpu/goldens.py` makes them; the package brings a few, for `zoo.check`.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zoo.engine.definition import define
from zoo.errors import ZooError
from zoo.network import Precision
from zoo.registry import Model
from zoo.trt import Api
from zoo.verify.compare import Report, Run, compare_half, compare_runs
from zoo.verify.golden import load_golden
from zoo.verify.proof import Execute, Factor
from zoo.weights import Entry, RandomWeights, Weights, load_weights

SEED = 0
SHIPPED = Path(__file__).with_name("goldens")


@dataclass(frozen=True)
class Golden:
    """Weights, one image (1, C, H, W), and what the reference makes of them; `ref16` is its run in half precision."""

    weights: Weights
    images: np.ndarray
    ref32: Run
    ref64: Run
    ref16: Run


def shipped() -> list[str]:
    """The models whose goldens the package brings."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def read_packed(path: Path, model: str) -> Golden:
    """The golden of `model`. Raises ZooError when there is none, or a weight comes out with other bits."""
    images, ref32, ref64 = load_golden(path, model)
    file = load_weights(path)
    arrays = {name: file.read(name, file.shape(name) or ()) for name in file.names() if name.startswith("weights/")}
    half = {name: file.read(name, file.shape(name) or ()) for name in file.names() if name.startswith("float16/")}
    ref16 = Run({name.removeprefix("float16/"): array for name, array in half.items()})
    return Golden(_weights(model, json.loads(file.metadata["tensors"]), arrays), images, ref32, ref64, ref16)


def prove_packed(model: Model, golden: Golden, api: Api, execute: Execute, factor: Factor) -> Iterator[Report]:
    """Every output of `model`, as `execute` runs its definition on `api`, by the rule of `zoo.verify.compare`: in fp32,
    then in fp16."""
    full, half = (define(model, golden.weights, api, golden.images.shape, Precision(p)) for p in ("fp32", "fp16"))
    ours = execute(full, [], golden.images)
    yield compare_runs(ours, golden.ref32, golden.ref64, [], factor=factor(full))
    found = execute(half, [], golden.images)
    yield compare_half(found, ours, golden.ref16, golden.ref32, "float16", factor(half))


def _weights(model: str, tensors: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Weights:
    entries = {}
    for name, (shape, checksum) in tensors.items():
        load = partial(_checked, name, tuple(shape), checksum, arrays[f"weights/{name}"])
        entries[name] = Entry(math.prod(shape), tuple(shape), load)
    return Weights(f"golden weights of {model}", entries)


def _checked(name: str, shape: tuple[int, ...], checksum: int, stored: np.ndarray) -> np.ndarray:
    array = stored if stored.shape == shape else generate(name, shape, stored)
    if zlib.crc32(np.ascontiguousarray(array)) != checksum:
        raise ZooError(f"'{name}' has other bits here than where its golden was made; make the goldens on this machine")
    return array


def generate(name: str, shape: tuple[int, ...], factors: np.ndarray) -> np.ndarray:
    """A tensor of two or more dimensions: random numbers times one factor per filter (the first axis)."""
    return RandomWeights(SEED).read(name, shape) * factors.reshape(-1, *[1] * (len(shape) - 1))
