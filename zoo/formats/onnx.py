"""ONNX: the network definition as a file that onnxruntime runs, Netron draws and TensorRT's parser reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli import (
    Bf16,
    FeaturesOption,
    Fp16,
    IoOption,
    Json,
    Output,
    Size,
    WeightsOption,
    entry_of,
    note,
    precision_name,
    print_json,
)
from zoo.files import checked_destination
from zoo.formats import Format

if TYPE_CHECKING:
    import numpy as np

    from zoo.network import Definition
    from zoo.registry import Model

Batch = Annotated[
    int | None,
    typer.Option("--batch", "-b", help="Fixed batch size; -1, the default, leaves it open.", show_default=False),
]
Opset = Annotated[
    int | None,
    typer.Option("--opset", help="17 to 20. Default: the lowest of them that has all the layers.", show_default=False),
]
ExternalData = Annotated[
    bool, typer.Option("--external-data", help="Weights in a file beside it, as always from 2 GiB on.")
]


def export(
    model: str,
    *,
    weights: WeightsOption = None,
    fp16: Fp16 = False,
    bf16: Bf16 = False,
    batch: Batch = None,
    size: Size = None,
    features: FeaturesOption = None,
    io: IoOption = None,
    opset: Opset = None,
    external_data: ExternalData = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Writes the network definition of `model` as an ONNX file."""
    from zoo.api import adapted, find_weights
    from zoo.engine.definition import check_sides, define
    from zoo.engine.io import check_io
    from zoo.engine.shapes import ranged_shapes
    from zoo.network import Precision
    from zoo.trt import load_to_define

    entry, batch = entry_of(model, features), -1 if batch is None else batch
    border = check_io(io or "fp32", entry)
    ranged_shapes(entry, max(batch, 1), size)  # refused before weights are read
    path = checked_destination(output or Path(f"{entry.name}.onnx"))
    source = find_weights(entry, weights)
    entry = adapted(entry, source)
    shapes = ranged_shapes(entry, max(batch, 1), size)
    precision = Precision(precision_name(fp16, bf16))
    tensorrt = load_to_define(precision.name)
    check_sides(entry.configured(source), tensorrt, shapes)
    definition = define(entry, source, tensorrt, (batch, *shapes.network[1:]), precision, io=border)
    if bf16:
        note("onnxruntime lacks bf16 for most layers: this file is for TensorRT")
    proto, data = write(entry, definition, path, opset, external=external_data or None)
    nodes, version = len(proto.graph.node), proto.opset_import[0].version
    result = {"model": entry.name, "file": str(path), "opset": version, "nodes": nodes, "bytes": path.stat().st_size}
    if data is not None:
        result |= {"data": str(data), "data_bytes": data.stat().st_size}
    if as_json:
        print_json(result)
        return
    print(f"{path}: {result['bytes'] / 1e6:.1f} MB, {nodes} nodes, opset {version}, checked with onnx.checker")
    if data is not None:
        print(f"{data}: {result['data_bytes'] / 1e6:.1f} MB of weights, which belong beside it")


def write(
    model: Model, definition: Definition, path: Path, opset: int | None = None, external: bool | None = None
) -> tuple[Any, Path | None]:
    """Writes `definition` to `path`, described; gives the ONNX model and the file of its external data, if any."""
    from zoo.onnx.files import describe, save

    proto, constants = _translated(definition, opset)
    describe(proto, _facts(model, definition))
    return proto, save(proto, path, constants, external=external)


def _translated(definition: Definition, opset: int | None) -> tuple[Any, dict[str, np.ndarray]]:
    """The network as ONNX without its large weights, and those; in the earliest opset that has what it needs."""
    from zoo.onnx.graph import OPSET, NewerOpset
    from zoo.onnx.sizes import name_open_sizes
    from zoo.onnx.walker import to_onnx

    wanted = OPSET if opset is None else opset
    weights: dict[str, np.ndarray] = {}
    while True:
        try:
            proto = to_onnx(
                definition.network, definition.api.trt, arrays=definition.arrays, weights=weights, opset=wanted
            )
            break
        except NewerOpset as error:
            if opset is not None:
                raise
            note(str(error))
            wanted = error.opset
    name_open_sizes(proto, weights)
    return proto, weights


def _facts(model: Model, definition: Definition) -> dict[str, str]:
    """What is to be known for running the file, under the names of an engine's description; in JSON but for words."""
    from zoo.engine.passport import labels

    weights = definition.weights
    return {
        "model": model.name,
        "task": model.task,
        "features": json.dumps(model.ends),
        "precision": definition.precision.name,
        "preprocess": json.dumps(model.preprocess.to_dict()),
        "labels": json.dumps(labels(weights.metadata)),
        "weights": json.dumps({"file": os.path.basename(weights.name), "sha256": weights.digest()}),
    }


FORMAT = Format("onnx", export)
