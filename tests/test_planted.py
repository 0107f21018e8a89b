"""The verifier on bugs that are planted on purpose: each is caught, and named by the layer where it starts.

A bug is planted in the definition (an op called with a wrong argument, another op, swapped tensors) or in the weights
that it reads; the reference stays as it is.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from zoo import ops
from zoo.engine.definition import define
from zoo.network import Net, Tensor
from zoo.registry import get_model
from zoo.trt import Api
from zoo.verify.compare import Report
from zoo.verify.proof import compare_reference, execute_on_cpu
from zoo.weights import from_arrays

Arrays = dict[str, np.ndarray]
Plant = Callable[[pytest.MonkeyPatch, Arrays], None]


@dataclass(frozen=True)
class Bug:
    """What is wrong, and the first tensor that must show it."""

    name: str
    starts: str
    plant: Plant


# Ways to plant


def call(function: str, scope: str, **changes: Any) -> Plant:
    """`function` of the model's module called with other arguments at `scope`."""
    return instead(function, scope, lambda real, *args, **kwargs: _with(real, args, kwargs, changes))


def instead(function: str, scope: str, other: Callable[..., Tensor]) -> Plant:
    """`other(real, net, …)` instead of `function(net, …)` at `scope`."""

    def plant(monkeypatch: pytest.MonkeyPatch, arrays: Arrays) -> None:
        module, _, name = function.rpartition(".")
        module = importlib.import_module(f"zoo.{module}")
        real = getattr(module, name)

        @functools.wraps(real)
        def planted(net: Net, *args: Any, **kwargs: Any) -> Tensor:
            return other(real, net, *args, **kwargs) if net.scope == scope else real(net, *args, **kwargs)

        monkeypatch.setattr(module, name, planted)

    return plant


def weights(change: Callable[[Arrays], None]) -> Plant:
    """The definition reads changed weights."""
    return lambda monkeypatch, arrays: change(arrays)


def zero(name: str) -> Plant:
    return weights(lambda arrays: arrays.update({name: np.zeros_like(arrays[name])}))


def edit(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    return weights(lambda arrays: arrays.update({name: np.ascontiguousarray(change(arrays[name]), np.float32)}))


def swap(first: str, second: str) -> Plant:
    return weights(lambda arrays: arrays.update({first: arrays[second], second: arrays[first]}))


def _with(real: Callable[..., Tensor], args: tuple, kwargs: dict[str, Any], changes: dict[str, Any]) -> Tensor:
    bound = inspect.signature(real).bind(*args, **kwargs)
    bound.arguments.update(changes)
    return real(*bound.args, **bound.kwargs)


def only_bn(bn: str, **changes: Any) -> Callable[..., Tensor]:
    """For a scope with several `conv_bn`: changes the one with this BatchNorm."""
    return lambda real, *args, **kw: _with(real, args, kw, changes if kw.get("bn") == bn else {})


def identity(real: Callable[..., Tensor], net: Net, x: Tensor) -> Tensor:
    return net.done(net.network.add_identity(x), "identity", x)


def leaky_relu(real: Callable[..., Tensor], net: Net, x: Tensor) -> Tensor:
    return net.done(net.network.add_activation(x, net.trt.ActivationType.LEAKY_RELU), "leaky_relu", x)


def gelu_tanh(real: Callable[..., Tensor], net: Net, x: Tensor) -> Tensor:
    layer = net.network.add_activation(x, net.trt.ActivationType.GELU_TANH)
    return net.done(layer, "gelu", x)


def bilinear(real: Callable[..., Tensor], net: Net, x: Tensor, factor: int) -> Tensor:
    layer = net.network.add_resize(x)
    layer.resize_mode = net.trt.InterpolationMode.LINEAR
    layer.scales = (1.0, 1.0, float(factor), float(factor))
    return net.done(layer, "upsample", x)


RESNET50 = [
    Bug("BatchNorm eps 1e-3", "layer2.0.bn2", instead("models.resnet.conv_bn", "layer2.0", only_bn("bn2", eps=1e-3))),
    Bug("BatchNorm eps 0", "bn1", call("models.resnet.conv_bn", "", eps=0.0)),
    Bug("BatchNorm statistics mixed in with momentum 0.1", "layer1.1.bn1",
        edit("layer1.1.bn1.running_var", lambda v: 0.9 + 0.1 * v)),
    Bug("padding 2 for 3 in the stem", "bn1", call("models.resnet.conv_bn", "", pad=2)),
    Bug("pooling rounds up", "maxpool", call("models.resnet.max_pool", "maxpool", pad=0, ceil_mode=True)),
    Bug("average pooling of the stem", "maxpool",
        instead("models.resnet.max_pool", "maxpool", lambda real, net, x, *a, **k: ops.avg_pool(net, x, 3, 2, pad=1))),
    Bug("stride on the first 1x1", "layer2.0.bn1",
        instead("models.resnet.conv_bn", "layer2.0", lambda real, *args, **kw: _with(
            real, args, kw, {"bn1": {"stride": 2}, "bn2": {"stride": 1}}.get(kw["bn"], {})))),
    Bug("BatchNorms swapped", "layer1.0.bn1", weights(lambda arrays: [
        arrays.update({f"layer1.0.bn1.{n}": arrays[f"layer1.0.bn2.{n}"]}) for n in ("weight", "bias")])),
    Bug("lost BatchNorm bias", "layer3.2.bn1", zero("layer3.2.bn1.bias")),
    Bug("lost bias of the classifier", "fc", zero("fc.bias")),
    Bug("kernel flipped", "layer3.0.bn2", edit("layer3.0.conv2.weight", lambda w: w[:, :, ::-1, ::-1])),
    Bug("kernel transposed", "layer4.0.bn2", edit("layer4.0.conv2.weight", lambda w: w.transpose(0, 1, 3, 2))),
    Bug("shortcut missing", "layer1.1.relu:2", instead("models.resnet.add", "layer1.1", lambda real, net, y, x: y)),
    Bug("ReLUs of a block missing", "layer2.1.relu", instead("models.resnet.relu", "layer2.1.relu", identity)),
    Bug("leaky ReLU for ReLU", "layer1.0.relu", instead("models.resnet.relu", "layer1.0.relu", leaky_relu)),
]  # fmt: skip

LAYER = "encoder.layers.encoder_layer_{}"
VIT_B_16 = [
    Bug("LayerNorm eps 1e-5", f"{LAYER.format(0)}.ln_1", call("models.vit.layer_norm", f"{LAYER.format(0)}.ln_1", eps=1e-5)),
    Bug("GELU by tanh", f"{LAYER.format(2)}.mlp.1", instead("models.vit.gelu", f"{LAYER.format(2)}.mlp.1", gelu_tanh)),
    Bug("position embeddings off by one", f"{LAYER.format(0)}.ln_1", edit("encoder.pos_embedding", lambda p: np.roll(p, 1, 1))),
    Bug("class token lost", f"{LAYER.format(0)}.ln_1", zero("class_token")),
    Bug("patch kernel transposed", "conv_proj", edit("conv_proj.weight", lambda w: w.transpose(0, 1, 3, 2))),
    Bug("queries and keys swapped", f"{LAYER.format(5)}.self_attention",
        edit(f"{LAYER.format(5)}.self_attention.in_proj_weight", lambda w: np.concatenate([w[768:1536], w[:768], w[1536:]]))),
    Bug("keys and values swapped", f"{LAYER.format(6)}.self_attention",
        instead("models.vit.attention", f"{LAYER.format(6)}.self_attention", lambda real, net, q, k, v: real(net, q, v, k))),
    Bug("attention not scaled", f"{LAYER.format(1)}.self_attention",
        instead("ops.attention.mul", f"{LAYER.format(1)}.self_attention", lambda real, net, q, scale: q)),
    Bug("softmax over the queries", f"{LAYER.format(4)}.self_attention",
        call("ops.attention.softmax", f"{LAYER.format(4)}.self_attention", axis=2)),
    Bug("lost bias of the queries", f"{LAYER.format(7)}.self_attention",
        edit(f"{LAYER.format(7)}.self_attention.in_proj_bias", lambda b: np.concatenate([0 * b[:768], b[768:]]))),
    Bug("lost LayerNorm bias", "encoder.ln", zero("encoder.ln.bias")),
    Bug("lost bias in the MLP", f"{LAYER.format(8)}.mlp.0", zero(f"{LAYER.format(8)}.mlp.0.bias")),
    Bug("residuals missing", f"{LAYER.format(9)}.ln_2", instead("models.vit.add", LAYER.format(9), lambda real, net, x, y: y)),
]  # fmt: skip

YOLOV8N = [
    Bug("BatchNorm eps 1e-5", "model.4.m.0.cv1.bn", call("models.yolov8.conv_bn", "model.4.m.0.cv1", eps=1e-5)),
    Bug("ReLU for SiLU", "model.1.act", instead("models.yolov8.silu", "model.1.act", lambda real, net, x: ops.relu(net, x))),
    Bug("halves of C2f swapped", "model.2.m.0.cv1.bn", call("models.yolov8.narrow", "model.2", start=0)),
    Bug("shortcut in the neck", "model.12.cv2.bn", call("models.yolov8.bottleneck", "model.12.m.0", shortcut=True)),
    Bug("no shortcut in the backbone", "model.6.m.1.cv1.bn", call("models.yolov8.bottleneck", "model.6.m.0", shortcut=False)),
    Bug("average pooling in SPPF", "model.9.m",
        instead("models.yolov8.max_pool", "model.9.m", lambda real, net, x, *a, **k: ops.avg_pool(net, x, 5, 1, pad=2))),
    Bug("pooling of SPPF 3x3", "model.9.m", instead("models.yolov8.max_pool", "model.9.m", lambda real, net, x, *a, **k: real(net, x, 3, 1, pad=1))),
    Bug("bilinear upsampling", "model.10", instead("models.yolov8.upsample_nearest", "model.10", bilinear)),
    Bug("concatenation in the other order", "model.14",
        instead("models.yolov8.join", "model.14", lambda real, net, x, skip: net.tap(ops.concat(net, [skip, x])))),
    Bug("lost bias of the classes", "model.22.cv3.1.2", zero("model.22.cv3.1.2.bias")),
    Bug("box branch reads the other level's kernel", "model.22.cv2.0.1.bn", swap("model.22.cv2.0.1.conv.weight", "model.22.cv2.1.1.conv.weight")),
    Bug("softmax of the bins missing", "model.22.dfl.conv", instead("models.yolov8.softmax", "model.22.dfl.1", lambda real, net, x, axis: x)),
    Bug("anchors off by half a cell", "boxes", instead("models.yolov8.add", "model.22", lambda real, net, x, y: x if tuple(y.shape)[1] == 4 else real(net, x, y))),
    Bug("scores without sigmoid", "scores", instead("models.yolov8.sigmoid", "model.22.scores.1", lambda real, net, x: x)),
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

    reference = calibrated(get_model(name).reference, 0, size)
    return Case(name, reference, state_arrays(reference), sample_images(1, size, seed=1))


def verdict(case: Case, rtx: Api, arrays: Arrays) -> Report:
    definition = define(get_model(case.model), from_arrays(arrays), rtx, case.images.shape)
    taps = list(definition.taps)
    ours = execute_on_cpu(definition, taps, case.images)
    return compare_reference(case.reference, case.images, ours, taps, definition.folded)


def check(case: Case, bug: Bug, rtx: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = dict(case.arrays)
    bug.plant(monkeypatch, arrays)
    report = verdict(case, rtx, arrays)
    assert not report.ok
    first = report.first_divergence
    assert first is not None and first.name == bug.starts, f"{bug.name}: named {first}"


@pytest.mark.parametrize("bug", RESNET50, ids=lambda bug: bug.name)
def test_resnet50(bug: Bug, rtx: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    check(case("resnet50", (3, 64, 64)), bug, rtx, monkeypatch)


@pytest.mark.parametrize("bug", VIT_B_16, ids=lambda bug: bug.name)
def test_vit_b_16(bug: Bug, rtx: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    check(case("vit_b_16", (3, 224, 224)), bug, rtx, monkeypatch)


@pytest.mark.parametrize("bug", YOLOV8N, ids=lambda bug: bug.name)
def test_yolov8n(bug: Bug, rtx: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    check(case("yolov8n", (3, 96, 160)), bug, rtx, monkeypatch)


@pytest.mark.parametrize(
    ("name", "size"), [("resnet50", (3, 64, 64)), ("vit_b_16", (3, 224, 224)), ("yolov8n", (3, 96, 160))]
)
def test_nothing_is_found_where_nothing_is_planted(name: str, size: tuple[int, int, int], rtx: Api) -> None:
    assert verdict(case(name, size), rtx, case(name, size).arrays).ok
