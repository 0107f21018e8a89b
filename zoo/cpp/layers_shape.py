"""Writers: layers that move numbers without changing them."""

from __future__ import annotations

from zoo.cpp.code import Call, Code, boolean, constant, dims, refuse, writes
from zoo.cpp.layers_math import tensors
from zoo.onnx.reading import Layer
from zoo.onnx.reading import dims as set_dims


@writes("SHUFFLE")
def shuffle(c: Code, layer: Layer) -> Call:
    raw, given = layer.raw, c.further_inputs(layer, 1)
    first = list(raw.first_transpose)[: len(layer.shape())]
    second = list(raw.second_transpose)[: len(layer.out_shape())]
    target = None if given else set_dims(raw.reshape_dims)
    settings = _transpose("setFirstTranspose", first)
    if target is not None:
        settings.append(f"setReshapeDimensions({dims(target)})")
    if not raw.zero_is_placeholder:
        settings.append(f"setZeroIsPlaceholder({boolean(False)})")
    return Call(f"addShuffle({c.input(layer)})", [*settings, *_transpose("setSecondTranspose", second), *given])


def _transpose(setter: str, order: list[int]) -> list[str]:
    return [] if order == sorted(order) else [f"{setter}(order({{{', '.join(map(str, order))}}}))"]


@writes("SQUEEZE", "UNSQUEEZE")
def squeeze(c: Code, layer: Layer) -> Call:
    c.require((10, 7), layer)
    return Call(f"add{layer.kind.title()}({c.input(layer)}, {c.input(layer, 1)})")


@writes("SHAPE")
def shape(c: Code, layer: Layer) -> Call:
    return Call(f"addShape({c.input(layer)})")


@writes("CONCATENATION")
def concatenation(c: Code, layer: Layer) -> Call:
    return Call(f"addConcatenation({tensors(c, layer)}, {len(layer.inputs)})", [f"setAxis({layer.raw.axis})"])


@writes("GATHER")
def gather(c: Code, layer: Layer) -> Call:
    raw = layer.raw
    settings = [f"setGatherAxis({raw.axis})"] if raw.mode.name != "ND" else []
    if raw.num_elementwise_dims:
        settings.append(f"setNbElementWiseDims({raw.num_elementwise_dims})")
    return Call(f"addGatherV2({c.input(layer)}, {c.input(layer, 1)}, {constant('GatherMode', raw.mode)})", settings)


@writes("SCATTER")
def scatter(c: Code, layer: Layer) -> Call:
    inputs = ", ".join(c.input(layer, index) for index in range(3))
    settings = [f"setAxis({layer.raw.axis})"] if layer.raw.mode.name != "ND" else []
    return Call(f"addScatter({inputs}, {constant('ScatterMode', layer.raw.mode)})", settings)


@writes("REVERSE_SEQUENCE")
def reverse_sequence(c: Code, layer: Layer) -> Call:
    settings = [f"setBatchAxis({layer.raw.batch_axis})", f"setSequenceAxis({layer.raw.sequence_axis})"]
    return Call(f"addReverseSequence({c.input(layer)}, {c.input(layer, 1)})", settings)


@writes("PADDING")
def padding(c: Code, layer: Layer) -> Call:
    before, after = dims(layer.raw.pre_padding_nd), dims(layer.raw.post_padding_nd)
    return Call(f"addPaddingNd({c.input(layer)}, {before}, {after})")


@writes("SLICE")
def slice_(c: Code, layer: Layer) -> Call:
    raw, given = layer.raw, c.further_inputs(layer, 1)
    axes = set_dims(getattr(raw, "axes", None))
    rank = len(layer.shape()) if axes is None else len(axes)
    parts = []
    for index, attribute in enumerate(("start", "shape", "stride"), 1):
        tensor = layer.inputs[index] if index < len(layer.inputs) else None
        value = (0,) * rank if tensor is not None else set_dims(getattr(raw, attribute))
        parts.append(dims(value) if value is not None else refuse(layer, f"no {attribute}"))
    settings = []
    if raw.mode.name != "STRICT_BOUNDS":
        settings.append(f"setMode({constant('SampleMode', raw.mode)})")
    if axes is None:
        return Call(f"addSlice({c.input(layer)}, {', '.join(parts)})", [*settings, *given])
    if any(tensor is not None for tensor in layer.inputs[1:4]) or len(layer.inputs) > 5:
        refuse(layer, "named axes with sizes that are tensors")
    return Call(f"slice(network, {c.input(layer)}, {', '.join(parts)}, {dims(axes)})", [*settings, *given])
