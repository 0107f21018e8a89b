"""Networks built by the C++ that `zoo.export --format cpp --definition` writes, against the zoo's own engines.

    python benchmarks/cpp.py --headers DIR --goldens DIR --out results [--level 1] [MODEL ...]

For each model: the program is written, compiled and run, its engine's outputs are held to the golden file by the fp32
rule, and the two engines, built at the same level, take turns. DIR of --headers holds NvInfer.h of the TensorRT that is
installed. One line of OUT/cpp.jsonl per model, written when it is there; the table comes last. Exit status 1 when
something is out of its bound or more than 2 % slower.
"""

# ruff: noqa: E402  (it runs from a checkout, without installation)

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from zoo.cpp import to_cpp
from zoo.cpp.model import about_model, header
from zoo.engine.build import build
from zoo.engine.definition import define
from zoo.engine.effort import Effort
from zoo.engine.shapes import Shapes
from zoo.formats.cpp import BUILDER, RUNNER, SOURCES, WEIGHTS
from zoo.measure.machine import machine
from zoo.measure.timing import Replay
from zoo.registry import get_model
from zoo.runtime.gpu import GpuSession
from zoo.trt import Api, load
from zoo.verify.compare import compare_runs
from zoo.verify.packed import Golden, read_packed
from zoo.verify.proof import factor_on_gpu
from zoo.weights import save_safetensors

MODELS = ("resnet50", "yolov8n", "vit_b_16")
ROUNDS, COUNT = 15, 40
SLOWEST = 1.02  # of the zoo's own time


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--headers", type=Path, required=True, help="the folder of NvInfer.h")
    parser.add_argument("--libraries", type=Path, help="the folder of libnvinfer.so.*; default: that of the package")
    parser.add_argument("--cuda", type=Path, default=Path("/usr/local/cuda"), help="the folder of CUDA's include")
    parser.add_argument("--goldens", type=Path, required=True, help="what tests/gpu/goldens.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--level", type=int, default=1, help="the builder's optimisation level")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print(json.dumps(machine()), flush=True)
    records = []
    with open(args.out / "cpp.jsonl", "a", encoding="utf-8") as file:
        for name in args.models:
            records.append(compare(name, args))
            file.write(json.dumps(records[-1]) + "\n")
            file.flush()
            print(json.dumps(records[-1]), flush=True)
    print(table(records))
    return 0 if all(record["ok"] for record in records) else 1


def compare(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One model: what the C++ built, by the rule and by the clock."""
    api, golden = load("tensorrt"), read_packed(args.goldens / f"{name}.safetensors", name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        start = time.perf_counter()
        layers = write(name, golden, api, folder)
        wrote, start = time.perf_counter() - start, time.perf_counter()
        compile_programs(folder, args.headers, args.libraries or Path(api.trt.__file__).parent, args.cuda)
        compiled, start = time.perf_counter() - start, time.perf_counter()
        run([folder / "build" / "build", folder / WEIGHTS, folder / "cpp.plan", "--level", str(args.level)])
        built = time.perf_counter() - start
        plan = (folder / "cpp.plan").read_bytes()
        runner = run_program(folder, golden)
    model, shape = get_model(name), golden.images.shape
    ours = build(model, golden.weights, api, Shapes.static(shape), effort=Effort(args.level))
    report, ratio, times = hold(name, plan, ours.data, golden, api)
    same = all(np.array_equal(report[1][key], value) for key, value in runner["outputs"].items())
    return {
        "model": name, "layers": layers, "level": args.level, "write_s": wrote, "compile_s": compiled, "build_s": built,
        "errors": {row.name: [row.error, row.noise] for row in report[0].outputs},
        "ms": times, "ratio": ratio, "runner_ms": runner["ms"], "runner_same_bits": same,
        "ok": bool(report[0].ok and ratio <= SLOWEST and runner["outputs"]),
    }  # fmt: skip


def write(name: str, golden: Golden, api: Api, folder: Path) -> int:
    """The program of the golden's network; how many layers that has."""
    model = get_model(name)
    definition = define(model, golden.weights, api, golden.images.shape)
    text, arrays = to_cpp(definition.network, api.trt, strong=api.strong, islands=definition.islands)
    for file in (*RUNNER, *BUILDER):
        shutil.copyfile(SOURCES / file, folder / file)
    (folder / "network.cpp").write_text(text)
    (folder / "model.h").write_text(header(about_model(model, golden.weights)))
    save_safetensors(folder / WEIGHTS, arrays)
    return int(definition.network.num_layers)


def compile_programs(folder: Path, headers: Path, libraries: Path, cuda: Path) -> None:
    options = [
        f"-DTENSORRT_INCLUDE={headers.resolve()}",
        f"-DTENSORRT_LIB={libraries.resolve()}",
        f"-DCUDA_ROOT={cuda}",
    ]
    run(["cmake", "-S", folder, "-B", folder / "build", *options])
    run(["cmake", "--build", folder / "build", "-j", str(os.cpu_count())])


def run(command: list[Any]) -> str:
    """Its output. Raises RuntimeError with what it said where it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout[-2000:]} {done.stderr[-4000:]}")
    return done.stdout


def run_program(folder: Path, golden: Golden) -> dict[str, Any]:
    """What the runner makes of the golden's image, and its own time."""
    golden.images.astype(np.float32).tofile(folder / "images.bin")
    said = run([
        folder / "build" / "run", folder / "cpp.plan", folder / "images.bin", "--save", folder / "out", "--repeat", 200
    ])  # fmt: skip
    found = {}
    for name, exact in golden.ref32.outputs.items():
        found[name] = np.fromfile(folder / "out" / f"{name}.bin", exact.dtype).reshape(exact.shape)
    milliseconds = next(line for line in said.splitlines() if line.startswith("time:"))
    return {"outputs": found, "ms": float(milliseconds.split()[1])}


def hold(name: str, plan: bytes, ours: bytes, golden: Golden, api: Api) -> Any:
    """The outputs of `plan` by the rule, and its time over that of `ours`: the median of rounds in turns."""
    shape = golden.images.shape
    with GpuSession(plan, api=api) as first, GpuSession(ours, api=api) as second:
        found = first(golden.images)
        factor = factor_on_gpu(define(get_model(name), golden.weights, api, shape))
        report = compare_runs(found, golden.ref32, golden.ref64, [], factor=factor)
        replays = {"cpp": Replay(first, {"images": shape}), "zoo": Replay(second, {"images": shape})}
        times: dict[str, list[float]] = {key: [] for key in replays}
        for replay in replays.values():
            replay.write({"images": golden.images})
            replay.measure(COUNT)  # warm
        for index in range(ROUNDS):
            order = list(replays) if index % 2 else list(reversed(replays))
            for key in order:
                times[key].append(statistics.median(replays[key].measure(COUNT)))
        for replay in replays.values():
            replay.close()
    ratios = [a / b for a, b in zip(times["cpp"], times["zoo"])]
    return (report, found), statistics.median(ratios), {key: statistics.median(value) for key, value in times.items()}


def table(records: list[dict[str, Any]]) -> str:
    """All results in Markdown."""
    lines = ["| model | layers | largest error / reference's | ms C++ | ms zoo | ratio | runner ms | same bits |"]
    lines.append("| --- " + "| ---: " * 6 + "| --- |")
    for r in records:
        worst = max(error / noise if noise else 0 for error, noise in r["errors"].values())
        cells = [r["model"], r["layers"], f"{worst:.2f}", f"{r['ms']['cpp']:.3f}", f"{r['ms']['zoo']:.3f}"]
        lines.append(
            "| " + " | ".join(map(str, [*cells, f"{r['ratio']:.3f}", r["runner_ms"], r["runner_same_bits"]])) + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
