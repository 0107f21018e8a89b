"""int8 against fp16 on a GPU, in turns in one process: `python benchmarks/int8.py --scales DIR --out results`.

DIR holds MODEL.scales.json for every model, from `python -m zoo.calibrate MODEL --data PICTURES --weights random`:
where ranges come from does not change a time. Each placement of the pairs of Q and DQ is a list of patterns of what
stays in fp16. One line of OUT/int8.jsonl per engine, written when it is there; the table comes last.
"""

# ruff: noqa: E402  (it runs from a checkout, without installation)

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from zoo.api import find_weights
from zoo.engine.build import compile_network
from zoo.engine.definition import define
from zoo.engine.effort import Effort
from zoo.engine.shapes import INPUT, Shapes
from zoo.errors import ZooError
from zoo.measure.contest import take_turns
from zoo.measure.contestants import Options
from zoo.measure.machine import machine
from zoo.measure.timing import Replay
from zoo.network import Precision
from zoo.quantization import Scales, load_scales
from zoo.registry import Model, get_model
from zoo.runtime.gpu import GpuSession
from zoo.trt import Api, load
from zoo.weights import Weights

TURNS = Options(rounds=5, replays=40)
PLACEMENTS: dict[str, tuple[str, ...]] = {
    "all": (),
    "no shortcuts": ("*add", "*add:*"),
    "no stem": ("conv1", "features.0.0", "model.0.conv", "_conv_stem"),
}


def compiled(
    model: Model, weights: Weights, api: Api, shapes: Shapes, precision: Precision, effort: Effort, timings: Path
) -> tuple[bytes, float, int, int]:
    """The plan, the seconds that it took, how many sites are int8 and how many there are."""
    start = time.perf_counter()
    definition = define(model, weights, api, shapes.network, precision)
    scales = precision.scales
    rounded = sum(scales.of(site) is not None for site in definition.sites) if scales else 0
    plan = compile_network(definition, shapes, effort, timing_cache=timings)
    return plan, time.perf_counter() - start, rounded, len(definition.sites)


def in_turns(replays: dict[str, Replay]) -> dict[str, float]:
    """The median ms of each."""
    times = take_turns({name: replay.measure for name, replay in replays.items()}, TURNS)
    return {name: statistics.median(found) for name, found in times.items()}


def compare(
    model: Model, scales: Scales, placements: list[str], api: Api, batch: int, effort: Effort, timings: Path,
    say: Callable[[dict[str, Any]], None],
) -> None:  # fmt: skip
    """A record for fp16, and one for each placement of int8."""
    weights = find_weights(model, "random")
    shapes = Shapes.static((batch, *model.input))
    images = np.random.default_rng(0).standard_normal(shapes.opt, np.float32)
    wanted = {"fp16": Precision("fp16")} | {
        name: Precision("int8", scales=replace(scales, keep=PLACEMENTS[name])) for name in placements
    }
    sessions, replays, about = [], {}, {}
    for name, precision in wanted.items():
        try:
            plan, seconds, rounded, sites = compiled(model, weights, api, shapes, precision, effort, timings)
        except ZooError as error:
            say({"model": model.name, "placement": name, "refused": str(error)[:500]})
            continue
        sessions.append(GpuSession(plan, api=api))
        replays[name] = Replay(sessions[-1], {INPUT: images.shape})
        replays[name].write({INPUT: images})
        about[name] = {"build_s": round(seconds, 1), "mb": round(len(plan) / 1e6, 1), "int8": rounded, "sites": sites}
        print(f"{time.strftime('%H:%M:%S')} {model.name} {name}: built in {seconds:.0f} s", file=sys.stderr, flush=True)
    answers = {name: replay.outputs() for name, replay in replays.items()}
    for name, ms in in_turns(replays).items():
        first = next(iter(answers[name]))
        base = answers["fp16"][first]
        difference = float(np.linalg.norm(answers[name][first] - base) / np.linalg.norm(base))
        say(
            {"model": model.name, "batch": batch, "placement": name, "ms": round(ms, 4),
             "captured": replays[name].captured, "difference": round(difference, 5), **about[name]}
        )  # fmt: skip
    for replay, session in zip(replays.values(), sessions):
        replay.close()
        session.close()


def table(records: list[dict[str, Any]]) -> str:
    """Markdown, a row per engine."""
    lines = [
        "| model | batch | placement | int8 tensors | ms | x fp16 | plan, MB | build, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = {r["model"]: r["ms"] for r in records if r["placement"] == "fp16" and "ms" in r}
    for r in records:
        if "ms" in r:
            speed = f"{base[r['model']] / r['ms']:.2f}"
            lines.append(
                f"| {r['model']} | {r['batch']} | {r['placement']} | {r['int8']} of {r['sites']} | {r['ms']:.3f} "
                f"| {speed} | {r['mb']} | {r['build_s']} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scales", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", type=lambda text: text.split(","), default=["resnet50", "mobilenet_v2", "yolov8n"])
    parser.add_argument("--placements", type=lambda text: text.split(","), default=["all", "no shortcuts"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--heuristic", action="store_true")
    parser.add_argument("--limit-seconds", type=float, default=1e9)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []

    def say(record: dict[str, Any]) -> None:
        records.append(record)
        with (args.out / "int8.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    api, start = load("tensorrt"), time.perf_counter()
    print(json.dumps(machine()))
    for name in args.models:
        if time.perf_counter() - start > args.limit_seconds:
            say({"model": name, "placement": "", "refused": "no time was left"})
            continue
        scales = load_scales(args.scales / f"{name}.scales.json")
        effort = Effort(args.level, args.heuristic)
        compare(get_model(name), scales, args.placements, api, args.batch, effort, args.out / "timings", say)
    for record in records:
        if "refused" in record:
            print(record)
    print(table(records))


if __name__ == "__main__":
    main()
