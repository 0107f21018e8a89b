"""The verifier on bugs that are planted on purpose: each is caught, and named by the layer where it starts.

A bug is planted in the definition (an op called with a wrong argument, another op, swapped tensors) or in the weights
that it reads; the reference stays as it is.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from planting import (
    Arrays,
    Mistake,
    Plant,
    changed,
    edit,
    exchanged,
    identity,
    instead,
    keeps,
    plant,
    planted,
    swap,
    zero,
)

from zoo import ops
from zoo.engine.definition import define
from zoo.errors import ZooError
from zoo.network import Net, Precision, Tensor
from zoo.registry import get_model
from zoo.trt import Api
from zoo.verify.compare import Report, Row
from zoo.verify.proof import compare_reference, execute_on_cpu, own_half_rows, prove
from zoo.weights import from_arrays


class Bug:
    """What is wrong, the first tensor that must show it, and how it is planted."""

    def __init__(self, name: str, starts: str, *plants: Plant) -> None:
        self.name, self.starts, self.plants = name, starts, plants


def _one_off(array: np.ndarray, factor: float) -> np.ndarray:
    """The largest element times `factor`."""
    array = array.copy()
    array.reshape(-1)[np.abs(array).argmax()] *= factor
    return array


def _unclipped(real: Any, net: Net, x: Tensor) -> Tensor:
    """x / 6 + 1 / 2, on to where a hard sigmoid is clipped."""
    ones = (1,) * len(x.shape)
    y = ops.mul(net, x, net.constant(np.full(ones, 1 / 6, np.float32), "slope"))
    return net.tap(ops.add(net, y, net.constant(np.full(ones, 0.5, np.float32), "half")))


_PUBLISHED_ANCHORS = np.float32([  # in cells
    [1.25, 1.625, 2, 3.75, 4.125, 2.875], [1.875, 3.8125, 3.875, 2.8125, 3.6875, 7.4375],
    [3.625, 2.8125, 4.875, 6.1875, 11.65625, 10.1875]])  # fmt: skip

RESNET50 = [
    Bug("BatchNorm eps 1e-3", "layer2.0.bn2", plant("layer2.0.bn2", changed(eps=1e-3))),
    Bug("BatchNorm eps 0", "bn1", plant("bn1", changed(eps=0.0))),
    Bug("BatchNorm statistics mixed in with momentum 0.1", "layer1.1.bn1",
        edit("layer1.1.bn1.running_var", lambda v: 0.9 + 0.1 * v)),
    Bug("padding 2 for 3 in the stem", "bn1", plant("bn1", changed(pad=2))),
    Bug("pooling rounds up", "maxpool", plant("maxpool", changed(pad=0, ceil_mode=True))),
    Bug("average pooling of the stem", "maxpool", plant("maxpool", instead(ops.avg_pool, 3, 2, pad=1))),
    Bug("stride on the first 1x1", "layer2.0.bn1",
        plant("layer2.0.bn1", changed(stride=2)), plant("layer2.0.bn2", changed(stride=1))),
    Bug("BatchNorms swapped", "layer1.0.bn1", *(swap(f"layer1.0.bn1.{n}", f"layer1.0.bn2.{n}") for n in ("weight", "bias"))),
    Bug("lost BatchNorm bias", "layer3.2.bn1", zero("layer3.2.bn1.bias")),
    Bug("lost bias of the classifier", "fc", zero("fc.bias")),
    Bug("kernel flipped", "layer3.0.bn2", edit("layer3.0.conv2.weight", lambda w: w[:, :, ::-1, ::-1])),
    Bug("kernel transposed", "layer4.0.bn2", edit("layer4.0.conv2.weight", lambda w: w.transpose(0, 1, 3, 2))),
    Bug("shortcut missing", "layer1.1.relu:2", plant("layer1.1.add()", keeps("x"))),
    Bug("ReLUs of a block missing", "layer2.1.relu", plant("layer2.1.relu", identity)),
    Bug("leaky ReLU for ReLU", "layer1.0.relu", plant("layer1.0.relu", instead(ops.leaky_relu))),
]  # fmt: skip

LAYER = "encoder.layers.encoder_layer_{}"
VIT_B_32 = [
    Bug("LayerNorm eps 1e-5", f"{LAYER.format(0)}.ln_1", plant(f"{LAYER.format(0)}.ln_1", changed(eps=1e-5))),
    Bug("GELU by tanh", f"{LAYER.format(2)}.mlp.1", plant(f"{LAYER.format(2)}.mlp.1", instead(ops.gelu_tanh))),
    Bug("position embeddings off by one", f"{LAYER.format(0)}.ln_1", edit("encoder.pos_embedding", lambda p: np.roll(p, 1, 1))),
    Bug("class token lost", f"{LAYER.format(0)}.ln_1", zero("class_token")),
    Bug("patch kernel transposed", "conv_proj", edit("conv_proj.weight", lambda w: w.transpose(0, 1, 3, 2))),
    Bug("queries and keys swapped", f"{LAYER.format(5)}.self_attention",
        edit(f"{LAYER.format(5)}.self_attention.in_proj_weight", lambda w: np.concatenate([w[768:1536], w[:768], w[1536:]]))),
    Bug("keys and values swapped", f"{LAYER.format(6)}.self_attention",
        plant(f"{LAYER.format(6)}.self_attention.attention()", exchanged("k", "v"))),
    Bug("attention not scaled", f"{LAYER.format(1)}.self_attention",
        plant(f"{LAYER.format(1)}.self_attention.attention()", changed(scale=1.0))),
    Bug("softmax over the queries", f"{LAYER.format(4)}.self_attention",
        plant(f"{LAYER.format(4)}.self_attention.softmax()", changed(axis=2))),
    Bug("lost bias of the queries", f"{LAYER.format(7)}.self_attention",
        edit(f"{LAYER.format(7)}.self_attention.in_proj_bias", lambda b: np.concatenate([0 * b[:768], b[768:]]))),
    Bug("lost LayerNorm bias", "encoder.ln", zero("encoder.ln.bias")),
    Bug("lost bias in the MLP", f"{LAYER.format(8)}.mlp.0", zero(f"{LAYER.format(8)}.mlp.0.bias")),
    Bug("residuals missing", f"{LAYER.format(9)}.ln_2", plant(f"{LAYER.format(9)}.add()", keeps("y"))),
]  # fmt: skip

YOLOV8N = [
    Bug("BatchNorm eps 1e-5", "model.4.m.0.cv1.bn", plant("model.4.m.0.cv1.bn", changed(eps=1e-5))),
    Bug("ReLU for SiLU", "model.1.act", plant("model.1.act", instead(ops.relu))),
    Bug("halves of C2f swapped", "model.2.m.0.cv1.bn", plant("model.2.narrow()", changed(start=0))),
    Bug("shortcut in the neck", "model.12.cv2.bn", plant("model.12.m.0", changed(shortcut=True))),
    Bug("no shortcut in the backbone", "model.6.m.1.cv1.bn", plant("model.6.m.0", changed(shortcut=False))),
    Bug("average pooling in SPPF", "model.9.m", plant("model.9.m", instead(ops.avg_pool, 5, 1, pad=2))),
    Bug("pooling of SPPF 3x3", "model.9.m", plant("model.9.m", changed(k=3, pad=1))),
    Bug("second pooling of SPPF 3x3", "model.9.m:1", plant("model.9.m:1", changed(k=3, pad=1))),
    Bug("bilinear upsampling", "model.10", plant("model.10", changed(mode="bilinear"))),
    Bug("concatenation in the other order", "model.14", plant("model.14.join()", exchanged("x", "skip"))),
    Bug("lost bias of the classes", "model.22.cv3.1.2", zero("model.22.cv3.1.2.bias")),
    Bug("box branch reads the other level's kernel", "model.22.cv2.0.1.bn", swap("model.22.cv2.0.1.conv.weight", "model.22.cv2.1.1.conv.weight")),
    Bug("softmax of the bins missing", "model.22.dfl.conv", plant("model.22.dfl.softmax():1", keeps("x"))),
    Bug("anchors off by half a cell", "boxes", plant("model.22.add():1", keeps("x"))),
    Bug("centres of 640x640 written in", "boxes",
        plant("model.22.boxes_around()", lambda real, net, sides, size, levels: real(net, sides, (640, 640), levels))),
    Bug("height and width swapped", "boxes",
        plant("model.22.boxes_around()", lambda real, net, sides, size, levels: real(net, sides, size[::-1], levels))),
    Bug("scores without sigmoid", "scores", plant("model.22.sigmoid():1", keeps("x"))),
]  # fmt: skip


# Deep in a network, where the noise of all that came before once hid them
DEEP_RESNET50 = [
    *(Bug(f"BatchNorm eps 0 in {name}", name, plant(name, changed(eps=0.0)))
      for name in ("layer1.1.bn2", "layer2.0.downsample.1", "layer2.3.bn3", "layer3.0.bn2", "layer3.3.bn1", "layer3.5.bn3",
                   "layer4.0.bn1", "layer4.2.bn2", "layer4.2.bn3")),
    *(Bug(f"ReLU6 for ReLU in {name}", name, plant(name, instead(ops.relu6)))
      for name in ("layer1.0.relu", "layer2.2.relu", "layer3.4.relu", "layer4.1.relu")),
    Bug("one weight off by 1 %", "layer2.1.bn2", edit("layer2.1.conv2.weight", lambda w: _one_off(w, 1.01))),
    Bug("one bias off by 1 %", "layer3.1.bn2", edit("layer3.1.bn2.bias", lambda b: _one_off(b, 1.01))),
    Bug("colours in the other order", "bn1", edit("conv1.weight", lambda w: w[:, ::-1])),
]  # fmt: skip
MOBILENET_V2 = [
    *(Bug(f"ReLU for ReLU6 in {name}", name, plant(name, instead(ops.relu)))
      for name in ("features.0.2", "features.3.conv.0.2", "features.7.conv.1.2", "features.12.conv.0.2", "features.18.2")),
    *(Bug(f"BatchNorm eps 0 in {name}", name, plant(name, changed(eps=0.0)))
      for name in ("features.2.conv.1.1", "features.9.conv.3", "features.14.conv.0.1", "features.17.conv.3")),
    Bug("shortcut missing", "features.5", plant("features.5.add()", keeps("y"))),
]  # fmt: skip
MOBILENET_V3_SMALL = [
    *(Bug(f"hard sigmoid not clipped in {name}", name, plant(name, _unclipped))
      for name in (f"features.{i}.block.2.scale_activation" for i in (4, 6, 8, 10))),
    Bug("BatchNorm eps 1e-5", "features.9.block.1.1", plant("features.9.block.1.1", changed(eps=1e-5))),
    Bug("ReLU for hard swish", "features.8.block.0.2", plant("features.8.block.0.2", instead(ops.relu))),
]  # fmt: skip
YOLOV5N = [
    Bug("anchors written in", "boxes", edit("model.24.anchors", lambda a: _PUBLISHED_ANCHORS.reshape(a.shape))),
    Bug("shortcut in the neck", "model.13.cv3.bn", plant("model.13.m.0", changed(shortcut=True))),
    Bug("BatchNorm eps 1e-5", "model.8.cv3.bn", plant("model.8.cv3.bn", changed(eps=1e-5))),
    Bug("lost bias of the head", "boxes", zero("model.24.m.1.bias")),
]  # fmt: skip
ALEXNET = [
    Bug("windows of the adaptive pooling do not overlap", "avgpool",
        plant("avgpool", lambda real, net, x, out: net.tap(ops.upsample(net.functional, x, size=(6, 6))))),
    Bug("lost bias of a convolution", "features.6", zero("features.6.bias")),
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A reference with calibrated weights, and images."""

    model: str
    reference: Any
    arrays: Arrays
    images: np.ndarray


@functools.cache
def case(name: str, size: tuple[int, int, int]) -> Case:
    from zoo.verify.calibration import calibrated, sample_images, state_arrays

    reference = calibrated(get_model(name).reference, 0, size, fixed=get_model(name).ignored)
    return Case(name, reference, state_arrays(reference), sample_images(1, size, seed=1))


def verdict(case: Case, rtx: Api, arrays: Arrays) -> Report:
    definition = define(get_model(case.model), from_arrays(arrays), rtx, case.images.shape)
    taps = list(definition.taps)
    ours = execute_on_cpu(definition, taps, case.images)
    return compare_reference(case.reference, case.images, ours, taps, definition.folded)


def check(case: Case, bug: Bug, rtx: Api) -> None:
    with planted(bug.plants, case.arrays) as wrong:
        report = verdict(case, rtx, wrong)
    assert not report.ok
    first = report.first_divergence
    assert first is not None and first.name == bug.starts, f"{bug.name}: named {first}"


@pytest.mark.parametrize("bug", RESNET50, ids=lambda bug: bug.name)
def test_resnet50(bug: Bug, rtx: Api) -> None:
    check(case("resnet50", (3, 64, 64)), bug, rtx)


@pytest.mark.parametrize("bug", VIT_B_32, ids=lambda bug: bug.name)
def test_vit_b_32(bug: Bug, rtx: Api) -> None:
    check(case("vit_b_32", (3, 224, 224)), bug, rtx)


@pytest.mark.parametrize("bug", YOLOV8N, ids=lambda bug: bug.name)
def test_yolov8n(bug: Bug, rtx: Api) -> None:
    check(case("yolov8n", (3, 96, 160)), bug, rtx)


@pytest.mark.parametrize("bug", DEEP_RESNET50, ids=lambda bug: bug.name)
def test_resnet50_deep_inside(bug: Bug, rtx: Api) -> None:
    check(case("resnet50", (3, 64, 64)), bug, rtx)


@pytest.mark.parametrize("bug", MOBILENET_V2, ids=lambda bug: bug.name)
def test_mobilenet_v2(bug: Bug, rtx: Api) -> None:
    check(case("mobilenet_v2", (3, 64, 96)), bug, rtx)


@pytest.mark.parametrize("bug", MOBILENET_V3_SMALL, ids=lambda bug: bug.name)
def test_mobilenet_v3_small(bug: Bug, rtx: Api) -> None:
    check(case("mobilenet_v3_small", (3, 64, 96)), bug, rtx)


@pytest.mark.parametrize("bug", YOLOV5N, ids=lambda bug: bug.name)
def test_yolov5n(bug: Bug, rtx: Api) -> None:
    check(case("yolov5n", (3, 96, 160)), bug, rtx)


@pytest.mark.parametrize("bug", ALEXNET, ids=lambda bug: bug.name)
def test_alexnet(bug: Bug, rtx: Api) -> None:
    check(case("alexnet", (3, 160, 160)), bug, rtx)


@pytest.mark.parametrize(
    ("name", "size"), [("resnet50", (3, 64, 64)), ("vit_b_32", (3, 224, 224)), ("yolov8n", (3, 96, 160))]
)
def test_nothing_is_found_where_nothing_is_planted(name: str, size: tuple[int, int, int], rtx: Api) -> None:
    assert verdict(case(name, size), rtx, case(name, size).arrays).ok


# The same by other means, which is right

REWRITES = [
    ("resnet50", (3, 64, 64), "rows are averaged before columns",
        plant("avgpool", lambda real, net, x: net.tap(ops.reduce_mean(
            net.functional, ops.reduce_mean(net.functional, x, 3, keepdims=True), 2, keepdims=True)))),
    ("resnet50", (3, 64, 64), "sums the other way round", plant("layer*.add()", exchanged("x", "y"))),
    ("yolov8n", (3, 96, 160), "SiLU as x * sigmoid(x)",
        plant("model.*.act", lambda real, net, x: net.tap(ops.mul(net.functional, x, ops.sigmoid(net.functional, x))))),
    ("yolov8n", (3, 96, 160), "a pooling of 5x5 as two of 3x3",
        plant("model.9.m", lambda real, net, x, *a, **o: net.tap(ops.max_pool(
            net.functional, ops.max_pool(net.functional, x, 3, 1, pad=1), 3, 1, pad=1)))),
    ("mobilenet_v3_small", (3, 64, 96), "hard swish as x * relu6(x + 3) / 6",
        plant("features.[4-9].block.[01].2", lambda real, net, x, *a, **o: net.tap(ops.mul(net.functional, ops.mul(
            net.functional, x, ops.relu6(net.functional, ops.add(net.functional, x, 3.0))), 1 / 6)))),
    ("vit_b_32", (3, 224, 224), "LayerNorm of single ops",
        plant("encoder.layers.*.ln_*", lambda *a, **o: _layer_norm(_by_squares)(*a, **o))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "size", "what", "rewrite"), REWRITES, ids=[r[2] for r in REWRITES])
def test_a_right_definition_written_otherwise_passes(
    name: str, size: tuple[int, int, int], what: str, rewrite: Plant, rtx: Api
) -> None:
    with planted([rewrite], case(name, size).arrays) as arrays:
        report = verdict(case(name, size), rtx, arrays)
    assert report.ok, report.first_divergence


# What one size, one batch or half precision alone would not show: `prove` as the command calls it


def test_a_pooling_that_rounds_up_shows_at_the_second_size(rtx: Api) -> None:
    with planted([plant("maxpool", changed(ceil_mode=True))], {}):
        proof = prove(get_model("resnet18"), rtx, size=(65, 97))
    first = proof.also["99x153"].first_divergence
    assert proof.report.ok and not proof.ok and first is not None and first.name == "maxpool"


def test_a_global_pool_of_a_fixed_window_shows_at_the_second_size(rtx: Api) -> None:
    with planted([plant("avgpool", instead(ops.avg_pool, 2))], {}):
        proof = prove(get_model("resnet18"), rtx, size=(64, 64))
    assert proof.report.ok and not proof.ok
    assert [name for name, report in proof.also.items() if not report.ok]


@pytest.mark.parametrize("bug", [
    Bug("shortcut missing", "layer1.1.relu:1", plant("layer1.1.add()", keeps("x"))),
    Bug("BatchNorm eps 0", "layer3.0.bn2", plant("layer3.0.bn2", changed(eps=0.0))),
    Bug("stem padded by 2", "bn1", plant("bn1", changed(pad=2))),
], ids=lambda bug: bug.name)  # fmt: skip
def test_half_precision_hides_no_structure(bug: Bug, rtx: Api) -> None:
    with planted(bug.plants, {}):
        proof = prove(get_model("resnet18"), rtx, precision="fp16", size=(64, 96))
    first = proof.also["fp32"].first_divergence
    assert not proof.ok and first is not None and first.name == bug.starts


# Half precision: what the network makes of its own inputs, where the whole network would hide it


@pytest.mark.parametrize("name", ["yolov8n", "yolov5n", "yolo26n"])
def test_boxes_that_are_decoded_in_half_precision(name: str, rtx: Api) -> None:
    with mock.patch.object(Net, "fp32", property(lambda net: net)):
        report = prove(get_model(name), rtx, precision="fp16", size=(96, 160)).report
    assert [row.name for row in report.failures] == ["boxes"]
    assert all(row.ok for row in report.outputs)  # along the whole network they pass


def _by_moments(net: Net, x: Tensor, axis: int) -> Tensor:
    """The variance as E[x²] - E[x]²."""
    mean, square = (ops.reduce_mean(net, y, axis, keepdims=True) for y in (x, ops.mul(net, x, x)))
    return ops.sub(net, square, ops.mul(net, mean, mean))


def _by_squares(net: Net, x: Tensor, axis: int) -> Tensor:
    """The variance as E[(x - E[x])²]."""
    far = ops.sub(net, x, ops.reduce_mean(net, x, axis, keepdims=True))
    return ops.reduce_mean(net, ops.mul(net, far, far), axis, keepdims=True)


def _layer_norm(variance: Callable[[Net, Tensor, int], Tensor]) -> Mistake:
    """A LayerNorm of single ops, each of which is rounded to the precision of the scope."""

    def written_out(real: Any, net: Net, x: Tensor, eps: float, *, axis: int = -1) -> Tensor:
        at, shape, axis = net.functional, [1] * len(x.shape), axis % len(x.shape)
        shape[axis] = channels = x.shape[axis]
        scale, shift = (net.constant(net.weight(n, channels).reshape(shape), n) for n in ("weight", "bias"))
        far = ops.sub(at, x, ops.reduce_mean(at, x, axis, keepdims=True))
        y = ops.div(at, far, ops.sqrt(at, ops.add(at, variance(at, x, axis), eps)))
        return net.tap(ops.add(at, ops.mul(at, y, scale), shift))

    return written_out


@pytest.mark.parametrize(
    ("variance", "scale", "offset"),
    [(_by_moments, 1.0, 30.0), (_by_squares, 512.0, 0.0)],
    ids=["moments of channels off zero", "squares beyond 65504"],
)
def test_a_layer_norm_in_half_precision(
    variance: Callable[[Net, Tensor, int], Tensor], scale: float, offset: float, rtx: Api
) -> None:
    """With activations as large as a trained network has them; a LayerNorm takes scale and offset away again."""
    import torch

    from zoo.verify.calibration import state_arrays

    found = case("convnext_tiny", (3, 64, 64))
    reference = replace(found.reference, module=copy.deepcopy(found.reference.module))
    stem = reference.module.features[0][0]
    with torch.no_grad():
        stem.weight.mul_(scale)
        stem.bias.mul_(scale).add_(offset)

    def rows(*plants: Plant) -> list[Row]:
        with planted(plants, state_arrays(reference)) as arrays:
            half = define(get_model(found.model), from_arrays(arrays), rtx, found.images.shape, Precision("fp16"))
        taps = list(half.taps)
        ours = execute_on_cpu(half, taps, found.images)
        return own_half_rows(reference, found.images, ours, taps, "float16")

    assert all(row.ok for row in rows())
    wrong = [row.name for row in rows(plant("features.0.1", _layer_norm(variance))) if not row.ok]
    assert wrong[0] == "features.0.1"  # a variance below 0 makes NaN of all that follows


# What is refused


def test_a_batch_that_is_written_in_is_refused(rtx: Api) -> None:
    def two(real: Any, net: Net, x: Tensor) -> Tensor:
        return ops.reshape(net, x, (2, 512))

    words = r"the layer 'reshape' cannot take 3 images of 3x99x153; is a batch .* Input shape:\{3,512,1,1\}"
    with planted([plant("flatten()", two)], {}), pytest.raises(ZooError, match=words):
        prove(get_model("resnet18"), rtx, size=(64, 96))


def test_a_refusal_is_traced_to_the_layer_that_is_wrong_before_it(rtx: Api) -> None:
    """The sum of the block is refused, since the padding of its second convolution is wrong."""
    with planted([plant("layer2.1.bn2", changed(pad=2))], {}):
        proof = prove(get_model("resnet18"), rtx, size=(64, 96))
    first = proof.report.first_divergence
    assert not proof.ok and first is not None and first.name == "layer2.1.bn2"
    assert "refused add at 'layer2.1'" in proof.notes[0]


def test_a_refusal_with_nothing_wrong_before_it_says_so(rtx: Api) -> None:
    with (
        planted([plant("flatten()", lambda real, net, x: ops.concat(net, [x, ops.narrow(net, x, 1, 0, 2)], 2))], {}),
        pytest.raises(ZooError, match="refused concat .*; the 39 modules before it agree with the reference"),
    ):
        prove(get_model("resnet18"), rtx, size=(64, 96))
