"""From a model and its weights to a complete, fully accounted INetworkDefinition."""

from __future__ import annotations

import fnmatch
import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np

from zoo.engine.end2end import EndToEnd
from zoo.engine.ends import ends_of
from zoo.engine.io import Io, add_input, check_io, output_type
from zoo.engine.modules import check_modules
from zoo.engine.shapes import Shape, Shapes
from zoo.errors import Refused, ZooError, closest
from zoo.network import Definition, Net, PluginPolicy, Precision, Tensor
from zoo.registry import Model, list_models, siblings
from zoo.tasks import get_task
from zoo.trt import Api
from zoo.weights import COUNTERS, RANGES, Weights
from zoo.weights.families import family_of, other_form, realigned


def define(
    model: Model,
    weights: Weights,
    api: Api,
    shape: Shape,
    precision: Precision = Precision(),
    plugins: PluginPolicy = "native",
    end2end: EndToEnd | None = None,
    io: Io = "fp32",
) -> Definition:
    """Writes the network of `model` with `weights`; `shape` is (N, C, H, W), N may be -1.

    `plugins` says what custom ops become. With `end2end` the network takes frames and gives final boxes. Without, the
    input and the outputs are what `io` says (`zoo.engine.io`), whatever the precision. Raises ZooError when a weight is
    missing, unused or of another shape, when the size does not fit the model, and when TensorRT refuses a layer.
    """
    if precision.name == "bf16" and not api.strong:
        raise ZooError(f"{api.name} has no bf16; build with --fp16, or with TensorRT 10 or later")
    if precision.scales is not None and precision.stored == "fp8" and not api.strong:
        raise ZooError(f"{api.name} has no fp8; build with --int8, or with TensorRT 10 or later or TensorRT-RTX")
    if check_io(io, model) != "fp32" and end2end is not None:
        raise ZooError(f"--end2end takes frames and gives boxes as they are; leave --io {io} away")
    if end2end is not None and -1 in shape[2:]:
        raise ZooError("--end2end takes frames of any size, but the network inside has one: give it by --size")
    if precision.scales is not None:
        precision.scales.check(model.name, weights.digest())
        if end2end is not None:  # what is around the network has no ranges
            keep = (*precision.scales.keep, "letterbox*", "nms*", "to_frame*")
            precision = replace(precision, scales=replace(precision.scales, keep=keep))
    try:
        definition = _define(model.configured(weights), weights, api, shape, precision, plugins, end2end, io)
        unused = _unused(definition, model)
        if unused:
            raise ZooError(
                f"{weights.name} holds {len(unused)} tensors that {model.name} has no use for: {_some(unused)}"
            )
    except Refused as refusal:
        if -1 in shape[2:]:
            raise ZooError(
                f"{model.name} is written for one height and width: give it by --size ({refusal})"
            ) from refusal
        raise
    except ZooError as error:
        aligned = None if weights.generated else realigned(weights, _wanted(model, api))
        if aligned is not None:  # only a prefix was in the way
            return define(model, aligned, api, shape, precision, plugins, end2end, io)
        cause = _cause(model, weights)
        hint = "" if cause or weights.generated else other_form(weights, str(error), model.input[0])
        reason = f"{cause} ({error})" if cause else f"{error}{hint or _other_variant(model, weights, api)}"
        raise ZooError(reason) from error
    check_modules(definition, model.name)
    return definition


def check_sides(model: Model, api: Api, shapes: Shapes) -> None:
    """Raises ZooError, naming what fits, for a profile whose heights and widths `model` cannot have at its ends.

    Each end is defined by itself, with no weights: of a size that varies nobody would say so but TensorRT.
    """
    if not shapes.open_sides:
        return
    for size in dict.fromkeys(end[2:] for part in shapes.profiles for end in (part.min, part.opt, part.max)):
        _define(model, _Zeros(), api, (1, shapes.min[1], *size), Precision())


def _wanted(model: Model, api: Api) -> set[str]:
    """The names of all weights that the definition reads, as published; none where it cannot be defined at all."""
    try:
        definition = _define(model, _Zeros(), api, (1, *model.input), Precision())
    except ZooError:
        return set()
    return {*definition.parameters, *definition.buffers}


def _cause(model: Model, weights: Weights) -> str:
    """«FILE holds a YOLOv8 for poses, not yolov8n: …» where the names tell another family than the model's."""
    family = None if weights.generated else family_of(weights)
    if family is None or fnmatch.fnmatchcase(model.name, family.models):
        return ""
    others = list_models(family.models)[:4] if family.models else []
    advice = family.advice or (f"use {' or '.join(others)}" if others else "the zoo has no such network")
    return f"{weights.name} holds {family.what}, not {model.name}: {advice}"


def _define(
    model: Model, weights: Weights, api: Api, shape: Shape, precision: Precision, plugins: PluginPolicy = "native",
    end2end: EndToEnd | None = None, io: Io = "fp32",
) -> Definition:  # fmt: skip
    api.log.drain()
    builder = api.trt.Builder(api.log.logger)
    definition = Definition(api, builder, builder.create_network(creation_flags(api)), weights, precision, plugins)
    net = Net(definition)
    if end2end is not None:
        end2end = end2end.settled(model)
        x, placement = end2end.before(net, model, shape)
    else:
        x = add_input(net, model, shape, io)
    try:
        built = model.build(net, x, model.config)
        outputs = ends_of(definition, model, built) if model.ends else _named(model, built)
        if end2end is not None:
            outputs = end2end.after(net, outputs, placement)
        for name, tensor in outputs.items():
            _mark_output(net, name, tensor, io)
    except Refused as refusal:
        refusal.definition = definition
        raise
    return definition


def _named(model: Model, outputs: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """The outputs by name; a single tensor is the only one of the model's task."""
    wanted = get_task(model.task).outputs
    named = outputs if isinstance(outputs, dict) else {next(iter(wanted)): outputs}
    missing = [name for name in wanted if name not in named]
    if missing:
        raise ZooError(
            f"{model.name} has no output {' and '.join(missing)}, which its task '{model.task}' needs; "
            f"its build returns {', '.join(named) if named is outputs else 'one tensor'}{closest(missing[0], named)}"
        )
    return named


def creation_flags(api: Api) -> int:
    """Strong typing is a flag in TensorRT 10, the only mode later; 8.6 asks for an explicit batch instead."""
    flags = api.trt.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED if api.strong else flags.EXPLICIT_BATCH)


def _mark_output(net: Net, name: str, tensor: Tensor, io: Io) -> None:
    """Marks `tensor` as the output `name`, int32 or else what `io` says. A layer of its own keeps the tap's name
    on the tensor before it."""
    network, dtype = net.network, output_type(net, io, tensor)
    if tensor.name == name:  # the module that the network ends at
        tensor.name = net.unique(f"{name}.end")
    layer = network.add_identity(tensor) if tensor.dtype == dtype else network.add_cast(tensor, dtype)
    output = (net / name).step(layer, "output", tensor)
    output.name = name
    network.mark_output(output)
    errors = net.definition.api.log.drain()
    if errors:
        raise Refused(f"{net.definition.api.name} refused the output '{name}': {errors}")


def _unused(definition: Definition, model: Model) -> list[str]:
    """The tensors that the weights hold and the definition did not read; counters are never needed."""
    if definition.weights.generated:
        return []
    ignored = (*model.ignored, *COUNTERS, *RANGES)
    left = set(definition.weights.names()) - definition.parameters.keys() - definition.buffers.keys()
    return sorted(name for name in left if not any(fnmatch.fnmatchcase(name, p) for p in ignored))


def _other_variant(model: Model, weights: Weights, api: Api) -> str:
    """«; these are the weights of X …» when another variant of the same architecture takes them all, else nothing."""
    if weights.generated:
        return ""
    for other in siblings(model):
        try:
            definition = _define(other.configured(weights), weights, api, (1, *other.input), Precision())
        except ZooError:
            continue
        if not _unused(definition, other):
            return f"; these are the weights of {other.name}, not of {model.name}: use that name"
    return ""


def _some(names: list[str], count: int = 4) -> str:
    return ", ".join(names[:count]) + (f" … and {len(names) - count} more" if len(names) > count else "")


def parameter_count(model: Model, api: Api) -> int:
    """The number of parameters (buffers do not count) that the definition of `model` reads."""
    definition = _define(model, _Zeros(), api, (1, *model.input), Precision())
    return sum(math.prod(shape) for shape in definition.parameters.values())


class _Zeros(Weights):
    """Any tensor, all zeros in memory that is never touched: to see what a definition asks for."""

    generated = True

    def __init__(self) -> None:
        super().__init__("zeros")

    def names(self) -> list[str]:
        return []

    def read(self, name: str, shape: Any) -> np.ndarray:
        return _zeros(tuple(shape)).view(_Untouched)


class _Untouched(np.ndarray):
    """Zeros whose arithmetic gives zeros without computing them: folding a convolution would touch all its memory."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> np.ndarray:
        shape = np.broadcast_shapes(*map(np.shape, inputs))
        if method == "reduce":
            axis, kept = options["axis"], options.get("keepdims", False)
            gone = range(len(shape)) if axis is None else {one % len(shape) for one in np.atleast_1d(axis)}
            shape = tuple(1 if i in gone else size for i, size in enumerate(shape) if kept or i not in gone)
        return _zeros(shape).view(_Untouched)

    def astype(self, *args: Any, **options: Any) -> np.ndarray:
        """Itself: of what zeros it is made does not matter."""
        return self


def _zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros to read. Those of a layer share one memory: what was freed would be zeroed again for the next."""
    count = math.prod(shape)
    return _block(1 << max(count - 1, 0).bit_length())[:count].reshape(shape)


@functools.cache
def _block(count: int) -> np.ndarray:
    block = np.zeros(count, np.float32)
    block.flags.writeable = False
    return block
