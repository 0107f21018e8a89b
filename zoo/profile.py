"""`python -m zoo.profile`: where an engine spends its time, by module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli import (
    Bf16,
    Fp16,
    Heuristic,
    Json,
    Level,
    Size,
    TimingCache,
    WeightsOption,
    command,
    precision_name,
    print_json,
    progress,
    size_of,
)
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.engine.effort import Effort
    from zoo.measure.costs import LayerCosts
    from zoo.trt import Api


def run(
    source: Annotated[
        str, typer.Argument(metavar="MODEL|ENGINE", help="A name from python -m zoo.list, or an engine file.")
    ],
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch", "-b", min=1, help="Batch size. Default: 1, or what the engine was tuned for.", show_default=False
        ),
    ] = None,
    fp16: Fp16 = False,
    bf16: Bf16 = False,
    weights: WeightsOption = None,
    size: Size = None,
    level: Level = None,
    heuristic: Heuristic = False,
    timing_cache: TimingCache = None,
    depth: Annotated[int, typer.Option("--depth", min=1, help="How deep modules are told apart.")] = 2,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Runs; times are medians.")] = 50,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write a web page with all layers.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Times every layer of an engine on this machine's GPU, and sums the times up by PyTorch module path.

    Beside a layer's time stands what it must multiply and move at the least, and the rates that follow.

    Layers are timed by TensorRT's profiler, which waits after each: use python -m zoo.bench for the whole. Without
    --weights and without a file of the model's name, the weights are random.
    """
    from zoo.engine.effort import Effort
    from zoo.measure import profiling
    from zoo.measure.machine import machine, tensorrt_on_gpu
    from zoo.runtime.gpu import GpuSession

    precision, wanted = precision_name(fp16, bf16), size_of(size)
    api = tensorrt_on_gpu()
    with progress() as say:
        if Path(source).is_file():
            plan, costs, shape, title = _from_file(Path(source), api, batch)
        else:
            say("building")
            effort = Effort(level, heuristic)
            plan, costs, shape, title = _build(
                source, api, precision, batch or 1, wanted, weights, effort, timing_cache
            )
        say(f"measuring {runs} runs")
        with GpuSession(plan, api=api) as session:
            profile = profiling.profile_session(session, {"images": shape}, costs, runs)
    facts = machine()
    if html is not None:
        _write(html, profiling.to_html(profile, title, facts))
    if as_json:
        print_json({"title": title, "machine": facts, **profiling.to_dict(profile)})
    else:
        print(f"{title}\n{profiling.to_text(profile, depth)}")


def _build(
    name: str, api: Api, precision: Any, batch: int, size: tuple[int, int] | None, weights: str | None,
    effort: Effort, timing_cache: Path | None,
) -> tuple[bytes, LayerCosts, Any, str]:  # fmt: skip
    """(engine, costs of the definition's layers, input shape, title) for a model."""
    from zoo.api import find_weights, weights_file
    from zoo.engine.build import compile_network
    from zoo.engine.definition import define
    from zoo.engine.shapes import input_shapes
    from zoo.measure.costs import layer_costs
    from zoo.network import Precision
    from zoo.registry import get_model
    from zoo.weights import RandomWeights

    model = get_model(name)
    source = find_weights(model, weights) if weights or weights_file(model) else RandomWeights(0)
    shapes = input_shapes(model, batch, size)
    definition = define(model, source, api, shapes.network, Precision(precision))
    costs = layer_costs(definition, precision)
    plan = compile_network(definition, shapes, effort, timing_cache=timing_cache)
    return plan, costs, shapes.max, f"{model.name} {precision}, input {shapes}"


def _from_file(path: Path, api: Api, batch: int | None) -> tuple[bytes, LayerCosts, Any, str]:
    """The same for an engine file; the costs come from the definition of the model that it says it is."""
    from zoo.engine.definition import define
    from zoo.engine.io import outer
    from zoo.engine.passport import io_of, load_engine, model_of, rebuild_at
    from zoo.measure.costs import layer_costs
    from zoo.network import Precision
    from zoo.runtime.compatibility import device_properties, why_not_loadable
    from zoo.weights import RandomWeights

    engine = load_engine(path)
    about = engine.description
    problem = why_not_loadable(about, api, device_properties(), rebuild_at(path, about))
    if problem:
        raise ZooError(problem)
    best = about["input"]["opt"]
    shape = (batch or best[0], *best[1:])
    definition = define(model_of(about), RandomWeights(0), api, shape, Precision(about["precision"]))
    title = f"{path.name}: {about['model']} {about['precision']}, input {'x'.join(map(str, shape))}"
    return engine.data, layer_costs(definition, about["precision"]), outer(shape, io_of(about)), title


def _write(path: Path, text: str) -> None:
    from zoo.files import replacing

    with replacing(path) as file:
        file.write(text.encode())


main = command(run)

if __name__ == "__main__":
    main()
