"""`Net`: names, taps, precision, and what it says when something is refused."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest

from zoo import ops
from zoo.engine.build import compile_network
from zoo.engine.definition import define
from zoo.engine.shapes import Shapes
from zoo.errors import Refused, ZooError
from zoo.network import Definition, Net, Tensor
from zoo.registry import get_model
from zoo.runtime.cpu import CpuSession
from zoo.trt import Api
from zoo.weights import RandomWeights, Weights, from_arrays

DefineNet = Callable[..., Definition]
Arrays = dict[str, np.ndarray]


def random_arrays(**shapes: tuple[int, ...]) -> Arrays:
    """Arrays by name; `__` in a keyword stands for a dot."""
    random = np.random.default_rng(0)
    return {name.replace("__", "."): random.uniform(0.1, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def conv_arrays(scope: str, out: int, channels: int = 8, k: int = 3) -> Arrays:
    arrays = random_arrays(weight=(out, channels, k, k), bias=(out,))
    return {f"{scope}.{name}": array for name, array in arrays.items()}


def bn_arrays(scope: str, channels: int) -> Arrays:
    arrays = random_arrays(weight=(channels,), bias=(channels,), running_mean=(channels,), running_var=(channels,))
    return {f"{scope}.{name}": array for name, array in arrays.items()}


def layers(definition: Definition) -> list[tuple[str, str]]:
    """(layer name, type of what it makes), in order."""
    network = definition.network
    found = [network.get_layer(i) for i in range(network.num_layers)]
    return [(layer.name, layer.get_output(0).dtype.name) for layer in found]


# Scopes and names


def test_a_scope_descends_like_a_module_path(define_net: DefineNet) -> None:
    seen: list[str] = []

    def build(net: Net, x: Tensor) -> Tensor:
        seen.extend([net.scope, (net / "layer1").scope, (net / "layer1" / 0 / "conv1").scope, net.fp32.scope])
        return ops.relu(net / "layer1" / 0 / "relu", x)

    assert list(define_net(build).taps) == ["layer1.0.relu"]
    assert seen == ["", "layer1", "layer1.0.conv1", ""]


def test_layer_tensor_and_tap_bear_the_scope(define_net: DefineNet) -> None:
    definition = define_net(lambda net, x: ops.relu(net / "a" / "b", ops.max_pool(net / "a" / "pool", x, 2)))
    assert [name for name, _ in layers(definition)] == ["a.pool", "a.b", "logits.output"]
    assert {tap: tensor.name for tap, tensor in definition.taps.items()} == {"a.pool": "a.pool", "a.b": "a.b"}


def test_a_module_that_is_called_again_is_counted(define_net: DefineNet) -> None:
    def build(net: Net, x: Tensor) -> Tensor:
        for _ in range(3):
            x = ops.relu(net / "relu", x)
        return x

    definition = define_net(build)
    assert list(definition.taps) == ["relu", "relu:1", "relu:2"]
    assert [name for name, _ in layers(definition)][:3] == ["relu", "relu:1", "relu:2"]


def test_a_step_is_named_below_its_scope_and_is_no_tap(define_net: DefineNet) -> None:
    definition = define_net(lambda net, x: ops.add(net / "m", ops.flatten(net / "m", x), ops.flatten(net / "m", x)))
    assert [name for name, _ in layers(definition)] == ["m.flatten", "m.flatten:1", "m.add", "logits.output"]
    assert definition.taps == {}


def test_a_module_of_several_ops_taps_what_it_returns(define_net: DefineNet) -> None:
    def build(net: Net, x: Tensor) -> Tensor:
        return (net / "m").tap(ops.add(net / "m", x, ops.relu(net / "m" / "relu", x)))

    definition = define_net(build)
    assert {tap: tensor.name for tap, tensor in definition.taps.items()} == {"m.relu": "m.relu", "m": "m.add"}


def test_a_functional_call_is_named_below_its_scope_and_is_no_tap(define_net: DefineNet) -> None:
    def build(net: Net, x: Tensor) -> Tensor:
        at = net / "m"
        x = ops.relu(at.functional, ops.relu(at.functional, x))
        return at.tap(ops.relu(at.functional / "relu", x))

    definition = define_net(build)
    assert [name for name, _ in layers(definition)] == ["m.relu()", "m.relu():1", "m.relu", "logits.output"]
    assert {tap: tensor.name for tap, tensor in definition.taps.items()} == {"m.relu": "m.relu", "m": "m.relu"}


def test_a_functional_call_reads_weights_and_keeps_fp32(define_net: DefineNet) -> None:
    build = lambda net, x: ops.conv2d((net / "m").fp32.functional, x, 4, 3)  # noqa: E731
    definition = define_net(build, conv_arrays("m", 4), precision="fp16")
    assert layers(definition)[-2:] == [("m.conv2d()", "FLOAT"), ("logits.output", "FLOAT")]
    assert definition.parameters == {"m.weight": (4, 8, 3, 3), "m.bias": (4,)} and definition.taps == {}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_functional_convolution_runs(precision: str, define_net: DefineNet) -> None:
    definition = define_net(lambda net, x: ops.conv2d((net / "m").functional, x, 4, 3), conv_arrays("m", 4),
                            precision=precision)  # fmt: skip
    assert CpuSession(definition, threads=1)(np.ones((1, 8, 9, 9), np.float32))["logits"].shape == (1, 4, 9, 9)


def test_the_top_is_the_whole_model_and_no_tap(define_net: DefineNet) -> None:
    definition = define_net(lambda net, x: ops.relu(net / "relu", ops.relu(net, x)))
    assert [name for name, _ in layers(definition)] == ["relu()", "relu", "logits.output"]
    assert list(definition.taps) == ["relu"]


def test_a_step_does_not_disturb_the_numbering_of_modules(define_net: DefineNet) -> None:
    definition = define_net(lambda net, x: ops.relu(net / "m" / "add", ops.add(net / "m", x, x)))
    assert {tap: tensor.name for tap, tensor in definition.taps.items()} == {"m.add": "m.add:1"}


def test_a_module_of_several_ops_is_counted_too(define_net: DefineNet) -> None:
    def head(net: Net, x: Tensor) -> Tensor:
        return net.tap(ops.add(net, x, ops.relu(net / "relu", x)))

    definition = define_net(lambda net, x: head(net / "head", head(net / "head", x)))
    assert list(definition.taps) == ["head.relu", "head", "head.relu:1", "head:1"]  # in the order of definition


SECOND_CLAIMS = {
    "an op, then net.tap": (
        lambda net, x: net.tap(ops.relu(net, x)),
        r"'m' is already the module of relu and cannot be what net.tap records too: .*op\(net.functional, …\)$",
    ),
    "net.tap, then an op": (
        lambda net, x: ops.relu(net, net.tap(x)),
        "'m' is already what net.tap records and cannot be the module of relu too",
    ),
    "two ops": (
        lambda net, x: ops.relu(net, ops.tanh(net, x)),
        "'m' is already the module of tanh and cannot be the module of relu too",
    ),
    "an op where a module lies below": (
        lambda net, x: ops.relu(net, ops.tanh(net / "a" / "b", x)),
        r"relu claims 'm' as its module, which holds 'm.a.b': .* relu\(net.functional, …\), .* relu\(net / NAME, …\)$",
    ),
    "a module below an op": (
        lambda net, x: ops.tanh(net / "a" / "b", ops.relu(net, x)),
        r"relu claims 'm' as its module, which holds 'm.a.b'",
    ),
    "a folded module": (
        lambda net, x: ops.relu(net / "conv", ops.conv_bn(net, x, 4, 3)),
        "'m.conv' is already the module of conv2d and cannot be the module of relu too",
    ),
}


@pytest.mark.parametrize("case", SECOND_CLAIMS)
def test_a_second_claim_on_a_scope_is_refused(case: str, define_net: DefineNet) -> None:
    build, words = SECOND_CLAIMS[case]
    arrays = random_arrays(m__conv__weight=(4, 8, 3, 3)) | bn_arrays("m.bn", 4)
    with pytest.raises(ZooError, match=words):
        define_net(lambda net, x: build(net / "m", x), arrays)


def test_a_folded_pair_is_one_layer_with_the_tap_of_the_second(define_net: DefineNet) -> None:
    arrays = random_arrays(conv__weight=(4, 8, 3, 3)) | bn_arrays("bn", 4)
    definition = define_net(lambda net, x: ops.conv_bn(net, x, 4, 3), arrays)
    assert [name for name, _ in layers(definition)] == ["conv", "logits.output"]
    assert definition.taps["bn"].name == "bn" and list(definition.taps) == ["bn"]
    assert definition.folded == {"conv"}


def test_taps_are_values_that_a_session_returns(define_net: DefineNet) -> None:
    images = np.random.default_rng(0).standard_normal((1, 8, 9, 9), np.float32)
    definition = define_net(lambda net, x: ops.tanh(net / "tanh", ops.relu(net / "relu", x)))
    found = CpuSession(definition, taps=["relu"], threads=1)(images)
    np.testing.assert_array_equal(found["relu"], np.maximum(images, 0))
    np.testing.assert_allclose(found["logits"], np.tanh(np.maximum(images, 0)), rtol=1e-6)


def test_outputs_have_their_own_names_and_are_float32(define_net: DefineNet) -> None:
    def build(net: Net, x: Tensor) -> dict[str, Tensor]:
        x = ops.relu(net / "relu", x)
        return {"logits": x, "scores": ops.sigmoid(net / "sigmoid", x)}

    network = define_net(build, precision="fp16").network
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    assert [(tensor.name, tensor.dtype.name) for tensor in outputs] == [("logits", "FLOAT"), ("scores", "FLOAT")]


def test_parameters_and_buffers_are_told_apart(define_net: DefineNet) -> None:
    definition = define_net(lambda net, x: ops.batch_norm(net / "bn", x), bn_arrays("bn", 8))
    assert definition.parameters == {"bn.weight": (8,), "bn.bias": (8,)}
    assert definition.buffers == {"bn.running_mean": (8,), "bn.running_var": (8,)}


# Precision


def chain(net: Net, x: Tensor) -> Tensor:
    for name in ("a", "b", "c", "d"):
        x = ops.relu(net / name, x)
    return x


@pytest.mark.parametrize(("precision", "short"), [("fp16", "HALF"), ("bf16", "BF16")])
def test_an_island_is_fp32_between_two_casts(precision: str, short: str, define_net: DefineNet) -> None:
    found = layers(define_net(chain, precision=precision, islands=("b", "c")))
    assert found[:2] == [("a.cast", short), ("a", short)]
    assert found[2:5] == [("b.cast", "FLOAT"), ("b", "FLOAT"), ("c", "FLOAT")]
    assert found[5:] == [("d.cast", short), ("d", short), ("logits.output", "FLOAT")]


def test_an_island_is_a_pattern_over_scopes(define_net: DefineNet) -> None:
    build = lambda net, x: chain(net / "head", chain(net / "body", x))  # noqa: E731
    found = dict(layers(define_net(build, precision="fp16", islands=("head.*",))))
    assert {found[f"body.{name}"] for name in "abcd"} == {"HALF"}
    assert {found[f"head.{name}"] for name in "abcd"} == {"FLOAT"}


def test_what_an_op_declares_itself_stays_fp32_below(define_net: DefineNet) -> None:
    found = dict(layers(define_net(lambda net, x: chain(net.fp32 / "m", x), precision="fp16")))
    assert found == {"m.a": "FLOAT", "m.b": "FLOAT", "m.c": "FLOAT", "m.d": "FLOAT", "logits.output": "FLOAT"}


def test_fp32_has_no_casts(define_net: DefineNet) -> None:
    found = layers(define_net(chain, islands=("b",)))
    assert found == [(name, "FLOAT") for name in ("a", "b", "c", "d", "logits.output")]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("islands", [("conv",), ("bn",), ("conv", "bn")])
def test_a_folded_pair_with_an_island_builds(islands: tuple[str, ...], precision: str, define_net: DefineNet) -> None:
    arrays = random_arrays(conv__weight=(4, 8, 3, 3)) | bn_arrays("bn", 4)
    definition = define_net(lambda net, x: ops.conv_bn(net, x, 4, 3), arrays, precision=precision, islands=islands)
    assert compile_network(definition, Shapes.static((1, 8, 9, 9)))
    assert CpuSession(definition, threads=1)(np.ones((1, 8, 9, 9), np.float32))["logits"].shape == (1, 4, 9, 9)


def test_tensorrt_8_keeps_an_island_by_constraints(define_net: DefineNet, tensorrt8: Api) -> None:
    arrays = random_arrays(conv__weight=(4, 8, 3, 3)) | bn_arrays("bn", 4)

    def build(net: Net, x: Tensor) -> Tensor:
        return ops.linear(net / "fc", ops.flatten(net, ops.conv_bn(net, ops.relu(net / "relu", x), 4, 3)), 2)

    arrays |= random_arrays(fc__weight=(2, 324), fc__bias=(2,))
    definition = define_net(build, arrays, precision="fp16", islands=("conv", "fc"), api=tensorrt8)
    constrained = {layer.name for layer in definition.network.added if layer.precision is not None}
    assert constrained == {"conv", "fc.matmul", "fc"}  # constants have no precision
    assert definition.has_islands
    assert {kind for _, kind in layers(definition)} == {"FLOAT"}
    assert not define_net(build, arrays, precision="fp16", api=tensorrt8).has_islands


def test_tensorrt_8_has_no_bf16(define_net: DefineNet, tensorrt8: Api) -> None:
    with pytest.raises(ZooError, match="TensorRT 8.6.0 has no bf16; build with --fp16"):
        define_net(chain, precision="bf16", api=tensorrt8)


def test_a_weight_beyond_fp16_is_told_by_its_scope(define_net: DefineNet) -> None:
    arrays = conv_arrays("head.conv", 4)
    arrays["head.conv.weight"][1, 2] = -123456
    build = lambda net, x: ops.conv2d(net / "head" / "conv", x, 4, 3)  # noqa: E731
    with pytest.raises(
        ZooError, match=r"a weight of 'head.conv' is 1.23e\+05, more than fp16 can hold \(65504\); build with"
    ):
        define_net(build, arrays, precision="fp16")
    assert define_net(build, arrays, precision="bf16")
    assert define_net(build, arrays, precision="fp16", islands=("head.*",))


def test_weights_that_fit_fp16_pass_however_far_apart(define_net: DefineNet) -> None:
    arrays = conv_arrays("conv", 4)
    arrays["conv.weight"][0], arrays["conv.weight"][1] = 65504, -65504
    assert define_net(lambda net, x: ops.conv2d(net / "conv", x, 4, 3), arrays, precision="fp16")


# What TensorRT refuses

REFUSED = {
    "concat": (
        lambda net, x: ops.concat(net, [x, ops.max_pool(net / "pool", x, 2)]),
        r"concat at 'net' \(input shapes: \(1, 8, 9, 9\), \(1, 8, 4, 4\)\): .*must have the same dimensions",
    ),
    "nothing to concat": (lambda net, x: ops.concat(net, []), r"concat at 'net' \(input shapes: none\): .*nbInputs"),
    "add": (
        lambda net, x: ops.add(net, x, ops.max_pool(net / "pool", x, 2)),
        r"add at 'net' \(input shapes: \(1, 8, 9, 9\), \(1, 8, 4, 4\)\): .*broadcast",
    ),
    "add of two ranks": (lambda net, x: ops.add(net, x, ops.flatten(net, x)), r"add at 'net' .*mismatched inputs"),
    "pool kernel": (lambda net, x: ops.max_pool(net, x, 0), r"max_pool at 'net' .*addPoolingNd"),
    "average kernel": (lambda net, x: ops.avg_pool(net, x, 0), r"avg_pool at 'net' \(input shapes: .*addPoolingNd"),
    "pool stride": (
        lambda net, x: ops.max_pool(net, x, 2, 0),
        r"max_pool at 'net' .*setStrideNd: .*allDimsGt\(stride, 0\)",
    ),
    "conv kernel": (
        lambda net, x: ops.conv2d(net / "large", x, 4, 13, pad=0),
        r"conv2d at 'net.large' .*negative length",
    ),
    "conv stride": (lambda net, x: ops.conv2d(net / "conv", x, 4, 3, 0), r"conv2d at 'net.conv' .*setStrideNd"),
    "conv pad": (lambda net, x: ops.conv2d(net / "conv", x, 4, 3, pad=-1), r"conv2d at 'net.conv' .*setPrePadding"),
    "conv groups": (
        lambda net, x: ops.conv2d(net / "g3", x, 4, 3, groups=3),
        r"conv2d at 'net.g3' .*must divide input's channel",
    ),
    "softmax axis": (
        lambda net, x: ops.softmax(net, x, 6),
        r"softmax at 'net' .*cannot be larger than number of dimensions",
    ),
    "softmax of two axes": (lambda net, x: two_axes(net, x), r"softmax at 'net' .*setAxes: .*isSingleDimension"),
    "reshape": (lambda net, x: ops.reshape(net, x, (0, 7, -1)), r"reshape at 'net' .*no integer solution"),
    "transpose": (
        lambda net, x: ops.transpose(net, x, (0, 1, 1, 2)),
        r"transpose at 'net' .*`first_transpose` is not valid",
    ),
    "output name": (
        lambda net, x: ops.relu(net / "relu", ops.relu(Net(net.definition, "logits"), x)),
        "the output 'logits': .*already in use",
    ),
}


def two_axes(net: Net, x: Tensor) -> Tensor:
    layer = net.network.add_softmax(x)
    layer.axes = 0b11
    return net.step(layer, "softmax", x)


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_holds_scope_op_shapes_and_tensorrts_words(case: str, define_net: DefineNet) -> None:
    build, words = REFUSED[case]
    arrays = conv_arrays("net.large", 4, k=13) | conv_arrays("net.conv", 4) | conv_arrays("net.g3", 4, 2)
    with pytest.raises(Refused, match=rf"^TensorRT-RTX \S+ refused {words}"):
        define_net(lambda net, x: build(net / "net", x), arrays)


def test_a_setting_holds_from_its_place_down(define_net: DefineNet) -> None:
    def build(net: Net, x: Tensor) -> Tensor:
        below = net.having(eps=1e-5) / "block"
        places = [net, net / "block", below, below / "conv", below.fp32, below.functional, below.having(eps=0.1) / 0]
        assert [place.setting("eps", 1e-3) for place in places] == [1e-3, 1e-3, 1e-5, 1e-5, 1e-5, 1e-5, 0.1]
        return ops.relu(net / "relu", x)

    define_net(build, {})


def test_a_refusal_leaves_nothing_behind(define_net: DefineNet) -> None:
    with pytest.raises(Refused):
        define_net(lambda net, x: ops.max_pool(net / "pool", x, 2, 0))
    assert list(define_net(lambda net, x: ops.max_pool(net / "pool", x, 2)).taps) == ["pool"]


def test_an_input_that_tensorrt_refuses(define_net: DefineNet) -> None:
    with pytest.raises(Refused, match=r"refused an input of fp32 and shape \(1, -5, 9, 9\): .*"):
        define_net(chain, shape=(1, -5, 9, 9))


# Weights


def small_cnn(net: Net, x: Tensor) -> Tensor:
    x = ops.conv_bn(net, x, 16, 3)
    return ops.linear(net / "fc", ops.flatten(net, ops.global_avg_pool(net / "pool", x)), 4)


def small_cnn_arrays() -> Arrays:
    return random_arrays(conv__weight=(16, 8, 3, 3), fc__weight=(4, 16), fc__bias=(4,)) | bn_arrays("bn", 16)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_weights_live_until_the_build(precision: str, define_net: DefineNet) -> None:
    """TensorRT only points at them: memory that Python frees before the build would be compiled as it is by then."""
    shapes, arrays = Shapes.static((1, 8, 9, 9)), small_cnn_arrays()
    at_once = compile_network(define_net(small_cnn, arrays, precision=precision), shapes)
    definition = define_net(small_cnn, small_cnn_arrays(), precision=precision)
    gc.collect()
    churn = [np.full(size, np.nan, np.float16) for size in (4, 16, 64, 128, 1152, 2304) * 500]
    later = compile_network(definition, shapes)
    assert len(churn) == 3000 and at_once == later
    arrays["conv.weight"][0, 0, 0, 0] += 1
    assert compile_network(define_net(small_cnn, arrays, precision=precision), shapes) != later


def test_a_missing_tensor_names_shape_and_closest(define_net: DefineNet) -> None:
    arrays = small_cnn_arrays()
    arrays["conv.weigth"] = arrays.pop("conv.weight")
    with pytest.raises(ZooError, match=r"arrays has no 'conv.weight' \(16, 8, 3, 3\); closest: conv.weigth"):
        define_net(small_cnn, arrays)


def test_a_misshaped_tensor_names_both_shapes(define_net: DefineNet) -> None:
    arrays = small_cnn_arrays() | {"fc.weight": np.zeros((10, 16), np.float32)}
    with pytest.raises(ZooError, match=r"'fc.weight' is \(10, 16\) in arrays, the definition says \(4, 16\)"):
        define_net(small_cnn, arrays)


def test_unused_tensors_are_an_error_that_names_them(define_net: DefineNet) -> None:
    extra = {f"extra.{i}": np.zeros(1) for i in range(6)} | {"bn.num_batches_tracked": np.array(7)}
    with pytest.raises(
        ZooError, match="holds 6 tensors .* no use for: extra.0, extra.1, extra.2, extra.3 … and 2 more$"
    ):
        define_net(small_cnn, small_cnn_arrays() | extra)


# ResNet: what the registry adds


def resnet_weights(name: str, rtx: Api, **replaced: np.ndarray) -> Weights:
    """The tensors that ResNet `name` reads, in memory; `__` in a keyword stands for a dot."""
    weights, model = RandomWeights(0), get_model(name)
    definition = define(model, weights, rtx, (1, *model.input))
    arrays = {key: weights.read(key, shape) for key, shape in (definition.parameters | definition.buffers).items()}
    return from_arrays(arrays | {key.replace("__", "."): array for key, array in replaced.items()}, "checkpoint")


@pytest.mark.parametrize("name", ["resnet34", "resnet50"])
def test_weights_of_another_variant_are_recognised(name: str, rtx: Api) -> None:
    model = get_model(name)
    with pytest.raises(ZooError, match=f"; these are the weights of resnet18, not of {name}: use that name$"):
        define(model, resnet_weights("resnet18", rtx), rtx, (1, *model.input))


def test_weights_of_no_variant_are_not(rtx: Api) -> None:
    model = get_model("resnet34")
    weights = resnet_weights("resnet18", rtx, conv1__weight=np.zeros((32, 3, 7, 7), np.float32))
    with pytest.raises(ZooError, match=r"'conv1.weight' is \(32, 3, 7, 7\) in checkpoint, [^;]*\(64, 3, 7, 7\)$"):
        define(model, weights, rtx, (1, *model.input))


def test_the_number_of_classes_is_read_from_the_weights(rtx: Api) -> None:
    head = {"fc__weight": np.zeros((7, 512), np.float32), "fc__bias": np.zeros(7, np.float32)}
    model = get_model("resnet18")
    definition = define(model, resnet_weights("resnet18", rtx, **head), rtx, (-1, *model.input))
    assert tuple(definition.network.get_output(0).shape) == (-1, 7)
