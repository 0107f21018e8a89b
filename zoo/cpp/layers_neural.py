"""Writers: convolution, pooling, normalisation, activation, attention and what else has its own layer in networks."""

from __future__ import annotations

from zoo.cpp.code import Call, Code, boolean, constant, dims, number, refuse, writes
from zoo.onnx.reading import Layer
from zoo.onnx.reading import dims as set_dims

_PLAIN = {"RELU", "SIGMOID", "TANH", "SOFTSIGN"}  # activations that have no numbers
_GELUS = {"GELU_ERF", "GELU_TANH"}


@writes("CONVOLUTION", "DECONVOLUTION")
def convolution(c: Code, layer: Layer) -> Call:
    raw, given = layer.raw, c.further_inputs(layer, 1)
    dtype = layer.outputs[0].dtype.name
    kernel = "none()" if given else c.stored(layer, "kernel", f"{layer.name}.kernel", dtype)
    bias = c.stored(layer, "bias", f"{layer.name}.bias", dtype)
    settings = _window(layer)
    if any(size != 1 for size in raw.dilation_nd):
        settings.append(f"setDilationNd({dims(raw.dilation_nd)})")
    if raw.num_groups != 1:
        settings.append(f"setNbGroups({raw.num_groups})")
    function = f"add{layer.kind.title()}Nd"
    size = dims(raw.kernel_size_nd)
    return Call(f"{function}({c.input(layer)}, {raw.num_output_maps}, {size}, {kernel}, {bias})", [*settings, *given])


def _window(layer: Layer) -> list[str]:
    """What convolution, deconvolution and pooling share, where it is not TensorRT's default."""
    raw = layer.raw
    settings = [] if all(step == 1 for step in raw.stride_nd) else [f"setStrideNd({dims(raw.stride_nd)})"]
    before, after = tuple(raw.pre_padding), tuple(raw.post_padding)
    if before == after and any(before):
        settings.append(f"setPaddingNd({dims(before)})")
    elif before != after:
        settings += [f"setPrePadding({dims(before)})", f"setPostPadding({dims(after)})"]
    if raw.padding_mode.name != "EXPLICIT_ROUND_DOWN":
        settings.append(f"setPaddingMode({constant('PaddingMode', raw.padding_mode)})")
    return settings


@writes("POOLING")
def pooling(c: Code, layer: Layer) -> Call:
    raw = layer.raw
    settings = _window(layer)
    if raw.type.name != "MAX":
        settings.append(f"setAverageCountExcludesPadding({boolean(raw.average_count_excludes_padding)})")
    if raw.type.name == "MAX_AVERAGE_BLEND":
        settings.append(f"setBlendFactor({number(raw.blend_factor)})")
    kind = constant("PoolingType", raw.type)
    return Call(f"addPoolingNd({c.input(layer)}, {kind}, {dims(raw.window_size_nd)})", settings)


@writes("SCALE")
def scale(c: Code, layer: Layer) -> Call:
    raw, dtype = layer.raw, layer.outputs[0].dtype.name
    shift, factor, power = (
        c.stored(layer, attribute, f"{layer.name}.{attribute}", dtype) for attribute in ("shift", "scale", "power")
    )
    mode = constant("ScaleMode", raw.mode)
    return Call(f"addScaleNd({c.input(layer)}, {mode}, {shift}, {factor}, {power}, {raw.channel_axis})")


@writes("ACTIVATION")
def activation(c: Code, layer: Layer) -> Call:
    raw, kind = layer.raw, layer.raw.type.name
    if kind in _GELUS:  # later than TensorRT 8
        return Call(f"{kind.lower()}(network, {c.input(layer)})")
    settings = [] if kind in _PLAIN else [f"setAlpha({number(raw.alpha)})", f"setBeta({number(raw.beta)})"]
    return Call(f"addActivation({c.input(layer)}, {constant('ActivationType', raw.type)})", settings)


@writes("PARAMETRIC_RELU")
def parametric_relu(c: Code, layer: Layer) -> Call:
    return Call(f"addParametricReLU({c.input(layer)}, {c.input(layer, 1)})")


@writes("SOFTMAX")
def softmax(c: Code, layer: Layer) -> Call:
    return Call(f"addSoftMax({c.input(layer)})", [f"setAxes({layer.raw.axes}U)"])


@writes("LRN")
def lrn(c: Code, layer: Layer) -> Call:
    raw = layer.raw
    return Call(
        f"addLRN({c.input(layer)}, {raw.window_size}, {number(raw.alpha)}, {number(raw.beta)}, {number(raw.k)})"
    )


@writes("NORMALIZATION")
def normalization(c: Code, layer: Layer) -> Call:
    raw = layer.raw
    inputs = ", ".join(c.input(layer, index) for index in range(3))
    settings = [f"setEpsilon({number(raw.epsilon)})"]
    if raw.num_groups != 1:
        settings.append(f"setNbGroups({raw.num_groups})")
    if getattr(raw, "is_v2", False):  # the same but for groups; where there is only the first, it is taken
        function = "normalization" if raw.num_groups == 1 else "addNormalizationV2"
        if raw.num_groups != 1:
            c.require((10, 15), layer)
            return Call(f"{function}({inputs}, {raw.axes}U)", settings)
        return Call(f"{function}(network, {inputs}, {raw.axes}U)", settings)
    return Call(f"addNormalization({inputs}, {raw.axes}U)", settings)


@writes("RESIZE")
def resize(c: Code, layer: Layer) -> Call:
    raw, given = layer.raw, c.further_inputs(layer, 1)
    settings = [
        f"setResizeMode({constant('InterpolationMode', raw.resize_mode)})",
        f"setCoordinateTransformation({constant('ResizeCoordinateTransformation', raw.coordinate_transformation)})",
        f"setSelectorForSinglePixel({constant('ResizeSelector', raw.selector_for_single_pixel)})",
    ]
    if raw.resize_mode.name == "NEAREST":
        settings.append(f"setNearestRounding({constant('ResizeRoundMode', raw.nearest_rounding)})")
    if raw.resize_mode.name == "CUBIC":
        settings.append(f"setCubicCoeff({number(raw.cubic_coeff)})")
        settings.append(f"setExcludeOutside({boolean(raw.exclude_outside)})")
    scales = list(raw.scales)
    if scales and not given:
        values = ", ".join(map(number, scales))
        settings.append(f"setScales(std::vector<float>{{{values}}}.data(), {len(scales)})")
    elif not given:
        settings.append(f"setOutputDimensions({dims(set_dims(raw.shape) or refuse(layer, 'no size'))})")
    return Call(f"addResize({c.input(layer)})", [*settings, *given])


@writes("GRID_SAMPLE")
def grid_sample(c: Code, layer: Layer) -> Call:
    raw = layer.raw
    settings = [
        f"setInterpolationMode({constant('InterpolationMode', raw.interpolation_mode)})",
        f"setAlignCorners({boolean(raw.align_corners)})",
        f"setSampleMode({constant('SampleMode', raw.sample_mode)})",
    ]
    return Call(f"addGridSample({c.input(layer)}, {c.input(layer, 1)})", settings)


@writes("NMS")
def nms(c: Code, layer: Layer) -> Call:
    raw = layer.raw
    inputs = ", ".join(c.input(layer, index) for index in range(3))
    boxes = constant("BoundingBoxFormat", raw.bounding_box_format)
    settings = [f"setBoundingBoxFormat({boxes})", f"setTopKBoxLimit({raw.topk_box_limit})"]
    return Call(f"addNMS({inputs})", [*settings, *c.further_inputs(layer, 3)])


@writes("ROTARY_EMBEDDING")
def rotary_embedding(c: Code, layer: Layer) -> Call:
    c.require((10, 15), layer)
    raw = layer.raw
    inputs = ", ".join(c.input(layer, index) for index in range(3))
    how = f"{boolean(raw.interleaved)}, {raw.rotary_embedding_dim}"
    return Call(f"addRotaryEmbedding({inputs}, {how})", c.further_inputs(layer, 3))
