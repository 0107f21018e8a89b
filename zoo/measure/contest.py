"""Our engine against its rivals: TensorRT with the ONNX file that PyTorch exports, PyTorch itself, torch.compile as
documented, as a CUDA graph, and with frozen weights.

All compute the same function of the same weights and images, with float32 at both ends, and their outputs are compared
before anything is timed. Rounds take turns, so that clocks and temperature are the same for all; a time is the GPU's
own, between two CUDA events around one replay of a CUDA graph, or around one call of what torch.compile returns.
"""

from __future__ import annotations

import json
import os
import queue
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from zoo.api import find_weights
from zoo.driver import driver_problem
from zoo.engine.build import builder_config, compile_network, serialize
from zoo.engine.definition import INPUT, creation_flags, define
from zoo.engine.shapes import Shapes
from zoo.errors import Refused, ZooError
from zoo.measure.costs import Cost, cost_of
from zoo.measure.timing import LEAD, Latency, Replay, Spread, gpu_state
from zoo.network import Precision
from zoo.registry import Model
from zoo.runtime.gpu import GpuSession
from zoo.trt import Api, load
from zoo.verify.compare import relative_l2
from zoo.weights import RandomWeights, Weights, load_weights, save_safetensors

Progress = Callable[[str], None]
RIVALS = ("onnx", "torch", "compile", "graphed", "frozen")
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
OURS = "zoo"
# Relative L2 from PyTorch's fp32 beyond which a contest would compare different things; rounding stays far below.
TOLERANCE = {"fp32": 1e-3, "tf32": 0.3, "fp16": 0.3, "bf16": 0.7}
ROUND_MS, WARMUP_MS = 100, 500  # of GPU time that a round and a warm-up take at most, for networks that are slow
_ROOT = Path(__file__).resolve().parents[2]


# ---- PyTorch, in a process of its own -------------------------------------------------------------------------------


class TorchProcess:
    """The client of `python -m zoo.verify.rivals`. `python` may be another interpreter, as a command line.

    Call it with a command's name and keywords (see that module). Raises ZooError with its words when it fails.
    """

    def __init__(self, python: str = "", timeout_s: float = 600) -> None:
        command = [*(shlex.split(python) or [sys.executable]), "-m", "zoo.verify.rivals"]
        environment = dict(os.environ)
        if python:  # what this interpreter finds on its path is not for the other
            environment["PYTHONPATH"] = str(_ROOT)
        self._timeout, self._errors = timeout_s, tempfile.TemporaryFile("w+")
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        try:
            self._process = subprocess.Popen(
                command, cwd=_ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                stderr=self._errors,
            )  # fmt: skip
        except OSError as error:
            raise ZooError(f"{command[0]} does not start ({error.strerror}); name one: --torch-python PYTHON") from None
        threading.Thread(target=self._listen, daemon=True).start()
        self.about: dict[str, Any] = self._answer("start")

    def __call__(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has ended: the answer says so
        return self._answer(do)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _answer(self, do: str) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            raise ZooError(f"PyTorch's process did not answer '{do}' within {self._timeout:.0f} s") from None
        if not line:
            self._answers.put("")
            self._errors.seek(0)
            words = self._errors.read().strip().splitlines()
            raise ZooError(f"PyTorch's process ended at '{do}': {words[-1] if words else 'it said nothing'}")
        answer = json.loads(line)
        if "error" in answer:
            raise ZooError(f"PyTorch's process failed at '{do}': {answer['error']}")
        return answer

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()


def tensorrt_on_gpu() -> Api:
    """Full TensorRT. Raises ZooError when it or a GPU is missing."""
    problem = driver_problem()
    if problem:
        raise ZooError(f"{problem}; this measures on a GPU")
    return load("tensorrt")


def given_weights(model: Model, weights: str | None) -> Weights | None:
    """The weights that were asked for, or those in a file of the model's name; None when there is neither."""
    try:
        return find_weights(model, weights)
    except ZooError as error:
        if weights is None and str(error).startswith("no weights file"):
            return None
        raise


# ---- contestants ----------------------------------------------------------------------------------------------------


class Contestant(Protocol):
    """Someone who can be timed."""

    name: str
    runtime: str

    def outputs(self) -> dict[str, np.ndarray]: ...

    def measure(self, count: int) -> list[float]: ...

    def close(self) -> None: ...


class EngineContestant:
    """A TensorRT engine: ours, or that of an ONNX file."""

    def __init__(self, name: str, plan: bytes, api: Api, images: np.ndarray, seconds: float) -> None:
        self.name, self.runtime, self.plan, self.build_s = name, api.name, plan, seconds
        self._session = GpuSession(plan, api=api)
        self.replay = Replay(self._session, {INPUT: images.shape})
        self.replay.write({INPUT: images})

    def outputs(self) -> dict[str, np.ndarray]:
        return self.replay.outputs()

    def measure(self, count: int) -> list[float]:
        return self.replay.measure(count)

    def close(self) -> None:
        self.replay.close()
        self._session.close()


class TorchContestant:
    """PyTorch in its process: "torch", "compile", "graphed" or "frozen"."""

    def __init__(self, kind: str, torch: TorchProcess, precision: str) -> None:
        start = time.perf_counter()
        torch("prepare", kind=kind, precision=precision)
        self.name, self.runtime, self._torch = kind, f"PyTorch {torch.about['torch']}", torch
        self.build_s = time.perf_counter() - start

    def outputs(self) -> dict[str, np.ndarray]:
        from safetensors.numpy import load_file

        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "outputs.safetensors")
            self._torch("outputs", kind=self.name, path=path)
            return load_file(path)

    def measure(self, count: int) -> list[float]:
        return self._torch("measure", kind=self.name, count=count, lead=LEAD)["ms"]

    def close(self) -> None:
        """The process frees it with the model."""


# ---- engines --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """How engines are built and times are taken."""

    level: int | None = None
    heuristic: bool = False
    timing_cache: Path | None = None
    rounds: int = 20
    replays: int = 100
    warmup: int = 200

    @property
    def effort(self) -> dict[str, Any]:
        """How hard TensorRT tries, as `builder_config` takes it."""
        return {"level": self.level, "heuristic": self.heuristic}


def compile_ours(
    model: Model, weights: Weights, api: Api, shapes: Shapes, precision: str, options: Options
) -> tuple[bytes, Cost]:
    """Our engine of fixed shape, and what it costs at the least."""
    name = "fp32" if precision == "tf32" else precision
    definition = define(model, weights, api, shapes.network, Precision(name))  # type: ignore[arg-type]
    cost = cost_of(definition, precision)
    effort = {**options.effort, "tf32": precision == "tf32", "timing_cache": options.timing_cache}
    return compile_network(definition, shapes, **effort), cost


def compile_onnx(api: Api, path: Path, shapes: Shapes, precision: str, options: Options) -> bytes:
    """The engine that the same TensorRT, with the same flags, makes of an ONNX file."""
    trt = api.trt
    api.log.drain()
    builder = trt.Builder(api.log.logger)
    network = builder.create_network(creation_flags(api))
    parser = trt.OnnxParser(network, api.log.logger)  # holds the weights until the build is done
    _parse(parser, path, api)
    config = builder_config(api, builder, shapes, **options.effort, tf32=precision == "tf32")
    if not api.strong and precision == "fp16":
        config.set_flag(trt.BuilderFlag.FP16)
    data = serialize(api, builder, network, config, "the network", options.timing_cache)
    del parser
    return data


def _parse(parser: Any, path: Path, api: Api) -> None:
    if not parser.parse_from_file(str(path)):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise Refused(f"{api.name} refused the ONNX file: {'; '.join(reasons) or api.log.drain()}")


def inspect_engine(plan: bytes, api: Api) -> dict[str, Any]:
    """What TensorRT's inspector says of an engine: its layers, with tactics and formats."""
    engine = api.trt.Runtime(api.log.logger).deserialize_cuda_engine(plan)
    text = engine.create_engine_inspector().get_engine_information(api.trt.LayerInformationFormat.JSON)
    try:
        return json.loads(text, strict=False)  # TensorRT 8.6 leaves control characters in names
    except ValueError:
        return {"text": text}


def side_by_side(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """The layers of two engines in two columns of a Markdown table, in the order of execution."""
    rows = [[_layer_line(entry) for entry in info.get("Layers", [])] for info in (ours, theirs)]
    height = max(map(len, rows))
    left, right = (column + [""] * (height - len(column)) for column in rows)
    lines = [f"| {len(rows[0])} layers of ours | {len(rows[1])} layers from ONNX |", "| --- | --- |"]
    return "\n".join(lines + [f"| {a} | {b} |" for a, b in zip(left, right)]) + "\n"


def _layer_line(entry: Any) -> str:
    if isinstance(entry, str):  # an engine built without details
        return entry
    ends = [
        ", ".join(str(end.get("Format/Datatype") or end.get("Format") or "") for end in entry.get(key, []))
        for key in ("Inputs", "Outputs")
    ]
    tactic = str(entry.get("TacticName") or entry.get("LayerType") or "")
    return f"{entry.get('Name', '')}: {tactic}; {ends[0]} → {ends[1]}".replace("|", "/")


# ---- the contest ----------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """One contestant in one row: times in ms; `difference` is relative L2 from PyTorch's fp32 outputs, if it ran.

    A rival that could not take part has a `problem` instead of times.
    """

    model: str
    precision: str
    batch: int
    size: tuple[int, int]
    name: str
    cost: Cost
    clocks: dict[str, str]
    runtime: str = ""
    compute: Spread | None = None
    ratio: float | None = None  # our median over this one's
    build_s: float | None = None
    difference: float | None = None
    latency: Latency | None = None  # ours only
    engine_mb: float | None = None
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        data = {key: value for key, value in vars(self).items() if key not in ("compute", "cost", "latency")}
        data |= {"gmacs": self.cost.macs / 1e9, "bytes": self.cost.bytes, "param_count": self.cost.parameters}
        data["compute_ms"] = None if self.compute is None else vars(self.compute)
        if self.latency is not None:
            data["latency"] = {
                "queries_per_s": self.latency.queries_per_s,
                **{f"{key}_ms": vars(getattr(self.latency, key)) for key in ("total", "upload", "download", "enqueue")},
            }
        return data


@dataclass
class Arena:
    """Where contests are held: TensorRT, PyTorch's process if there are such rivals, a folder for what is exchanged."""

    api: Api
    rivals: tuple[str, ...]
    torch: TorchProcess | None
    folder: Path
    options: Options
    progress: Progress = lambda text: None
    inspect: Path | None = None
    failed: list[str] = field(default_factory=list)

    def weights(self, model: Model, given: Weights | None) -> Weights:
        """The weights to use: given ones; calibrated random ones, where PyTorch is at hand; random ones."""
        if given is not None:
            return given
        if self.torch is None:
            return RandomWeights(0)
        path = self.folder / f"{model.name}-calibrated.safetensors"
        if not path.exists():
            self.progress(f"calibrating random weights of {model.reference}")
            channels, height, width = model.input
            if model.task == "detect":  # fully convolutional: statistics of a smaller picture will do
                height, width = height // 2, width // 2
            self.torch("calibrate", reference=model.reference, size=[channels, height, width], path=str(path))
        return load_weights(path)

    def hold(
        self, model: Model, weights: Weights, precision: str, batch: int, size: tuple[int, int] | None = None
    ) -> list[Result]:
        """One row: ours and every rival, in turns. A rival that cannot take part is a Result with its problem.

        Raises ZooError when our own engine cannot be built or contradicts PyTorch.
        """
        shape = (batch, model.input[0], *(size or model.input[1:]))
        images, expected = self._exchange(model, weights, shape)
        contestants: list[Any] = []
        problems: dict[str, str] = {}
        try:
            self.progress(f"{model.name} {precision} batch {batch}: building {OURS}")
            start = time.perf_counter()
            plan, cost = compile_ours(model, weights, self.api, Shapes.static(shape), precision, self.options)
            contestants.append(EngineContestant(OURS, plan, self.api, images, time.perf_counter() - start))
            for name in self.rivals:
                self.progress(f"{model.name} {precision} batch {batch}: preparing {name}")
                try:
                    contestants.append(self._rival(name, shape, precision, images))
                except ZooError as error:
                    problems[name] = str(error)
            differences = {c.name: _difference(c.outputs(), expected) for c in contestants}
            for name, difference in differences.items():
                if difference is not None and not difference <= TOLERANCE[precision]:
                    words = f"{name} differs by {difference:.2g} from PyTorch's fp32, expected {TOLERANCE[precision]}"
                    if name == OURS:
                        raise ZooError(f"{model.name} {precision} batch {batch}: {words}")
                    problems[name] = words
            if self.inspect is not None:
                self._inspect(model.name, precision, batch, contestants)
            self.progress(f"{model.name} {precision} batch {batch}: {self.options.rounds} rounds")
            times, clocks = take_turns([c for c in contestants if c.name not in problems], self.options)
            return self._results(model, precision, shape, contestants, times, clocks, differences, problems, cost)
        finally:
            for contestant in contestants:
                contestant.close()

    def _exchange(
        self, model: Model, weights: Weights, shape: tuple[int, int, int, int]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Images, and PyTorch's fp32 outputs for them when it is there; it loads the weights then."""
        if self.torch is None:
            return np.random.default_rng(0).standard_normal(shape, np.float32), {}
        from safetensors.numpy import load_file

        from zoo.verify.proof import arrays_of

        definition = define(model, weights, self.api, (1, *shape[1:]))
        path = self.folder / f"{model.name}.safetensors"
        save_safetensors(path, arrays_of(definition))
        classes = getattr(model.configured(weights).config, "num_classes", None)
        exchange = str(self.folder / "exchange.safetensors")
        self.torch(
            "load", reference=model.reference, classes=classes, weights=str(path), shape=list(shape), path=exchange
        )
        arrays = load_file(exchange)
        outputs = {k.removeprefix("output/"): array for k, array in arrays.items() if k.startswith("output/")}
        return arrays["images"], outputs

    def _rival(self, name: str, shape: tuple[int, int, int, int], precision: str, images: np.ndarray) -> Contestant:
        assert self.torch is not None
        if name != "onnx":
            return TorchContestant(name, self.torch, precision)
        path = self.folder / "rival.onnx"
        inside = precision if self.api.strong else "fp32"  # strongly typed networks take their types from the file
        self.torch("export", path=str(path), precision=inside)
        start = time.perf_counter()
        plan = compile_onnx(self.api, path, Shapes.static(shape), precision, self.options)
        return EngineContestant(name, plan, self.api, images, time.perf_counter() - start)

    def _inspect(self, model: str, precision: str, batch: int, contestants: Iterable[Any]) -> None:
        assert self.inspect is not None
        self.inspect.mkdir(parents=True, exist_ok=True)
        found = {c.name: inspect_engine(c.plan, self.api) for c in contestants if isinstance(c, EngineContestant)}
        stem = f"{model}-{precision}-b{batch}"
        for name, information in found.items():
            (self.inspect / f"{stem}-{name}.json").write_text(json.dumps(information, indent=1), "utf-8")
        if "onnx" in found:
            (self.inspect / f"{stem}.md").write_text(side_by_side(found[OURS], found["onnx"]), "utf-8")

    def _results(
        self, model: Model, precision: str, shape: tuple[int, int, int, int], contestants: Sequence[Any],
        times: dict[str, list[float]], clocks: dict[str, str], differences: dict[str, float | None],
        problems: dict[str, str], cost: Cost,
    ) -> list[Result]:  # fmt: skip
        ours = Spread.of(times[OURS]).median
        row: dict[str, Any] = {
            "model": model.name,
            "precision": precision,
            "batch": shape[0],
            "size": shape[2:],
            "clocks": clocks,
        }
        results = []
        for c in contestants:
            if c.name in problems:
                continue
            spread = Spread.of(times[c.name])
            results.append(Result(
                **row, name=c.name, cost=cost, runtime=c.runtime, compute=spread, ratio=ours / spread.median,
                build_s=c.build_s, difference=differences[c.name],
                latency=c.replay.latency(self.options.replays, times[OURS]) if c.name == OURS else None,
                engine_mb=len(c.plan) / 1e6 if isinstance(c, EngineContestant) else None,
            ))  # fmt: skip
        for name, problem in problems.items():
            self.failed.append(f"{model.name} {precision} batch {shape[0]} {name}: {problem}")
            results.append(Result(**row, name=name, cost=cost, difference=differences.get(name), problem=problem))
        return results


def take_turns(contestants: Sequence[Contestant], options: Options) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Every contestant's times over all rounds, and the GPU's clocks under this load.

    Each round starts with another one, so that none always runs first on a GPU that has rested.
    """
    counts = {}
    for contestant in contestants:
        typical = Spread.of(contestant.measure(5)).median
        contestant.measure(_at_most(options.warmup, WARMUP_MS / typical))
        counts[contestant.name] = _at_most(options.replays, ROUND_MS / typical)
    times: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    for turn in range(options.rounds):
        for index in range(len(contestants)):
            contestant = contestants[(turn + index) % len(contestants)]
            times[contestant.name] += contestant.measure(counts[contestant.name])
    return times, gpu_state()


def _at_most(count: int, limit: float) -> int:
    return max(1, min(count, max(5, int(limit))))


def _difference(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float | None:
    """The largest relative L2 over the outputs; None without anything to compare with."""
    if not expected:
        return None
    return max(relative_l2(found[name], value) for name, value in expected.items())


@contextmanager
def arena(
    api: Api, rivals: Sequence[str], options: Options, *, torch_python: str = "", inspect: Path | None = None,
    progress: Progress = lambda text: None,
) -> Iterator[Arena]:  # fmt: skip
    """An `Arena` with a temporary folder and, when there are rivals, PyTorch's process."""
    for name in rivals:
        if name not in RIVALS:
            raise ZooError(f"there is no rival '{name}'; choose among {', '.join(RIVALS)}")
    with tempfile.TemporaryDirectory(prefix="zoo-contest-") as folder:
        torch = TorchProcess(torch_python) if rivals else None
        try:
            yield Arena(api, tuple(rivals), torch, Path(folder), options, progress, inspect)
        finally:
            if torch is not None:
                torch.close()
