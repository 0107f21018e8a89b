"""Who takes part in a contest: our engine, that of the ONNX file which PyTorch exports, and PyTorch itself."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from zoo.engine.build import builder_config, compile_network, serialize
from zoo.engine.definition import creation_flags, define
from zoo.engine.effort import Effort
from zoo.engine.shapes import INPUT, Shapes
from zoo.errors import Refused
from zoo.measure.costs import Cost, cost_of
from zoo.measure.timing import LEAD, Replay
from zoo.measure.torch_process import TorchProcess
from zoo.network import Precision
from zoo.registry import Model
from zoo.runtime.gpu import GpuSession
from zoo.trt import Api
from zoo.weights import Weights


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

    def effort(self, precision: str) -> Effort:
        """How hard TensorRT tries for one of the contest's precisions."""
        return Effort(self.level, self.heuristic, tf32=precision == "tf32")


def compile_ours(
    model: Model, weights: Weights, api: Api, shapes: Shapes, precision: str, options: Options
) -> tuple[bytes, Cost]:
    """Our engine of fixed shape, and what it costs at the least."""
    name = "fp32" if precision == "tf32" else precision
    definition = define(model, weights, api, shapes.network, Precision(name))  # type: ignore[arg-type]
    cost = cost_of(definition, precision)
    return compile_network(definition, shapes, options.effort(precision), timing_cache=options.timing_cache), cost


def compile_onnx(api: Api, path: Path, shapes: Shapes, precision: str, options: Options) -> bytes:
    """The engine that the same TensorRT, with the same flags, makes of an ONNX file."""
    trt = api.trt
    api.log.drain()
    builder = trt.Builder(api.log.logger)
    network = builder.create_network(creation_flags(api))
    parser = trt.OnnxParser(network, api.log.logger)  # holds the weights until the build is done
    _parse(parser, path, api)
    config = builder_config(api, builder, shapes, options.effort(precision))
    if not api.strong and precision == "fp16":
        config.set_flag(trt.BuilderFlag.FP16)
    data = serialize(api, builder, network, config, "the network", options.timing_cache)
    del parser
    return data


def _parse(parser: Any, path: Path, api: Api) -> None:
    if not parser.parse_from_file(str(path)):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise Refused(f"{api.name} refused the ONNX file: {'; '.join(reasons) or api.log.drain()}")
