"""Ranges that a checkpoint brings along: those of the quantisers that NVIDIA's ModelOpt and pytorch-quantization put
into a network for calibration or for quantisation-aware training (QAT).

They stand in the state_dict under the module that reads the tensor: `layer1.0.conv1.input_quantizer._amax`, one number,
in pytorch-quantization with an underscore before `input`; for a shortcut `layer1.0.residual_quantizer._amax`; for a
kernel `layer1.0.conv1.weight_quantizer._amax`, a number for each channel or one.
"""

from __future__ import annotations

import numpy as np

from zoo.errors import ZooError
from zoo.weights.base import Weights

INPUT, WEIGHT, SHORTCUT = "input", "weight", "residual"


def range_name(weights: Weights, path: str, part: str) -> str:
    """The name under which `weights` hold the range of a `part` (INPUT, WEIGHT or SHORTCUT) of the module at `path`."""
    older = f"{path}._{part}_quantizer._amax"
    return older if older in weights else f"{path}.{part}_quantizer._amax"


def tensor_range(weights: Weights, name: str) -> float:
    """The range of a tensor. Raises ZooError where it is not one number of 0 or more."""
    if weights.size(name) != 1:
        raise ZooError(
            f"'{name}' in {weights.name} has {weights.size(name)} values, expected one: inputs are quantised per tensor"
        )
    return float(_read(weights, name)[0])


def kernel_range(weights: Weights, path: str, channels: int) -> np.ndarray | None:
    """The ranges (channels,) of the kernel of the module at `path`, float32; None where `weights` bring none. Raises
    ZooError for another number of them."""
    name = range_name(weights, path, WEIGHT)
    if name not in weights:
        return None
    if weights.size(name) not in (1, channels):
        raise ZooError(
            f"'{name}' in {weights.name} has {weights.size(name)} values, expected one for each of {channels} channels"
        )
    return np.broadcast_to(_read(weights, name), channels)


def _read(weights: Weights, name: str) -> np.ndarray:
    shape = weights.shape(name)
    values = weights.read(name, (weights.size(name),) if shape is None else shape).reshape(-1)
    wrong = values[~(np.isfinite(values) & (values >= 0))]
    if wrong.size:
        raise ZooError(f"'{name}' in {weights.name} is {wrong[0]}, expected a range of 0 or more")
    return values
