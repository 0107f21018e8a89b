"""Handlers: layers that move numbers without changing them."""

from __future__ import annotations

import numpy as np

from zoo.onnx.graph import Graph, Operand, numpy_type
from zoo.onnx.handlers import handles
from zoo.onnx.reading import Layer, dims

_NEVER = -(2**62)  # an end that a slice with a negative step never reaches
_PAD_MODES = {"FILL": "constant", "CLAMP": "edge", "REFLECT": "reflect", "WRAP": "wrap"}


@handles("SHUFFLE", moves=True)
def shuffle(g: Graph, layer: Layer, x: str, target: str | None = None) -> str:
    before = layer.shape()
    order = list(layer.raw.first_transpose)[: len(before)]
    x, before = g.transpose(x, order), tuple(before[axis] for axis in order)
    placeholder = layer.raw.zero_is_placeholder
    static = dims(layer.raw.reshape_dims) if target is None else g.known(target)
    if static is not None and placeholder:
        static = tuple(before[i] if size == 0 and before[i] >= 0 else int(size) for i, size in enumerate(static))
    if static is not None and not _same(before, static, placeholder):
        x = g.reshape(x, static, allowzero=1 if 0 in static and not placeholder else None)
    elif static is None and target is not None:
        x = g.op("Reshape", x, g.ints(target), allowzero=None if placeholder else 1)
    return g.transpose(x, list(layer.raw.second_transpose)[: len(layer.out_shape())])


def _same(shape: tuple[int, ...], target: tuple[int, ...], placeholder: bool) -> bool:
    """Does a reshape to `target` (one dimension may be -1, and 0 a placeholder) leave the shape as it is?"""
    return len(shape) == len(target) and all(
        wanted == -1 or (wanted == 0 and placeholder) or wanted == size for size, wanted in zip(shape, target)
    )


@handles("SQUEEZE", moves=True)
def squeeze(g: Graph, layer: Layer, x: str, axes: str | None = None) -> str:
    return _reshaped(g, layer, "Squeeze", x, axes and g.ints(axes))


@handles("UNSQUEEZE", moves=True)
def unsqueeze(g: Graph, layer: Layer, x: str, axes: str) -> str:
    return _reshaped(g, layer, "Unsqueeze", x, g.ints(axes))


def _reshaped(g: Graph, layer: Layer, kind: str, x: str, axes: Operand) -> str:
    known = g.known(x) is not None and min(layer.out_shape(), default=1) > 0
    return g.reshape(x, layer.out_shape()) if known else g.op(kind, x, axes)


@handles("SHAPE")
def shape(g: Graph, layer: Layer, x: str) -> str:
    sizes = g.dim(x, layer.shape(), range(len(layer.shape())))
    return sizes if isinstance(sizes, str) else g.constant(sizes)


@handles("CONCATENATION", moves=True)
def concatenation(g: Graph, layer: Layer, *inputs: str) -> str:
    return g.op("Concat", *inputs, axis=layer.raw.axis) if len(inputs) > 1 else inputs[0]


@handles("GATHER", moves=True)
def gather(g: Graph, layer: Layer, x: str, indices: str) -> str:
    mode, axis, elementwise = layer.raw.mode.name, layer.raw.axis, layer.raw.num_elementwise_dims
    if mode == "ELEMENT":
        return g.op("GatherElements", x, indices, axis=axis)
    if mode == "ND":
        return g.op("GatherND", x, g.ints(indices), batch_dims=elementwise)
    if elementwise == 0:
        return g.op("Gather", x, indices, axis=axis)
    if axis != 1:
        layer.refuse(f"an elementwise dimension with axis {axis}")
    return g.op("GatherND", x, g.op("Unsqueeze", g.ints(indices), [-1]), batch_dims=1)


@handles("SCATTER")
def scatter(g: Graph, layer: Layer, x: str, indices: str, updates: str) -> str:
    if layer.raw.mode.name == "ND":
        return g.op("ScatterND", x, g.ints(indices), updates)
    return g.op("ScatterElements", x, indices, updates, axis=layer.raw.axis)


@handles("REVERSE_SEQUENCE", moves=True)
def reverse_sequence(g: Graph, layer: Layer, x: str, lengths: str) -> str:
    return g.op(
        "ReverseSequence", x, g.ints(lengths), batch_axis=layer.raw.batch_axis, time_axis=layer.raw.sequence_axis
    )


@handles("PADDING", moves=True)
def padding(g: Graph, layer: Layer, x: str) -> str:
    pre, post = tuple(layer.raw.pre_padding_nd), tuple(layer.raw.post_padding_nd)
    rest = (0,) * (len(layer.shape()) - len(pre))
    return g.op("Pad", x, [*rest, *pre, *rest, *post], _zero(g, layer))


@handles("SLICE", moves=True)
def slice_(
    g: Graph,
    layer: Layer,
    x: str,
    start: str | None = None,
    size: str | None = None,
    step: str | None = None,
    value: str | None = None,
    axes: str | None = None,
) -> str:
    """TensorRT gives sizes where ONNX gives ends, and may read outside of x or, with a step of 0, one element again."""
    along = _axes(g, layer, axes)
    start, size, step = (
        g.ints(given) if given else np.array(dims(getattr(layer.raw, attribute)), np.int64)
        for given, attribute in ((start, "start"), (size, "shape"), (step, "stride"))
    )
    if _repeats(layer, start, step, along):
        return g.op("Expand", x, _everywhere(layer, along, size))
    sizes = g.dim(x, layer.shape(), along)
    if layer.raw.mode.name in _PAD_MODES:
        before, after = _outside(g, start, size, step, sizes)
        x = _padded(g, layer, x, before, after, value, along)
        start, sizes = g.calc("Add", start, before), g.calc("Add", g.calc("Add", sizes, before), after)
    repeat = g.calc("Equal", step, 0)
    once = not isinstance(repeat, str) and not repeat.any()
    step, taken = (step, size) if once else (g.calc("Where", repeat, 1, step), g.calc("Where", repeat, 1, size))
    end = g.calc("Add", start, g.calc("Mul", taken, step))
    if isinstance(step, str) or (step < 0).any():  # ONNX would count an end below zero from the back
        end = g.calc("Where", g.calc("Less", end, 0), _NEVER, end)
    x = _sliced(g, x, start, end, step, along, sizes)
    return x if once else g.op("Expand", x, _everywhere(layer, along, g.calc("Where", repeat, size, 1)))


def _repeats(layer: Layer, start: Operand, step: Operand, along: list[int]) -> bool:
    """Does a slice only take axes of size 1 again (by a step of 0) and leave the others whole?"""
    if isinstance(start, str) or isinstance(step, str) or start.any() or step.all():
        return False
    before, after = layer.shape(), layer.out_shape()
    return all(
        before[axis] == 1 if step[i] == 0 else step[i] == 1 and before[axis] == after[axis] > 0
        for i, axis in enumerate(along)
    )


def _axes(g: Graph, layer: Layer, axes: str | None) -> list[int]:
    rank = len(layer.shape())
    if axes is None:
        static = dims(getattr(layer.raw, "axes", None))
        return list(range(rank)) if static is None else [axis % rank for axis in static]
    known = g.known(axes)
    return layer.refuse("axes known only at run time") if known is None else [int(axis) % rank for axis in known]


def _everywhere(layer: Layer, along: list[int], sizes: Operand) -> Operand:
    """Sizes along some axes as sizes along all, with 1 for the others."""
    if along == list(range(len(layer.shape()))):
        return sizes
    if isinstance(sizes, str):
        layer.refuse("a step of 0 along some of the axes with a size known only at run time")
    everywhere = np.ones(len(layer.shape()), np.int64)
    everywhere[along] = sizes
    return everywhere


def _outside(g: Graph, start: Operand, size: Operand, step: Operand, sizes: Operand) -> tuple[Operand, Operand]:
    """How far a slice reads beyond both ends of x."""
    last = g.calc("Add", start, g.calc("Mul", g.calc("Add", size, -1), step))
    before = g.calc("Max", g.calc("Neg", g.calc("Min", start, last)), 0)
    return before, g.calc("Max", g.calc("Sub", g.calc("Add", g.calc("Max", start, last), 1), sizes), 0)


def _padded(
    g: Graph, layer: Layer, x: str, before: Operand, after: Operand, value: str | None, along: list[int]
) -> str:
    """x with what the slice's mode puts beyond its ends."""
    mode = _PAD_MODES[layer.raw.mode.name]
    if mode == "wrap":
        g.require(19, "Pad that wraps")
    if mode == "constant" and value is None:
        value = _zero(g, layer)
    rank = len(layer.shape())
    if not isinstance(before, str) and not isinstance(after, str):
        pads = np.zeros((2, rank), np.int64)
        pads[:, along] = before, after
        return g.op("Pad", x, pads.reshape(-1), value, mode=mode) if pads.any() else x
    if along != list(range(rank)):
        zeros = np.zeros(rank, np.int64)
        before, after = (g.op("ScatterElements", zeros, along, ends) for ends in (before, after))
    return g.op("Pad", x, g.op("Concat", before, after, axis=0), value, mode=mode)


def _zero(g: Graph, layer: Layer) -> str | None:
    """What pads where a layer says nothing: minus zero, since onnxruntime joins a Pad of zeros and a MaxPool after it,
    whose own padding never competes for the maximum.
    """
    dtype = numpy_type(g.type_code(layer.outputs[0]))
    return None if dtype.kind in "iub" else g.constant(np.array(-0.0, dtype))


def _sliced(g: Graph, x: str, start: Operand, end: Operand, step: Operand, along: list[int], sizes: Operand) -> str:
    """An ONNX Slice along the axes that it would change."""
    if any(isinstance(operand, str) for operand in (start, end, step)):
        return g.op("Slice", x, start, end, along, step)
    whole = (start == 0) & (step == 1) & (False if isinstance(sizes, str) else end == sizes)
    if whole.all():
        return x
    cut = [part[~whole] for part in (start, end, np.array(along), step)]
    return g.op("Slice", x, *cut)
