"""Names for the sizes that a model leaves open, wherever they come back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from zoo.onnx.files import structure

# Sizes to infer shapes with: large primes, of which no other size of a network is a multiple.
_PRIMES = (1_000_003, 1_000_033, 1_000_037, 1_000_039, 1_000_081, 1_000_099, 1_000_117, 1_000_121)


def name_open_sizes(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> None:
    """Gives each open size of a value the name that it has at the inputs, in place; `weights` are those left out.

    TensorRT says only that a size is open. Which one it is, or how often, follows from the shapes for sizes that occur
    nowhere else.
    """
    trial = structure(model, weights)
    primes: dict[str, int] = {}
    for value in trial.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and len(primes) < len(_PRIMES):
                dim.dim_value = primes.setdefault(dim.dim_param, _PRIMES[len(primes)])
    for value in (*trial.graph.value_info, *trial.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.Clear()
    inferred = onnx.shape_inference.infer_shapes(trial, data_prop=True).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*inferred.value_info, *inferred.output)}
    for value in (*model.graph.value_info, *model.graph.output):
        for dim, found in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ())):
            if not dim.HasField("dim_value"):
                dim.dim_param = _named(found.dim_value, primes) or dim.dim_param


def _named(size: int, primes: Mapping[str, int]) -> str:
    """An inferred size in the words of the inputs: "batch", "4*batch", or nothing where it is of none of them."""
    for name, prime in primes.items():
        if size and size % prime == 0:
            return name if size == prime else f"{size // prime}*{name}"
    return ""
