"""int8 networks against PyTorch's fake quantisation with the same scales, and mistakes that are planted in them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import small_model
from planting import Plant, changed, plant, planted
from torch import nn

from zoo import ops
from zoo.blocks.transformer import as_tokens
from zoo.engine.calibration import calibrate
from zoo.engine.definition import define
from zoo.errors import ZooError
from zoo.network import Net, Precision, Tensor
from zoo.quantization import Scales, Stored
from zoo.registry import Model, get_model
from zoo.runtime.cpu import CpuSession
from zoo.trt import Api
from zoo.verify.__main__ import run
from zoo.verify.calibration import calibrated, sample_images, scales_of, state_arrays
from zoo.verify.compare import Report
from zoo.verify.proof import compare_reference, prove
from zoo.verify.references import AnyReference, Library, Reference
from zoo.verify.rounding import TIE, Rounding, following, nothing_lost, rounded, with_rounded_taps
from zoo.weights import Weights, from_arrays


@dataclass(frozen=True)
class Case:
    """A model and its reference with the same weights, their scales, and images."""

    model: Model
    reference: AnyReference
    weights: Weights
    scales: Scales
    images: np.ndarray


@functools.cache
def published(name: str, side: int, stored: Stored = "int8") -> Case:
    """With calibrated weights."""
    model, size = get_model(name), (3, side, side)
    reference = calibrated(model.reference, 0, size)
    weights = from_arrays(state_arrays(reference))
    return Case(model, reference, weights, scales_of(model, weights, size, stored), sample_images(2, size, seed=2))


def verdict(case: Case, rtx: Api, scales: Scales | None = None, stored: Stored = "int8") -> Report:
    """Of the definition with `scales`, by default the right ones, which the reference always has."""
    right = Precision("fp32", scales=case.scales, stored=stored)
    shape = (-1, *case.images.shape[1:])
    definition = define(case.model, case.weights, rtx, shape, replace(right, scales=scales or case.scales))
    reference = rounded(case.reference, replace(definition, precision=right))
    definition = with_rounded_taps(definition)
    ours = CpuSession(definition, definition.taps, threads=1)(case.images)
    return nothing_lost(
        compare_reference(following(reference, ours), case.images, ours, list(definition.taps), definition.folded)
    )


@pytest.mark.parametrize(
    ("name", "side", "sites"), [("resnet18", 32, 28), ("mobilenet_v2", 32, 62), ("yolov8n", 64, 69)]
)
def test_a_whole_network_is_pytorchs_fake_quantisation(name: str, side: int, sites: int, rtx: Api) -> None:
    """Every layer and every tensor that is rounded, and the network as it follows, by the rule of fp32."""
    report = verdict(published(name, side), rtx)
    assert report.ok, report.first_divergence
    assert sum(row.name.endswith(".input") for row in report.own) == sites
    assert sum(row.name.endswith(".input") for row in report.taps) == sites


# A network small enough to be proven once for every mistake


class Residual(nn.Module):
    """x + bn2(conv2(relu(bn1(conv1(x))))), then ReLU: the additions are no modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1, bias=False, groups=2), nn.BatchNorm2d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += x
        return F.relu(y)


def residual(net: Net, x: Tensor) -> Tensor:
    y = ops.relu(net.functional, ops.conv_bn(net, x, 16, 3, conv="conv1", bn="bn1"))
    y = ops.conv_bn(net, y, 16, 3, groups=2, conv="conv2", bn="bn2")
    return net.tap(ops.relu(net.functional, ops.add(net, y, x)))


class Tokens(nn.Module):
    """(N, C, H, W) -> (N, H * W, C), four windows one by one, and a linear layer that is called as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        windows = x.flatten(2).transpose(1, 2).reshape(-1, x.shape[2] * x.shape[3] // 4, x.shape[1])
        return F.linear(windows, self.mix.weight, self.mix.bias).reshape(len(x), -1, x.shape[1])


def build(net: Net, x: Tensor) -> Tensor:
    x = residual(net / 2, residual(net / 1, ops.conv2d(net / 0, x, 16, 3)))
    tokens = net / 3
    x = tokens.tap(ops.linear((tokens / "mix").functional, as_tokens(tokens, x), 16))
    return ops.linear(net / 4, x, 24)


@functools.cache
def small() -> Case:
    """A convolution, two blocks, and a linear layer over all places."""
    torch.manual_seed(0)
    blocks = nn.Conv2d(8, 16, 3, padding=1), Residual(), Residual()
    module = nn.Sequential(*blocks, Tokens(), nn.Linear(16, 24)).eval()
    for norm in (layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    model = small_model(build)
    reference = Reference("small", module, Library())
    weights, images = from_arrays(state_arrays(reference)), sample_images(2, (8, 24, 24), seed=2)
    return Case(model, reference, weights, calibrate(model, weights, [images], threads=1), images)


def other_zero(real: Any, net: Net, x: Tensor, step: np.float32) -> Tensor:
    """A pair whose zero is the whole number 1."""
    scale = net.constant(np.asarray(step), "step")
    zero = net.step(net.network.add_cast(net.constant(np.asarray(1.0), "zero"), net.trt.int8), "cast")
    there = net.network.add_quantize(x, scale, net.trt.int8)
    there.set_input(2, zero)
    back = net.network.add_dequantize(net.step(there, "quantize", x), scale, net.dtype)
    back.set_input(2, zero)
    return net.step(back, "dequantize", x)


def scaled(factor: float) -> Any:
    """A pair of another step."""
    return lambda real, net, x, step, axis=None: real(net, x, step * np.float32(factor), axis)


def shifted(real: Any, net: Net, x: Tensor, step: np.ndarray, axis: int) -> Tensor:
    """The steps of weights, one channel further."""
    return real(net, x, np.roll(step, 1), axis)


# The pair of a convolution's weights is the first at its scope, that of its input the second.
MISTAKES: list[tuple[str, str, Plant]] = [
    ("a scale 1 % off", "2.conv1.input", plant("2.conv1._pair():1", scaled(1.01))),
    ("a scale 0.01 % off", "2.conv1.input", plant("2.conv1._pair():1", scaled(1.0001))),
    ("the scale of a shortcut", "1.add.input", plant("1._pair()", scaled(0.98))),
    ("steps of weights 1 % off", "2.bn1", plant("2.conv1._pair():0", scaled(1.01))),
    ("steps of the wrong channels", "1.bn2", plant("1.conv2._pair():0", shifted)),
    ("steps along the wrong axis", "1.bn1", plant("1.conv1._pair():0", changed(axis=1))),
    ("another zero", "1.conv2.input", plant("1.conv2._pair():1", other_zero)),
    ("another zero in the first layer", "0.input", plant("0._pair():1", other_zero)),
    ("steps of a linear layer's weights", "4", plant("4._pair():0", shifted)),
    ("the scale of a linear layer's input", "4.input", plant("4._pair():1", scaled(1.001))),
    ("the scale of a function's input", "3.mix.input", plant("3.mix._pair():1", scaled(1.001))),
    ("the other operand", "2", plant("2.add()", lambda real, net, x, y: ops.add(net, y, y))),
]  # fmt: skip


def test_nothing_is_found_where_nothing_is_planted(rtx: Api) -> None:
    assert verdict(small(), rtx).ok


@pytest.mark.parametrize(("name", "starts", "mistake"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_a_mistake_in_one_layer_is_named(name: str, starts: str, mistake: Plant, rtx: Api) -> None:
    with planted([mistake], {}):
        report = verdict(small(), rtx)
    assert report.first_divergence is not None and report.first_divergence.name == starts, report.first_divergence


def test_the_scales_of_another_tensor_are_named(rtx: Api) -> None:
    scales = small().scales
    amax = {**scales.amax, "1.conv2": scales.amax["2.conv2"]}
    first = verdict(small(), rtx, replace(scales, amax=amax)).first_divergence
    assert first is not None and first.name == "1.conv2.input"


def test_a_tie_follows_ours_and_nothing_else_does() -> None:
    step = 0.5
    x = torch.tensor([[0.25 - step * TIE / 2, 0.25 - step * TIE * 2, 0.25 - step * TIE / 2, 1.0]], dtype=torch.float64)
    ours = np.array([[0.5, 0.5, 1.0, 1.0 + step * TIE / 2]], np.float32)
    value = Rounding({"conv": step}, {"conv.input": ours}).at("conv", x)
    assert value.tolist() == [[0.5, 0, 0.5, 1]]  # to the neighbour; too far off; not by two steps; no tie


def test_what_the_reference_does_not_read_is_refused() -> None:
    assert nothing_lost(Report([], extra=["block"])).extra == ["block"]
    with pytest.raises(ZooError, match="no convolution, linear layer or addition at 'block.conv'"):
        nothing_lost(Report([], extra=["block", "block.conv.input"]))


def test_folded_branches_are_refused(rtx: Api) -> None:
    with pytest.raises(ZooError, match="no convolution, linear layer or addition at 'stem' .* folds into one"):
        prove(get_model("mobileone_s0"), rtx, precision="int8", size=(32, 32))


def test_a_proof_judges_its_inputs_and_another_batch(rtx: Api) -> None:
    proof = prove(get_model("lenet5"), rtx, precision="int8")
    assert proof.ok and proof.precision == "int8", proof.report.first_divergence
    assert [row.name for row in proof.report.own if row.name.endswith(".input")] == ["conv1.input", "conv2.input"]
    assert list(proof.also) == ["32x32, batch 1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"scales": Path("scales.json")}, "--scales FILE belongs to --int8 and to the --weights"),
        ({"int8": True, "device": "gpu"}, "int8 is proven on the CPU; leave --device gpu away"),
        ({"int8": True, "scales": Path("none.json"), "weights": "random"}, "none.json cannot be read"),
        ({"int8": True, "fp16": True}, "--fp16 and --int8 exclude each other"),
    ],
)
def test_what_the_command_refuses(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ZooError, match=words):
        run("lenet5", **arguments)
