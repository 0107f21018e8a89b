"""Engines on this machine's GPU: loaded from files, or built once per model and kept in a cache."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.driver import device_count, device_name, driver_problem
from zoo.engine.build import UnusableTimingCache, build, compile_network
from zoo.engine.effort import Effort
from zoo.engine.end2end import end2end_of
from zoo.engine.flags import flags_of
from zoo.engine.io import Io
from zoo.engine.passport import (
    Engine,
    effort_of,
    io_of,
    load_description,
    load_engine,
    model_of,
    precision_of,
    rebuild_at,
    shapes_of,
)
from zoo.engine.plugins import Plugins, plugins_of
from zoo.engine.shapes import Shape, Shapes, input_shapes
from zoo.engine.store import kept_engine
from zoo.errors import ZooError
from zoo.files import cache_folder
from zoo.network import Definition, Precision
from zoo.preprocess import from_dict
from zoo.registry import Model
from zoo.runtime.compatibility import device_properties, why_not_loadable
from zoo.runtime.cuda import provider
from zoo.runtime.gpu import GpuSession
from zoo.session import Session
from zoo.trt import Api, installed, load
from zoo.weights import Weights, parse_weights

Progress = Callable[[str], None]
MOST_AT_ONCE = 16  # images that an engine takes which was asked for without a batch


def load_engine_session(
    path: Path, *, auto_rebuild: bool = False, device: int = 0, cuda: str = "cuda-python", graphs: bool = True,
    contexts: int = 1, stream: Any = None, host_code: bool = False, progress: Progress = lambda text: None,
) -> Session:  # fmt: skip
    """A session for the engine file `path`, which its description must fit.

    `host_code` allows a self-contained engine, which runs the library that it carries.
    Raises ZooError, with the command that rebuilds it, when this machine cannot run the engine or the file is damaged;
    `auto_rebuild` runs that command instead.
    """
    try:
        engine = _load(path, cuda, device)
    except ZooError as problem:
        if not auto_rebuild or driver_problem():  # without a GPU what was rebuilt would not run either
            raise
        progress(str(problem))
        engine = load_engine(rebuild(path, load_description(path), progress))
    return _session(
        engine, path, device=device, cuda=cuda, graphs=graphs, contexts=contexts, stream=stream, host_code=host_code
    )


def _load(path: Path, cuda: str, device: int) -> Engine:
    """The engine of a file, if this machine can run it, else ZooError. Without a driver TensorRT is not touched."""
    description = load_description(path)
    if not driver_problem():
        _require_device(device)
    flavour, command = description["flavour"], rebuild_at(path, description)
    if driver_problem():
        problem = why_not_loadable(description, None, None, command)
    else:
        api = load(flavour) if installed(flavour) else None
        problem = why_not_loadable(description, api, device_properties(cuda, device), command)
    if problem:
        raise ZooError(problem)
    return load_engine(path)


def load_model_session(
    model: Model, weights: Weights, precision: Precision = Precision(), size: tuple[int, int] | None = None, *,
    batch: int | tuple[int, int, int] | None = None, shapes: Shapes | None = None, effort: Effort = Effort(),
    plugins: Plugins = Plugins(),
    io: Io = "fp32",
    device: int = 0, cuda: str = "cuda-python", graphs: bool = True, contexts: int = 1,
    stream: Any = None, progress: Progress = lambda text: None,
) -> Session:  # fmt: skip
    """A session for a model on a GPU of this machine. Its engine is built at first use and then kept.

    Without a `batch` the engine takes 1 to `MOST_AT_ONCE` images, and the session runs more of them in steps.
    """
    require_gpu(device)
    stepped = batch is None and shapes is None
    shapes = shapes or input_shapes(model, (1, 1, MOST_AT_ONCE) if batch is None else batch, size)
    api = load("tensorrt")
    key = json.dumps([
        model.name, model.ends, weights.digest(), asdict(precision), str(shapes), api.name, device_name(device),
        asdict(effort), asdict(plugins), io, definitions_digest(),
    ])  # fmt: skip
    name = f"{model.name}-{precision.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    def build_here() -> Engine:
        with provider(cuda, device).active():  # TensorRT builds for the GPU that is current
            return _build(model, weights, api, shapes, precision, effort, plugins, io, device, progress)

    engine, path = kept_engine(name, build_here, progress)
    session = _session(engine, path, device=device, cuda=cuda, graphs=graphs, contexts=contexts, stream=stream)
    return replace(session, step=MOST_AT_ONCE) if stepped else session


def _build(
    model: Model, weights: Weights, api: Api, shapes: Shapes, precision: Precision, effort: Effort, plugins: Plugins,
    io: Io, device: int, progress: Progress,
) -> Engine:  # fmt: skip
    """The engine, with the timings that are kept; where they cannot be used, without them."""
    options: dict[str, Any] = {"io": io, "device": device, "progress": progress}
    try:
        timings = timing_cache_path(api, device)
    except ZooError:
        return build(model, weights, api, shapes, precision, effort, plugins, **options)
    try:
        return build(model, weights, api, shapes, precision, effort, plugins, timing_cache=timings, **options)
    except UnusableTimingCache:
        with suppress(OSError):
            timings.unlink()
        return build(model, weights, api, shapes, precision, effort, plugins, timing_cache=None, **options)


@functools.cache
def definitions_digest() -> str:
    """The hash of the code that makes engines: one that a former definition made must not answer for today's."""
    package = Path(__file__).resolve().parents[1]
    code = [package / "network.py"]
    for part in ("blocks", "engine", "models", "ops", "plugins"):
        code += (path for path in package.glob(f"{part}/**/*") if path.suffix in (".py", ".cpp", ".h"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(code))).hexdigest()


def timing_cache_path(api: Api, device: int = 0) -> Path:
    """The timing cache of this TensorRT on this GPU. Raises ZooError where there is no place for caches."""
    key = hashlib.sha256(f"{api.name} {device_name(device)}".encode()).hexdigest()[:16]
    return cache_folder() / f"timing-{key}.cache"


def require_gpu(device: int = 0) -> None:
    """Raises ZooError, saying what is missing, unless full TensorRT and this GPU with its driver are here."""
    problem = driver_problem()
    if problem:
        raise ZooError(f"{problem}; use --device cpu, which needs none")
    _require_device(device)
    if not installed("tensorrt"):
        raise ZooError(
            'TensorRT is not installed; to run on the GPU: pip install "tensorrt-zoo[gpu]"; or use --device cpu'
        )


def _require_device(device: int) -> None:
    """Raises ZooError that names the GPUs that there are, unless this one is among them."""
    if device >= device_count():
        names = ", ".join(f"gpu:{index}" for index in range(device_count()))
        raise ZooError(f"there is no gpu:{device} on this machine; CUDA sees {names}")


def rebuild(path: Path, description: dict[str, Any], progress: Progress = lambda text: None) -> Path:
    """Builds the engine of `description` again, for this machine, in the place of `path`."""
    model, shapes = model_of(description), shapes_of(description)
    weights = parse_weights(description["weights"]["file"], model.name)
    if weights.digest() != description["weights"]["sha256"]:
        raise ZooError(
            f"{weights.name} is not the weights file that {path} was built from (its content differs); "
            f"to build an engine from it all the same: {rebuild_at(path, description)}"
        )
    precision, effort = precision_of(description), effort_of(description)
    plugins, end2end = plugins_of(description), end2end_of(description)
    io = io_of(description)
    engine = build(
        model, weights, load(), shapes, precision, effort, plugins, end2end, io=io, flags=flags_of(description),
        progress=progress,
    )  # fmt: skip
    return engine.save(path)


def execute_on_gpu(definition: Definition, taps: list[str], images: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs and taps from TensorRT's own kernels, TF32 off: the definition compiled and run once."""
    network = definition.network
    outputs = {network.get_output(i).name for i in range(network.num_outputs)}
    tensors = {tap: definition.taps[tap] for tap in taps}
    for tensor in tensors.values():
        if not tensor.is_network_output:
            network.mark_output(tensor)
    plan = compile_network(definition, _profile(network, images.shape), Effort(level=0))
    with GpuSession(plan, api=definition.api, graphs=False) as session:
        found = session(images)
    return {name: found[name] for name in outputs} | {tap: found[tensor.name] for tap, tensor in tensors.items()}


def _profile(network: Any, shape: Shape) -> Shapes:
    """The profile for images of `shape`; an open batch takes single images too."""
    if network.get_input(0).shape[0] != -1:
        return Shapes.static(shape)
    batch, *image = shape
    return Shapes((1, *image), shape, (max(batch, 2), *image))


def _session(engine: Engine, path: Path, device: int, **options: Any) -> Session:
    description = engine.description
    model = model_of(description)
    api = load(description["flavour"])
    executor = GpuSession(
        engine.data, api=api, description=description, rebuild=rebuild_at(path, description), device=device, **options
    )
    return Session(
        model,
        executor,
        f"{api.name} on {device_name(device)}, {description['precision']}",
        from_dict(description["preprocess"]),
        tuple(description["input"]["opt"][2:]),
        description["labels"],
        description["weights"]["file"],
        io=io_of(description),
        shapes=shapes_of(description),
    )
