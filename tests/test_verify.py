"""The reference, the rule and the report: whatever they let pass, nobody else will catch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from zoo.errors import ZooError
from zoo.verify.calibration import calibrated, dependence, num_parameters, sample_images, state_arrays
from zoo.verify.compare import ROUNDOFF, Report, Row, Run, compare_half, compare_runs, relative_l2
from zoo.verify.references import Library, Reference, load_reference
from zoo.verify.report import to_dict, to_html, to_terminal, verdict, write_html, write_json
from zoo.verify.running import DTYPES, run_reference
from zoo.verify.torchvision_shim import import_torchvision, nms

SIZE = (3, 64, 64)


def transformers_output(**values: Any) -> Any:
    """What models of transformers return: a dictionary that is a dataclass too."""
    from transformers.utils import ModelOutput

    return ModelOutput(**values)


def plain(module: torch.nn.Module) -> Reference:
    """A module that is of no library."""
    return Reference("test:net", module.eval(), Library())


@pytest.fixture(scope="module")
def resnet18() -> Reference:
    return calibrated("torchvision:resnet18", size=SIZE)


@pytest.fixture(scope="module")
def runs(resnet18: Reference) -> tuple[Run, Run]:
    images = sample_images(2, SIZE, seed=5)
    return run_reference(resnet18, images, taps=True), run_reference(resnet18, images, "float64", taps=True)


@pytest.mark.parametrize(("classes", "in_a_row"), [(1, True), (5, False)])
def test_a_nudged_run_adds_a_single_class_term_by_term(classes: int, in_a_row: bool) -> None:
    """In a row, several hundred float32 lose more than in PyTorch's lanes; five classes are left to PyTorch."""
    torch.manual_seed(0)
    network = plain(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2048, classes)))
    images = np.random.default_rng(0).standard_normal((32, 8, 16, 16), np.float32)
    exact = run_reference(network, images, "float64").outputs["logits"]
    usual, nudged = (
        relative_l2(run_reference(network, images, nudge=nudge).outputs["logits"], exact) for nudge in (None, 0)
    )
    assert (nudged > 2 * usual) == in_a_row
    assert nudged < 1e-5


# ------------------------------------------------------------------------------------------------- torchvision shim


def test_torchvision_imports_and_its_nms_works() -> None:
    torchvision = import_torchvision()
    assert import_torchvision() is torchvision
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 11.0, 11.0], [20.0, 20.0, 30.0, 30.0]])
    scores = torch.tensor([0.5, 0.9, 0.1])
    assert torchvision.ops.nms(boxes, scores, 0.5).tolist() == [1, 2]
    assert torch.ops.torchvision.nms(boxes, scores, 0.5).tolist() == [1, 2]


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_nms_is_the_greedy_definition(threshold: float) -> None:
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(60, 2, generator=generator) * 40
    boxes = torch.cat([corners, corners + torch.rand(60, 2, generator=generator) * 30], dim=1)
    scores = (torch.rand(60, generator=generator) * 10).round() / 10  # many ties

    def iou(a: list[float], b: list[float]) -> float:
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        shared = max(width, 0) * max(height, 0)
        return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)

    rows, kept = boxes.tolist(), []
    for index in sorted(range(60), key=lambda i: -scores[i].item()):
        if all(iou(rows[index], rows[other]) <= threshold for other in kept):
            kept.append(index)
    assert nms(boxes, scores, threshold).tolist() == kept


def test_nms_of_nothing() -> None:
    kept = nms(torch.empty(0, 4), torch.empty(0), 0.5)
    assert kept.shape == (0,) and kept.dtype == torch.int64


# -------------------------------------------------------------------------------------------------------- reference


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("resnet18", "expected PREFIX:NAME with a prefix among "),
        ("nobody:resnet18", "expected PREFIX:NAME with a prefix among "),
        ("torchvision:resnet19", "closest: resnet18"),
        ("scripts/no_such_file.py:Net", "no_such_file.py"),
    ],
)
def test_an_unknown_reference_is_explained(source: str, message: str) -> None:
    with pytest.raises(ZooError, match=re.escape(message)):
        load_reference(source)


@pytest.mark.parametrize(
    ("source", "parameters"),
    [
        ("torchvision:resnet18", 11_689_512),
        ("torchvision:googlenet", 6_624_904),  # as its paper has it: no classifiers for training
        ("ultralytics:yolov8n", 3_157_200),
        ("ultralytics:yolov5nu", 2_654_816),
        ("yolov5:yolov5n", 1_872_157),
    ],
)
def test_references_are_the_published_models(source: str, parameters: int) -> None:
    assert num_parameters(load_reference(source)) == parameters


def test_class_counts_can_be_chosen() -> None:
    images = sample_images(1, SIZE)
    assert run_reference(load_reference("torchvision:resnet18", 7), images).outputs["logits"].shape == (1, 7)


@pytest.mark.parametrize(
    "source", ["torchvision:resnet18", "torchvision:mobilenet_v3_small", "ultralytics:yolov8n", "yolov5:yolov5n"]
)
def test_calibrated_outputs_depend_on_the_input_and_repeat(source: str) -> None:
    reference = calibrated(source, seed=1, size=SIZE)
    assert not reference.module.training
    a, b = sample_images(2, SIZE, seed=77)[:, None]
    assert min(dependence(reference, a, b).values()) > 0.05

    state, torch_state = state_arrays(reference), torch.random.get_rng_state()
    again = state_arrays(calibrated(source, seed=1, size=SIZE))
    assert torch.equal(torch.random.get_rng_state(), torch_state), "the global generator was used"
    assert state.keys() == again.keys()
    assert all(np.allclose(state[name], again[name], rtol=1e-4, atol=1e-5) for name in state)
    other = state_arrays(calibrated(source, seed=2, size=SIZE))
    assert not any(np.array_equal(state[name], other[name]) for name in state if "weight" in name)


def test_constants_are_jittered_but_for_those_that_are_fixed() -> None:
    published = state_arrays(load_reference("yolov5:yolov5n"))["model.24.anchors"]
    found = state_arrays(calibrated("yolov5:yolov5n", size=SIZE))["model.24.anchors"]
    share = np.abs(found / published - 1)
    assert 0.01 < share.mean() and share.max() <= 0.1
    fixed = calibrated("yolov5:yolov5n", size=SIZE, fixed=["*.anchors"])
    np.testing.assert_array_equal(state_arrays(fixed)["model.24.anchors"], published)


def test_an_output_that_ignores_the_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(1, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(1e-6 * x.mean((1, 2, 3))[:, None])

    class DeafLibrary(Library):
        name, package, install = "deaf", "torch", ""

        def load(self, name: str, classes: int | None) -> torch.nn.Module:
            return Deaf()

    monkeypatch.setattr("zoo.verify.references.libraries", lambda: {"deaf": DeafLibrary()})
    with pytest.raises(ZooError, match="logits of deaf:net changes by"):
        calibrated("deaf:net", size=SIZE)


def test_state_arrays_leave_the_counter_out(resnet18: Reference) -> None:
    state = state_arrays(resnet18)
    assert len(state) == 102 and state["bn1.running_var"].shape == (64,)
    assert {array.dtype for array in state.values()} == {np.dtype(np.float32)}
    assert not any("num_batches_tracked" in name for name in state)


def test_taps_are_named_by_path_and_call(runs: tuple[Run, Run]) -> None:
    run = runs[0]
    start = ["conv1", "bn1", "relu", "maxpool", "layer1.0.conv1", "layer1.0.bn1", "layer1.0.relu", "layer1.0.conv2"]
    assert list(run.taps)[:8] == start
    assert {"layer1.0.relu:1", "layer1.0", "layer1"} <= run.taps.keys() and "layer1.0.relu:2" not in run.taps
    assert run.leaves["layer1.0.relu:1"] == "ReLU" and "layer1.0" not in run.leaves
    np.testing.assert_array_equal(run.taps["layer1.0.relu:1"], run.taps["layer1.0"])


def test_taps_survive_in_place_operations(runs: tuple[Run, Run]) -> None:
    before, after = runs[0].taps["bn1"], runs[0].taps["relu"]
    assert before.min() < 0
    np.testing.assert_array_equal(np.maximum(before, 0), after)


@pytest.mark.parametrize("source", ["ultralytics:yolov8n", "yolov5:yolov5n"])
def test_a_shared_activation_is_named_by_its_caller(source: str) -> None:
    run = run_reference(calibrated(source, size=SIZE), sample_images(1, SIZE), taps=True)
    acts = [name for name in run.taps if name.endswith(".act")]
    assert {"model.0.act", "model.1.act", "model.2.cv1.act"} <= set(acts)
    assert not any(":" in name for name in acts), "one path must not collect the calls of all blocks"


def test_attention_counts_as_a_leaf() -> None:
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attention(x, x, x)[0]

    run = run_reference(plain(Net()), np.ones((1, 3, 8), np.float32), taps=True)
    assert run.leaves == {"attention": "MultiheadAttention"} and run.taps["attention"].shape == (1, 3, 8)


class Chained(torch.nn.Module):
    """What substitution has to mind: an in-place module, one that returns a tuple, one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Linear(4, 4)
        self.relu = torch.nn.ReLU(inplace=True)
        self.attention = torch.nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.scale(x)
        self.relu(y)  # its result is y
        y = y + self.attention(y, y, y)[0]
        return self.relu(y).mean(1)


def test_the_network_goes_on_with_what_is_given() -> None:
    torch.manual_seed(0)
    net, x = plain(Chained()), np.random.default_rng(0).standard_normal((2, 3, 4), np.float32)
    free = run_reference(net, x, taps=True)
    mine = {name: value + 1 for name, value in free.taps.items() if name != "relu:1"}
    before = {name: value.copy() for name, value in mine.items()}
    run = run_reference(net, x, "float64", taps=True, given=mine)

    np.testing.assert_allclose(run.taps["scale"], free.taps["scale"], rtol=1e-4, atol=1e-6)  # on the same images
    np.testing.assert_array_equal(run.taps["relu"], np.maximum(mine["scale"], 0))  # exactly ours, cast up
    wanted, _ = net.module.attention(*[torch.from_numpy(mine["relu"])] * 3)
    np.testing.assert_allclose(run.taps["attention"], wanted.detach(), rtol=1e-4, atol=1e-6)
    expected = np.maximum(mine["relu"].astype(np.float64) + mine["attention"], 0)
    np.testing.assert_array_equal(run.taps["relu:1"], expected)
    np.testing.assert_allclose(run.outputs["logits"], expected.mean(1))
    assert all(np.array_equal(mine[name], before[name]) for name in mine), "what was given must stay as it was"


@dataclass
class Features:
    deep: torch.Tensor
    others: tuple[torch.Tensor, ...] = ()


class Choosing(torch.nn.Module):
    """Of three values the two that score most go on, in this order."""

    def __init__(self) -> None:
        super().__init__()
        self.score = torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores, values = x.unbind(1)
        return values.gather(1, self.score(scores).topk(2, 1).indices)


def test_the_reference_chooses_by_our_scores() -> None:
    """Rounding may put one before another; scores that are wrong are told all the same, and so is another choice."""
    from zoo.verify.proof import compare_half_outputs, compare_reference

    class Chooser(Library):
        def choosers(self, module: torch.nn.Module) -> list[str]:
            return ["score"]

    reference = Reference("test:net", Choosing().eval(), Chooser())
    more = 1 + 2.0**-23
    images = np.array([[[1, more, 0.5], [3, 4, 5]]], np.float32)
    ours = {"score": np.array([[more, 1, 0.5]], np.float32), "logits": np.array([[3, 4]], np.float32)}
    assert compare_reference(reference, images, ours, ["score"]).ok
    by_its_own = compare_reference(plain(Choosing()), images, {"logits": ours["logits"]})
    assert [row.name for row in by_its_own.failures] == ["logits"]
    wrong = compare_reference(reference, images, ours | {"score": ours["score"] * np.float32(1.001)}, ["score"])
    assert [row.name for row in wrong.failures] == ["score", "score"]
    wrong = compare_reference(reference, images, ours | {"logits": np.array([[4, 3]], np.float32)}, ["score"])
    assert {row.name for row in wrong.failures} == {"logits"}

    half = ours | {"logits": ours["logits"] * np.float32(1 + 2.0**-11)}
    assert compare_half_outputs(reference, images, half, {}, run_reference(reference, images), "float16").ok


class Sampling(torch.nn.Module):
    """Reads a map whose channels come last in memory, beside numbers that are none."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        memory = torch.full((3 * x.numel(),), torch.nan, dtype=x.dtype)
        channels_last = memory[x.numel() : 2 * x.numel()].view(1, 240, 256).copy_(x.reshape(1, 240, 256))
        maps = channels_last.transpose(1, 2).reshape(8, 32, 12, 20)
        places = torch.linspace(-1, 1, 2400, dtype=x.dtype).reshape(8, 150, 1, 2)
        return torch.nn.functional.grid_sample(maps, places, align_corners=False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_reference_reads_beyond_a_map(dtype: str) -> None:
    image = np.random.default_rng(0).random((1, 1, 240, 256), np.float32)
    expected = run_reference(plain(Sampling()), image, "float64").outputs["logits"]
    assert relative_l2(run_reference(plain(Sampling()), image, dtype).outputs["logits"], expected) < 0.05


class Naming(torch.nn.Module):
    """Modules that return a dictionary and a dataclass, as those of torchvision and of transformers do."""

    def __init__(self, kind: Callable[..., Any]) -> None:
        super().__init__()
        self.scale, self.features = torch.nn.Linear(4, 4), torch.nn.Identity()
        self.features.forward = lambda x: kind(deep=self.scale(x), others=(x,))  # type: ignore[method-assign]
        self.kind = kind

    def forward(self, x: torch.Tensor) -> Any:
        found = self.features(x)
        deep = found["deep"] if isinstance(found, dict) else found.deep
        return self.kind(deep=2 * deep, others=(x, deep))


@pytest.mark.parametrize("kind", [dict, Features, transformers_output])
def test_named_results_are_outputs_and_taps(kind: Callable[..., Any]) -> None:
    net, x = plain(Naming(kind)), np.ones((1, 4), np.float32)
    free = run_reference(net, x, taps=True)
    assert list(free.outputs) == ["deep"]
    np.testing.assert_array_equal(free.outputs["deep"], 2 * free.taps["features"])
    run = run_reference(net, x, given={"features": 3 * x})
    np.testing.assert_array_equal(run.outputs["deep"], 6 * x)


def test_a_tensor_of_another_shape_is_not_taken() -> None:
    net, x = plain(Chained()), np.ones((2, 3, 4), np.float32)
    free = run_reference(net, x, taps=True)
    run = run_reference(net, x, taps=True, given={"scale": np.zeros((2, 4), np.float32)})
    np.testing.assert_array_equal(run.taps["attention"], free.taps["attention"])


def test_what_is_kept_of_a_tap_is_asked_of_the_caller() -> None:
    run = run_reference(plain(Chained()), np.ones((2, 3, 4), np.float32), taps=["relu:1"], keep=lambda name, a: a.shape)
    assert run.taps == {"relu:1": (2, 3, 4)} and set(run.leaves) == {"scale", "relu", "attention", "relu:1"}


@pytest.mark.parametrize("source", ["ultralytics:yolov8n", "yolov5:yolov5n"])
def test_detections_have_the_form_of_the_zoo(source: str) -> None:
    reference, images = calibrated(source, size=SIZE), sample_images(2, SIZE)
    run = run_reference(reference, images)
    anchors = (64 + 16 + 4) * (3 if source.startswith("yolov5") else 1)
    assert run.outputs["boxes"].shape == (2, 4, anchors) and run.outputs["scores"].shape == (2, 80, anchors)
    scores = run.outputs["scores"]
    assert 0 <= scores.min() < 0.2 and 0.7 < scores.max() <= 1
    wide = run_reference(reference, sample_images(1, (3, 32, 96)))  # another grid than the one it remembers
    assert wide.outputs["boxes"].shape[2] == anchors * 3 // 4
    again = run_reference(reference, images)
    np.testing.assert_array_equal(again.outputs["boxes"], run.outputs["boxes"])


def test_precisions_differ_as_much_as_they_should(resnet18: Reference) -> None:
    images = sample_images(2, SIZE, seed=5)
    exact = run_reference(resnet18, images, "float64").outputs["logits"]
    assert exact.dtype == np.float64
    logits = {name: run_reference(resnet18, images, name).outputs["logits"] for name in DTYPES}
    assert 1e-8 < relative_l2(logits["float32"], exact) < 1e-5
    assert 1e-4 < relative_l2(logits["float16"], exact) < 2e-2 and logits["float16"].dtype == np.float32
    assert 1e-3 < relative_l2(logits["bfloat16"], exact) < 2e-1
    assert next(resnet18.module.parameters()).dtype == torch.float32, "the module itself must stay as it was"
    with pytest.raises(ZooError, match="'int8'.*float32"):
        run_reference(resnet18, images, "int8")


# --------------------------------------------------------------------------------------------------------- the rule


def ours(runs: tuple[Run, Run]) -> tuple[dict[str, np.ndarray], list[str]]:
    """What a right port would give (the reference's fp32 leaves), and its network order."""
    run = runs[0]
    return {**run.outputs, **{name: run.taps[name] for name in run.leaves}}, list(run.leaves)


def test_relative_l2() -> None:
    assert relative_l2(np.array([3.0, 4.0]), np.array([3.0, 0.0])) == pytest.approx(4 / 3)
    assert relative_l2(np.zeros(3), np.zeros(3)) == 0
    assert relative_l2(np.ones(3), np.zeros(3)) == np.inf
    assert np.isnan(relative_l2(np.array([np.inf]), np.array([np.inf])))
    big = np.array([3e38, 3e38], np.float32)  # squares overflow float32
    assert relative_l2(big, big) == 0


def test_a_right_network_passes(runs: tuple[Run, Run]) -> None:
    tensors, order = ours(runs)
    report = compare_runs(tensors, *runs, order)
    assert report.ok and report.first_divergence is None and report.missing == [] and report.extra == []
    assert len(report.taps) == 60 and report.taps[0].kind == "Conv2d"
    assert max(row.ratio for row in report.taps) == pytest.approx(0.25)  # the reference itself: noise / 4 noise


def test_a_perturbed_layer_is_named_though_nearly_right(runs: tuple[Run, Run]) -> None:
    tensors, order = ours(runs)
    start = order.index("layer2.0.conv2")
    for name in (*order[start:], "logits"):
        tensors[name] = tensors[name] * np.float32(1 + 1e-4)
    report = compare_runs(tensors, *runs, order)
    assert not report.ok
    assert report.first_divergence is not None and report.first_divergence.name == "layer2.0.conv2"
    assert len(report.failures) == len(order) - start + 1
    assert np.allclose(tensors["logits"], runs[1].outputs["logits"], atol=5e-3)  # what others accept


def test_an_epsilon_is_seen(resnet18: Reference, runs: tuple[Run, Run]) -> None:
    norms = [module for module in resnet18.module.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    images = sample_images(2, SIZE, seed=5)
    try:
        for norm in norms:
            norm.eps = 0
        wrong = run_reference(resnet18, images, taps=True)
    finally:
        for norm in norms:
            norm.eps = 1e-5
    report = compare_runs({**wrong.outputs, **wrong.taps}, *runs, list(wrong.leaves))
    assert report.first_divergence is not None and report.first_divergence.name == "bn1"
    assert not report.outputs[0].ok


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_fail(runs: tuple[Run, Run], value: float) -> None:
    tensors, order = ours(runs)
    tensors["layer1.0.bn1"] = tensors["layer1.0.bn1"].copy()
    tensors["layer1.0.bn1"].flat[3] = value
    report = compare_runs(tensors, *runs, order)
    assert [row.name for row in report.failures] == ["layer1.0.bn1"]
    assert report.failures[0].problem == f"1 of {tensors['layer1.0.bn1'].size} values are NaN or inf"


def test_shapes_and_missing_outputs_fail(runs: tuple[Run, Run]) -> None:
    tensors, order = ours(runs)
    tensors["relu"] = tensors["relu"].reshape(2, -1)
    del tensors["logits"]
    report = compare_runs(tensors, *runs, order)
    assert [row.name for row in report.failures] == ["relu", "logits"]
    assert "expected (2, 64, 32, 32)" in report.failures[0].problem and "missing" in report.failures[1].problem


def test_coverage_knows_folded_modules_and_those_without_arithmetic(runs: tuple[Run, Run]) -> None:
    tensors, order = ours(runs)
    some = [name for name in order if name not in ("conv1", "layer1.0.conv1")]
    report = compare_runs(tensors, *runs, [*some, "sum"], folded={"conv1"})
    assert report.missing == ["layer1.0.conv1"] and report.extra == ["sum"] and report.ok
    for run in runs:
        run.leaves["conv1"] = "Dropout"
    try:
        assert compare_runs(tensors, *runs, some).missing == ["layer1.0.conv1"]
    finally:
        for run in runs:
            run.leaves["conv1"] = "Conv2d"


def test_an_exact_reference_still_allows_one_rounding() -> None:
    exact = np.array([1.0, 2.0, 4.0])
    run32, run64 = Run({"logits": exact.astype(np.float32)}), Run({"logits": exact})
    assert compare_runs({"logits": np.float32(exact * (1 + 2**-23))}, run32, run64, []).ok
    assert not compare_runs({"logits": np.float32(exact * (1 + 2**-20))}, run32, run64, []).ok
    assert compare_runs({"logits": exact}, run32, run64, []).outputs[0].bound == 4 * ROUNDOFF["float32"]


def test_half_precision_is_bounded_by_the_reference_and_compared_with_our_own() -> None:
    rng = np.random.default_rng(0)
    exact, noise = rng.standard_normal(1000), rng.standard_normal(1000)
    own = {"logits": exact + 0.1}  # our fp32 need not be the reference's here: that is proven elsewhere
    ref32, ref_half = Run({"logits": exact}), Run({"logits": exact + 1e-2 * noise})
    assert compare_half({"logits": own["logits"] + 1.9e-2 * noise}, own, ref_half, ref32).ok
    assert not compare_half({"logits": own["logits"] + 2.2e-2 * noise}, own, ref_half, ref32).ok
    unused = compare_half(own, own, ref_half, ref32)
    assert not unused.ok and unused.outputs[0].problem == "float16 was not used: these are the bits of fp32"
    overflow = compare_half(own, own, Run({"logits": exact * np.inf}), ref32)
    assert not overflow.ok and "reference itself is not finite" in overflow.outputs[0].problem


# ------------------------------------------------------------------------------------------------------- the report


@pytest.fixture
def failing() -> Report:
    good = Row("stem.<conv>", (1, 8, 4, 4), 1e-7, 2e-7, 8e-7, kind="Conv2d")
    bad = Row("block.bn", (1, 8, 4, 4), 3e-2, 2e-7, 8e-7, kind="BatchNorm2d")
    nan = Row("block.relu", (1, 8, 4, 4), np.inf, np.nan, np.nan, "2 of 128 values are NaN or inf", "ReLU")
    return Report([Row("logits", (1, 10), 1e-1, 1e-7, 4e-7)], [good, bad, nan], missing=["block.conv"], rule="the rule")


def test_the_verdict_names_the_first_layer(failing: Report) -> None:
    assert verdict(failing) == "3 of 4 tensors differ, first at block.bn: 3.0e-02 where 8.0e-07 is allowed"


def test_json_is_strict(tmp_path: Path, failing: Report) -> None:
    write_json(tmp_path / "report.json", failing, "net", {"weights": "random"})
    data = json.loads(
        (tmp_path / "report.json").read_text(), parse_constant=lambda text: pytest.fail(f"{text} in JSON")
    )
    assert data == to_dict(failing, "net", {"weights": "random"})
    assert data["ok"] is False and data["first_divergence"] == "block.bn"
    assert data["taps"][2]["error"] is None and data["taps"][2]["problem"].startswith("2 of 128")
    assert data["taps"][0] | {"ok": True, "error": 1e-7, "kind": "Conv2d"} == data["taps"][0]


def test_the_page_is_one_valid_file(tmp_path: Path, failing: Report) -> None:
    write_html(tmp_path / "report.html", failing, "net & <co>", {"weights": "random"})
    page = (tmp_path / "report.html").read_text()
    assert page == to_html(failing, "net & <co>", {"weights": "random"})
    assert "FAIL" in page and "block.bn" in page and "net &amp; &lt;co&gt;" in page and "<conv>" not in page
    assert not re.search(r"https?://|<script|<link|url\(|@import", page), "the page must need nothing else"
    chart = ElementTree.fromstring(re.search(r"<svg.*?</svg>", page, re.DOTALL)[0])
    circles = chart.findall("circle")
    assert [circle.get("class") for circle in circles] == ["ours", "bad", "bad"]
    heights = [float(circle.get("cy")) for circle in circles]
    assert heights[0] > heights[1] >= heights[2] >= 0, "larger errors are drawn higher, NaN on top"


def test_the_terminal_shows_what_surrounds_the_failure() -> None:
    from rich.console import Console

    rows = [Row(f"layer{i}.", (1,), 1e-8 if i < 40 else 1e-2, 1e-7, 4e-7) for i in range(100)]
    report = Report([Row("logits", (1, 10), 1e-8, 1e-7, 4e-7)], rows, rule="the rule")

    def text(every: bool) -> str:
        console = Console(width=120, record=True, file=open("/dev/null", "w"))
        console.print(to_terminal(report, "net", every))
        return console.export_text()

    short, full = text(False), text(True)
    assert "layer39." in short and "layer40." in short and "layer90." not in short and "layer0." not in short
    assert all(f"layer{i}." in full for i in range(100))
    assert "FAILED  60 of 101 tensors differ, first at layer40." in short
