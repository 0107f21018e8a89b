"""fp8: the same pairs as int8 with numbers of e4m3, compiled by TensorRT-RTX and judged on onnxruntime."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from planting import changed, plant, planted
from test_int8_proof import Case, published, scaled, shifted, small, verdict

from zoo.build import run as build_command
from zoo.engine import build as building
from zoo.engine.build import build
from zoo.engine.definition import define
from zoo.engine.passport import gpus_of
from zoo.engine.shapes import Shapes
from zoo.errors import Refused, ZooError
from zoo.network import Precision
from zoo.quantization import Scales, quantised_channels
from zoo.registry import get_model
from zoo.runtime.compatibility import why_not_loadable
from zoo.runtime.cuda import Device
from zoo.trt import Api
from zoo.verify.__main__ import run as verify
from zoo.weights import RandomWeights


@pytest.fixture(scope="module")
def fp8_case() -> Case:
    """A small network with relu6 between its convolutions, by which onnxruntime's own optimisations fail in fp8."""
    return published("mobilenet_v2", 32, "fp8")


def scales_for(rtx: Api, name: str) -> tuple[Any, Scales]:
    model, weights = get_model(name), RandomWeights()
    sites = define(model, weights, rtx, (1, *model.input)).sites
    return model, Scales(name, weights.digest(), dict.fromkeys(sites, 3.0))


def test_a_whole_network_is_pytorchs_own_fp8(fp8_case: Case, rtx: Api) -> None:
    """By the rule of fp32, and so is a smaller one with a shortcut and a linear layer."""
    for case in (fp8_case, small()):
        report = verdict(case, rtx, stored="fp8")
        assert report.ok, report.first_divergence
    assert sum(row.name.endswith(".input") for row in verdict(small(), rtx, stored="fp8").own) > 6


@pytest.mark.parametrize(
    ("starts", "mistake"),
    [
        ("2.conv1.input", plant("2.conv1._pair():1", scaled(1.001))),
        ("1.add.input", plant("1._pair()", scaled(0.98))),
        ("1.bn2", plant("1.conv2._pair():0", shifted)),
        ("1.bn1", plant("1.conv1._pair():0", changed(axis=1))),
    ],
    ids=["a scale 0.1 % off", "the scale of a shortcut", "steps of the wrong channels", "steps along the wrong axis"],
)
def test_a_mistake_in_one_layer_is_named(starts: str, mistake: Any, rtx: Api) -> None:
    with planted([mistake], {}):
        report = verdict(small(), rtx, stored="fp8")
    assert report.first_divergence is not None and report.first_divergence.name == starts, report.first_divergence


def test_weights_keep_the_largest_of_each_channel() -> None:
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    weights[2] = 0
    whole, step = quantised_channels(weights, "fp8")
    assert np.array_equal(whole, whole.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)) and step[2] == 1
    assert (np.abs(whole).max((1, 2, 3)) == [448, 448, 0, 448]).all()
    kept = np.abs(weights) > 2**-6 * step.reshape(-1, 1, 1, 1)  # normal numbers: three bits after the first
    assert (np.abs(whole * step.reshape(-1, 1, 1, 1) - weights)[kept] <= np.abs(weights)[kept] / 16 * 1.0001).all()


def test_tensorrt_rtx_compiles_it_for_ada_and_refuses_ampere(rtx: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    model, scales = scales_for(rtx, "lenet5")
    shapes = Shapes.static((1, *model.input))
    engine = build(model, RandomWeights(), rtx, shapes, Precision("fp8", scales=scales))
    assert engine.description["precision"] == "fp8" and gpus_of(engine.description) == "GPUs from Ada on"
    assert "--fp8 --scales" in engine.description["rebuild"]
    monkeypatch.setattr(building, "FP8_FROM", (8, 6))
    with pytest.raises(Refused, match="refused to compile"):
        build(model, RandomWeights(), rtx, shapes, Precision("fp8", scales=scales))


def test_what_has_no_fp8_says_so(rtx: Api, tensorrt8: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    model, scales = scales_for(rtx, "lenet5")
    policy = Precision("fp8", scales=scales)
    with pytest.raises(ZooError, match=r"TensorRT 8\.6\.0 has no fp8; build with --int8, or with TensorRT 10 or later"):
        define(model, RandomWeights(), tensorrt8, (1, *model.input), policy)
    definition = define(model, RandomWeights(), rtx, (1, *model.input), policy)
    full = replace(definition, api=replace(rtx, flavour="tensorrt", version="10.16.1"))
    monkeypatch.setattr(building, "compute_capability", lambda: "8.6")
    monkeypatch.setattr(building, "device_name", lambda: "NVIDIA A10")
    with pytest.raises(ZooError, match=r"NVIDIA A10 has no fp8 \(compute capability 8\.6, 8\.9 has it\): use --int8"):
        building.set_capabilities(full, SimpleNamespace())


def test_an_engine_in_fp8_is_not_loaded_before_ada(rtx: Api) -> None:
    about = {"flavour": "rtx", "version": rtx.version, "precision": "fp8"}
    reason = why_not_loadable(about, rtx, Device("NVIDIA A10", "8.6", 1 << 34, 1 << 34))
    assert reason == "the engine cannot run here: fp8 needs compute capability 8.9, the NVIDIA A10 has 8.6"
    assert why_not_loadable(about, rtx, Device("NVIDIA L4", "8.9", 1 << 34, 1 << 34)) is None


def test_what_the_commands_refuse() -> None:
    with pytest.raises(ZooError, match="--int8 and --fp8 exclude each other"):
        build_command("lenet5", int8=True, fp8=True)
    with pytest.raises(ZooError, match="--data belongs to --int8"):
        build_command("lenet5", fp8=True, data="pictures")  # type: ignore[arg-type]
    with pytest.raises(ZooError, match="fp8 needs the ranges of tensors: python -m zoo.calibrate"):
        Precision("fp8")
    with pytest.raises(ZooError, match="fp8 is proven on the CPU; leave --device gpu away"):
        verify("lenet5", fp8=True, device="gpu")
