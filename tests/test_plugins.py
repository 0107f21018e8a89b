"""Every custom op against its published reference: its native form, and its kernels through the shell, without a GPU.

The bound in fp32 is four times the error that the reference itself makes in float32 against float64. The kernels in
fp16 round their output once, which costs 2.1e-4; their inputs are rounded before, for the reference too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from plugin_cases import CASES, Case, roi_pool
from plugin_host import DTYPES, MAJORS, PluginHost

from zoo.engine.definition import creation_flags
from zoo.errors import ZooError
from zoo.network import Definition, Net
from zoo.onnx import to_onnx
from zoo.plugins.core.kernels import declaration
from zoo.plugins.core.op import Op, choose, why_not
from zoo.plugins.roi_align import RoiAlign
from zoo.plugins.yolo_decode import YoloDecode
from zoo.trt import Api
from zoo.weights import from_arrays

FP16 = 3e-4
by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Relative L2; what is no number is an error of its own."""
    assert found.shape == wanted.shape
    return float(np.linalg.norm(np.float64(found) - wanted) / np.linalg.norm(wanted))


def check(found: list[np.ndarray], case: Case, arrays: tuple[np.ndarray, ...]) -> None:
    """Integers agree; floats within four times the reference's own rounding error."""
    for y, exact, rounded in zip(found, case.expected(arrays), case.expected(arrays, torch.float32), strict=True):
        if exact.dtype.kind == "f":
            assert error(y, exact) <= 4 * error(rounded, exact)
        else:
            np.testing.assert_array_equal(y, exact)


# ------------------------------------------------------------------------------------------------------- native forms


def define_op(api: Api, op: Op, arrays: tuple[np.ndarray, ...], dynamic: bool, plugins: Any = "native") -> Definition:
    """A network of nothing but `op`, with an output for each of its own."""
    builder = api.trt.Builder(api.log.logger)
    definition = Definition(api, builder, builder.create_network(creation_flags(api)), from_arrays({}), plugins=plugins)
    kinds = {"float32": api.trt.float32, "int32": api.trt.int32, "uint8": api.trt.uint8}
    shapes = [(-1, *a.shape[1:]) if dynamic else a.shape for a in arrays]
    tensors = [
        definition.network.add_input(f"in_{n}", kinds[a.dtype.name], s) for n, a, s in zip(op.inputs, arrays, shapes)
    ]
    found = op(Net(definition, "op"), *tensors)
    for name, tensor in zip(op.outputs, found if isinstance(found, tuple) else (found,), strict=True):
        tensor.name = name
        definition.network.mark_output(tensor)
    return definition


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@by_name
def test_native_form(case: Case, dynamic: bool, rtx: Api) -> None:
    arrays = case.arrays()
    definition = define_op(rtx, case.op, arrays, dynamic)
    model = to_onnx(definition.network, rtx.trt)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {f"in_{name}": array for name, array in zip(case.op.inputs, arrays)}
    check(session.run(list(case.op.outputs), feeds), case, arrays)


# ------------------------------------------------------------------------------------------------------------ kernels


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginHost]:
    """The shell, compiled into a cache of its own."""
    folder: Path = tmp_path_factory.mktemp("plugins")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield PluginHost(folder)


@pytest.mark.parametrize("major", MAJORS)
@by_name
def test_kernels_fp32(case: Case, major: int, host: PluginHost) -> None:
    arrays = case.arrays()
    check(host.run(case.op, arrays, "fp32", major), case, arrays)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("nms apart", "APART && label", "false && label"),
        ("roi align", "box_width = fmaxf(box_width, 1.0f);", ""),
        ("roi align", "y >= -1 &&", "y >= 0 &&"),
        ("roi align aligned", "ALIGNED ? 0.5f", "ALIGNED ? 0.0f"),
    ],
)
def test_a_mistake_in_a_kernel_shows(
    name: str, right: str, wrong: str, host: PluginHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against torchvision's compiled operators."""
    case = next(case for case in CASES if case.name == name)
    module, arrays = sys.modules[type(case.op).__module__], case.arrays()
    assert right in module.SOURCE
    monkeypatch.setattr(module, "SOURCE", module.SOURCE.replace(right, wrong))
    with pytest.raises(AssertionError):
        check(host.run(case.op, arrays), case, arrays)


@by_name
def test_kernels_fp16(case: Case, host: PluginHost) -> None:
    takes, _ = declaration(case.op).types["fp16"].split(">")
    arrays = tuple(np.asarray(a, DTYPES[letter]) for a, letter in zip(case.arrays(), takes))
    for y, wanted in zip(host.run(case.op, arrays, "fp16"), case.expected(arrays), strict=True):
        if wanted.dtype.kind == "f":
            assert error(y, wanted) <= FP16
        else:
            np.testing.assert_array_equal(y, wanted)


# -------------------------------------------------------------------------------------------------------------- rules


def test_rtx_has_no_plugins(rtx: Api) -> None:
    op = type(CASES[0].op)
    assert choose(op, rtx, "auto") == choose(op, rtx, "native") == "native"
    assert why_not(op, rtx, "cuda") == "TensorRT-RTX has no plugins"
    with pytest.raises(ZooError, match="deform_columns 1 has no cuda implementation here: TensorRT-RTX has no plugins"):
        choose(op, rtx, "cuda")
    with pytest.raises(ZooError, match="'fast'; it must be one of auto, native, cuda, builtin"):
        choose(op, rtx, "fast")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"kernel": (0, 3)}, r"deform_columns 1: kernel is \(0, 3\); it must be at least 1 and at most 31"),
        ({"kernel": 3}, "deform_columns 1: kernel is 3; it must be a value of type Pair"),
        ({"channels": 2.5}, "deform_columns 1: channels is 2.5; it must be a value of type int"),
        ({"channels": True}, "deform_columns 1: channels is True; it must be a value of type int"),
        ({"modulated": 1}, "deform_columns 1: modulated is 1; it must be a value of type bool"),
    ],
)
def test_attributes_out_of_range_are_named(attributes: dict[str, Any], words: str) -> None:
    with pytest.raises(ZooError, match=words):
        type(CASES[0].op)(**{"kernel": (3, 3), "channels": 4, **attributes})


def test_a_bin_takes_as_many_samples_as_it_has_pixels(host: PluginHost, rtx: Api) -> None:
    """Another number for each box: the kernel follows torchvision, the layers say why they cannot."""
    case = roi_pool("adaptive", RoiAlign((3, 4), 0.5, samples=0), (17, 14))
    arrays = case.arrays()
    check(host.run(case.op, arrays), case, arrays)
    with pytest.raises(ZooError, match=r"roi_align 1 at 'op' has samples 0, .*; use --plugins cuda, or samples of 1"):
        define_op(rtx, case.op, arrays, dynamic=False)


def test_layers_of_nms_say_what_they_left_out(rtx: Api) -> None:
    """With fewer candidates than boxes above the threshold the answer may be wrong, and `open` counts them."""
    case = next(case for case in CASES if case.name == "nms")
    arrays = case.arrays()
    op = type(case.op)(0.05, 0.7, 300, candidates=64)
    model = to_onnx(define_op(rtx, op, arrays, dynamic=False).network, rtx.trt)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {f"in_{name}": array for name, array in zip(op.inputs, arrays)}
    (count,) = session.run(["open"], feeds)
    above = (arrays[1].max(1) > np.float32(0.05)).sum(1, keepdims=True)
    assert (count >= above - 64).all() and (above > 64).all()


@pytest.mark.parametrize("how", ["native", "cuda"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_nms_says_that_something_is_not_finite(how: str, number: float, host: PluginHost, rtx: Api) -> None:
    """A box that scores too little does not matter."""
    case = next(case for case in CASES if case.name == "nms")
    model = to_onnx(define_op(rtx, case.op, case.arrays(), dynamic=False).network, rtx.trt)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(*arrays: np.ndarray) -> list[np.ndarray]:
        feeds = {f"in_{name}": array for name, array in zip(case.op.inputs, arrays)}
        return host.run(case.op, arrays) if how == "cuda" else session.run(list(case.op.outputs), feeds)

    whole = run(*case.arrays())
    for index, at, matters in ((0, (0, 2, 7), True), (1, (0, 1, 5), True), (0, (0, 1, 9), False)):
        arrays = case.arrays()
        arrays[1][0, :, 7] = 0.9
        arrays[1][0, :, 9] = 0.01
        arrays[index][at] = number
        count, boxes, scores, classes, bad = run(*arrays)
        assert (count[0] == 0 and bad[0] > 0) == matters and (count[1], bad[1]) == (whole[0][1], 0)
        if matters:
            assert not boxes[0].any() and not scores[0].any() and (classes[0] == -1).all()


@pytest.mark.parametrize("how", ["native", "cuda"])
def test_a_score_that_is_no_number_comes_first_in_yolo_decode(how: str, host: PluginHost, rtx: Api) -> None:
    """So that suppression sees it, however many anchors score better."""
    case = next(case for case in CASES if case.name == "yolo decode anchors")
    arrays = case.arrays()
    arrays[0][0, -4, 2, 1] = np.nan
    if how == "cuda":
        _, scores, _ = host.run(case.op, arrays)
    else:
        model = to_onnx(define_op(rtx, case.op, arrays, dynamic=False).network, rtx.trt)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (scores,) = session.run(["scores"], {f"in_{name}": x for name, x in zip(case.op.inputs, arrays)})
    assert np.argwhere(np.isnan(scores)).tolist() == [[0, 7, 0]]


def test_yolo_decode_says_what_does_not_fit(rtx: Api) -> None:
    with pytest.raises(ZooError, match="anchors are .*; each of the 2 levels needs the same number of widths"):
        YoloDecode((8, 16), anchors=((1.0, 2.0), (1.0,)))
    level = (np.zeros((1, 65, 3, 3), np.float32),)
    with pytest.raises(ZooError, match="yolo_decode 1 at 'op': top is 1000, and there are 9 anchors"):
        define_op(rtx, YoloDecode((8,)), level, dynamic=False)
