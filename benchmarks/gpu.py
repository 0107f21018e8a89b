"""The published GPU figures, as Markdown: `python benchmarks/gpu.py --out results [--sections latency,calls ...]`.

    latency    our engines, in turns with TensorRT on PyTorch's ONNX export, PyTorch, and torch.compile as documented,
               as a CUDA graph and with frozen weights, beside the least time that the measured rates allow
    gap        what lies between resnet50's time at batch 32 and the least time that it could take, layer by layer
    calls      what a session's call costs beyond the bare replay of its CUDA graph
    frames     a frame to boxes: kernels and engine in one graph, or with preprocessing and decoding on the CPU
    threads    eight threads on one session against one, with bits compared
    builds     seconds to build twice with a timing cache, each time in a new process

Each result is one line of OUT/gpu.jsonl, written when it is there: `--report OUT/gpu.jsonl ...` prints the tables of
results from several runs. `--limit-seconds` starts no new row after that time. Weights are random and calibrated.
"""

# ruff: noqa: E402  (it runs from a checkout, without installation)

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from zoo.engine.build import compile_network
from zoo.engine.definition import define
from zoo.engine.shapes import INPUT, Shapes
from zoo.errors import ZooError
from zoo.measure.contest import RIVALS, Arena, arena
from zoo.measure.contestants import Options, compile_ours
from zoo.measure.costs import Cost, layer_costs
from zoo.measure.machine import gpu_state, machine, tensorrt_on_gpu
from zoo.measure.profiling import LayerTime, Profile, profile_session
from zoo.measure.timing import Replay, copy_gb_per_s
from zoo.network import Precision
from zoo.registry import Model, get_model
from zoo.runtime.gpu import GpuSession
from zoo.trt import Api

SECTIONS = ("latency", "gap", "calls", "frames", "threads", "builds")
MATRIX = 8192
GAP_MODEL, GAP_BATCH = "resnet50", 32
FARTHEST = 5  # layers that are told by name
FRAMES = ((720, 1280), (1080, 1920))
CANDIDATES = 50  # boxes above the threshold, as in a street scene
Say = Callable[[dict[str, Any]], None]


# ---- sections -------------------------------------------------------------------------------------------------------


def latency(
    ring: Arena, models: list[Model], precisions: list[str], batches: list[int], say: Say, more: Callable[[], bool]
) -> None:
    """A record for the hardware's rates, and one for each contestant of each row."""
    rates = measured_rates(ring, precisions)
    say({"section": "rates", **rates})
    for model in models:
        for precision in precisions:
            for batch in batches:
                if not more():
                    say({"section": "skipped", "what": f"{model.name} {precision} batch {batch}: no time was left"})
                    continue
                try:
                    results = ring.hold(model, ring.weights(model, None), precision, batch)
                except ZooError as error:
                    say({"section": "skipped", "what": f"{model.name} {precision} batch {batch}: {error}"})
                    continue
                tflops, bandwidth = rates[f"{precision}_tflops"], rates["copy_gb_per_s"]
                for result in results:
                    bound = result.cost.bound_ms(tflops, bandwidth) if tflops and bandwidth else None
                    say({"section": "latency", **result.as_dict(), "bound_ms": bound})


def measured_rates(ring: Arena, precisions: list[str]) -> dict[str, float | None]:
    """GB/s of a large copy, and TFLOP/s of a large matrix product in each precision; those need PyTorch."""
    from zoo.runtime.cuda import provider

    rates: dict[str, float | None] = {"copy_gb_per_s": copy_gb_per_s(provider())}
    for precision in precisions:
        found = ring.torch("matrix_rate", precision=precision, size=MATRIX) if ring.torch else {"tflops": None}
        rates[f"{precision}_tflops"] = found["tflops"]
    return rates


def gap(ring: Arena, api: Api, options: Options, say: Say) -> None:
    """A record that takes the time of one engine apart; none without PyTorch, whose matrix rate the bounds need."""
    rates = measured_rates(ring, ["fp16"])
    tflops, bandwidth = rates["fp16_tflops"], rates["copy_gb_per_s"]
    if not tflops or not bandwidth:
        say({"section": "skipped", "what": "gap: the matrix rate needs PyTorch, which --against names"})
        return
    model = get_model(GAP_MODEL)
    shape = (GAP_BATCH, *model.input)
    _note(f"{model.name} fp16 batch {GAP_BATCH}: building")
    definition = define(model, ring.weights(model, None), api, shape, Precision("fp16"))
    costs = layer_costs(definition, "fp16")
    plan = compile_network(definition, Shapes.static(shape), options.effort("fp16"), timing_cache=options.timing_cache)
    with GpuSession(plan, api=api) as session:
        profile = profile_session(session, {INPUT: shape}, costs, runs=100)
    say({"section": "gap", "model": model.name, "precision": "fp16", "batch": GAP_BATCH,
         **taken_apart(profile, costs.group(costs.layers), tflops, bandwidth)})  # fmt: skip


def taken_apart(profile: Profile, whole: Cost, tflops: float, gb_per_s: float) -> dict[str, Any]:
    """The network's bound, the sum of its layers' bounds, the sum of their times and the graph's time, in ms.

    A layer's bound has its tensors go through memory; one that finds them in the L2 cache can be faster. What TensorRT
    added to the network, copies mostly, need not be: its bound is 0.
    """
    layers = [(layer, layer.cost.bound_ms(tflops, gb_per_s) if layer.cost else 0.0) for layer in profile.layers]
    groups = {stage: [entry for entry in layers if _stage(entry[0]) == stage] for stage in _STAGES}
    farthest = sorted(layers, key=lambda entry: entry[1] - entry[0].ms)[:FARTHEST]
    return {
        "tflops": tflops, "copy_gb_per_s": gb_per_s, "gmacs": whole.macs / 1e9, "mb": whole.bytes / 1e6,
        "bound_ms": whole.bound_ms(tflops, gb_per_s), "layers_bound_ms": sum(bound for _, bound in layers),
        "layers_ms": profile.sum_ms, "replay_ms": profile.whole_ms,
        "groups": [{"group": stage, **_sums(found, tflops, gb_per_s)} for stage, found in groups.items() if found],
        "farthest": [{"name": layer.name, "ms": layer.ms, "bound_ms": bound} for layer, bound in farthest],
    }  # fmt: skip


_STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "head", "reformats", "unnamed")


def _stage(layer: LayerTime) -> str:
    """The part of a ResNet that a layer belongs to, or why it belongs to none."""
    if layer.reformat or not layer.covers:
        return "reformats" if layer.reformat else "unnamed"
    outermost = layer.covers[0].split(".")[0]
    if outermost in _STAGES:
        return outermost
    return "head" if outermost in ("avgpool", "flatten", "fc", "logits") else "stem"


def _sums(layers: list[tuple[LayerTime, float]], tflops: float, gb_per_s: float) -> dict[str, Any]:
    costs = [layer.cost for layer, _ in layers if layer.cost]
    arithmetic = sum(cost.compute_ms(tflops) >= cost.memory_ms(gb_per_s) for cost in costs)
    return {
        "layers": len(layers),
        "ms": sum(layer.ms for layer, _ in layers), "bound_ms": sum(bound for _, bound in layers),
        "gmacs": sum(cost.macs for cost in costs) / 1e9, "mb": sum(cost.bytes for cost in costs) / 1e6,
        "bound_by_arithmetic": arithmetic, "bound_by_memory": len(costs) - arithmetic,
    }  # fmt: skip


def calls(session: GpuSession, images: np.ndarray, count: int = 2000) -> dict[str, float]:
    """Medians in µs: a call with a device array until its result is there, and the bare replay of a graph likewise;
    how long each keeps the host; a call from numpy to numpy."""
    replay = Replay(session, {INPUT: images.shape})
    replay.write({INPUT: images})
    device = session.input(INPUT, images.shape)
    device.write(images)
    stream = session.cuda.wrap_stream(session.stream)
    cuda = session.cuda

    def finished(work: Callable[[], Any], on: Any) -> Callable[[], float]:
        def once() -> float:
            start = time.perf_counter()
            work()
            cuda.synchronize(on)
            return time.perf_counter() - start

        return once

    def returned(work: Callable[[], Any], on: Any) -> Callable[[], float]:
        def once() -> float:
            start = time.perf_counter()
            work()
            seconds = time.perf_counter() - start
            cuda.synchronize(on)
            return seconds

        return once

    with cuda.active():
        work = {
            "call_us": finished(lambda: session(device, views=True), stream),
            "replay_us": finished(replay.run, replay.stream),
            "call_returns_us": returned(lambda: session(device, views=True), stream),
            "replay_returns_us": returned(replay.run, replay.stream),
            "numpy_us": finished(lambda: session(images), stream),
        }
        for once in work.values():
            for _ in range(10):
                once()
        times: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(max(1, count // 100)):  # in turns, as everywhere
            for name, once in work.items():
                times[name] += [once() for _ in range(100)]
    replay.close()
    medians = {name: statistics.median(values) * 1e6 for name, values in times.items()}
    return {**medians, "overhead_us": medians["call_us"] - medians["replay_us"]}


def frames(session: GpuSession, model: Model, size: tuple[int, int], count: int = 300) -> dict[str, Any]:
    """Medians in ms from a uint8 frame of `size` (H, W) to boxes; and the engine's own time."""
    from zoo.runtime.pipeline import FramePipeline
    from zoo.tasks import get_task

    frame = picture(size)
    pixels, placement = model.preprocess.apply(frame, model.input[1:])
    conf = _threshold(session(pixels[None])["scores"])
    task = get_task(model.task)
    options = task.settings(model.options, {"conf": conf})

    def on_cpu() -> Any:
        x, where = model.preprocess.apply(frame, model.input[1:])
        outputs = {name: value[0] for name, value in session(x[None]).items()}
        return task(outputs, where, None, options)

    settings = {"size": model.input[1:], "decoder": partial(task.gpu_decoder, options=options)}
    with (
        FramePipeline(session, model.preprocess, **settings) as pipeline,
        FramePipeline(session, model.preprocess, **settings) as other,
    ):
        pinned = pipeline.buffer(*size)
        pinned[:] = frame
        cuda = session.cuda
        with cuda.active():
            buffer = cuda.upload(frame)
        on_gpu = _DeviceFrame(buffer.ptr, frame.shape)
        work = {
            "pinned_ms": lambda: pipeline(pinned),
            "host_ms": lambda: pipeline(frame),
            "device_ms": lambda: pipeline(on_gpu),
        }
        found, expected = len(pipeline(frame).boxes), len(on_cpu().boxes)
        result: dict[str, Any] = {name: _median_ms(once, count) for name, once in work.items()}
        result["turns_ms"] = _in_turns_ms([pipeline, other], frame, count)
    result["cpu_ms"] = _median_ms(on_cpu, max(20, count // 10))
    replay = Replay(session, {INPUT: (1, *model.input)})
    result["engine_ms"] = statistics.median(replay.measure(count))
    replay.close()
    return {"frame": list(size), "conf": conf, "boxes": found, "boxes_on_cpu": expected, **result}


def _in_turns_ms(pipelines: list[Any], frame: np.ndarray, count: int) -> float:
    """Per frame, for a stream of frames on the host that pipelines take in turns."""
    for pipeline in pipelines * 3:
        pipeline(frame)
    start = time.perf_counter()
    pending = pipelines[0].submit(frame)
    for turn in range(1, count):
        following = pipelines[turn % len(pipelines)].submit(frame)
        pending.result()
        pending = following
    pending.result()
    return (time.perf_counter() - start) / count * 1e3


class _DeviceFrame:
    """A frame in GPU memory as other packages show theirs; ready, so without a stream."""

    def __init__(self, ptr: int, shape: tuple[int, ...]) -> None:
        self.__cuda_array_interface__ = {
            "version": 3, "shape": shape, "typestr": "|u1", "data": (ptr, False), "strides": None, "stream": None,
        }  # fmt: skip


def picture(size: tuple[int, int]) -> np.ndarray:
    """A frame (H, W, 3) uint8 of coloured patches with grain."""
    height, width = size
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (height // 40 + 1, width // 40 + 1, 3))
    smooth = np.repeat(np.repeat(patches, 40, 0), 40, 1)[:height, :width]
    return np.clip(smooth + rng.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)


def _threshold(scores: np.ndarray) -> float:
    """The confidence that about CANDIDATES boxes exceed: random weights know no sensible one."""
    best = np.sort(scores[0].max(axis=0))
    return float(np.clip(best[-min(CANDIDATES, len(best))], 0.001, 0.999))


def _median_ms(once: Callable[[], Any], count: int) -> float:
    for _ in range(5):
        once()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        once()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def threads(session: GpuSession, images: np.ndarray, workers: int, seconds: float = 2.0) -> dict[str, Any]:
    """Images per second of one thread and of `workers` threads on one session, and whether all bits agree.

    `images` is (K, C, H, W): each call takes one of them, in turn, from GPU memory, and waits for its result.
    """
    cuda = session.cuda
    expected = [session(image[None]) for image in images]
    same = True

    def stream_of_calls(first: int, until: float) -> int:
        nonlocal same
        done = 0
        with cuda.active():
            mine = session.input(INPUT, (1, *images.shape[1:]))
            stream = cuda.wrap_stream(session.stream)
            which = first % len(images)
            mine.write(images[which][None])
            while time.perf_counter() < until:
                outputs = session(mine, views=True)
                cuda.synchronize(stream)
                done += 1
                if done % 200 == 1:  # a look at the bits, and another image
                    found = {name: array.numpy() for name, array in outputs.items()}
                    same = same and all(found[name].tobytes() == expected[which][name].tobytes() for name in found)
                    which = (which + 1) % len(images)
                    mine.write(images[which][None])
        return done

    rates = {}
    for count in (1, workers, 1, workers):
        with ThreadPoolExecutor(count) as pool:
            until = time.perf_counter() + seconds
            start = time.perf_counter()
            done = sum(pool.map(stream_of_calls, range(count), [until] * count))
            rates.setdefault(count, []).append(done / (time.perf_counter() - start))
    one, many = max(rates[1]), max(rates[workers])
    return {"threads": workers, "one_per_s": one, "many_per_s": many, "gain": many / one, "same_bits": same}


def builds(model: str, precision: str, options: Options, folder: Path) -> dict[str, Any]:
    """Seconds that `python -m zoo.build` says, in new processes: first a timing cache is written, then it is read."""
    cache = folder / f"{model}.cache"
    base = [sys.executable, "-m", "zoo.build", model, "--weights", "random:0", "--json", "-o", str(folder / "engine")]
    base += [] if precision == "fp32" else [f"--{precision}"]
    base += [] if options.level is None else ["--level", str(options.level)]
    base += ["--heuristic"] if options.heuristic else []
    command = [*base, "--timing-cache", str(cache)]
    found: dict[str, Any] = {}
    for name in ("written_s", "read_s"):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            raise ZooError(f"{shlex.join(command)} failed: {done.stderr.strip()[-300:]}")
        found[name] = json.loads(done.stdout)["seconds"]
        found[name.replace("_s", "_process_s")] = time.perf_counter() - start
    return {**found, "cache_mb": cache.stat().st_size / 1e6}


# ---- running them ---------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace, say: Say) -> None:
    """All wanted sections, within the time."""
    end = time.monotonic() + args.limit_seconds
    api = tensorrt_on_gpu()
    options = Options(args.level, args.heuristic, args.timing_cache, args.rounds, args.replays)
    rivals = [name for name in args.against.split(",") if name]
    wanted = args.sections.split(",")
    models = [get_model(name) for name in args.models.split(",")]
    precisions, batches = args.precision.split(","), [int(text) for text in args.batch.split(",")]
    with arena(api, rivals, options, torch_python=args.torch_python, progress=_note) as ring:
        say({
            "section": "machine", "command": shlex.join(sys.argv), "level": args.level, **machine(),
            "pytorch": ring.torch.about if ring.torch else None, "clocks": gpu_state(),
        })  # fmt: skip
        if "latency" in wanted:
            latency(ring, models, precisions, batches, say, lambda: time.monotonic() < end)
        if "gap" in wanted:
            gap(ring, api, options, say)
        if {"calls", "frames", "threads"} & set(wanted):
            _sessions(ring, api, options, wanted, say)
    if "builds" in wanted:
        with tempfile.TemporaryDirectory() as folder:
            for name in args.build_models.split(","):
                if time.monotonic() < end:
                    say({"section": "builds", "model": name, "level": args.level,
                         **builds(name, "fp16", options, Path(folder))})  # fmt: skip


def _sessions(ring: Arena, api: Api, options: Options, wanted: list[str], say: Say) -> None:
    rng = np.random.default_rng(0)
    if "calls" in wanted:
        for name in ("mobilenet_v2", "resnet50"):
            model = get_model(name)
            images = rng.standard_normal((1, *model.input), np.float32)
            with _session(ring, api, options, model) as session:
                say({"section": "calls", "model": name, **calls(session, images)})
    if "frames" in wanted:
        model = get_model("yolov8n")
        with _session(ring, api, options, model) as session:
            for size in FRAMES:
                say({"section": "frames", "model": model.name, **frames(session, model, size)})
    if "threads" in wanted:
        for name in ("resnet50", "yolov8n"):
            model = get_model(name)
            images = rng.standard_normal((4, *model.input), np.float32)
            with _session(ring, api, options, model, contexts=8) as session:
                say({"section": "threads", "model": name, **threads(session, images, 8)})


def _session(ring: Arena, api: Api, options: Options, model: Model, contexts: int = 1) -> GpuSession:
    _note(f"{model.name} fp16 batch 1: building")
    weights = ring.weights(model, None)
    plan, _ = compile_ours(model, weights, api, Shapes.static((1, *model.input)), "fp16", options)
    return GpuSession(plan, api=api, contexts=contexts)


def _note(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# ---- tables ---------------------------------------------------------------------------------------------------------


def report(records: list[dict[str, Any]]) -> str:
    """Markdown of all records, section by section."""
    parts = [_about(r) for r in _of(records, "machine")]
    parts += [_rates(r) for r in _of(records, "rates")]
    for section, make in _TABLES.items():
        rows = list(_of(records, section))
        if rows:
            parts.append(make(rows))
    parts += [f"Skipped: {r['what']}" for r in _of(records, "skipped")]
    return "\n\n".join(parts)


def _of(records: list[dict[str, Any]], section: str) -> Iterator[dict[str, Any]]:
    return (r for r in records if r["section"] == section)


def _about(r: dict[str, Any]) -> str:
    torch = r["pytorch"]
    words = [f"{r['gpu']}, driver {r['driver']} (CUDA {r['cuda']}), TensorRT {r['tensorrt']}, Python {r['python']}"]
    if torch:
        words.append(f"PyTorch {torch['torch']} (CUDA {torch['cuda']}, cuDNN {torch['cudnn']})")
    clocks = r["clocks"]
    if clocks:
        words.append(f"at the start SM {clocks['sm_mhz']} MHz, memory {clocks['memory_mhz']} MHz")
    level = "default" if r["level"] is None else r["level"]
    return f"{'; '.join(words)}; builder level {level}; {r['date']}.\n\n    python {r['command']}"


def _rates(r: dict[str, Any]) -> str:
    rates = [f"copies within GPU memory {r['copy_gb_per_s']:.0f} GB/s (read + written)"]
    rates += [
        f"{key[:-7]} matrices {value:.0f} TFLOP/s" for key, value in r.items() if key.endswith("_tflops") and value
    ]
    return f"Measured here: {', '.join(rates)}."


def _latency_table(rows: list[dict[str, Any]]) -> str:
    names = [name for name in RIVALS if any(r["name"] == name for r in rows)]
    head = ["model", "precision", "batch", "ours ms", "p99", *(f"{n} ms | ours / {n}" for n in names)]
    head += ["GMACs", "bound ms", "ours / bound", "differs", "SM MHz"]
    lines = _head(" | ".join(head).split(" | "), text=2)
    for key in dict.fromkeys((r["model"], r["precision"], r["batch"]) for r in rows):
        of = {r["name"]: r for r in rows if (r["model"], r["precision"], r["batch"]) == key}
        if "zoo" not in of:
            continue
        ours = of["zoo"]
        median = ours["compute_ms"]["median"]
        cells = [*map(str, key), f"{median:.4f}", f"{ours['compute_ms']['p99']:.4f}"]
        for name in names:
            rival = of.get(name)
            if rival is None or rival["problem"]:  # not asked, or it could not take part
                cells += ["", ""] if rival is None else ["failed", ""]
            else:
                cells += [f"{rival['compute_ms']['median']:.4f}", f"{rival['ratio']:.3f}"]
        bound, differs = ours["bound_ms"], ours["difference"]
        cells += [f"{ours['gmacs']:.2f}"]
        cells += [f"{bound:.4f}", f"{median / bound:.1f}"] if bound else ["", ""]
        cells += ["" if differs is None else f"{differs:.1e}", ours["clocks"].get("sm_mhz", "")]
        lines.append(_row(cells))
    failures = [
        f"{r['model']} {r['precision']} batch {r['batch']}, {r['name']}: {r['problem']}" for r in rows if r["problem"]
    ]
    return "\n".join(lines) + "".join(f"\n\n{text}" for text in failures)


def _gap_table(rows: list[dict[str, Any]]) -> str:
    return "\n\n".join(_gap_tables(r) for r in rows)


def _gap_tables(r: dict[str, Any]) -> str:
    """What the gap is made of, by its causes; the second of them by parts of the network and by layers."""
    causes = _head([f"{r['model']} {r['precision']} batch {r['batch']}", "ms"], text=1)
    for cause, ms in (
        ("the network's bound: all multiplications, or weights, input and output", f"{r['bound_ms']:.4f}"),
        ("between layers, tensors go through memory", f"{r['layers_bound_ms'] - r['bound_ms']:+.4f}"),
        ("the layers' bounds, one after the other", f"{r['layers_bound_ms']:.4f}"),
        ("layers take longer than their bounds", f"{r['layers_ms'] - r['layers_bound_ms']:+.4f}"),
        ("the layers, timed one by one", f"{r['layers_ms']:.4f}"),
        ("without the timing of each", f"{r['replay_ms'] - r['layers_ms']:+.4f}"),
        ("the whole, as one CUDA graph", f"{r['replay_ms']:.4f}"),
    ):
        causes.append(_row([cause, ms]))
    parts = _head(["part", "engine's layers", "ms", "bound ms", "beyond it ms", "ms / bound", "GMACs", "MB",
                   "bound by arithmetic", "bound by memory"], text=1)  # fmt: skip
    for g in r["groups"]:
        ratio = f"{g['ms'] / g['bound_ms']:.2f}" if g["bound_ms"] else ""
        parts.append(_row([
            g["group"], str(g["layers"]), f"{g['ms']:.4f}", f"{g['bound_ms']:.4f}", f"{g['ms'] - g['bound_ms']:.4f}",
            ratio, f"{g['gmacs']:.2f}", f"{g['mb']:.1f}", str(g["bound_by_arithmetic"]), str(g["bound_by_memory"]),
        ]))  # fmt: skip
    layers = _head(["farthest from their bounds", "ms", "bound ms"], text=1)
    for layer in r["farthest"]:
        layers.append(_row([layer["name"].replace("|", "/"), f"{layer['ms']:.4f}", f"{layer['bound_ms']:.4f}"]))
    found = sum(g["gmacs"] for g in r["groups"])
    about = (
        f"Bounds at {r['tflops']:.0f} TFLOP/s and {r['copy_gb_per_s']:.0f} GB/s, both measured in this process; "
        f"{found:.2f} of the network's {r['gmacs']:.2f} GMACs are found in the layers below."
    )
    return "\n\n".join([about, *("\n".join(lines) for lines in (causes, parts, layers))])


def _calls_table(rows: list[dict[str, Any]]) -> str:
    lines = _head(["model", "call µs", "bare replay µs", "overhead µs", "call returns µs", "replay returns µs",
                   "numpy to numpy µs"], text=1)  # fmt: skip
    for r in rows:
        keys = ("call_us", "replay_us", "overhead_us", "call_returns_us", "replay_returns_us", "numpy_us")
        lines.append(_row([r["model"], *(f"{r[key]:.1f}" for key in keys)]))
    return "\n".join(lines)


def _frames_table(rows: list[dict[str, Any]]) -> str:
    lines = _head(["model", "frame", "in pinned memory ms", "on the host ms", "two in turns ms", "on the GPU ms",
                   "engine alone ms", "preprocess and decode on the CPU ms", "boxes"], text=2)  # fmt: skip
    for r in rows:
        keys = ("pinned_ms", "host_ms", "turns_ms", "device_ms", "engine_ms", "cpu_ms")
        boxes = str(r["boxes"]) if r["boxes"] == r["boxes_on_cpu"] else f"{r['boxes']} (CPU: {r['boxes_on_cpu']})"
        lines.append(_row([r["model"], f"{r['frame'][1]}x{r['frame'][0]}", *(f"{r[k]:.3f}" for k in keys), boxes]))
    return "\n".join(lines)


def _threads_table(rows: list[dict[str, Any]]) -> str:
    lines = _head(["model", "threads", "1 thread images/s", "all images/s", "gain", "bits"], text=1)
    for r in rows:
        bits = "same" if r["same_bits"] else "**differ**"
        gain = [f"{r['one_per_s']:.0f}", f"{r['many_per_s']:.0f}", f"{r['gain']:.2f}"]
        lines.append(_row([r["model"], str(r["threads"]), *gain, bits]))
    return "\n".join(lines)


def _builds_table(rows: list[dict[str, Any]]) -> str:
    lines = _head(["model", "first build s", "second build s", "first / second", "cache MB"], text=1)
    for r in rows:
        first, second = r["written_s"], r["read_s"]
        cells = [f"{first:.1f}", f"{second:.1f}", f"{first / second:.1f}", f"{r['cache_mb']:.1f}"]
        lines.append(_row([r["model"], *cells]))
    return "\n".join(lines)


_TABLES = {
    "latency": _latency_table,
    "gap": _gap_table,
    "calls": _calls_table,
    "frames": _frames_table,
    "threads": _threads_table,
    "builds": _builds_table,
}


def _head(names: list[str], text: int) -> list[str]:
    """Header lines; columns after the first `text` hold numbers."""
    return [_row(names), _row(["---"] * text + ["---:"] * (len(names) - text))]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder for gpu.jsonl")
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--models", default="resnet50,vit_b_16,mobilenet_v2,yolov8n", help="of the latency table")
    parser.add_argument("--batch", default="1,8,32")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--against", default=",".join(RIVALS), help="rivals; empty: none, no matrix rate")
    parser.add_argument("--torch-python", default="", help="interpreter that has PyTorch")
    parser.add_argument("--build-models", default="resnet50,yolov8n")
    parser.add_argument("--level", type=int)
    parser.add_argument("--heuristic", action="store_true")
    parser.add_argument("--timing-cache", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--replays", type=int, default=100)
    parser.add_argument("--limit-seconds", type=float, default=1e9)
    parser.add_argument("--report", type=Path, nargs="+", help="print the tables of these results and run nothing")
    args = parser.parse_args()
    unknown = set(args.sections.split(",")) - set(SECTIONS)
    if unknown:
        parser.error(f"unknown sections {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if args.report:
        lines = [line for path in args.report for line in path.read_text("utf-8").splitlines()]
        print(report([json.loads(line) for line in lines]))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    with open(args.out / "gpu.jsonl", "a", buffering=1, encoding="utf-8") as file:

        def say(record: dict[str, Any]) -> None:
            records.append(record)
            file.write(json.dumps(record) + "\n")

        run(args, say)
    print(report(records))


if __name__ == "__main__":
    main()
