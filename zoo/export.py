"""`python -m zoo.export`: the network definition in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli import Bf16, Fp16, Json, Size, WeightsOption, command, precision_name, print_json, size_of
from zoo.errors import ZooError


def run(
    model: Annotated[str, typer.Argument(help="A name from python -m zoo.list.")],
    format: Annotated[str, typer.Option("--format", help="onnx, the only one so far.")] = "onnx",
    weights: WeightsOption = None,
    fp16: Fp16 = False,
    bf16: Bf16 = False,
    batch: Annotated[int, typer.Option("--batch", "-b", help="Fixed batch size; -1 leaves it open.")] = -1,
    size: Size = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: MODEL.onnx.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Writes MODEL's network definition as an ONNX file that onnxruntime runs and Netron draws."""
    from zoo import onnx
    from zoo.api import adapted, find_weights
    from zoo.engine.definition import define
    from zoo.engine.shapes import input_shapes
    from zoo.network import Precision
    from zoo.registry import get_model
    from zoo.trt import load

    if format != "onnx":
        raise ZooError(f"the format is '{format}'; it must be onnx")
    entry = get_model(model)
    input_shapes(entry, max(batch, 1), size_of(size))  # refused before weights are read
    source = find_weights(entry, weights)
    entry = adapted(entry, source)
    shape = input_shapes(entry, max(batch, 1), size_of(size)).opt
    precision = Precision(precision_name(fp16, bf16))
    definition = define(entry, source, load("rtx"), (batch, *shape[1:]), precision)
    path = output or Path(f"{entry.name}.onnx")
    proto = onnx.to_onnx(definition.network, definition.api.trt, arrays=definition.arrays)
    onnx.save(proto, path)
    result = {"model": entry.name, "file": str(path), "nodes": len(proto.graph.node), "bytes": path.stat().st_size}
    if as_json:
        print_json(result)
    else:
        print(f"{path}: {result['bytes'] / 1e6:.1f} MB, {result['nodes']} nodes, checked with onnx.checker")


main = command(run)

if __name__ == "__main__":
    main()
