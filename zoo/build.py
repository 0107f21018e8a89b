"""`python -m zoo.build`: a model and its weights into an engine."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli import (
    Bf16,
    FeaturesOption,
    Fp16,
    Heuristic,
    IoOption,
    Json,
    Level,
    NoPlugins,
    PluginsOption,
    Size,
    TimingCache,
    WeightsOption,
    Workspace,
    command,
    entry_of,
    note,
    plugin_policy,
    precision_name,
    print_json,
    progress,
    size_of,
)
from zoo.errors import ZooError


def run(
    model: Annotated[str, typer.Argument(help="A name from python -m zoo.list.")],
    fp16: Fp16 = False,
    bf16: Bf16 = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="int8 where --scales says so, fp16 elsewhere; see zoo.calibrate.")
    ] = False,
    fp8: Annotated[
        bool, typer.Option("--fp8", help="fp8 where --scales says so, fp16 elsewhere: GPUs from Ada on, no TensorRT 8.")
    ] = False,
    scales: Annotated[
        Path | None,
        typer.Option(
            "--scales", help="--int8, --fp8: what zoo.calibrate wrote. Default: MODEL.scales.json.", show_default=False
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="--int8: calibrate with these pictures, and keep layers in fp16 until --max-drop holds. They are "
            "labelled as zoo.eval reads them; else the fp32 answers count as right.",
            show_default=False,
        ),
    ] = None,
    max_drop: Annotated[
        float, typer.Option("--max-drop", help="--data: what the metric may lose, in points of 100.")
    ] = 0.5,
    layout: Annotated[
        str | None, typer.Option("--format", help="--data: how it is labelled, as in zoo.eval.", show_default=False)
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", help="--data: how many pictures.", show_default=False)
    ] = None,
    fp32_layers: Annotated[
        list[str] | None,
        typer.Option("--fp32-layers", help="Modules that stay in fp32, as a pattern: 'layer4.*'.", show_default=False),
    ] = None,
    weights: WeightsOption = None,
    batch: Annotated[int, typer.Option("--batch", "-b", help="Fixed batch size.")] = 1,
    min_shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--min-shapes",
            "--minShapes",
            "--trt-min-shapes",
            help="Smallest input NxCxHxW; once for each profile.",
            show_default=False,
        ),
    ] = None,
    opt_shapes: Annotated[
        list[str] | None,
        typer.Option("--opt-shapes", "--optShapes", "--trt-opt-shapes", help="Input to tune for.", show_default=False),
    ] = None,
    max_shapes: Annotated[
        list[str] | None,
        typer.Option("--max-shapes", "--maxShapes", "--trt-max-shapes", help="Largest input.", show_default=False),
    ] = None,
    size: Size = None,
    features: FeaturesOption = None,
    io: IoOption = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="tensorrt or rtx. Default: tensorrt where a GPU and the package are, else rtx.",
            show_default=False,
        ),
    ] = None,
    save_engine: Annotated[
        Path | None,
        typer.Option(
            "--save-engine",
            "--saveEngine",
            "--output",
            "-o",
            help="Where the engine goes. Default: MODEL-PRECISION.engine.",
            show_default=False,
        ),
    ] = None,
    timing_cache: TimingCache = None,
    level: Level = None,
    heuristic: Heuristic = False,
    tf32: Annotated[
        bool, typer.Option("--tf32", help="Let fp32 convolutions round to TF32, as TensorRT does by default.")
    ] = False,
    workspace: Workspace = None,
    no_tf32: Annotated[bool, typer.Option("--noTF32", hidden=True)] = False,
    strongly_typed: Annotated[bool, typer.Option("--stronglyTyped", hidden=True)] = False,
    build_only: Annotated[bool, typer.Option("--buildOnly", "--skipInference", hidden=True)] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", "--versionCompatible", "--vc", help="Later TensorRT load it too.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="All GPUs from Ampere on run it.")
    ] = False,
    refit: Annotated[bool, typer.Option("--refit", "--refittable", help="zoo.refit may put other weights in.")] = False,
    strip_plan: Annotated[
        bool, typer.Option("--strip-plan", "--stripWeights", help="No weights in the file; zoo.refit puts them in.")
    ] = False,
    sparsity: Annotated[
        bool, typer.Option("--sparsity", "--sparse-weights", help="Kernels for weights that are half zeros, 2 of 4.")
    ] = False,
    dla: Annotated[
        int | None,
        typer.Option("--dla", "--useDLACore", min=0, help="The DLA core that runs what it can.", show_default=False),
    ] = None,
    gpu_fallback: Annotated[bool, typer.Option("--allowGPUFallback", hidden=True)] = False,
    plugins: PluginsOption = "auto",
    no_plugins: NoPlugins = False,
    self_contained: Annotated[
        bool,
        typer.Option("--self-contained", help="Keep the plugins' library inside the engine (TensorRT 8.6 or later)."),
    ] = False,
    end2end: Annotated[
        bool, typer.Option("--end2end", help="Detectors: uint8 frames in, final boxes in pixels of the frame out.")
    ] = False,
    max_frame: Annotated[str, typer.Option("--max-frame", help="--end2end: the largest frame, HxW.")] = "1080x1920",
    conf: Annotated[float | None, typer.Option("--conf", help="--end2end: boxes must score more.")] = None,
    iou: Annotated[float | None, typer.Option("--iou", help="--end2end: overlap at which the weaker box goes.")] = None,
    max_det: Annotated[int | None, typer.Option("--max-det", help="--end2end: rows of the outputs.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--dryRun", help="Define the network, account for the weights, do not compile.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Defines MODEL on the TensorRT that is here, compiles it, and writes the engine with its description beside it.

    Without a GPU the engine is compiled ahead of time by TensorRT-RTX; kernels are then finished on the GPU that
    loads it. trtexec's --noTF32, --buildOnly, --skipInference and --stronglyTyped ask for what is done anyway.
    """
    from zoo import api
    from zoo.engine.definition import define
    from zoo.engine.effort import Effort, parse_workspace
    from zoo.engine.flags import Flags, why_not
    from zoo.engine.io import check_io
    from zoo.engine.passport import gpus_of
    from zoo.engine.plugins import Plugins
    from zoo.files import checked_destination
    from zoo.network import Precision
    from zoo.quantization import load_scales
    from zoo.trt import load

    started = time.perf_counter()
    precision, entry = precision_name(fp16, bf16, int8, fp8), entry_of(model, features)
    if scales and not (int8 or fp8):
        raise ZooError("--scales belongs to --int8 and --fp8; give one of them")
    if data and (not int8 or scales):
        raise ZooError("--data belongs to --int8 and makes the ranges that --scales would give; leave --scales away")
    islands = tuple(fp32_layers or ())
    ranges = load_scales(scales or f"{entry.name}.scales.json") if (int8 or fp8) and not data else None
    border = check_io(io or "fp32", entry)
    whole = _end2end(end2end, max_frame, {"conf": conf, "iou": iou, "max_det": max_det})
    _shapes(entry, batch, (min_shapes, opt_shapes, max_shapes), size)  # refused before weights are read
    effort = Effort(level, heuristic, tf32, parse_workspace(workspace) if workspace is not None else None)
    if tf32 and no_tf32:
        raise ZooError("--tf32 and --noTF32 exclude each other; give one")
    flags = Flags(version_compatible, hardware_compatible, refit, strip_plan, sparsity, dla)
    if version_compatible and self_contained:
        raise ZooError("--version-compatible and --self-contained exclude each other; give one")
    path = save_engine or Path(f"{entry.name}-{precision}.engine")
    if not dry_run:
        checked_destination(path)  # before minutes of compiling
    tensorrt = load(_target(target))
    reason = why_not(tensorrt, flags)
    if reason:
        raise ZooError(reason)
    if strongly_typed and not tensorrt.strong:
        raise ZooError(f"{tensorrt.name} has no --stronglyTyped networks here; TensorRT 10 and later always have them")
    source = api.find_weights(entry, weights)
    entry = api.adapted(entry, source)
    shapes = _shapes(entry, batch, (min_shapes, opt_shapes, max_shapes), size)
    policy = Plugins(plugin_policy(plugins, no_plugins), self_contained).policy
    gate = _gate(entry, source, data, layout, samples, max_drop, islands, shapes.opt[2:]) if data else None
    computed = Precision(precision, islands, gate.scales if gate else ranges)
    if dry_run:
        definition = define(entry, source, tensorrt, shapes.network, computed, policy, whole, border)
        _report(
            {
                "model": entry.name,
                "layers": definition.network.num_layers,
                "input": str(shapes),
                "weights": source.name,
            },
            as_json,
            "defined",
        )
        return
    with progress() as say:
        engine = api.build_engine(
            entry, weights=source, precision=computed, shapes=shapes, target=tensorrt.flavour,
            **asdict(effort), plugins=policy, self_contained=self_contained, end2end=whole, io=border, flags=flags,
            timing_cache=timing_cache, progress=say,
        )  # fmt: skip
    engine.save(path)
    result = {**engine.description, "engine": str(path), "seconds": round(time.perf_counter() - started, 2)}
    if gate:
        result |= {"metric": gate.metric, "fp32": gate.fp32, "drop": gate.drop, "tried": gate.tried}
    if as_json:
        print_json(result)
        return
    if tensorrt.rtx:
        note(f"compiled ahead of time by TensorRT-RTX for {gpus_of(engine.description)}; no GPU was used")
    print(
        f"{path}: {len(engine.data) / 1e6:.1f} MB, {entry.name} {precision}, input {shapes}, "
        f"{tensorrt.name}, {result['seconds']} s"
    )
    print(f"{path}.json: its description")


def _gate(
    model: Any, weights: Any, data: Path, layout: str | None, samples: int | None, max_drop: float,
    islands: tuple[str, ...], size: tuple[int, int],
) -> Any:  # fmt: skip
    """Which layers int8 needs higher; the table goes to stderr, and the ranges where the next build looks for them."""
    from zoo.measure.gate import find_layers, samples_in

    found, unlabelled = samples_in(model, weights, data, layout, samples, size)
    if unlabelled:
        note(f"the fp32 answers count as right, since the pictures have no labels: {unlabelled}")
    with progress() as say:
        gate = find_layers(
            model, weights, found, max_drop, agreement=bool(unlabelled), islands=islands, size=size, progress=say
        )
    for line in gate.table():
        note(line)
    path = gate.scales.save(f"{model.name}.scales.json")
    note(f"{path}: the ranges, and the {len(gate.scales.keep)} layers that stay in fp16; --scales takes it again")
    return gate


def _end2end(wanted: bool, max_frame: str, options: dict[str, Any]) -> Any:
    """What --end2end asks for, with its options."""
    from zoo.engine.end2end import EndToEnd

    if wanted:
        return EndToEnd(size_of(max_frame) or (0, 0), **options)
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ZooError(f"--{given[0].replace('_', '-')} belongs to --end2end; zoo.run has it for other engines")
    return None


def _shapes(model: Any, batch: int, ends: tuple[list[str] | None, ...], size: str | None) -> Any:
    """The shapes that the options ask for: a batch and a size, which may be a range, or profiles, in each of which what
    lacks equals its neighbour."""
    from zoo.engine.shapes import Shapes, parse_shape, ranged_shapes

    given = [values for values in ends if values]
    if batch == -1 and not given:
        raise ZooError("--batch -1 says no range; give one: --min-shapes 1xCxHxW --opt-shapes … --max-shapes 8xCxHxW")
    if not given:
        return ranged_shapes(model, batch, size)
    if size or batch != 1:
        raise ZooError("--batch and --size exclude --min-shapes, --opt-shapes and --max-shapes, which say both")
    count = len(given[0])
    if any(len(values) != count for values in given):
        raise ZooError("--min-shapes, --opt-shapes and --max-shapes are given once for each profile, all as often")

    def profile(low: str | None, opt: str | None, high: str | None) -> Shapes:
        high = high or opt or low
        opt, low = opt or high, low or opt or high
        return Shapes(*(parse_shape(text) for text in (low, opt, high) if text))

    columns: list[list[Any]] = [list(values) if values else [None] * count for values in ends]
    return Shapes.of(*(profile(*row) for row in zip(*columns)))


def _target(target: str | None) -> Any:
    if target not in (None, "tensorrt", "rtx"):
        raise ZooError(f"the target is '{target}'; it must be tensorrt or rtx")
    return target


def _report(result: dict[str, Any], as_json: bool, what: str) -> None:
    if as_json:
        print_json(result)
    else:
        print(f"{what} {', '.join(f'{key} {value}' for key, value in result.items())}")


main = command(run)

if __name__ == "__main__":
    main()
