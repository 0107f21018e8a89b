"""ONNX files: checked, written whole or not at all, with large weights in a file beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from zoo.errors import ZooError
from zoo.files import checked_destination, replacing
from zoo.onnx.graph import LARGEST, put_inside

_PAGE = 4096  # where tensors begin, so that readers can map them into memory


def save(
    model: onnx.ModelProto,
    path: str | os.PathLike[str],
    weights: Mapping[str, np.ndarray] = {},
    external: bool | None = None,
) -> Path | None:
    """Checks a model and writes it, whole or not at all. Returns the file of its external data, if it has one.

    weights: the large constants that `to_onnx` left out of the model.
    external: write them into `PATH.data` beside it, as ONNX's external data. None: only from 2 GiB on, where one file
        ends.

    Raises ZooError where a file cannot be written, and for external data beside what is no regular file.
    """
    if external is None:
        external = sum(array.nbytes for array in weights.values()) > LARGEST
    check(model, weights)
    if not external:
        put_inside(model, weights)
        with replacing(path) as file:
            file.write(model.SerializeToString())
        return None
    path = checked_destination(path)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ZooError(f"cannot write {path} with external data: it is no regular file; name another one")
    data = path.with_name(f"{path.name}.data")
    places = _refer(model, weights, data.name)
    with replacing(path) as file:
        file.write(model.SerializeToString())
        with replacing(data) as beside:
            for name, offset in places.items():
                beside.write(bytes(offset - beside.tell()))
                beside.write(np.ascontiguousarray(weights[name]).view(np.uint8).data)
            path.unlink(missing_ok=True)  # never a model with the data of another
    return data


def describe(model: onnx.ModelProto, facts: Mapping[str, str]) -> None:
    """Puts facts into the model's metadata, which readers hand on."""
    onnx.helper.set_model_props(model, dict(facts))


def check(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> None:
    """Holds a model against the ONNX standard; `weights` it may leave out. Raises ZooError where it is not met."""
    try:
        onnx.checker.check_model(structure(model, weights))
    except onnx.checker.ValidationError as error:
        raise ZooError(f"the network is no valid ONNX: {error}") from None


def structure(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """A copy of the model in which the weights that it leaves out are inputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.initializer[:]
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            copy.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            copy.graph.initializer.append(tensor)
    return copy


def _refer(model: onnx.ModelProto, weights: Mapping[str, np.ndarray], location: str) -> dict[str, int]:
    """Makes the model refer to its weights in the file `location`; returns where each begins there."""
    places: dict[str, int] = {}
    end = 0
    for tensor in model.graph.initializer:
        if tensor.name not in weights:
            continue
        places[tensor.name] = offset = -(-end // _PAGE) * _PAGE
        end = offset + weights[tensor.name].nbytes
        del tensor.external_data[:]
        for key, value in (("location", location), ("offset", offset), ("length", end - offset)):
            tensor.external_data.add(key=key, value=str(value))
    return places
