"""Handlers: convolution, pooling, normalization, activation, attention and what else has its own layer in networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.onnx.graph import BOOL, INT64, Graph, Operand, numpy_type
from zoo.onnx.handlers import handles
from zoo.onnx.reading import Layer, bits, dims

_ACTIVATIONS = {  # ONNX operator and its attributes: their values, or the name of the TensorRT attribute
    "RELU": ("Relu", {}),
    "SIGMOID": ("Sigmoid", {}),
    "TANH": ("Tanh", {}),
    "LEAKY_RELU": ("LeakyRelu", {"alpha": "alpha"}),
    "ELU": ("Elu", {"alpha": "alpha"}),
    "SELU": ("Selu", {"alpha": "alpha", "gamma": "beta"}),
    "SOFTSIGN": ("Softsign", {}),
    "HARD_SIGMOID": ("HardSigmoid", {"alpha": "alpha", "beta": "beta"}),
    "THRESHOLDED_RELU": ("ThresholdedRelu", {"alpha": "alpha"}),
}
_MODES = {"NEAREST": "nearest", "LINEAR": "linear", "CUBIC": "cubic"}
_ROUNDING = {"HALF_UP": "round_prefer_ceil", "HALF_DOWN": "round_prefer_floor", "FLOOR": "floor", "CEIL": "ceil"}
_GRID_BORDERS = {"FILL": "zeros", "CLAMP": "border", "REFLECT": "reflection"}


@handles("CONVOLUTION")
def convolution(g: Graph, layer: Layer, x: str, kernel: str | None = None, bias: str | None = None) -> str:
    shape = (layer.raw.num_output_maps, layer.shape()[1] // layer.raw.num_groups)
    return g.op("Conv", x, *_kernel(g, layer, shape, kernel, bias), **_window(layer, tuple(layer.raw.kernel_size_nd)))


@handles("DECONVOLUTION")
def deconvolution(g: Graph, layer: Layer, x: str, kernel: str | None = None, bias: str | None = None) -> str:
    shape = (layer.shape()[1], layer.raw.num_output_maps // layer.raw.num_groups)
    window = _window(layer, tuple(layer.raw.kernel_size_nd))
    return g.op("ConvTranspose", x, *_kernel(g, layer, shape, kernel, bias), **window)


def _kernel(
    g: Graph, layer: Layer, channels: tuple[int, int], kernel: str | None, bias: str | None
) -> tuple[str, str | None]:
    """Kernel and bias, as weights of the layer or as its inputs."""
    if not kernel:
        kernel = _weights(g, layer, "kernel", (*channels, *tuple(layer.raw.kernel_size_nd)))
    return kernel or layer.refuse("no kernel"), bias or _weights(g, layer, "bias", (-1,))


def _weights(g: Graph, layer: Layer, attribute: str, shape: Sequence[int]) -> str | None:
    array = layer.weights(attribute)
    code = g.type_code(layer.outputs[0])
    return None if array is None else g.constant(array.reshape(shape), f"{layer.name}.{attribute}", code)


def _window(layer: Layer, size: tuple[int, ...]) -> dict[str, Any]:
    """Attributes that convolution, deconvolution and pooling share."""
    raw = layer.raw
    mode = raw.padding_mode.name
    window: dict[str, Any] = {"kernel_shape": size, "strides": tuple(raw.stride_nd)}
    if layer.kind != "POOLING":
        window |= {"dilations": tuple(raw.dilation_nd), "group": raw.num_groups}
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        return window | {"auto_pad": mode}
    if mode not in ("EXPLICIT_ROUND_DOWN", "EXPLICIT_ROUND_UP"):
        layer.refuse(f"padding mode {mode}")
    if mode == "EXPLICIT_ROUND_UP" and layer.kind == "POOLING":
        window["ceil_mode"] = 1
    elif mode == "EXPLICIT_ROUND_UP":
        layer.refuse("an output size that is rounded up")
    return window | {"pads": (*tuple(raw.pre_padding), *tuple(raw.post_padding))}


@handles("POOLING")
def pooling(g: Graph, layer: Layer, x: str) -> str:
    window = _window(layer, tuple(layer.raw.window_size_nd))
    kind = layer.raw.type.name
    count = int(not layer.raw.average_count_excludes_padding)
    largest = g.op("MaxPool", x, **window) if kind != "AVERAGE" else ""
    average = g.op("AveragePool", x, **window, count_include_pad=count) if kind != "MAX" else ""
    if kind != "MAX_AVERAGE_BLEND":
        return largest or average
    dtype = numpy_type(g.type_code(layer.outputs[0]))
    blend = layer.raw.blend_factor
    return g.op("Add", g.op("Mul", largest, np.array(1 - blend, dtype)), g.op("Mul", average, np.array(blend, dtype)))


@handles("SCALE")
def scale(g: Graph, layer: Layer, x: str) -> str:
    """(x * scale + shift) ^ power."""
    mode, axis, sizes = layer.raw.mode.name, layer.raw.channel_axis, layer.shape()
    if mode == "ELEMENTWISE" and min(sizes[axis:]) < 0:
        layer.refuse("one number per element where the shape is known only at run time")
    shape = {"UNIFORM": (), "CHANNEL": (-1, *[1] * (len(sizes) - axis - 1)), "ELEMENTWISE": sizes[axis:]}[mode]
    if mode == "CHANNEL" and axis == 1:
        x = _batch_normalization(g, layer, x, sizes[1])
    else:
        factor, shift = _weights(g, layer, "scale", shape), _weights(g, layer, "shift", shape)
        x = g.op("Mul", x, factor) if factor else x
        x = g.op("Add", x, shift) if shift else x
    power = _weights(g, layer, "power", shape)
    return x if power is None or (g.known(power) == 1).all() else g.op("Pow", x, power)


def _batch_normalization(g: Graph, layer: Layer, x: str, channels: int) -> str:
    """Scale and shift per channel as one node, which onnxruntime folds into a convolution before it."""
    dtype = numpy_type(g.type_code(layer.outputs[0]))
    factor, shift = _weights(g, layer, "scale", (-1,)), _weights(g, layer, "shift", (-1,))
    if not factor and not shift:
        return x
    zeros, ones = np.zeros(channels, dtype), np.ones(channels, dtype)
    return g.op("BatchNormalization", x, factor or ones, shift or zeros, zeros, ones, epsilon=0.0)


@handles("ACTIVATION")
def activation(g: Graph, layer: Layer, x: str) -> str:
    raw, kind = layer.raw, layer.raw.type.name
    dtype = numpy_type(g.type_code(layer.outputs[0]))
    alpha, beta = (np.array(value).astype(dtype) for value in (raw.alpha, raw.beta))
    if kind in _ACTIVATIONS:
        operator, attributes = _ACTIVATIONS[kind]
        return g.op(operator, x, **{name: getattr(raw, source) for name, source in attributes.items()})
    if kind in ("GELU_ERF", "GELU_TANH"):
        return _gelu(g, x, dtype, tanh=kind == "GELU_TANH")
    if kind == "CLIP":
        return g.op("Clip", x, alpha, beta)
    if kind in ("SOFTPLUS", "SCALED_TANH"):  # alpha * f(beta * x)
        x = x if beta == 1 else g.op("Mul", x, beta)
        x = g.op("Softplus" if kind == "SOFTPLUS" else "Tanh", x)
        return x if alpha == 1 else g.op("Mul", x, alpha)
    return layer.refuse(f"activation {kind}")


def _gelu(g: Graph, x: str, dtype: np.dtype, tanh: bool) -> str:
    """Gelu, written out before opset 20 in the order that onnxruntime and TensorRT fuse again."""
    if g.opset >= 20:
        return g.op("Gelu", x, approximate="tanh" if tanh else None)

    def number(value: float) -> np.ndarray:
        return np.array(value).astype(dtype)

    if tanh:
        cubed = g.op("Mul", number(0.044715), g.op("Mul", x, g.op("Mul", x, x)))
        gate = g.op("Tanh", g.op("Mul", number((2 / np.pi) ** 0.5), g.op("Add", x, cubed)))
    else:
        gate = g.op("Erf", g.op("Div", x, number(2**0.5)))
    return g.op("Mul", g.op("Mul", x, g.op("Add", gate, number(1))), number(0.5))


@handles("PARAMETRIC_RELU")
def parametric_relu(g: Graph, layer: Layer, x: str, slope: str) -> str:
    return g.op("PRelu", x, slope)


@handles("SOFTMAX")
def softmax(g: Graph, layer: Layer, x: str) -> str:
    return g.op("Softmax", x, axis=layer.axis())


@handles("LRN")
def lrn(g: Graph, layer: Layer, x: str) -> str:
    raw = layer.raw
    return g.op("LRN", x, size=raw.window_size, alpha=raw.alpha, beta=raw.beta, bias=raw.k)


@handles("NORMALIZATION")
def normalization(g: Graph, layer: Layer, x: str, scale: str, bias: str) -> str:
    axes, shape, parameters = bits(layer.raw.axes), layer.shape(), layer.shape(1)
    trailing = axes == list(range(axes[0], len(shape)))
    groups = layer.raw.num_groups
    if groups == 1 and trailing and parameters == (1,) * axes[0] + shape[axes[0] :] and min(parameters) > 0:
        scale, bias = (g.reshape(value, shape[axes[0] :]) for value in (scale, bias))
        return g.op("LayerNormalization", x, scale, bias, axis=axes[0], epsilon=layer.raw.epsilon)
    per_channel = trailing and axes[0] == 2 and parameters == (1, parameters[1], *[1] * (len(shape) - 2))
    if groups == 1 and per_channel and parameters[1] == shape[1]:
        scale, bias = (g.reshape(value, (-1,)) for value in (scale, bias))
        return g.op("InstanceNormalization", x, scale, bias, epsilon=layer.raw.epsilon)
    if groups > 1 and per_channel:
        return _group_normalization(g, layer, x, scale, bias, groups)
    if groups > 1:
        layer.refuse(f"{groups} groups with axes {axes} and a scale of shape {parameters}")
    return _plain_normalization(g, layer, x, scale, bias, axes)


def _group_normalization(g: Graph, layer: Layer, x: str, scale: str, bias: str, groups: int) -> str:
    """Instance normalization of groups that are seen as channels. The scale is per channel; in version 1, per group."""
    shape, dtype = layer.shape(), numpy_type(g.type_code(layer.outputs[0]))
    per_group = layer.shape(1)[1] == groups
    one, zero = np.ones(groups, dtype), np.zeros(groups, dtype)
    inner = [g.reshape(value, (-1,)) for value in (scale, bias)] if per_group else [one, zero]
    y = g.op("Reshape", x, [0, groups, -1])
    y = g.op("InstanceNormalization", y, *inner, epsilon=layer.raw.epsilon)
    y = g.op("Reshape", y, (0, *shape[1:]) if min(shape[1:]) > 0 else g.op("Shape", x, dtype=INT64))
    return y if per_group else g.op("Add", g.op("Mul", y, scale), bias)


def _plain_normalization(g: Graph, layer: Layer, x: str, scale: str, bias: str, axes: list[int]) -> str:
    epsilon = np.array(layer.raw.epsilon).astype(numpy_type(g.type_code(layer.outputs[0])))
    centred = g.op("Sub", x, g.reduce("ReduceMean", x, axes))
    variance = g.reduce("ReduceMean", g.op("Mul", centred, centred), axes)
    y = g.op("Div", centred, g.op("Sqrt", g.op("Add", variance, epsilon)))
    return g.op("Add", g.op("Mul", y, scale), bias)


@handles("RESIZE")
def resize(g: Graph, layer: Layer, x: str, size: str | None = None) -> str:
    raw = layer.raw
    coordinates = raw.coordinate_transformation.name.lower()
    if raw.selector_for_single_pixel.name == "UPPER":
        if coordinates != "half_pixel":
            layer.refuse(f"selector UPPER with {coordinates}")
        coordinates = "pytorch_half_pixel"
    mode = _MODES[raw.resize_mode.name]
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attributes["nearest_mode"] = _ROUNDING[raw.nearest_rounding.name]
    if mode == "cubic":
        attributes |= {"cubic_coeff_a": raw.cubic_coeff, "exclude_outside": int(raw.exclude_outside)}
    scales = np.array(list(raw.scales), np.float32)
    if size or not scales.size:
        sizes = g.ints(size) if size else np.array(dims(raw.shape), np.int64)
        return g.op("Resize", x, None, None, sizes, **attributes)
    return g.op("Resize", x, None, scales, **attributes)


@handles("GRID_SAMPLE")
def grid_sample(g: Graph, layer: Layer, x: str, grid: str) -> str:
    raw = layer.raw
    border = _GRID_BORDERS.get(raw.sample_mode.name) or layer.refuse(f"sample mode {raw.sample_mode.name}")
    mode = _MODES[raw.interpolation_mode.name]
    if len(layer.shape()) > 4:
        g.require(20, "GridSample in three dimensions")
    if g.opset < 20:
        mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    return g.op("GridSample", x, grid, mode=mode, padding_mode=border, align_corners=int(raw.align_corners))


@handles("NMS")
def nms(
    g: Graph, layer: Layer, boxes: str, scores: str, count: str, iou: str | None = None, score: str | None = None
) -> tuple[str, str]:
    """Sorted by image, then by falling score, as TensorRT does. ONNX sorts by class before the score."""
    if len(layer.shape()) != 3:
        layer.refuse("boxes per class")
    center = int(layer.raw.bounding_box_format.name == "CENTER_SIZES")
    count = g.ints(g.reshape(count, (1,)))
    limits = [value and g.reshape(value, (1,)) for value in (iou, score)]
    by_class = g.transpose(scores, (0, 2, 1))
    found = g.op("NonMaxSuppression", boxes, by_class, count, *limits, center_point_box=center, dtype=INT64)
    total = g.op("Gather", g.op("Shape", found, dtype=INT64), [0], dtype=INT64)
    found = _ordered(g, found, g.op("GatherND", by_class, found), total, descending=True)
    if layer.shape()[0] != 1:
        found = _ordered(g, found, g.op("Gather", found, 0, axis=1), total, descending=False)
    return found, g.op("Squeeze", total, dtype=INT64)


def _ordered(g: Graph, rows: str, key: str, count: str, descending: bool) -> str:
    """Rows in the order of their keys, and in the order they have where keys are equal."""
    _, order = g.op("TopK", key, count, outputs=2, axis=0, largest=int(descending))
    return g.op("Gather", rows, order, dtype=INT64)


@handles("ROTARY_EMBEDDING")
def rotary_embedding(g: Graph, layer: Layer, x: str, cos: str, sin: str, positions: str | None = None) -> str:
    rank, width = len(layer.shape()), layer.shape()[-1]
    if rank != 4:
        layer.refuse(f"an input of {rank} dimensions")
    part = layer.raw.rotary_embedding_dim or width
    if positions:
        cos, sin = (g.op("Gather", table, positions, axis=0) for table in (cos, sin))
    cos, sin = (g.op("Unsqueeze", table, [1]) for table in (cos, sin))
    interleaved, half = layer.raw.interleaved, part // 2

    def cut(start: int, end: int, step: int = 1) -> str:
        return g.op("Slice", x, [start], [end], [-1], [step])

    a, b = (cut(0, part, 2), cut(1, part, 2)) if interleaved else (cut(0, half), cut(half, part))
    real = g.op("Sub", g.op("Mul", a, cos), g.op("Mul", b, sin))
    imaginary = g.op("Add", g.op("Mul", a, sin), g.op("Mul", b, cos))
    if interleaved:
        pairs = g.op("Concat", g.op("Unsqueeze", real, [-1]), g.op("Unsqueeze", imaginary, [-1]), axis=-1)
        turned = g.op("Reshape", pairs, [0, 0, 0, part])
    else:
        turned = g.op("Concat", real, imaginary, axis=-1)
    return turned if part == width else g.op("Concat", turned, cut(part, width), axis=-1)


@handles("ATTENTION_INPUT")
def attention_input(g: Graph, layer: Layer, *inputs: str) -> tuple[()]:
    return ()  # all is written at the end of the pair


@handles("ATTENTION_OUTPUT")
def attention_output(g: Graph, layer: Layer, _: None) -> str:
    """softmax(q k^T + mask) v; TensorRT applies no 1/sqrt(d)."""
    attention = layer.raw.attention
    if getattr(attention, "query_lengths", None) or getattr(attention, "key_value_lengths", None):
        layer.refuse("attention over lengths given at run time")
    if attention.normalization_quantize_scale is not None:
        layer.refuse("quantized attention")
    tensors = [attention.get_input(i) for i in range(3)]
    (q, k, v), (q_shape, k_shape, *_) = [g.values[t.name] for t in tensors], [tuple(t.shape) for t in tensors]
    heads, kept = q_shape[1], k_shape[1]
    if heads < 0 or kept < 0 or (heads != kept and k_shape[3] < 0):
        layer.refuse("a number or a size of heads that is known only at run time")
    if heads != kept:
        k, v = (_repeated(g, value, heads, heads // kept, tuple(t.shape)) for value, t in zip((k, v), tensors[1:]))
    logits = g.op("MatMul", q, g.transpose(k, (0, 1, 3, 2)))
    lowest = np.array(-np.inf, numpy_type(g.type_code(tensors[0])))
    causal = (
        attention.causal_kind.name if hasattr(attention, "causal_kind") else ("NONE", "UPPER_LEFT")[attention.causal]
    )
    if attention.mask is not None:
        mask = g.values[attention.mask.name]
        boolean = g.type_code(attention.mask) == BOOL
        logits = g.op("Where", mask, logits, lowest) if boolean else g.op("Add", logits, mask)
    elif causal != "NONE":
        rows, columns = g.dim(q, q_shape, [2]), g.dim(k, k_shape, [2])
        logits = g.op("Where", _causal(g, rows, columns, causal), logits, lowest)
    weights = g.op("Softmax", logits, axis=-1) if attention.norm_op.name == "SOFTMAX" else logits
    return g.op("MatMul", weights, v)


def _repeated(g: Graph, value: str, heads: int, times: int, shape: tuple[int, ...]) -> str:
    """Keys or values with each head repeated, for queries that share them."""
    stacked = g.op("Concat", *[g.op("Unsqueeze", value, [2])] * times, axis=2)
    return g.op("Reshape", stacked, [0, heads, -1, shape[-1]])


def _causal(g: Graph, rows: Operand, columns: Operand, kind: str) -> Operand:
    """True where a query (row) may see a key (column): the diagonal starts upper left or ends lower right."""
    shift = g.calc("Sub", columns, rows) if kind == "LOWER_RIGHT" else np.zeros(1, np.int64)
    if not any(isinstance(operand, str) for operand in (rows, columns, shift)):
        return np.tri(int(rows[0]), int(columns[0]), int(shift[0]), dtype=bool)
    row, column = (g.op("Range", 0, g.op("Squeeze", size), 1, dtype=INT64) for size in (rows, columns))
    return g.op("GreaterOrEqual", g.op("Unsqueeze", g.op("Add", row, shift), [1]), column)
