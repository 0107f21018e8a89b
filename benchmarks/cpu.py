"""What zoo costs on a machine without a GPU: `python benchmarks/cpu.py`.

    commands   wall seconds and peak memory of `zoo.build resnet50 --fp16`, `zoo.run resnet50`, `zoo.list`, `zoo.verify`
    first      what the seconds from the start of `zoo.run resnet50 IMAGE` to its first answer are spent on
    inference  onnxruntime on our network against onnxruntime on what torch.onnx.export writes of the reference

Every measurement runs in a process of its own, by turns, with all files in the page cache. Figures are medians, with
the fastest run beside them: other work on the machine can only make a run slower. Both sides of `inference` have the
same weights, the same onnxruntime and the same threads, and their outputs are compared. Weights are calibrated random
ones, made once by scripts/gen_wts.py and kept in --folder. Nothing is judged here. Needs Linux and
`pip install -e ".[reference]"`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wts import processor

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MODELS = ("resnet50", "mobilenet_v2", "vit_b_16", "yolov5s", "yolov8n")
PARTS = ("commands", "first", "inference")
PACKAGES = ("numpy", "onnx", "onnxruntime", "tensorrt-rtx", "torch")


def main() -> None:
    """Makes what is missing in the folder, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="commands, first, inference (default: all)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each measurement (default 5)")
    parser.add_argument("--threads", type=int, default=0, help="onnxruntime's threads (default: one per core)")
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="MODEL", help="for the part inference")
    parser.add_argument("--folder", type=Path, help="where weights and exports are kept (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, *rest = args.child
        print(json.dumps(CHILDREN[name](*rest)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        report = measure(args, args.folder or Path(temporary))
    print(json.dumps(report, indent=2) if args.json else tables(report))


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All parts that were asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": machine(), "runs": args.runs, "threads": args.threads}
    parts = args.parts or PARTS
    if set(parts) - set(PARTS):
        sys.exit(f"there is no part {', '.join(set(parts) - set(PARTS))}; the parts are {', '.join(PARTS)}")
    if "commands" in parts:
        report["commands"] = measure_commands(folder, args.runs)
    if "first" in parts:
        report["first"] = measure_first(folder, args.runs)
    if "inference" in parts:
        report["inference"] = {name: measure_inference(folder, name, args.runs, args.threads) for name in args.models}
    return report


def machine() -> dict[str, Any]:
    """What it ran on."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


# Commands


def measure_commands(folder: Path, runs: int) -> dict[str, Any]:
    """Wall seconds, processor seconds and peak memory of whole commands, from start to exit."""
    weights, image = weights_file(folder, "resnet50"), picture(folder)
    commands = {
        "import zoo": ["-c", "import zoo"],
        "zoo.list": ["-m", "zoo.list"],
        "zoo.build resnet50 --fp16": [
            "-m",
            "zoo.build",
            "resnet50",
            "--fp16",
            "-w",
            weights,
            "-o",
            folder / "r.engine",
        ],
        "zoo.run resnet50 IMAGE": ["-m", "zoo.run", "resnet50", image, "-w", weights, "--save", folder / "runs"],
        "zoo.verify resnet18": ["-m", "zoo.verify", "resnet18"],
    }
    found = by_turns({name: lambda c=command: timed(c) for name, command in commands.items()}, runs)
    return {name: {key: summary(row[key] for row in rows) for key in rows[0]} for name, rows in found.items()}


def timed(arguments: list[Any]) -> dict[str, float]:
    """Runs python with `arguments`: wall and processor seconds, and the peak of its resident memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, arguments)], cwd=ROOT, stdout=-3, stderr=-3)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"python {' '.join(map(str, arguments))} ended with status {status}")
    return {
        "seconds": seconds,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "memory_mb": usage.ru_maxrss / 1e3,
    }


# The first answer


def measure_first(folder: Path, runs: int) -> dict[str, Any]:
    """The seconds of each step, and of all from the start of the process to the first answer."""
    files = weights_file(folder, "resnet50"), picture(folder)
    rows = by_turns({"first": lambda: child("first", *files, time.time())}, runs)["first"]
    return {step: summary(row[step] for row in rows) for step in rows[0]}


def first_answer(weights: str, image: str, started: str) -> dict[str, float]:
    """In a process of its own: what `zoo.run resnet50 IMAGE -w WEIGHTS` does, step by step."""
    seconds: dict[str, float] = {}
    last = float(started)

    def done(step: str) -> None:
        nonlocal last
        now = time.time()
        seconds[step], last = now - last, now

    import cv2  # noqa: F401
    import onnxruntime  # noqa: F401

    import zoo.run  # noqa: F401
    from zoo import api
    from zoo.engine.definition import define
    from zoo.images.sources import open_sources
    from zoo.registry import get_model
    from zoo.runtime import cpu
    from zoo.runtime.predict import Predictor
    from zoo.trt import load

    tensorrt, model = load("rtx"), get_model("resnet50")
    done("start and imports")
    frame = next(iter(open_sources([image])))
    definition = define(model, api.find_weights(model, weights), tensorrt, (-1, *model.input))
    done("picture, definition")
    walk = cpu.to_onnx

    def timed_walk(*arguments: Any, **options: Any) -> Any:
        found = walk(*arguments, **options)
        done("walk into ONNX")
        return found

    cpu.to_onnx = timed_walk
    executor = cpu.CpuSession(definition)
    done("onnxruntime session")
    Predictor(api.Session(model, executor, "", model.preprocess, model.input[1:], None, weights))(frame.image)
    done("prediction")
    return {**seconds, "to the first answer": sum(seconds.values())}


# Inference


def measure_inference(folder: Path, name: str, runs: int, threads: int) -> dict[str, Any]:
    """Milliseconds for one picture on both sides, and how far apart their answers are."""
    weights, exported = weights_file(folder, name), folder / f"{name}.onnx"
    if not exported.exists():
        child("export", name, weights, exported)
    files = {"zoo": weights, "torch": exported}
    found = by_turns({side: lambda s=side: child("infer", s, name, files[s], threads) for side in files}, runs)
    ours, theirs = (rows[0]["answer"] for rows in found.values())
    times = {side: summary(ms for row in rows for ms in row["ms"]) for side, rows in found.items()}
    rounds = [[statistics.median(row["ms"]) for row in rows] for rows in found.values()]
    return {
        "zoo_ms": times["zoo"],
        "torch_ms": times["torch"],
        "ratio": {
            "median": statistics.median(a / b for a, b in zip(*rounds)),  # of neighbours: load changes slowly
            "min": times["zoo"]["min"] / times["torch"]["min"],
        },
        "difference": max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / max(map(abs, theirs)),
    }


def export(name: str, weights: str, path: str) -> None:
    """Writes the reference with these weights by torch.onnx.export."""
    import warnings

    import torch

    from zoo.registry import get_model
    from zoo.verify.pretrained import load_state
    from zoo.verify.references import load_reference
    from zoo.weights import load_weights

    class First(torch.nn.Module):
        """The logits, or the first thing that a detector returns: its decoded boxes and scores in one tensor."""

        def __init__(self) -> None:
            super().__init__()
            self.module = reference.module

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            result = self.module(images)
            return result if isinstance(result, torch.Tensor) else result[0]

    warnings.simplefilter("ignore")
    model, opened = get_model(name), load_weights(weights)
    reference = load_state(
        load_reference(model.reference), {n: opened.read(n, opened.shape(n)) for n in opened.names()}
    )
    images, part = torch.zeros(1, *model.input), f"{path}.part"
    torch.onnx.export(First().eval(), (images,), part, input_names=["images"], opset_version=17, dynamo=False)
    os.replace(part, path)


def infer(side: str, name: str, file: str, threads: str) -> dict[str, Any]:
    """In a process of its own: loads one side and runs it 12 times, the first two uncounted."""
    import numpy as np

    from zoo.registry import get_model

    model = get_model(name)
    session = (zoo_session if side == "zoo" else torch_session)(model, file, int(threads))
    images = np.random.default_rng(0).standard_normal((1, *model.input), np.float32)
    ms = []
    for _ in range(12):
        start = time.perf_counter()
        outputs = session(images)
        ms.append((time.perf_counter() - start) * 1e3)
    answer = outputs[0][0]
    if answer.ndim == 2:  # a detector's: boxes (4, A), (4 + classes, A) or, by yolov5, (A, 5 + classes)
        answer = (answer.T if answer.shape[0] > answer.shape[1] else answer)[:4]
    return {"ms": ms[2:], "answer": answer.ravel()[:1000].tolist()}


def zoo_session(model: Any, file: str, threads: int) -> Callable[[Any], list[Any]]:
    """Our network, with any batch size, as `zoo.load` makes it."""
    from zoo import api
    from zoo.engine.definition import define
    from zoo.runtime.cpu import CpuSession
    from zoo.trt import load

    definition = define(model, api.find_weights(model, file), load("rtx"), (-1, *model.input))
    session = CpuSession(definition, threads=threads)
    return lambda images: list(session(images).values())


def torch_session(model: Any, file: str, threads: int) -> Callable[[Any], list[Any]]:
    """What PyTorch exported, for a batch of one."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})


# What all parts share


def child(*arguments: Any) -> Any:
    """The JSON that this file prints when called with `--child`."""
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)} ended with status {result.returncode}")
    return json.loads(result.stdout.splitlines()[-1])


def by_turns(measurements: dict[str, Callable[[], Any]], runs: int) -> dict[str, list[Any]]:
    """Every measurement `runs` times, round by round, after one round that only warms the page cache."""
    found: dict[str, list[Any]] = {name: [] for name in measurements}
    for turn in range(runs + 1):
        for name, measurement in measurements.items():
            result = measurement()
            if turn:
                found[name].append(result)
    return found


def summary(values: Iterable[float]) -> dict[str, float]:
    """Median and least."""
    values = list(values)
    return {"median": statistics.median(values), "min": min(values)}


def weights_file(folder: Path, name: str) -> Path:
    """Calibrated random weights of a model."""
    path = folder / f"{name}.safetensors"
    if not path.exists():
        command = [sys.executable, "scripts/gen_wts.py", name, "--random", "0", "-o", str(path)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    return path


def picture(folder: Path) -> Path:
    """A picture of 640 x 480, written by another process: this one stays small, for its children inherit its peak."""
    path = folder / "picture.png"
    child("picture", path)
    return path


def draw_picture(path: str) -> None:
    """A smooth picture of random colours."""
    import cv2
    import numpy as np

    colours = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    cv2.imwrite(path, cv2.resize(colours, (640, 480), interpolation=cv2.INTER_CUBIC))


def tables(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    host = report["machine"]
    packages = ", ".join(f"{name} {host[name]}" for name in ("python", *PACKAGES))
    lines = [f"{host['date']}, {host['processor']}, {host['cores']} cores, load {host['load'][0]}; {packages}."]
    lines.append(f"Medians of {report['runs']} runs, the fastest in brackets; ratios are taken round by round.")
    if "commands" in report:
        lines += ["", "| command | seconds | processor seconds | peak memory, MB |", "|---|---|---|---|"]
        for name, row in report["commands"].items():
            memory = f"{row['memory_mb']['median']:.0f}"
            columns = (f"`{name}`", two(row["seconds"]), two(row["processor_seconds"]), memory)
            lines.append(f"| {' | '.join(columns)} |")
    if "first" in report:
        lines += ["", "| `zoo.run resnet50 IMAGE` | seconds |", "|---|---|"]
        lines += [f"| {step} | {two(row)} |" for step, row in report["first"].items()]
    if "inference" in report:
        lines += ["", "| model | zoo, ms | torch.onnx.export, ms | ratio | difference |", "|---|---|---|---|---|"]
        for name, row in report["inference"].items():
            columns = (two(row["zoo_ms"], 1), two(row["torch_ms"], 1), two(row["ratio"]), f"{row['difference']:.0e}")
            lines.append(f"| {name} | {' | '.join(columns)} |")
    return "\n".join(lines)


def two(row: dict[str, float], digits: int = 2) -> str:
    return f"{row['median']:.{digits}f} ({row['min']:.{digits}f})"


CHILDREN: dict[str, Callable[..., Any]] = {
    "first": first_answer, "export": export, "infer": infer, "picture": draw_picture,
}  # fmt: skip

if __name__ == "__main__":
    main()
