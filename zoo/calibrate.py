"""`python -m zoo.calibrate`: the ranges that an int8 network needs, from pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli import Json, Size, WeightsOption, command, note, print_json, progress, size_of


def run(
    model: Annotated[str, typer.Argument(help="A name from python -m zoo.list.")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="A folder with pictures like those that will be seen. Default: the ranges that --weights bring, of "
            "NVIDIA's ModelOpt or pytorch-quantization.",
            show_default=False,
        ),
    ] = None,
    weights: WeightsOption = None,
    method: Annotated[str, typer.Option("--method", help="mse, percentile, entropy or max.")] = "mse",
    samples: Annotated[int, typer.Option("--samples", help="How many pictures, spread over the folder.")] = 512,
    keep: Annotated[
        list[str] | None,
        typer.Option("--fp16-layers", help="Modules that stay in fp16, as a pattern: 'layer4.*'.", show_default=False),
    ] = None,
    size: Size = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: MODEL.scales.json.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Runs MODEL on pictures and writes the range of every tensor that int8 rounds, for zoo.build --int8.

    Without pictures it takes the ranges that the weights bring, from training for int8.

    The file is bound to the weights: others need their own.
    """
    from zoo.api import adapted, find_weights
    from zoo.engine.calibration import calibrate, pictures_in, prepared
    from zoo.engine.quantizers import scales_in
    from zoo.engine.shapes import input_shapes
    from zoo.registry import get_model

    entry, wanted = get_model(model), size_of(size)
    input_shapes(entry, 1, wanted)  # refused before weights are read
    pictures = pictures_in(data, samples) if data is not None else []
    source = find_weights(entry, weights)
    entry = adapted(entry, source)
    bad: list[str] = []
    if data is None:
        scales, bad = scales_in(entry, source)
        scales = replace(scales, keep=(*scales.keep, *(keep or ())))
    else:
        with progress() as say:
            images = prepared(entry, pictures, wanted, bad)
            scales = calibrate(entry, source, images, method=method, keep=keep or (), progress=say)
    for message in bad:
        note(message)
    path = scales.save(output or Path(f"{entry.name}.scales.json"))
    if as_json:
        print_json(
            {"model": entry.name, "weights": source.name, "file": str(path), "method": scales.method,
             "samples": scales.samples, "tensors": len(scales.amax), "errors": bad}
        )  # fmt: skip
        return
    how = f"by {method} over {scales.samples} pictures" if data is not None else f"by {scales.method}"
    print(f"{path}: the ranges of {len(scales.amax)} tensors of {entry.name}, {how}")
    if source.generated:
        note("the weights are random: so are the ranges")


main = command(run)

if __name__ == "__main__":
    main()
