"""`python -m zoo.eval`: how good a network's answers are on labelled pictures."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli import Bf16, Fp16, Json, Size, WeightsOption, command, note, precision_name, print_json, progress, size_of
from zoo.errors import ZooError


def run(
    model: Annotated[str, typer.Argument(help="A name from python -m zoo.list, or an engine file.")],
    data: Annotated[Path, typer.Option("--data", help="A folder with labelled pictures.")],
    layout: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="classify: folder (DIR/CLASS/PICTURE) or imagenet; detect: coco or folder (YOLO's images and labels); "
            "segment: folder (images and masks). Default: folder, and coco of detectors.",
            show_default=False,
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option("--annotations", help="coco: the JSON file, if there are several.", show_default=False),
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", help="How many pictures, spread over all.", show_default=False)
    ] = None,
    weights: WeightsOption = None,
    size: Size = None,
    device: Annotated[str, typer.Option("--device", help="cpu, gpu, auto, or a certain GPU: gpu:1 or 1.")] = "auto",
    fp16: Fp16 = False,
    bf16: Bf16 = False,
    int8: Annotated[bool, typer.Option("--int8", help="int8 where --scales says so, fp16 elsewhere.")] = False,
    scales: Annotated[
        Path | None,
        typer.Option(
            "--scales", help="--int8: what zoo.calibrate wrote. Default: MODEL.scales.json.", show_default=False
        ),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=0, help="Threads on the CPU. Default: one a core.")] = 0,
    table: Annotated[
        Path | None, typer.Option("--csv", help="Also write a row for each class to this file.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Measures MODEL on labelled pictures: top-1 and top-5 of a classifier, COCO's mAP of a detector, mIoU of a map.

    On the CPU the network runs as it is defined, in the wanted precision; on a GPU as an engine.
    """
    from zoo.api import is_engine, load
    from zoo.files import checked_destination
    from zoo.measure.accuracy import evaluate, labels_of, meter_of
    from zoo.measure.labelled import labelled, spread
    from zoo.network import Precision
    from zoo.quantization import load_scales
    from zoo.registry import get_model

    if scales and not int8:
        raise ZooError("--scales belongs to --int8; give both")
    precision = precision_name(fp16, bf16, int8)
    if not is_engine(model):
        meter_of(get_model(model).task)
    if not data.is_dir():
        raise ZooError(f"'{data}' is no folder; --data takes a folder with labelled pictures")
    if table is not None:
        checked_destination(table)
    ranges = load_scales(scales or f"{model}.scales.json") if int8 else None
    with progress() as say:
        session = load(
            model, weights=weights, size=size_of(size), device=device, threads=threads, progress=say,
            precision=Precision(precision, scales=ranges), batch=None if is_engine(model) else 1,
        )  # fmt: skip
        with session:
            labels = labels_of(session)
            found = spread(labelled(session.model.task, data, layout, labels, annotations), samples)
            scores = evaluate(session, found, labels, say)
    for message in scores.errors:
        note(message)
    if table is not None:
        _write(table, scores.classes)
    about = {"model": session.model.name, "weights": session.weights, "executor": session.runs_on}
    if as_json:
        print_json(
            {**about, "precision": precision, "data": str(data), "samples": scores.samples, "metrics": scores.metrics,
             "classes": scores.classes, "errors": scores.errors}
        )  # fmt: skip
        return
    note(f"{about['model']} with {about['weights']}: {about['executor']}")
    print(f"{session.model.name} on {scores.samples} pictures of {data}: {described(scores.metrics)}")


def described(metrics: dict[str, float]) -> str:
    """«top-1 76.13 %, top-5 92.86 %»."""
    return ", ".join(f"{name} {value:.2%}".replace("%", " %") for name, value in metrics.items())


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    from zoo.files import replacing

    text = io.StringIO()
    lines = csv.DictWriter(text, rows[0].keys() if rows else ["class"])
    lines.writeheader()
    lines.writerows(rows)
    with replacing(path) as file:
        file.write(text.getvalue().encode())


main = command(run)

if __name__ == "__main__":
    main()
