"""Our engine against its rivals: TensorRT with the ONNX file that PyTorch exports, PyTorch itself, torch.compile as
documented, as a CUDA graph, and with frozen weights.

All compute the same function of the same weights and images, with float32 at both ends, and their outputs are compared
before anything is timed. Rounds take turns, so that clocks and temperature are the same for all; a time is the GPU's
own, between two CUDA events around one replay of a CUDA graph, or around one call of what torch.compile returns.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo.engine.definition import define
from zoo.engine.shapes import Shapes
from zoo.errors import ZooError
from zoo.measure.contestants import (
    Contestant,
    EngineContestant,
    Options,
    TorchContestant,
    compile_onnx,
    compile_ours,
)
from zoo.measure.costs import Cost
from zoo.measure.inspector import inspect_engine, side_by_side
from zoo.measure.machine import gpu_state
from zoo.measure.timing import Latency, Spread
from zoo.measure.torch_process import TorchProcess
from zoo.registry import Model
from zoo.trt import Api
from zoo.verify.compare import relative_l2
from zoo.weights import RandomWeights, Weights, load_weights, save_safetensors

Progress = Callable[[str], None]
Measure = Callable[[int], list[float]]
RIVALS = ("onnx", "torch", "compile", "graphed", "frozen")
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
OURS = "zoo"
# Relative L2 from PyTorch's fp32 beyond which a contest would compare different things; rounding stays far below.
TOLERANCE = {"fp32": 1e-3, "tf32": 0.3, "fp16": 0.3, "bf16": 0.7}
ROUND_MS, WARMUP_MS = 100, 500  # of GPU time that a round and a warm-up take at most, for networks that are slow


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
            if model.preprocess.stride > 1:  # fully convolutional: statistics of a smaller picture will do
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
            playing = {c.name: c.measure for c in contestants if c.name not in problems}
            times, clocks = take_turns(playing, self.options), gpu_state()
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


def take_turns(contestants: Mapping[str, Measure], options: Options) -> dict[str, list[float]]:
    """Every contestant's times in ms over all rounds; one is a function of the number of runs.

    Each round starts with another one, so that none always runs first on a GPU that has rested.
    """
    counts, names = {}, [*contestants]
    for name, measure in contestants.items():
        typical = Spread.of(measure(5)).median
        measure(_at_most(options.warmup, WARMUP_MS / typical))
        counts[name] = _at_most(options.replays, ROUND_MS / typical)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(options.rounds):
        for index in range(len(names)):
            name = names[(turn + index) % len(names)]
            times[name] += contestants[name](counts[name])
    return times


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
