"""Ranges that a checkpoint brings along: those of the quantisers that NVIDIA's ModelOpt and pytorch-quantization put
into a network for calibration or for quantisation-aware training (QAT).

They stand in the state_dict under the module that reads the tensor: `layer1.0.conv1.input_quantizer._amax`, one number,
in pytorch-quantization with an underscore before `input`; for a shortcut `layer1.0.residual_quantizer._amax`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from zoo.engine.definition import define
from zoo.errors import ZooError
from zoo.quantization import Scales
from zoo.registry import Model
from zoo.trt import load_to_define
from zoo.weights import Weights

INPUT, WEIGHT, SHORTCUT = "input", "weight", "residual"
ALIKE = 1e-3  # relative: half precision rounds by less


def scales_in(model: Model, weights: Weights) -> tuple[Scales, list[str]]:
    """The scales of `model` that stand in `weights`, and sentences on what is not as it was trained.

    A tensor without a range stays in fp16. Raises ZooError where there is none at all, and for one that is no number.
    """
    sites = define(model, weights, load_to_define(), (1, *model.input)).sites
    names = {site: _quantiser(weights, *_place(site)) for site in sites}
    amax = {site: _range(weights, name) for site, name in names.items() if name in weights}
    if not amax:
        raise ZooError(
            f"{weights.name} brings no ranges, such as '{names[next(iter(names))]}' of ModelOpt or "
            "pytorch-quantization; calibrate with pictures: --data DIR"
        )
    keep = tuple(site for site in sites if site not in amax)
    said = [f"{len(keep)} tensors have no range and stay in fp16, the first is '{keep[0]}'"] if keep else []
    said += _other_weights(weights, sites)
    return Scales(model.name, weights.digest(), amax, "the checkpoint's quantisers", 0, keep), said


def _place(site: str) -> tuple[str, str]:
    """The module that reads the tensor of a site, and what it is to it."""
    path, _, last = site.replace(".conv2d()", "").replace(".linear()", "").rpartition(".")
    adds = last.partition(":")[0] == "add"
    return (path, SHORTCUT) if adds else (f"{path}.{last}".lstrip("."), INPUT)


def _quantiser(weights: Weights, path: str, part: str) -> str:
    """The name of a range."""
    older = f"{path}._{part}_quantizer._amax"
    return older if older in weights else f"{path}.{part}_quantizer._amax"


def _range(weights: Weights, name: str) -> float:
    if weights.size(name) != 1:
        raise ZooError(
            f"'{name}' in {weights.name} has {weights.size(name)} values, expected one: inputs are quantised per tensor"
        )
    value = float(_read(weights, name).reshape(()))
    if not np.isfinite(value) or value < 0:
        raise ZooError(f"'{name}' in {weights.name} is {value}, expected a range of 0 or more")
    return value


def _other_weights(weights: Weights, sites: Iterable[str]) -> list[str]:
    """A sentence, where weights were trained with ranges that are not their largest values."""
    layers = dict.fromkeys(path.partition(":")[0] for path, part in map(_place, sites) if part == INPUT)
    other = [path for path in layers if _differs(weights, f"{path}.weight", _quantiser(weights, path, WEIGHT))]
    if not other:
        return []
    return [
        f"the weights of {len(other)} layers were quantised over other ranges than their largest values for each "
        f"channel, which are taken; the first is '{other[0]}'"
    ]


def _differs(weights: Weights, kernel: str, known: str) -> bool:
    if kernel not in weights or known not in weights:
        return False
    values, wanted = _read(weights, kernel), _read(weights, known).reshape(-1)
    largest = np.abs(values).reshape(len(values), -1).max(1)
    return wanted.size not in (1, largest.size) or not np.allclose(largest, wanted, rtol=ALIKE)


def _read(weights: Weights, name: str) -> np.ndarray:
    """In its own shape, where the source knows shapes."""
    shape = weights.shape(name)
    return weights.read(name, (weights.size(name),) if shape is None else shape)
