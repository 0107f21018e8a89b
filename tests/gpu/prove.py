"""The proof of the models on this machine's GPU, against golden files (see goldens.py): no PyTorch is needed.

    python tests/gpu/prove.py --pack .gpu/goldens --out results [--models resnet18,vgg16] [--limit-seconds 540]
    python tests/gpu/prove.py --report results/*.jsonl

For every model, in a process of its own: an fp32 engine (TF32 off, batches 1 to 8) against the reference, each row of a
batch of 8 against the same image alone, the engine saved and loaded again in another process, an fp16 engine against
our own fp32, and for some models every layer. Each result is one line of OUT/prove.jsonl, written when it is there, so
that an interrupted run loses nothing. `--device cpu` runs the definitions with onnxruntime instead: a check of the
golden files. Exit status 1 when something is out of its bound or did not finish.
"""

# ruff: noqa: E402  (it runs from a checkout, without installation)

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

import goldens

from zoo.engine.definition import define
from zoo.engine.shapes import Shapes
from zoo.errors import ZooError
from zoo.network import Precision, PrecisionName
from zoo.registry import Model, get_model
from zoo.trt import Api, load
from zoo.verify.compare import FACTOR, ROUNDOFF, Row, compare_half, compare_runs, relative_l2
from zoo.verify.packed import Golden, read_packed
from zoo.verify.proof import factor_on_cpu, factor_on_gpu

Say = Callable[[dict[str, Any]], None]
Session = Callable[[np.ndarray], dict[str, np.ndarray]]
MAX_BATCH = 8


# ---- one model ------------------------------------------------------------------------------------------------------


class OnCpu:
    """onnxruntime and the network that TensorRT-RTX holds."""

    factor = staticmethod(factor_on_cpu)

    def __init__(self, level: int) -> None:
        self.api = load("rtx")

    def session(self, model: Model, golden: Golden, shapes: Shapes, precision: PrecisionName) -> Any:
        from zoo.runtime.cpu import CpuSession

        return CpuSession(define(model, golden.weights, self.api, shapes.network, Precision(precision)))

    def layers(self, definition: Any, taps: list[str], images: np.ndarray) -> dict[str, np.ndarray]:
        from zoo.verify.proof import execute_on_cpu

        return execute_on_cpu(definition, taps, images)

    def reload(self, session: Any, model: Model, pack: Path) -> str | None:
        return None  # there is no engine


class OnGpu:
    """TensorRT's own engines. The last engine built is kept, for `reload`."""

    factor = staticmethod(factor_on_gpu)

    def __init__(self, level: int) -> None:
        self.api: Api = load("tensorrt")
        self.level = level

    def session(self, model: Model, golden: Golden, shapes: Shapes, precision: PrecisionName) -> Any:
        from zoo.engine.build import build
        from zoo.engine.effort import Effort
        from zoo.runtime.gpu import GpuSession

        self.engine = build(model, golden.weights, self.api, shapes, Precision(precision), Effort(self.level))
        return GpuSession(self.engine.data, api=self.api, description=self.engine.description)

    def layers(self, definition: Any, taps: list[str], images: np.ndarray) -> dict[str, np.ndarray]:
        from zoo.runtime.engines import execute_on_gpu

        return execute_on_gpu(definition, taps, images)

    def reload(self, session: Any, model: Model, pack: Path) -> str | None:
        """The hash of the outputs that the saved engine gives in another process."""
        with tempfile.TemporaryDirectory() as folder:
            path = self.engine.save(Path(folder) / f"{model.name}.engine")
            command = [sys.executable, __file__, "--pack", str(pack), "--reload", str(path)]
            return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.split()[-1]


def prove_model(model: Model, pack: Path, on: OnCpu | OnGpu, say: Say) -> None:
    """All results of one model, each told as soon as it is known."""
    golden = read_packed(pack / f"{model.name}.safetensors", model.name)
    channels_and_size = golden.images.shape[1:]
    shapes = Shapes((1, *channels_and_size), (MAX_BATCH, *channels_and_size), (MAX_BATCH, *channels_and_size))

    start = time.perf_counter()
    session = on.session(model, golden, shapes, "fp32")
    built = time.perf_counter() - start
    ours = session(golden.images)
    report = compare_runs(ours, golden.ref32, golden.ref64, [], factor=allowed(on, model, golden, "fp32"))
    say({"stage": "fp32", "ok": report.ok, "build_s": built, "outputs": [_figures(row) for row in report.outputs]})
    say({"stage": "batch", **compare_batches(session, golden, [row.bound for row in report.outputs])})
    again = on.reload(session, model, pack)
    if again is not None:
        same = again == digest(ours)
        say({"stage": "reload", "ok": same, "same_bits": same})
    session.close()

    start = time.perf_counter()
    session = on.session(model, golden, Shapes.static(golden.images.shape), "fp16")
    built = time.perf_counter() - start
    report = compare_half(
        session(golden.images), ours, golden.ref16, golden.ref32, factor=allowed(on, model, golden, "fp16")
    )
    figures = [_figures(row, "float16") for row in report.outputs]
    say({"stage": "fp16", "ok": report.ok, "build_s": built, "outputs": figures})
    session.close()

    if golden.ref64.taps:
        say({"stage": "layers", **compare_layers(model, golden, on)})


def compare_batches(session: Session, golden: Golden, bounds: list[float]) -> dict[str, Any]:
    """Each image of a full batch against the same image alone: the largest difference, and whether all bits agree."""
    flips = (slice(None), slice(None, None, -1))
    flipped = np.concatenate([golden.images[:, :, y, x] for y in flips for x in flips])
    images = np.concatenate([flipped, flipped / 2])
    together = session(images)
    worst, same = 0.0, True
    for index, image in enumerate(images):
        alone = session(image[None])
        for (name, value), bound in zip(alone.items(), bounds):
            worst = max(worst, relative_l2(together[name][index], value[0]) / bound)
            same = same and np.array_equal(together[name][index], value[0])
    return {"ok": bool(worst <= 1), "difference_of_bound": worst, "same_bits": same}


def allowed(on: OnCpu | OnGpu, model: Model, golden: Golden, precision: PrecisionName) -> float:
    """How many times the reference's own error the rule allows this network here."""
    return on.factor(define(model, golden.weights, on.api, golden.images.shape, Precision(precision)))


def compare_layers(model: Model, golden: Golden, on: OnCpu | OnGpu) -> dict[str, Any]:
    """Every layer, on the values that the golden file keeps of it."""
    definition = define(model, golden.weights, on.api, golden.images.shape)
    taps = [name for name in definition.taps if name in golden.ref64.taps]
    found = on.layers(definition, taps, golden.images)
    ours = {name: goldens.sample(value) if name in taps else value for name, value in found.items()}
    report = compare_runs(ours, golden.ref32, golden.ref64, taps, definition.folded)
    ratios = sorted(_ratio(row) for row in report.taps)
    return {
        "ok": report.ok,
        "count": len(ratios),
        "median_ratio": ratios[len(ratios) // 2],
        "largest_ratio": ratios[-1],
        "first_out_of_bound": report.first_divergence.name if report.first_divergence else None,
        "layers": [{**_figures(row)} for row in report.taps],
    }


def _figures(row: Row, dtype: str = "float32") -> dict[str, Any]:
    return {
        "name": row.name, "error": row.error, "noise": row.noise, "ratio": _ratio(row, dtype), "ok": row.ok,
        **({"problem": row.problem} if row.problem else {}),
    }  # fmt: skip


def _ratio(row: Row, dtype: str = "float32") -> float:
    """Error over the reference's own noise, which counts as one rounding of every element at least."""
    return row.error / max(row.noise, ROUNDOFF[dtype])


def digest(outputs: Mapping[str, np.ndarray]) -> str:
    sha = hashlib.sha256()
    for name, value in sorted(outputs.items()):
        sha.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return sha.hexdigest()


def reload(engine: Path, pack: Path) -> str:
    """The hash of what a saved engine makes of the images of its golden file."""
    from zoo.engine.passport import load_engine
    from zoo.runtime.gpu import GpuSession

    loaded = load_engine(engine)
    images = read_packed(pack / f"{loaded.description['model']}.safetensors", loaded.description["model"]).images
    with GpuSession(loaded.data, api=load("tensorrt"), description=loaded.description) as session:
        return digest(session(images))


# ---- many models, several at a time ---------------------------------------------------------------------------------


class Run:
    """Models from a queue, each in a process of its own, several at a time, until the time is up."""

    def __init__(self, args: argparse.Namespace, models: Iterable[str]) -> None:
        self.args = args
        self.models: queue.SimpleQueue[str] = queue.SimpleQueue()
        for model in models:
            self.models.put(model)
        self.deadline = time.monotonic() + args.limit_seconds
        self.lock = threading.Lock()
        self.records: list[dict[str, Any]] = []
        args.out.mkdir(parents=True, exist_ok=True)
        self.file = open(args.out / "prove.jsonl", "a", buffering=1, encoding="utf-8")

    def __call__(self) -> list[dict[str, Any]]:
        self.add(about(self.args))
        threads = [threading.Thread(target=self._work) for _ in range(self.args.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.file.close()
        return self.records

    def add(self, record: dict[str, Any]) -> None:
        with self.lock:
            self.records.append(record)
            self.file.write(json.dumps(record) + "\n")

    def _work(self) -> None:
        while True:
            try:
                model = self.models.get_nowait()
            except queue.Empty:
                return
            left = min(self.args.model_seconds, self.deadline - time.monotonic())
            if left < 5:
                self.add({"model": model, "stage": "failed", "ok": False, "reason": "no time was left to start it"})
            else:
                self._prove(model, left)

    def _prove(self, model: str, seconds: float) -> None:
        args, start = self.args, time.monotonic()
        command = [sys.executable, __file__, "--pack", str(args.pack), "--one", model, "--device", args.device]
        command += ["--level", str(args.level)]
        with tempfile.TemporaryFile("w+") as errors:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)
            timer = threading.Timer(seconds, lambda: os.killpg(child.pid, signal.SIGKILL))
            timer.start()
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith("{"):
                    self.add(json.loads(line))
            status = child.wait()
            killed = not timer.is_alive()
            timer.cancel()
            took = time.monotonic() - start
            if status != 0:
                errors.seek(0)
                words = f"stopped after {took:.0f} s" if killed else errors.read()[-1500:].strip()
                self.add({"model": model, "stage": "failed", "ok": False, "reason": words or f"exit status {status}"})
        print(f"{model}: {took:.0f} s{'' if status == 0 else ', did not finish'}", flush=True)


def about(args: argparse.Namespace) -> dict[str, Any]:
    """Where and how this was run."""
    machine: dict[str, Any] = {}
    if args.device == "gpu":
        from zoo.measure.machine import machine as describe

        machine = describe()
    return {"stage": "about", "command": " ".join(sys.argv), "device": args.device, "level": args.level, **machine}


# ---- the report -----------------------------------------------------------------------------------------------------


def table(records: list[dict[str, Any]]) -> str:
    """All results as a Markdown table, a line for each output of each model."""
    lines = [
        "| model | output | fp32 error | reference's | ratio | fp16 error | reference's | ratio "
        "| layers: median, largest ratio | batch 8 = 1 | reloaded | build s |",
        "| --- | --- " + "| ---: " * 6 + "| --- | --- | --- | ---: |",
    ]
    for model in dict.fromkeys(r["model"] for r in records if "model" in r):
        stages = {r["stage"]: r for r in records if r.get("model") == model}
        names = [row["name"] for row in stages.get("fp32", {}).get("outputs", [])] or [""]
        lines += [_line(model, name, stages) for name in names]
        if "failed" in stages:
            lines.append(f"| {model} | **{stages['failed']['reason'].splitlines()[-1][:120]}** |" + " |" * 10)
    return "\n".join(lines)


def _line(model: str, output: str, stages: Mapping[str, Any]) -> str:
    cells = [model, output]
    for stage in ("fp32", "fp16"):
        row = next((r for r in stages.get(stage, {}).get("outputs", []) if r["name"] == output), None)
        cells += _cells(row)
    layers, batch, again = stages.get("layers"), stages.get("batch"), stages.get("reload")
    cells.append(f"{layers['count']}: {layers['median_ratio']:.2f}, {layers['largest_ratio']:.2f}" if layers else "")
    cells.append(
        "" if not batch else "same bits" if batch["same_bits"] else f"{batch['difference_of_bound']:.2f} of bound"
    )
    cells.append("" if not again else "same bits" if again["same_bits"] else "**other bits**")
    cells.append(" + ".join(f"{stages[s]['build_s']:.0f}" for s in ("fp32", "fp16") if s in stages))
    return f"| {' | '.join(cells)} |"


def _cells(row: Mapping[str, Any] | None) -> list[str]:
    if row is None:
        return ["", "", ""]
    mark = "" if row["ok"] else "**"
    return [f"{row['error']:.2g}", f"{row['noise']:.2g}", f"{mark}{row['ratio']:.2f}{mark}"]


def summary(records: list[dict[str, Any]]) -> str:
    """The largest ratio of all, per stage: what the factor on a GPU must allow."""
    lines = []
    for stage in ("fp32", "fp16"):
        rows = [(row["ratio"], r["model"], row["name"]) for r in records if r["stage"] == stage for row in r["outputs"]]
        if rows:
            ratios = sorted(ratio for ratio, *_ in rows)
            lines.append(
                f"{stage}: {len(rows)} outputs, error / reference's own: median {ratios[len(ratios) // 2]:.2f}, "
                f"largest {max(rows)[0]:.2f} ({max(rows)[1]} {max(rows)[2]})"
            )
    bad = sorted({f"{r['model']} {r['stage']}" for r in records if r.get("ok") is False})
    lines.append(f"out of bound or unfinished: {', '.join(bad) or 'none'} (fp32 bound: {FACTOR:g} x)")
    rows = [(r["model"], row) for r in records for row in r.get("outputs", [])]
    lines += [f"{model} {row['name']}: {row['problem']}" for model, row in rows if "problem" in row]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, default=Path(".gpu/goldens"), help="folder of the golden files")
    parser.add_argument("--out", type=Path, default=Path("runs/prove"), help="folder for prove.jsonl")
    parser.add_argument("--models", default="", help="comma-separated; default: all in the pack, small ones first")
    parser.add_argument("--jobs", type=int, default=5, help="models at a time")
    parser.add_argument("--limit-seconds", type=float, default=540, help="for all")
    parser.add_argument("--model-seconds", type=float, default=240, help="for one")
    parser.add_argument("--level", type=int, default=0, help="TensorRT's builder optimisation level")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--report", type=Path, nargs="+", help="print the tables of these results and run nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--reload", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        prove_model(
            get_model(args.one), args.pack, (OnGpu if args.device == "gpu" else OnCpu)(args.level),
            lambda record: print(json.dumps({"model": args.one, **record}), flush=True),
        )  # fmt: skip
        return
    if args.reload:
        print(reload(args.reload, args.pack))
        return
    if args.report:
        records = [json.loads(line) for path in args.report for line in path.read_text("utf-8").splitlines()]
    else:
        records = Run(args, wanted(args))()
    print(f"\n{table(records)}\n\n{summary(records)}")
    sys.exit(0 if all(record.get("ok", True) for record in records) else 1)


def wanted(args: argparse.Namespace) -> list[str]:
    """The models to prove, small ones first. Raises ZooError for one that has no golden file."""
    sizes = {path.stem: _parameters(path) for path in args.pack.glob("*.safetensors")}
    models = [name for name in args.models.split(",") if name] or list(sizes)
    missing = [name for name in models if name not in sizes]
    if missing or not models:
        raise ZooError(f"{args.pack} has no golden of {', '.join(missing) or 'any model'}; see tests/gpu/goldens.py")
    return sorted(models, key=sizes.__getitem__)


def _parameters(path: Path) -> int:
    from zoo.weights import load_weights

    tensors = json.loads(load_weights(path).metadata["tensors"])
    return sum(int(np.prod(shape)) for shape, _ in tensors.values())


if __name__ == "__main__":
    main()
