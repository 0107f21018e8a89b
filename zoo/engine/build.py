"""Compiling a definition into an engine: builder configuration, profile, timing cache."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.driver import compute_capability, device_name
from zoo.engine import flags as further
from zoo.engine import plugins as custom
from zoo.engine.definition import check_sides, define
from zoo.engine.effort import Effort
from zoo.engine.end2end import EndToEnd
from zoo.engine.flags import Flags
from zoo.engine.interrupt import interruptible
from zoo.engine.io import Io, outer_shapes
from zoo.engine.passport import Engine, describe
from zoo.engine.plugins import Plugins
from zoo.engine.shapes import INPUT, Shapes
from zoo.errors import Refused, ZooError
from zoo.files import replacing
from zoo.network import Definition, Precision
from zoo.registry import Model
from zoo.trt import Api
from zoo.weights import Weights

Progress = Callable[[str], None]
FP8_FROM = (8, 9)  # compute capability: Ada


def build(
    model: Model,
    weights: Weights,
    api: Api,
    shapes: Shapes,
    precision: Precision = Precision(),
    effort: Effort = Effort(),
    plugins: Plugins = Plugins(),
    end2end: EndToEnd | None = None,
    *,
    io: Io = "fp32",
    flags: Flags = Flags(),
    device: int = 0,
    timing_cache: Path | None = None,
    progress: Progress = lambda text: None,
) -> Engine:
    """Defines and compiles `model`; the engine comes with its description.

    With `end2end` the engine takes frames and gives final boxes; `io` says what else it takes and gives; `shapes` are
    those of the network inside. `device` is
    the GPU that is current. `timing_cache` is read if it exists and written afterwards. Raises ZooError when the
    definition or the compilation is refused.
    """
    started = time.perf_counter()
    progress(f"defining {model.name} in {precision.name}")
    check_sides(model.configured(weights), api, shapes)
    definition = define(model, weights, api, shapes.network, precision, plugins.policy, end2end, io)
    progress(f"compiling {definition.network.num_layers} layers with {api.name}")
    profile = end2end.frames(shapes) if end2end else outer_shapes(shapes, io)
    data = compile_network(
        definition, profile, effort, plugins, flags=flags, timing_cache=timing_cache, progress=progress
    )
    settled = model.configured(weights)
    seconds = time.perf_counter() - started
    about = describe(definition, settled, shapes, data, effort, plugins, end2end, io, flags, device, seconds)
    return Engine(data, about)


def compile_network(
    definition: Definition,
    shapes: Shapes,
    effort: Effort = Effort(),
    plugins: Plugins = Plugins(),
    *,
    flags: Flags = Flags(),
    timing_cache: Path | None = None,
    progress: Progress = lambda text: None,
) -> bytes:
    """The serialised engine of a definition (see `build` for the options)."""
    api, builder = definition.api, definition.builder
    config = builder_config(api, builder, shapes, effort, definition.network.get_input(0).name)
    custom.configure(definition, config, plugins)
    further.configure(definition, config, flags)
    set_precision_flags(definition, config)
    set_capabilities(definition, config)
    return serialize(api, builder, definition.network, config, f"the network for {shapes}", timing_cache, progress)


def serialize(
    api: Api, builder: Any, network: Any, config: Any, what: str, timing_cache: Path | None = None,
    progress: Progress = lambda text: None,
) -> bytes:  # fmt: skip
    """Runs the builder; the timing cache is read before and written after. `what` names it in a refusal."""
    timings = attach_timing_cache(api, config, timing_cache) if timing_cache else None
    if timings is not None and timings.refused:
        progress(f"compiling without some timings of {timing_cache}: {timings.refused}")
    with interruptible(api.trt, config):
        data = builder.build_serialized_network(network, config)
    errors = api.log.drain()
    if data is None:
        raise Refused(f"{api.name} refused to compile {what}: {errors or 'no reason given'}")
    if timings is not None and timing_cache is not None:
        try:
            save_timing_cache(api, timings.cache, timing_cache)
        except ZooError as error:  # the engine is what was asked for
            progress(f"the timings of this build are not kept: {error}")
    return bytes(data)


def builder_config(api: Api, builder: Any, shapes: Shapes, effort: Effort = Effort(), name: str = INPUT) -> Any:
    """A builder config with the profile of `shapes` for the input `name`. TF32, TensorRT's default, is off unless asked
    for."""
    trt = api.trt
    config = builder.create_builder_config()
    if not effort.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if effort.level is not None:
        config.builder_optimization_level = effort.level
    if effort.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, effort.workspace)
    if effort.heuristic:
        if not hasattr(trt.BuilderFlag, "ENABLE_TACTIC_HEURISTIC"):
            raise ZooError(
                f"{api.name} does not guess kernels, only TensorRT 8 does; use --level 2 instead of --heuristic"
            )
        config.set_flag(trt.BuilderFlag.ENABLE_TACTIC_HEURISTIC)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # layer names in profiles and in the inspector
    if api.major == 8 and not api.rtx:  # several contexts may use one profile: the only mode of later versions
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
    for part in shapes.profiles if shapes.dynamic else ():
        profile = builder.create_optimization_profile()
        profile.set_shape(name, part.min, part.opt, part.max)
        if config.add_optimization_profile(profile) < 0:
            raise Refused(f"{api.name} refused the shapes {part}: {api.log.drain()}")
    return config


def set_precision_flags(definition: Definition, config: Any) -> None:
    """Weakly typed networks take their precision from builder flags; strongly typed ones have it in their types."""
    api, flags = definition.api, definition.api.trt.BuilderFlag
    if not api.strong and definition.precision.name in ("fp16", "int8"):
        config.set_flag(flags.FP16)
        if definition.precision.name == "int8":
            config.set_flag(flags.INT8)
        if definition.has_islands:
            config.set_flag(flags.OBEY_PRECISION_CONSTRAINTS)


def set_capabilities(definition: Definition, config: Any) -> None:
    """TensorRT-RTX compiles for all GPUs from Ampere on; a network in fp8 for those that have it, from Ada on. Others
    would take it only until it runs.

    Raises ZooError for a GPU of full TensorRT without fp8.
    """
    api, capability = definition.api, compute_capability()
    if definition.precision.stored != "fp8" or not definition.rounded:
        return
    if not api.rtx:
        if capability is not None and tuple(map(int, capability.split("."))) < FP8_FROM:
            raise ZooError(f"the {device_name()} has no fp8 (compute capability {capability}, 8.9 has it): use --int8")
        return
    least = 10 * FP8_FROM[0] + FP8_FROM[1]
    known = {name: value for name, value in api.trt.ComputeCapability.__members__.items() if name.startswith("SM")}
    wanted = [value for name, value in known.items() if int(name.removeprefix("SM")) >= least]
    config.num_compute_capabilities = len(wanted)
    for index, value in enumerate(wanted):
        config.set_compute_capability(value, index)


class UnusableTimingCache(ZooError):
    """A timing cache that cannot be read or is of another TensorRT or GPU."""


@dataclass(frozen=True)
class TimingCache:
    """A timing cache in use, with the bytes that it was made from: TensorRT may read them until the build is done.

    `refused` says why TensorRT uses a part of it only, if so.
    """

    cache: Any
    data: bytes
    refused: str = ""


def attach_timing_cache(api: Api, config: Any, path: Path) -> TimingCache:
    """A timing cache on `config`, filled from `path` if that exists and was made by this TensorRT on this GPU.

    A cache of another version or GPU is refused: its timings would be silently wrong or silently ignored. Another GPU
    of the same name is welcome, which TensorRT itself takes only when told to ignore the difference.
    """
    blob = b""
    if path.exists():
        try:
            header, _, blob = path.read_bytes().partition(b"\n")
        except OSError as error:
            raise UnusableTimingCache(f"the timing cache {path} cannot be read: {error.strerror}") from None
        if header != _cache_key(api):
            found = header.decode("utf-8", "replace")[:200]
            raise UnusableTimingCache(
                f"the timing cache {path} is of {found}, this is {_cache_key(api).decode()}; name another file"
            )
    cache = config.create_timing_cache(blob)
    accepted = cache is not None and config.set_timing_cache(cache, True)
    words = api.log.drain()
    if not accepted:
        raise UnusableTimingCache(
            f"{api.name} does not accept the timing cache {path}: {words}; delete it or name another"
        )
    return TimingCache(cache, blob, _why_in_part(api, words))


def _why_in_part(api: Api, words: str) -> str:
    """What TensorRT said while it took a cache, in words that help where they are known to.

    TensorRT 8's code generator marks its timings with the versions of these libraries, and then takes only its own.
    Where they are missing it marks them with zeros, and refuses those too.
    """
    if api.major != 8 or "The timing cache will not be used" not in words:
        return words
    libraries = "cuBLAS 12 and cuDNN 8, the same as when they were written"
    return f"those of generated kernels need {libraries}, where {api.name} finds them"


def save_timing_cache(api: Api, cache: Any, path: Path) -> None:
    """Writes TensorRT's cache after a line that says which TensorRT and GPU it holds for."""
    with replacing(path) as file:
        file.write(_cache_key(api) + b"\n" + bytes(cache.serialize()))


def _cache_key(api: Api) -> bytes:
    return json.dumps({"timing_cache": api.name, "gpu": device_name() or "none"}).encode()
