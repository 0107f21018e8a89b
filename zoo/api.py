"""The Python API: what the commands do, as functions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from zoo.engine.passport import Engine, labels
from zoo.engine.shapes import Shapes, input_shapes
from zoo.errors import ZooError
from zoo.network import Precision, PrecisionName
from zoo.registry import Model, get_model
from zoo.session import Session
from zoo.weights import Weights, parse_weights

Device = Literal["auto", "cpu", "gpu"]


def find_weights(model: Model, weights: str | os.PathLike[str] | Weights | None = None) -> Weights:
    """`weights` opened: a path, "random[:SEED]", or by default the `weights_file` of the model."""
    if isinstance(weights, Weights):
        return weights
    source = weights or weights_file(model) or f"weights/{model.name}.safetensors"
    return parse_weights(os.fspath(source), model.name)


def weights_file(model: Model) -> Path | None:
    """NAME.safetensors or NAME.wts in the folder that ZOO_WEIGHTS names, in ./weights, or beside the package's source;
    None when there is none."""
    source = Path(__file__).resolve().parent.parent
    folders = [Path(folder) for folder in (os.environ.get("ZOO_WEIGHTS"), "weights", source / "weights") if folder]
    paths = (folder / f"{model.name}{suffix}" for folder in folders for suffix in (".safetensors", ".wts"))
    return next((path for path in paths if path.is_file()), None)


def build_engine(
    name: str,
    *,
    weights: str | os.PathLike[str] | Weights | None = None,
    precision: PrecisionName | Precision = "fp32",
    batch: int | tuple[int, int, int] = 1,
    size: tuple[int, int] | None = None,
    shapes: Shapes | None = None,
    target: Literal["tensorrt", "rtx"] | None = None,
    level: int | None = None,
    heuristic: bool = False,
    tf32: bool = False,
    timing_cache: str | os.PathLike[str] | None = None,
    progress: Any = lambda text: None,
) -> Engine:
    """Defines the model `name` and compiles it into an engine; `.save(path)` writes it with its description.

    `weights` as in `find_weights`. `batch` is fixed, or (min, opt, max); `shapes` gives the whole profile instead.
    `level`, `heuristic` and `tf32` are those of `zoo.engine.effort.Effort`.
    `target` is full TensorRT where a GPU and the package are there, else TensorRT-RTX, which compiles ahead of time
    without a GPU.
    """
    from zoo.engine.build import build
    from zoo.engine.effort import Effort
    from zoo.trt import load as load_api

    model = get_model(name)
    return build(
        model,
        find_weights(model, weights),
        load_api(target),
        shapes or input_shapes(model, batch, size),
        Precision(precision) if isinstance(precision, str) else precision,
        Effort(level, heuristic, tf32),
        timing_cache=Path(timing_cache) if timing_cache else None,
        progress=progress,
    )


def load(
    source: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | Weights | None = None,
    precision: PrecisionName = "fp32",
    size: tuple[int, int] | None = None,
    device: Device = "auto",
    **options: Any,
) -> Session:
    """A session for a model name or an engine file.

    On the CPU the network definition is walked into ONNX and run by onnxruntime, with any batch size. On a GPU a
    model name is compiled first (once: the engine is kept in a cache) and an engine file is loaded, whose weights,
    precision and size are its own; `options` are those of `zoo.runtime.engines.load_engine_session`, and for a model
    name also `batch`, `level` and `heuristic`, as in `build_engine`.
    """
    if is_engine(source):
        if device == "cpu":
            raise ZooError(f"{source} is an engine, which needs a GPU; for the CPU, give the model's name instead")
        built_in = {"batch", "level", "heuristic"} & options.keys()
        if weights is not None or size is not None or precision != "fp32" or built_in:
            raise ZooError(
                f"{source} is an engine, in which weights, size, precision and TensorRT's effort are built in; leave "
                "those options away, or give the model's name instead"
            )
        from zoo.runtime.engines import load_engine_session

        return load_engine_session(Path(source), **options)
    model = get_model(os.fspath(source))
    if device == "gpu" or (device == "auto" and _gpu_usable()):
        from zoo.runtime.engines import load_model_session

        return load_model_session(model, find_weights(model, weights), precision, size, **options)
    return _cpu_session(model, find_weights(model, weights), precision, size)


def _cpu_session(model: Model, weights: Weights, precision: PrecisionName, size: tuple[int, int] | None) -> Session:
    from zoo.engine.definition import define
    from zoo.runtime.cpu import CpuSession
    from zoo.trt import load as load_api

    size = size or model.input[1:]
    definition = define(model, weights, load_api("rtx"), (-1, model.input[0], *size), Precision(precision))
    executor = CpuSession(definition)
    return Session(model, executor, executor.runs_on, model.preprocess, size, labels(weights.metadata), weights.name)


def is_engine(source: str | os.PathLike[str]) -> bool:
    """Whether `source` is an engine file, not a model's name."""
    return Path(source).suffix in (".engine", ".plan", ".trt") or Path(source).is_file()


def _gpu_usable() -> bool:
    from zoo.driver import has_driver
    from zoo.trt import installed

    return installed("tensorrt") and has_driver()
