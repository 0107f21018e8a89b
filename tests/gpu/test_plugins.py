"""Kernels of custom ops in engines, against the layers of the same op, which the suite proves without a GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from plugin_cases import CASES, Case, Random

from zoo.engine.build import compile_network
from zoo.engine.definition import creation_flags, define
from zoo.engine.effort import Effort
from zoo.engine.end2end import EndToEnd
from zoo.engine.plugins import Plugins
from zoo.engine.shapes import Shapes
from zoo.network import Definition, Net, Precision
from zoo.plugins.core.kernels import declaration
from zoo.registry import get_model
from zoo.runtime.gpu import GpuSession
from zoo.trt import Api
from zoo.weights import RandomWeights, from_arrays

LEVEL_0 = Effort(0)
FP32, FP16 = 1e-5, 3e-4  # as in tests/test_plugins.py; two orders of summation in fp32 differ by less than 1e-5


def engine(api: Api, case: Case, arrays: tuple[np.ndarray, ...], policy: Any, precision: str = "fp32") -> bytes:
    """An engine of nothing but the op of `case`."""
    builder = api.trt.Builder(api.log.logger)
    definition = Definition(
        api, builder, builder.create_network(creation_flags(api)), from_arrays({}), Precision(precision), policy  # type: ignore[arg-type]
    )  # fmt: skip
    kinds = {"float32": api.trt.float32, "int32": api.trt.int32}
    tensors = [
        definition.network.add_input(f"in_{name}", kinds[array.dtype.name], array.shape)
        for name, array in zip(case.op.inputs, arrays)
    ]
    found = case.op(Net(definition, "op"), *tensors)
    for name, tensor in zip(case.op.outputs, found if isinstance(found, tuple) else (found,), strict=True):
        layer = definition.network.add_identity(tensor)
        output = layer.get_output(0)
        output.name = name
        output.dtype = tensor.dtype if tensor.dtype == api.trt.int32 else api.trt.float32
        definition.network.mark_output(output)
    shape = tuple(arrays[0].shape)
    return compile_network(definition, Shapes(shape, shape, shape), LEVEL_0, Plugins(policy))  # type: ignore[arg-type]


def answers(api: Api, plan: bytes, arrays: tuple[np.ndarray, ...], case: Case) -> dict[str, np.ndarray]:
    with GpuSession(plan, api=api) as session:
        return session({f"in_{name}": array for name, array in zip(case.op.inputs, arrays)})


def compare(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], bound: float) -> None:
    for name, exact in wanted.items():
        if exact.dtype.kind == "f":
            distance = np.linalg.norm(np.float64(found[name]) - exact) / np.linalg.norm(np.float64(exact))
            assert distance <= bound, f"{name}: {distance:.2e}"
        else:
            np.testing.assert_array_equal(found[name], exact)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernels_in_an_engine(api: Api, case: Case) -> None:
    arrays = case.arrays()
    layers = answers(api, engine(api, case, arrays, "native"), arrays, case)
    compare(answers(api, engine(api, case, arrays, "cuda"), arrays, case), layers, FP32)


@pytest.mark.parametrize("case", [c for c in CASES if "fp16" in declaration(c.op).types], ids=lambda case: case.name)
def test_kernels_in_half_precision(api: Api, case: Case) -> None:
    letters = declaration(case.op).types["fp16"].partition(">")[0]
    arrays = tuple(
        array.astype(np.float16).astype(np.float32) if letter == "h" else array
        for array, letter in zip(case.arrays(), letters)
    )
    layers = answers(api, engine(api, case, arrays, "native"), arrays, case)
    compare(answers(api, engine(api, case, arrays, "cuda", "fp16"), arrays, case), layers, FP16)


@pytest.mark.parametrize("policy", ["auto", "cuda"])
def test_frames_to_boxes(api: Api, policy: Any) -> None:
    """A detector from uint8 frames of two sizes to final boxes: by kernels as by layers."""
    model, weights, whole = get_model("yolov8n"), RandomWeights(0), EndToEnd((120, 160), conf=0.001, max_det=50)
    shapes = Shapes.static((2, 3, 64, 64))
    random: Random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (2, height, width, 3), np.uint8) for height, width in ((120, 160), (50, 33))]

    def run(policy: Any) -> list[dict[str, np.ndarray]]:
        definition = define(model, weights, api, shapes.network, plugins=policy, end2end=whole)
        plan = compile_network(definition, whole.frames(shapes), LEVEL_0, Plugins(policy))
        with GpuSession(plan, api=api) as session:
            return [session({"frames": batch}) for batch in frames]

    for found, wanted in zip(run(policy), run("native")):
        assert wanted["num_detections"].max() > 0
        compare(found, wanted, 1e-4)
