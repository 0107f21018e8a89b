"""The walker: what TensorRT layers mean, checked against NVIDIA's own reading of ONNX and against numpy."""

from __future__ import annotations

import functools
import math
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest

from zoo.errors import ZooError
from zoo.onnx import graph, reading, save, to_onnx
from zoo.onnx.handlers import HANDLERS
from zoo.trt import Api

NUMPY = {
    "tensor(bool)": np.bool_,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
}


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    return session(model).run(None, feeds)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ------------------------------------------------------------------------------ NVIDIA's ONNX parser as the oracle
#
# Each of ONNX's node tests goes ONNX -> NVIDIA's parser -> INetworkDefinition -> walker -> onnxruntime, and must give
# the numbers that the test expects. So the walker's reading of a TensorRT layer is the reading of those who wrote it.
# Static networks are written in the earliest opset and dynamic ones in the latest.

# What the parser gets wrong: it drops an attribute or an input without a word, so the network is another one.
PARSER_MISTAKES = {
    "test_attention_4d_causal_nonpad_batch_prefill": "drops nonpad_kv_seqlen",
    "test_attention_4d_causal_nonpad_continued_prefill": "drops nonpad_kv_seqlen",
    "test_attention_4d_causal_nonpad_negative_offset_structural_empty": "drops nonpad_kv_seqlen",
    "test_attention_4d_gqa_causal_nonpad_decode": "drops nonpad_kv_seqlen",
    "test_attention_4d_gqa_causal_nonpad_decode_fp16": "drops nonpad_kv_seqlen",
    "test_attention_bidirectional_window": "drops the window",
    "test_attention_local_window": "drops the window",
    "test_nonmaxsuppression_two_classes": "takes TensorRT's order (falling score) for ONNX's (class first)",
    "test_spacetodepth_crd_mode_example": "drops mode=CRD",
    "test_triu": "takes the default of `upper` for 0",
    "test_triu_neg": "takes the default of `upper` for 0",
    "test_triu_one_row": "takes the default of `upper` for 0",
    "test_triu_out_neg_out": "takes the default of `upper` for 0",
    "test_triu_out_pos": "takes the default of `upper` for 0",
    "test_triu_pos": "takes the default of `upper` for 0",
    "test_triu_square": "takes the default of `upper` for 0",
    "test_triu_square_neg": "takes the default of `upper` for 0",
}
# With dimensions known only at run time.
DYNAMIC_MISTAKES = {"test_matmul_1d_3d": "squeezes the batch axis instead of the row axis"}
# Nothing says what attention gives for a query that may see no key: ONNX wants 0, softmax over nothing is NaN.
UNDEFINED = {"test_attention_23_boolmask_fullymasked_row_nan_robustness"}

# Counted with the versions below; another version has other tests and another parser.
VERSIONS = ("1.23.2", "1.7.1.116", "1.31.1")  # onnx, tensorrt_rtx, onnxruntime
COUNTS = {
    "static": {
        "passed": 880,
        "refused by the parser": 871,
        "refused by the walker": 93,
        "different": 18,
        "left out": 22,
    },
    "dynamic": {
        "passed": 819,
        "refused by the parser": 918,
        "refused by the walker": 115,
        "different": 10,
        "left out": 22,
    },
}
UNSUPPORTED = "layers of this type are not supported"  # all of them in loops and conditionals
REFUSALS = {
    "static": {
        UNSUPPORTED: 42, "type INT4": 16, "type FP4": 13, "axes known only at run time": 9,
        "operation RANDOM_UNIFORM": 2, "a zero point of type UINT8 with numbers of type INT8": 2,
        "a scale of 2 dimensions (block quantization)": 1, "GridSample in three dimensions is of opset 20": 4,
        "Pad that wraps is of opset 19": 3, "IsInf of 16 bits is of opset 20": 1,
    },
    "dynamic": {
        UNSUPPORTED: 41, "type INT4": 15, "type FP4": 12, "axes known only at run time": 9,
        "operation RANDOM_UNIFORM": 2, "a zero point of type UINT8 with numbers of type INT8": 1,
        "a number or a size of heads that is known only at run time": 35,
    },
}  # fmt: skip


class Outcome(NamedTuple):
    result: str
    reason: str
    kinds: set[str]  # of the layers that the parser made


@functools.cache
def node_tests(api: Api, dynamic: bool) -> dict[str, Outcome]:
    return {case.name: node_test(api, case, dynamic) for case in cases()}


@functools.cache
def cases() -> list[Any]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # its own, while it computes what to expect
        return collect_testcases(None)


def node_test(api: Api, case: Any, dynamic: bool) -> Outcome:
    trt = api.trt
    builder = trt.Builder(api.log.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, api.log.logger)
    model = with_dynamic_shapes(case.model) if dynamic else case.model
    try:
        parsed = parser.parse(model.SerializeToString())
    except UnicodeDecodeError:  # its own message, about a test of strings
        parsed = False
    api.log.drain()
    if not parsed:
        return Outcome("refused by the parser", "", set())
    kinds = {network.get_layer(i).type.name for i in range(network.num_layers)}
    return Outcome(*walk_and_compare(trt, network, case, taps=dynamic), kinds)


def walk_and_compare(trt: Any, network: Any, case: Any, taps: bool) -> tuple[str, str]:
    """With taps, every tensor inside the network must have the shape and the type that TensorRT infers, too.

    Networks of fp8 are left to tests/test_fp8.py: onnxruntime takes and gives its numbers as bytes.
    """
    tensors = tensors_of(network)
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    if any(tensor.dtype == trt.fp8 for tensor in (*inputs, *tensors.values())):
        return "left out", "type FP8"
    bf16 = any(tensor.dtype == trt.bfloat16 for tensor in (*inputs, *tensors.values()))  # onnxruntime lacks kernels
    tapped = tensors if taps and not bf16 else {}
    try:
        opset = graph.LATEST_OPSET if taps else graph.OPSET
        model = to_onnx(network, trt, taps=tapped, half="float" if bf16 else "declared", opset=opset)
    except ZooError as error:
        return "refused by the walker", str(error).split(": ", 1)[-1]
    try:
        return compare(case, session(model), tapped, bf16)
    except Exception as error:  # onnxruntime has a class for each kind of refusal, with no common one
        return "different", str(error)


def with_dynamic_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every dimension unknown, but for vectors (of which many are shapes, and crash the parser)."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if len(value.type.tensor_type.shape.dim) > 1:
                dim.dim_param = f"{value.name}_{axis}"
    for value in copy.graph.output:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.dim_param = f"{value.name}_{axis}"
    del copy.graph.value_info[:]
    return copy


def tensors_of(network: Any) -> dict[str, Any]:
    """Layer outputs by name, but for the token between the two layers of an attention."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    layers = [layer for layer in layers if layer.type.name != "ATTENTION_INPUT"]
    tensors = [layer.get_output(k) for layer in layers for k in range(layer.num_outputs)]
    return {tensor.name: tensor for tensor in tensors}


def compare(case: Any, running: onnxruntime.InferenceSession, tapped: dict[str, Any], bf16: bool) -> tuple[str, str]:
    wanted_names = [output.name for output in case.model.graph.output]
    half = bf16 or any(tensor.dtype.name == "HALF" for tensor in tapped.values())  # tapping makes their rounding real
    rtol, atol = (2e-2, 1e-2) if half else (max(case.rtol, 1e-3), max(case.atol or 0, 1e-5))
    for inputs, outputs in case.data_sets:
        given = {value.name: array(data) for value, data in zip(case.model.graph.input, inputs)}
        # the parser takes double for float
        feeds = {value.name: given[value.name].astype(NUMPY[value.type]) for value in running.get_inputs()}
        found = running.run(None, feeds)
        for name, got, data in zip(wanted_names, found, outputs):
            wanted = array(data)
            if got.shape != wanted.shape:
                return "different", f"{name}: shape {got.shape} for {wanted.shape}"
            exact = got.dtype == bool or wanted.dtype == bool
            got, wanted = (got, wanted) if exact else (got.astype(np.float64), wanted.astype(np.float64))
            if not np.allclose(got, wanted, rtol, atol, equal_nan=True):
                return "different", f"{name}: {got.reshape(-1)[:4]} for {wanted.reshape(-1)[:4]}"
        for (name, tensor), got in zip(tapped.items(), found[len(wanted_names) :]):
            inferred = tuple(tensor.shape)
            if len(inferred) != got.ndim or any(n not in (-1, size) for n, size in zip(inferred, got.shape)):
                return "different", f"{name}: shape {got.shape}, but TensorRT infers {inferred}"
            if np.dtype(NUMPY_OF[tensor.dtype.name]) != got.dtype:
                return "different", f"{name}: {got.dtype}, but TensorRT infers {tensor.dtype.name}"
    return "passed", ""


NUMPY_OF = {"FLOAT": "f4", "HALF": "f2", "INT32": "i4", "INT64": "i8", "INT8": "i1", "UINT8": "u1", "BOOL": "?"}


def array(data: Any) -> np.ndarray:
    return onnx.numpy_helper.to_array(data) if isinstance(data, onnx.TensorProto) else np.asarray(data)


@pytest.fixture(scope="module", params=["static", "dynamic"])
def outcomes(rtx: Api, request: pytest.FixtureRequest) -> tuple[str, dict[str, Outcome]]:
    return request.param, node_tests(rtx, dynamic=request.param == "dynamic")


def test_node_tests_differ_only_where_the_parser_is_wrong(outcomes: Any) -> None:
    shapes, tests = outcomes
    known = {*PARSER_MISTAKES, *UNDEFINED, *(DYNAMIC_MISTAKES if shapes == "dynamic" else ())}
    different = {name: test.reason for name, test in tests.items() if test.result == "different" and name not in known}
    assert different == {}


def test_node_tests_pass_in_the_counted_number(outcomes: Any) -> None:
    import tensorrt_rtx

    if (onnx.__version__, tensorrt_rtx.__version__, onnxruntime.__version__) != VERSIONS:
        pytest.skip(f"counted with onnx, tensorrt_rtx, onnxruntime {VERSIONS}")
    shapes, tests = outcomes
    assert Counter(test.result for test in tests.values()) == COUNTS[shapes]
    refused = Counter(test.reason for test in tests.values() if test.result == "refused by the walker")
    assert refused == REFUSALS[shapes]


def test_node_tests_confirm_all_layer_types_but_those_tested_below(rtx: Api) -> None:
    tests = node_tests(rtx, dynamic=False).values()
    confirmed = set().union(*(test.kinds for test in tests if test.result == "passed"))
    assert HANDLERS.keys() - confirmed == {"ASSERTION", "DEQUANTIZE", "NON_ZERO", "PADDING", "QUANTIZE", "SCALE"}


# ------------------------------------------------------------------------------ networks written here

Lay = Callable[[Any, Any], Any]


@pytest.fixture
def walk(rtx: Api) -> Callable[..., onnx.ModelProto]:
    """`walk(lay, half=…, …)`: the network that `lay(network, trt)` writes, walked; what it returns are the outputs."""

    def walk(lay: Lay, **options: Any) -> onnx.ModelProto:
        builder = rtx.trt.Builder(rtx.log.logger)
        network = builder.create_network(1 << int(rtx.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        outputs = lay(network, rtx.trt)
        for index, tensor in enumerate(outputs if isinstance(outputs, tuple) else (outputs,)):
            if tensor.name.startswith("(Unnamed"):
                tensor.name = f"y{index}"
            network.mark_output(tensor)
        assert rtx.log.drain() == ""
        return to_onnx(network, rtx.trt, **options)

    return walk


def constant(network: Any, value: Any, dtype: Any = np.float32) -> Any:
    value = np.require(value, dtype, "C")
    return network.add_constant(value.shape, value).get_output(0)


def test_names_and_dynamic_dimensions_are_kept(walk: Any) -> None:
    kernel = normal(4, 3, 3, 3)

    def lay(network: Any, trt: Any) -> Any:
        images = network.add_input("images", trt.float32, (-1, 3, 8, 8))
        images.set_dimension_name(0, "batch")
        layer = network.add_convolution_nd(images, 4, (3, 3), kernel, np.zeros(4, np.float32))
        layer.name = "layer1.0.conv1"
        act = network.add_activation(layer.get_output(0), trt.ActivationType.RELU)
        act.name = "layer1.0.relu"
        act.get_output(0).name = "features"
        return act.get_output(0)

    model = walk(lay)
    onnx.checker.check_model(model, full_check=True)
    assert [node.name for node in model.graph.node] == ["layer1.0.conv1", "layer1.0.relu"]
    assert [list(node.output) for node in model.graph.node] == [["layer1.0.conv1_output"], ["features"]]
    assert [init.name for init in model.graph.initializer] == ["layer1.0.conv1.kernel", "layer1.0.conv1.bias"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    info = {value.name: value for value in model.graph.value_info}["layer1.0.conv1_output"]
    assert [dim.dim_value for dim in info.type.tensor_type.shape.dim][1:] == [4, 6, 6]
    for batch in (1, 3):
        assert run(model, images=normal(batch, 3, 8, 8))[0].shape == (batch, 4, 6, 6)


def test_layers_that_do_nothing_leave_no_node(walk: Any) -> None:
    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (-1, 4, 5))
        x = network.add_identity(x).get_output(0)
        shuffle = network.add_shuffle(x)
        shuffle.reshape_dims = (-1, 4, 5)
        x = network.add_concatenation([shuffle.get_output(0)]).get_output(0)
        x = network.add_cast(x, trt.float32).get_output(0)
        layer = network.add_slice(x, (1,), (4,), (1,))
        layer.axes, layer.start = (1,), (0,)
        return network.add_activation(layer.get_output(0), trt.ActivationType.TANH).get_output(0)

    assert kinds(walk(lay)) == ["Tanh"]


def test_an_output_that_is_an_input_or_a_constant(walk: Any) -> None:
    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (2,))
        return network.add_identity(x).get_output(0), constant(network, [7, 8])

    found = run(walk(lay), x=np.float32([1, 2]))
    assert [list(value) for value in found] == [[1, 2], [7, 8]]


def test_taps_are_outputs_after_the_outputs_even_when_they_are_outputs(walk: Any) -> None:
    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (2,))
        a = network.add_unary(x, trt.UnaryOperation.NEG).get_output(0)
        b = network.add_identity(a).get_output(0)
        a.name, b.name = "negative", "same"
        c = network.add_unary(b, trt.UnaryOperation.EXP).get_output(0)
        c.name = "y"
        return c

    model = walk(lay, taps=["same", "y", "negative", "x"])
    found = run(model, x=np.float32([1, 2]))
    assert [list(np.round(value, 2)) for value in found] == [
        [np.float32(0.37), np.float32(0.14)], [-1, -2], [np.float32(0.37), np.float32(0.14)], [-1, -2], [1, 2],
    ]  # fmt: skip
    assert [output.name for output in model.graph.output] == ["y", "same", "y.1", "negative", "x.1"]
    with pytest.raises(ZooError, match="no tensor named 'negatve'.*closest: negative"):
        walk(lay, taps=["negatve"])


def test_layers_are_sorted(walk: Any) -> None:
    """set_input can point to a layer that was added later."""

    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (2,))
        total = network.add_elementwise(x, x, trt.ElementWiseOperation.SUM)
        negative = network.add_unary(x, trt.UnaryOperation.NEG)
        total.set_input(1, negative.get_output(0))
        return total.get_output(0)

    model = walk(lay)
    assert kinds(model) == ["Neg", "Add"]
    assert list(run(model, x=np.float32([1, 2]))[0]) == [0, 0]


def test_what_has_no_translation_is_named(walk: Any) -> None:
    def loop(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (3,))
        loop = network.add_loop()
        trip = loop.add_trip_limit(constant(network, 3, np.int32), trt.TripLimit.COUNT)
        trip.name = "decoder.steps"
        state = loop.add_recurrence(x)
        state.set_input(1, network.add_unary(state.get_output(0), trt.UnaryOperation.EXP).get_output(0))
        return loop.add_loop_output(state.get_output(0), trt.LoopOutput.LAST_VALUE).get_output(0)

    with pytest.raises(ZooError, match=r"layer 'decoder.steps' \(TRIP_LIMIT\) cannot be translated to ONNX"):
        walk(loop)

    def blocks(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (4, 4))
        layer = network.add_quantize(x, constant(network, np.ones((2, 4))), trt.int8)
        layer.name = "fc.quantize"
        return network.add_dequantize(layer.get_output(0), constant(network, np.ones((2, 4))), trt.float32).get_output(
            0
        )

    with pytest.raises(ZooError, match=r"'fc.quantize' \(QUANTIZE\).*block quantization"):
        walk(blocks)


def test_more_than_an_onnx_file_holds_is_refused(walk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "LARGEST", 1000)

    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (2, 251))
        return network.add_elementwise(x, constant(network, normal(2, 251)), trt.ElementWiseOperation.SUM).get_output(0)

    with pytest.raises(ZooError, match="ends at 2 GiB"):
        walk(lay)


def test_large_weights_can_be_kept_apart_without_a_copy(walk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "LARGEST", 1000)
    table, row = normal(40, 251), normal(1, 10)

    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (2, 40))
        product = network.add_matrix_multiply(
            x, trt.MatrixOperation.NONE, constant(network, table), trt.MatrixOperation.NONE
        ).get_output(0)
        first = network.add_slice(product, (0, 0), (2, 10), (1, 1)).get_output(0)
        return network.add_elementwise(first, constant(network, row), trt.ElementWiseOperation.SUM).get_output(0)

    weights: dict[str, np.ndarray] = {}
    model = walk(lay, weights=weights)
    (name,) = weights
    assert np.shares_memory(weights[name], table) and model.ByteSize() < 2000
    options = onnxruntime.SessionOptions()
    options.add_external_initializers([name], [onnxruntime.OrtValue.ortvalue_from_numpy(weights[name])])
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    x = normal(2, 40)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], (x @ table)[:, :10] + row, rtol=1e-4, atol=1e-4)


def test_files_are_written_whole_or_not_at_all(walk: Any, tmp_path: Path) -> None:
    def lay(network: Any, trt: Any) -> Any:
        return network.add_unary(network.add_input("x", trt.float32, (2,)), trt.UnaryOperation.ABS).get_output(0)

    path = tmp_path / "model.onnx"
    save(walk(lay), path)
    before = path.read_bytes()
    broken = onnx.ModelProto()
    broken.CopyFrom(walk(lay))
    broken.graph.node[0].op_type = "Nonsense"
    with pytest.raises(ZooError, match="no valid ONNX.*Nonsense"):
        save(broken, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------ half precision


def big_square(network: Any, trt: Any, dtype: Any) -> Any:
    """x * x / 1000 in 16 bits: 300 gives 90, by way of 90000, which is above what fp16 holds."""
    x = network.add_cast(network.add_input("x", trt.float32, (1,)), dtype).get_output(0)
    square = network.add_elementwise(x, x, trt.ElementWiseOperation.PROD).get_output(0)
    thousand = network.add_cast(constant(network, [1000]), dtype).get_output(0)
    y = network.add_elementwise(square, thousand, trt.ElementWiseOperation.DIV).get_output(0)
    return network.add_cast(y, trt.float32).get_output(0)


@pytest.mark.parametrize("half, wanted", [("float", 90), ("round", np.inf)])
def test_overflow_of_fp16_is_seen_when_rounding(walk: Any, half: str, wanted: float) -> None:
    model = walk(lambda network, trt: big_square(network, trt, trt.float16), half=half)
    assert run(model, x=np.float32([300]))[0] == wanted


def test_bf16_is_rounded_and_does_not_overflow(walk: Any) -> None:
    model = walk(lambda network, trt: big_square(network, trt, trt.bfloat16), half="round")
    square = np.float32(np.float32(300).astype(ml_dtypes.bfloat16)) ** 2
    square = np.float32(square.astype(ml_dtypes.bfloat16))
    wanted = np.float32((square / np.float32(1000)).astype(ml_dtypes.bfloat16))
    assert run(model, x=np.float32([300]))[0] == wanted


def test_declared_types_are_kept(walk: Any) -> None:
    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float16, (1, 2))
        kernel = network.add_constant((2, 2), np.float16([[1, 2], [3, 4]])).get_output(0)
        none = trt.MatrixOperation.NONE
        return network.add_matrix_multiply(x, none, kernel, none).get_output(0)

    for half, dtype in (("declared", np.float16), ("float", np.float32), ("round", np.float32)):
        model = walk(lay, half=half)
        found = run(model, x=np.array([[1, 1]], dtype))[0]
        assert found.dtype == dtype and found.tolist() == [[4, 6]]


def test_only_what_computes_is_rounded(walk: Any) -> None:
    def lay(network: Any, trt: Any) -> Any:
        x = network.add_cast(network.add_input("x", trt.float32, (2, 3)), trt.float16).get_output(0)
        shuffle = network.add_shuffle(x)
        shuffle.first_transpose = (1, 0)
        x = network.add_cast(shuffle.get_output(0), trt.float32).get_output(0)
        return network.add_unary(x, trt.UnaryOperation.NEG).get_output(0)

    assert kinds(walk(lay, half="round")) == ["Cast", "Cast", "Transpose", "Neg"]
    assert kinds(walk(lay, half="float")) == ["Transpose", "Neg"]


def test_bf16_weights_come_from_the_table(walk: Any) -> None:
    kernel = normal(4, 3, 1, 1).astype(ml_dtypes.bfloat16)

    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.bfloat16, (1, 3, 2, 2))
        weights = trt.Weights(trt.bfloat16, kernel.ctypes.data, kernel.size)
        layer = network.add_convolution_nd(x, 4, (1, 1), weights, trt.Weights(trt.bfloat16))
        layer.name = "conv1"
        return layer.get_output(0)

    with pytest.raises(ZooError, match=r"does not give back weights of type BF16.*arrays\[\('conv1', 'kernel'\)\]"):
        walk(lay)
    arrays = {("conv1", "kernel"): kernel}
    x = normal(1, 3, 2, 2, seed=1)
    found = run(walk(lay, arrays=arrays, half="float"), x=x)[0]
    np.testing.assert_allclose(
        found, np.einsum("oi,nihw->nohw", kernel[..., 0, 0].astype("f4"), x), rtol=1e-5, atol=1e-6
    )
    assert walk(lay, arrays=arrays).graph.initializer[0].data_type == onnx.TensorProto.BFLOAT16


# ------------------------------------------------------------------------------ layers that no node test confirms


def test_assertion_leaves_nothing(walk: Any) -> None:
    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (2,))
        network.add_assertion(constant(network, [True], np.bool_), "must hold")
        return network.add_unary(x, trt.UnaryOperation.NEG).get_output(0)

    assert kinds(walk(lay)) == ["Neg"]


def test_padding_adds_and_trims(walk: Any) -> None:
    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (1, 2, 4, 4))
        return network.add_padding_nd(x, (1, -1), (2, 0)).get_output(0)

    x = normal(1, 2, 4, 4)
    np.testing.assert_array_equal(run(walk(lay), x=x)[0], np.pad(x, [(0, 0), (0, 0), (1, 2), (0, 0)])[..., 1:])


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_non_zero(walk: Any, dtype: str) -> None:
    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (2, 3))
        return network.add_non_zero(x, getattr(trt, dtype)).get_output(0)

    x = np.float32([[0, 1, 0], [2, 0, 3]])
    found = run(walk(lay), x=x)[0]
    assert found.dtype == dtype and found.tolist() == [[0, 1, 1], [1, 0, 2]]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, np.int64, np.bool_])
@pytest.mark.parametrize("axis", [0, -1])
def test_one_hot(walk: Any, dtype: Any, axis: int) -> None:
    def lay(network: Any, trt: Any) -> Any:
        indices = network.add_input("indices", trt.int32, (4,))
        values = constant(network, [0, 1], dtype)
        return network.add_one_hot(indices, values, constant(network, 5, np.int32), axis).get_output(0)

    indices = np.int32([1, 0, 4, 2])
    found, wanted = run(walk(lay), indices=indices)[0], np.eye(5)[indices].astype(dtype)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, wanted.T if axis == 0 else wanted)


@pytest.mark.parametrize("scale, axis", [(0.5, None), ([0.5, 0.25, 2], 1)])
def test_quantize_and_dequantize(walk: Any, scale: Any, axis: int | None) -> None:
    """Rounds to even, clamps at -128 and 127."""

    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (2, 3))
        quantize = network.add_quantize(x, constant(network, scale), trt.int8)
        dequantize = network.add_dequantize(quantize.get_output(0), constant(network, scale), trt.float32)
        if axis is not None:
            quantize.axis = dequantize.axis = axis
        return quantize.get_output(0), dequantize.get_output(0)

    x = np.float32([[0.25, 0.75, -0.6], [1000, -1000, 1]])
    quantized, back = run(walk(lay), x=x)
    wanted = np.clip(np.rint(x / np.float32(scale)), -128, 127)
    assert quantized.dtype == np.int8
    np.testing.assert_array_equal(quantized, wanted)
    np.testing.assert_array_equal(back, wanted * np.float32(scale))


@pytest.mark.parametrize("several", [True, False])
def test_nms_sorts_by_image_then_score(walk: Any, several: bool) -> None:
    def lay(network: Any, trt: Any) -> Any:
        boxes = network.add_input("boxes", trt.float32, (2, 3, 4))
        scores = network.add_input("scores", trt.float32, (2, 3, 2))
        layer = network.add_nms(boxes, scores, constant(network, 3 if several else 1, np.int32))
        layer.set_input(3, constant(network, 0.5))
        layer.set_input(4, constant(network, 0.1))
        layer.get_output(0).name, layer.get_output(1).name = "selected", "count"
        return layer.get_output(0), layer.get_output(1)

    boxes = np.float32([[[0, 0, 1, 1], [0, 0, 1, 0.9], [5, 5, 6, 6]]] * 2)
    scores = np.float32([[[0.3, 0.9], [0.2, 0.8], [0.6, 0.05]], [[0.5, 0.15], [0.7, 0.2], [0.05, 0.95]]])
    selected, count = run(walk(lay), boxes=boxes, scores=scores)
    by_score = [[0, 1, 0], [0, 0, 2], [0, 0, 0], [1, 1, 2], [1, 0, 1], [1, 1, 1]]
    assert selected.tolist() == (by_score if several else [by_score[i] for i in (0, 1, 3, 4)])
    assert count == len(selected) and selected.dtype == np.int32


def test_nms_of_nothing(walk: Any) -> None:
    def lay(network: Any, trt: Any) -> Any:
        boxes = network.add_input("boxes", trt.float32, (2, 3, 4))
        scores = network.add_input("scores", trt.float32, (2, 3, 2))
        layer = network.add_nms(boxes, scores, constant(network, 3, np.int32))
        layer.set_input(4, constant(network, 0.5))
        return layer.get_output(0), layer.get_output(1)

    selected, count = run(walk(lay), boxes=np.zeros((2, 3, 4), "f4"), scores=np.zeros((2, 3, 2), "f4"))
    assert selected.shape == (0, 3) and count == 0


# ------------------------------------------------------------------------------ options that ONNX says in another way


@pytest.mark.parametrize(
    "mode, wanted",
    [
        ("CLAMP", [0, 0, 0, 1, 2, 3, 3]),
        ("WRAP", [2, 3, 0, 1, 2, 3, 0]),
        ("REFLECT", [2, 1, 0, 1, 2, 3, 2]),
        ("FILL", [9, 9, 0, 1, 2, 3, 9]),
    ],
)
@pytest.mark.parametrize("length", [4, -1])
def test_slices_beyond_the_ends(walk: Any, mode: str, wanted: list[int], length: int) -> None:
    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (2, length))
        layer = network.add_slice(x, (-2,), (7,), (1,))
        layer.axes, layer.mode = (1,), getattr(trt.SampleMode, mode)
        if mode == "FILL":
            layer.set_input(4, constant(network, 9))
        return layer.get_output(0)

    x = np.float32([[0, 1, 2, 3]] * 2)
    assert run(walk(lay), x=x)[0].tolist() == [wanted] * 2


@pytest.mark.parametrize(
    "start, size, step, wanted",
    [
        (3, 4, -1, [3, 2, 1, 0]),
        (3, 2, -2, [3, 1]),
        (0, 2, 3, [0, 3]),
        (2, 3, 0, [2, 2, 2]),
        (0, 4, 1, [0, 1, 2, 3]),
        (1, 0, 1, []),
    ],
)
@pytest.mark.parametrize("where", ["attributes", "inputs"])
def test_slices_by_size(walk: Any, start: int, size: int, step: int, wanted: list[int], where: str) -> None:
    """The sizes and steps are given at run time, too; a step of 0 repeats, a negative one reads backwards."""

    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (4,))
        layer = network.add_slice(x, (start,), (size,), (step,))
        if where == "inputs":
            for index, name in enumerate(("start", "size", "step"), 1):
                layer.set_input(index, network.add_input(name, trt.int64, (1,)))
        return layer.get_output(0)

    feeds = {"start": start, "size": size, "step": step} if where == "inputs" else {}
    found = run(walk(lay), x=np.float32([0, 1, 2, 3]), **{name: np.int64([value]) for name, value in feeds.items()})
    assert found[0].tolist() == wanted


def test_a_slice_repeats_along_the_batch(walk: Any) -> None:
    """The way to put a class token before every row: a step of 0 and a size read from a tensor."""

    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (-1, 2))
        layer = network.add_slice(constant(network, [[5, 6]]), (0, 0), (1, 2), (0, 1))
        layer.set_input(2, network.add_shape(x).get_output(0))
        return layer.get_output(0)

    assert run(walk(lay), x=normal(3, 2))[0].tolist() == [[5, 6]] * 3


def test_floor_division_of_negative_integers(walk: Any) -> None:
    def lay(network: Any, trt: Any) -> Any:
        a, b = (network.add_input(name, trt.int32, (4,)) for name in "ab")
        return network.add_elementwise(a, b, trt.ElementWiseOperation.FLOOR_DIV).get_output(0)

    a, b = np.int32([7, -7, 7, -7]), np.int32([2, 2, -2, -2])
    assert run(walk(lay), a=a, b=b)[0].tolist() == [3, -4, -4, 3]


@pytest.mark.parametrize(
    "mode, shape, axis",
    [("UNIFORM", (), 1), ("CHANNEL", (3, 1, 1), 1), ("CHANNEL", (4, 1), 2), ("ELEMENTWISE", (3, 4, 5), 1)],
)
@pytest.mark.parametrize("powered", [False, True])
def test_scale(walk: Any, mode: str, shape: tuple[int, ...], axis: int, powered: bool) -> None:
    scale, shift, power = (np.abs(normal(*shape, seed=seed)) + np.float32(0.5) for seed in range(3))

    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (-1, 3, 4, 5))
        weights = [value.reshape(-1) for value in (shift, scale, power)]
        weights[2] = weights[2] if powered else trt.Weights()
        return network.add_scale_nd(x, getattr(trt.ScaleMode, mode), *weights, axis).get_output(0)

    x = np.abs(normal(2, 3, 4, 5, seed=3))
    wanted = (x * scale + shift) ** (power if powered else 1)
    np.testing.assert_allclose(run(walk(lay), x=x)[0], wanted, rtol=1e-5)


@pytest.mark.parametrize("kind", ["MAX", "AVERAGE", "MAX_AVERAGE_BLEND"])
@pytest.mark.parametrize("excludes", [True, False])
def test_pooling(walk: Any, kind: str, excludes: bool) -> None:
    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (1, 1, 2, 2))
        layer = network.add_pooling_nd(x, getattr(trt.PoolingType, kind), (2, 2))
        layer.padding_nd, layer.average_count_excludes_padding, layer.blend_factor = (1, 1), excludes, 0.25
        return layer.get_output(0)

    x = np.float32([[[[1, 2], [3, 4]]]])
    padded, count = np.pad(x[0, 0], 1), np.pad(np.ones((2, 2)), 1)
    windows = [(slice(i, i + 2), slice(j, j + 2)) for i in range(3) for j in range(3)]
    largest = np.array([padded[at].max() for at in windows])
    average = np.array([padded[at].sum() / (count[at].sum() if excludes else 4) for at in windows])
    wanted = {"MAX": largest, "AVERAGE": average, "MAX_AVERAGE_BLEND": 0.75 * largest + 0.25 * average}[kind]
    np.testing.assert_allclose(run(walk(lay), x=x)[0].reshape(-1), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    "kind, wanted",
    [
        ("SOFTPLUS", lambda x: 2 * np.log(np.exp(0.5 * x) + 1)),
        ("SCALED_TANH", lambda x: 2 * np.tanh(0.5 * x)),
        ("SELU", lambda x: np.where(x > 0, 0.5 * x, 0.5 * (2 * np.exp(x) - 2))),
        ("THRESHOLDED_RELU", lambda x: np.where(x > 2, x, 0)),
        ("HARD_SIGMOID", lambda x: np.clip(2 * x + 0.5, 0, 1)),
        ("GELU_TANH", lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
        ("GELU_ERF", lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))),
    ],
)
@pytest.mark.parametrize("opset", [graph.OPSET, graph.LATEST_OPSET])
def test_activations_with_alpha_2_and_beta_half(walk: Any, kind: str, wanted: Any, opset: int) -> None:
    def lay(network: Any, trt: Any) -> Any:
        layer = network.add_activation(network.add_input("x", trt.float32, (9,)), getattr(trt.ActivationType, kind))
        layer.alpha, layer.beta = 2, 0.5
        return layer.get_output(0)

    x = np.linspace(-4, 4, 9, dtype=np.float32)
    model = walk(lay, opset=opset)
    assert ("Gelu" in kinds(model)) == ("GELU" in kind and opset == 20)
    np.testing.assert_allclose(run(model, x=x)[0], wanted(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_group_and_instance_normalization(walk: Any, version: int, groups: int) -> None:
    channels, planes = 4, groups if groups > 1 else 4
    size = planes if version == 1 else channels
    scale, shift = normal(1, size, 1, 1, seed=1), normal(1, size, 1, 1, seed=2)

    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (-1, channels, 3, 3))
        add = network.add_normalization if version == 1 else network.add_normalization_v2
        layer = add(x, constant(network, scale), constant(network, shift), 0b1100)
        layer.num_groups, layer.epsilon = groups, 1e-3
        return layer.get_output(0)

    x = normal(2, channels, 3, 3)
    y = x.reshape(2, planes, -1)
    y = ((y - y.mean(2, keepdims=True)) / np.sqrt(y.var(2, keepdims=True) + 1e-3)).reshape(x.shape)
    scale, shift = (np.repeat(value, channels // size, 1) for value in (scale, shift))
    np.testing.assert_allclose(run(walk(lay), x=x)[0], y * scale + shift, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", [(2,), (1, 2)])
def test_layer_normalization(walk: Any, axes: tuple[int, ...]) -> None:
    shape = tuple(size if axis in axes else 1 for axis, size in enumerate((2, 3, 4)))
    scale, shift = normal(*shape, seed=1), normal(*shape, seed=2)

    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (-1, 3, 4))
        mask = sum(1 << axis for axis in axes)
        layer = network.add_normalization_v2(x, constant(network, scale), constant(network, shift), mask)
        layer.epsilon = 0.1
        return layer.get_output(0)

    x = normal(2, 3, 4)
    wanted = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 0.1) * scale + shift
    model = walk(lay)
    np.testing.assert_allclose(run(model, x=x)[0], wanted, rtol=1e-4, atol=1e-5)
    assert kinds(model) == ["LayerNormalization"]


def test_normalization_over_any_axes(walk: Any) -> None:
    scale, shift = normal(1, 3, 1, seed=1), normal(1, 3, 1, seed=2)

    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (-1, 3, 4))
        return network.add_normalization_v2(x, constant(network, scale), constant(network, shift), 0b10).get_output(0)

    x = normal(2, 3, 4)
    wanted = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * scale + shift
    np.testing.assert_allclose(run(walk(lay), x=x)[0], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "a, b, equation",
    [
        ("VECTOR", "NONE", "nk,nkm->nm"),
        ("NONE", "VECTOR", "nmk,nk->nm"),
        ("VECTOR", "VECTOR", "nk,nk->n"),
        ("TRANSPOSE", "TRANSPOSE", "nkm,njk->nmj"),
    ],
)
def test_matrix_multiply(walk: Any, a: str, b: str, equation: str) -> None:
    sizes = {"n": 2, "k": 3, "m": 4, "j": 5}
    shapes = [tuple(sizes[letter] for letter in term) for term in equation.split("->")[0].split(",")]

    def lay(network: Any, trt: Any) -> Any:
        left, right = (network.add_input(name, trt.float32, shape) for name, shape in zip("ab", shapes))
        op = trt.MatrixOperation
        return network.add_matrix_multiply(left, getattr(op, a), right, getattr(op, b)).get_output(0)

    left, right = (normal(*shape, seed=seed) for seed, shape in enumerate(shapes))
    wanted = np.einsum(equation, left, right)
    np.testing.assert_allclose(run(walk(lay), a=left, b=right)[0], wanted, rtol=1e-4, atol=1e-5)


def test_linspace_in_two_dimensions(walk: Any) -> None:
    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (-1, 3))
        layer = network.add_fill((0,), trt.FillOperation.LINSPACE, trt.float32)
        layer.set_input(0, network.add_shape(x).get_output(0))
        layer.set_input(1, constant(network, 7))
        layer.set_input(2, constant(network, [10, 0.5]))
        return layer.get_output(0)

    wanted = 7 + 10 * np.arange(2)[:, None] + 0.5 * np.arange(3)
    np.testing.assert_array_equal(run(walk(lay), x=normal(2, 3))[0], wanted)


def test_gather_along_a_batch_axis(walk: Any) -> None:
    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (2, 4, 3))
        layer = network.add_gather(x, network.add_input("indices", trt.int32, (2, 5)), 1)
        layer.num_elementwise_dims = 1
        return layer.get_output(0)

    x, indices = normal(2, 4, 3), np.int32([[0, 1, 3, 3, 2], [2, 2, 0, 1, 1]])
    wanted = np.stack([row[at] for row, at in zip(x, indices)])
    np.testing.assert_array_equal(run(walk(lay), x=x, indices=indices)[0], wanted)


def test_convolution_with_weights_computed_in_the_network(walk: Any) -> None:
    def lay(network: Any, trt: Any) -> Any:
        x, kernel = network.add_input("x", trt.float32, (1, 2, 3, 3)), network.add_input("k", trt.float32, (4, 2, 1, 1))
        layer = network.add_convolution_nd(x, 4, (1, 1), trt.Weights(), trt.Weights())
        layer.set_input(1, kernel)
        return layer.get_output(0)

    x, kernel = normal(1, 2, 3, 3), normal(4, 2, 1, 1, seed=1)
    wanted = np.einsum("oi,nihw->nohw", kernel[..., 0, 0], x)
    np.testing.assert_allclose(run(walk(lay), x=x, k=kernel)[0], wanted, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------ as fast as an export


def test_a_transformer_block_is_written_in_the_operators_that_onnxruntime_is_fast_at(walk: Any) -> None:
    """No transposed weights, no decomposed LayerNorm and GELU, matrices and vectors instead of stacks of one."""

    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (-1, 5, 8))
        ones, zeros = constant(network, np.ones((1, 1, 8))), constant(network, np.zeros((1, 1, 8)))
        y = network.add_normalization_v2(x, ones, zeros, 0b100).get_output(0)
        weight, bias = constant(network, normal(1, 16, 8)), constant(network, normal(1, 1, 16))
        op = trt.MatrixOperation
        y = network.add_matrix_multiply(y, op.NONE, weight, op.TRANSPOSE).get_output(0)
        y = network.add_elementwise(y, bias, trt.ElementWiseOperation.SUM).get_output(0)
        return network.add_activation(y, trt.ActivationType.GELU_ERF).get_output(0)

    model = walk(lay)
    assert kinds(model) == ["LayerNormalization", "MatMul", "Add", "Gelu"]
    assert [list(init.dims) for init in model.graph.initializer] == [[8], [8], [8, 16], [16]]


def test_a_scale_is_folded_into_the_convolution_before_it(walk: Any, tmp_path: Path) -> None:
    def lay(network: Any, trt: Any) -> Any:
        x = network.add_input("x", trt.float32, (-1, 3, 8, 8))
        x = network.add_convolution_nd(x, 4, (3, 3), normal(4, 3, 3, 3), trt.Weights()).get_output(0)
        return network.add_scale(x, trt.ScaleMode.CHANNEL, normal(4), normal(4, seed=1), trt.Weights()).get_output(0)

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimized.onnx"), 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(walk(lay).SerializeToString(), options, ["CPUExecutionProvider"])
    assert kinds(onnx.load(tmp_path / "optimized.onnx")) == ["Conv"]


# ------------------------------------------------------------------------------ other versions of TensorRT


def test_unset_dimensions_of_older_versions() -> None:
    class Unset:
        def __len__(self) -> int:
            raise ValueError("__len__() should return >= 0")

        def __getitem__(self, index: int) -> int:
            raise IndexError

    assert reading.dims(Unset()) is None
    assert reading.dims(None) is None
    assert reading.dims((2, -1)) == (2, -1)


def test_weights_that_older_bindings_read_with_stride_0() -> None:
    memory = np.arange(5, dtype=np.float32)
    broken = np.lib.stride_tricks.as_strided(memory, strides=(0,))
    assert broken.tolist() == [0] * 5
    assert reading.undo_zero_stride(broken).tolist() == memory.tolist()
