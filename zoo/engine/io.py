"""What a network takes and gives at its borders, whatever it computes in.

fp32   images float32 (N, C, H, W), normalised; outputs float32
fp16   the same in float16: half the bytes to copy
uint8  images uint8 (N, H, W, C), BGR as OpenCV has it or grey, already of the network's size; the network normalises.
       Outputs float32. (Frames of any size are `zoo.engine.end2end`.)
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from zoo.engine.shapes import INPUT, Shape, Shapes
from zoo.errors import Refused, ZooError, one_of
from zoo.network import Net, Tensor
from zoo.ops import div, index_select, sub, transpose
from zoo.preprocess import Resize
from zoo.registry import Model

Io = Literal["fp32", "fp16", "uint8"]
DTYPES = {"fp32": np.dtype(np.float32), "fp16": np.dtype(np.float16), "uint8": np.dtype(np.uint8)}


def check_io(io: Any, model: Model) -> Io:
    """`io`, if `model` can have it. Raises ZooError otherwise."""
    one_of("type of inputs and outputs", io, get_args(Io))
    if io == "uint8" and not isinstance(model.preprocess, Resize):
        kind = type(model.preprocess).__name__
        raise ZooError(f"--io uint8 needs bytes that are only to be normalised; {model.name} prepares by {kind}")
    return io


def outer(shape: Shape, io: Io) -> Shape:
    """The shape of the engine's input for (N, C, H, W) of the network inside."""
    n, c, h, w = shape
    return (n, h, w, c) if io == "uint8" else shape


def outer_shapes(shapes: Shapes, io: Io) -> Shapes:
    """The same of a profile."""
    parts = tuple(outer_shapes(part, io) for part in shapes.parts)
    return Shapes(*(outer(shape, io) for shape in (shapes.min, shapes.opt, shapes.max)), parts)


def add_input(net: Net, model: Model, shape: Shape, io: Io) -> Tensor:
    """The network's input, and the images (N, C, H, W) that it becomes for the first layer."""
    trt = net.trt
    dtype = {"fp32": trt.float32, "fp16": trt.float16, "uint8": getattr(trt, "uint8", None)}[io]
    x = net.network.add_input(net.unique(INPUT), dtype, outer(shape, io))
    if x is None:
        api = net.definition.api
        raise Refused(f"{api.name} refused an input of {io} and shape {outer(shape, io)}: {api.log.drain()}")
    name_open_axes(x, ("batch", "height", "width", "") if io == "uint8" else ("batch", "", "height", "width"))
    if io == "fp16" and x.dtype != net.dtype:
        return (net / "input").step(net.network.add_cast(x, net.dtype), "cast", x)
    return _normalised(net / "input", x, model.preprocess) if io == "uint8" else x


def name_open_axes(x: Tensor, names: tuple[str, ...]) -> None:
    """Names the axes of an input that are open (-1): before any layer is added, or TensorRT 8.6 refuses the first."""
    for axis, (size, name) in enumerate(zip(x.shape, names)):
        if size == -1 and name:
            x.set_dimension_name(axis, name)


def _normalised(net: Net, x: Tensor, spec: Any) -> Tensor:
    """(x / divisor - mean) / std in fp32, with the roundings of `zoo.preprocess`."""
    at = net.fp32
    x = transpose(at, at.step(net.network.add_cast(x, net.trt.float32), "cast", x), (0, 3, 1, 2))
    if spec.color == "RGB":
        x = index_select(at, x, 1, (2, 1, 0))
    x = div(at, x, spec.divisor)
    if any(spec.mean) or any(value != 1 for value in spec.std):
        mean, std = (np.reshape(np.float32(values), (1, -1, 1, 1)) for values in (spec.mean, spec.std))
        x = div(at, sub(at, x, at.constant(mean, "mean")), at.constant(std, "std"))
    return x


def output_type(net: Net, io: Io, tensor: Tensor) -> Any:
    """The type of an output: counts stay int32."""
    if tensor.dtype == net.trt.int32:
        return tensor.dtype
    return net.trt.float16 if io == "fp16" else net.trt.float32
