"""`python -m zoo.bench`: how fast our engines are, alone and against their rivals."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli import (
    Heuristic,
    Json,
    Level,
    Size,
    TimingCache,
    WeightsOption,
    command,
    note,
    print_json,
    progress,
    size_of,
)
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.measure.contest import Result


def run(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Names from python -m zoo.list.")],
    batch: Annotated[str, typer.Option("--batch", "-b", help="Batch sizes: 1 or 1,8,32.")] = "1",
    precision: Annotated[
        str, typer.Option("--precision", help="fp32 (TF32 off), tf32, fp16, bf16, or several: fp32,fp16.")
    ] = "fp16",
    against: Annotated[
        str,
        typer.Option(
            "--against",
            help="Rivals: onnx (same TensorRT, PyTorch's export), torch (eager), compile (torch.compile), graphed (the "
            "same as a CUDA graph), frozen (and with frozen weights); or several: onnx,torch.",
            show_default=False,
        ),
    ] = "",
    torch_python: Annotated[
        str,
        typer.Option(
            "--torch-python",
            help="Interpreter that has PyTorch, for the rivals. Default: this one.",
            show_default=False,
        ),
    ] = "",
    weights: WeightsOption = None,
    size: Size = None,
    level: Level = None,
    heuristic: Heuristic = False,
    timing_cache: TimingCache = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns of each contestant.")] = 20,
    replays: Annotated[int, typer.Option("--replays", min=1, help="Runs per turn; fewer when they are slow.")] = 100,
    warmup: Annotated[int, typer.Option("--warmup", "--warmUp", min=1, help="Runs before the first turn.")] = 200,
    inspect: Annotated[
        Path | None,
        typer.Option("--inspect", help="Folder for what TensorRT's inspector says of the engines.", show_default=False),
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Also write the rows with timm's column names.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Times MODELs on this machine's GPU: CUDA graphs between events, float32 input and output.

    Prints trtexec's figures for ours and one table with all rivals. The rivals get the same weights and images, their
    outputs are compared first, and rounds take turns. Without --weights and without a file of the model's name, the
    weights are random (calibrated where PyTorch is at hand). Exit status 1 when a rival could not take part.
    """
    from zoo.api import find_weights, weights_file
    from zoo.measure import contest
    from zoo.measure.machine import gpu_state, machine, tensorrt_on_gpu
    from zoo.registry import get_model

    entries = [get_model(name) for name in models]
    batches = [_positive(text) for text in batch.split(",")]
    precisions = _chosen("precision", precision, contest.PRECISIONS)
    rivals = _chosen("rival", against, contest.RIVALS) if against else []
    wanted = size_of(size)
    api = tensorrt_on_gpu()
    options = contest.Options(level, heuristic, timing_cache, rounds, replays, warmup)
    results: list[Result] = []
    with progress() as say, contest.arena(
        api, rivals, options, torch_python=torch_python, inspect=inspect, progress=say
    ) as arena:  # fmt: skip
        header = {**machine(), **({"pytorch": arena.torch.about} if arena.torch else {}), "clocks": gpu_state()}
        if not as_json:
            print(describe(header))
        for entry in entries:
            source = arena.weights(entry, find_weights(entry, weights) if weights or weights_file(entry) else None)
            for name in precisions:
                for count in batches:
                    row = arena.hold(entry, source, name, count, wanted)
                    results += row
                    if not as_json:
                        lines = [f"{title(row[0])}, weights {source.name}", *clock_words(row[0].clocks)]
                        print("", *lines, row[0].latency, sep="\n", flush=True)
        for problem in arena.failed:
            note(f"did not take part: {problem}")
    if csv_file is not None:
        _write_csv(csv_file, results, header, level)
    if as_json:
        print_json({"machine": header, "level": level, "results": [result.as_dict() for result in results]})
    else:
        print(f"\n{table(results)}")
    sys.exit(1 if arena.failed else 0)


def _positive(text: str) -> int:
    if not text.strip().isdigit() or int(text) < 1:
        raise ZooError(f"the batch '{text}' is not a number from 1 on, as in --batch 1,8,32")
    return int(text)


def _chosen(what: str, text: str, known: tuple[str, ...]) -> list[str]:
    """The comma-separated names in `text`, which must be among `known`."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ZooError(f"there is no {what} '{name}'; choose among {', '.join(known)}")
    return names


def describe(header: dict[str, Any]) -> str:
    """The machine in a few lines."""
    lines = [f"{header['gpu']}, driver {header['driver']}, CUDA {header['cuda']}, TensorRT {header['tensorrt']}"]
    if "pytorch" in header:
        torch = header["pytorch"]
        lines.append(f"PyTorch {torch['torch']}, CUDA {torch['cuda']}, cuDNN {torch['cudnn']}")
    return "\n".join([*lines, *clock_words(header["clocks"])])


def clock_words(clocks: dict[str, str]) -> list[str]:
    """A line on the GPU's clocks, if they are known."""
    if not clocks:
        return []
    return [
        f"SM {clocks['sm_mhz']} of {clocks['max_sm_mhz']} MHz, memory {clocks['memory_mhz']} MHz, "
        f"{clocks['temperature_c']} °C, {clocks['power_w']} W"
    ]


def title(result: Result) -> str:
    """The row: model, precision, batch, size."""
    height, width = result.size
    return f"{result.model} {result.precision}, batch {result.batch}, {height}x{width}"


def table(results: list[Result]) -> str:
    """All rows as a Markdown table. The ratio is our median over the rival's: below 1, ours is faster."""
    lines = [
        "| model | precision | batch | contestant | median ms | p99 ms | ours / this | images/s | differs | ready s |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in results:
        cells = [r.model, r.precision, str(r.batch), f"{r.name} ({r.runtime})" if r.runtime else r.name]
        if r.compute is None:
            cells += ["did not take part", "", "", "", "", ""]
        else:
            differs = "" if r.difference is None else f"{r.difference:.1e}"
            speed = 1e3 * r.batch / r.compute.median
            cells += [f"{r.compute.median:.4f}", f"{r.compute.p99:.4f}", f"{r.ratio:.3f}", f"{speed:.0f}", differs]
            cells.append(f"{r.build_s:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def csv_text(results: list[Result], header: dict[str, Any], level: int | None) -> str:
    """The rows as timm's benchmark.py names them: times in ms, parameters in millions."""
    names = ["model", "infer_samples_per_sec", "infer_step_time", "infer_batch_size", "infer_img_size", "param_count"]
    names += ["contestant", "runtime", "precision", "gpu", "tensorrt", "level"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for r in results:
        if r.compute is None:
            continue
        height, width = r.size
        writer.writerow({
            "model": r.model,
            "infer_samples_per_sec": f"{1e3 * r.batch / r.compute.median:.2f}",
            "infer_step_time": f"{r.compute.median:.4f}",
            "infer_batch_size": r.batch,
            "infer_img_size": height if height == width else f"{height}x{width}",
            "param_count": f"{r.cost.parameters / 1e6:.2f}",
            "contestant": r.name,
            "runtime": r.runtime,
            "precision": r.precision,
            "gpu": header["gpu"],
            "tensorrt": header["tensorrt"],
            "level": "default" if level is None else level,
        })  # fmt: skip
    return text.getvalue()


def _write_csv(path: Path, results: list[Result], header: dict[str, Any], level: int | None) -> None:
    from zoo.files import replacing

    with replacing(path) as file:
        file.write(csv_text(results, header, level).encode())


main = command(run)

if __name__ == "__main__":
    main()
