"""int8: ranges from pictures, pairs of Q and DQ in the network, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from zoo.api import build_engine, find_weights
from zoo.engine.calibration import calibrate, pictures_in
from zoo.engine.definition import define
from zoo.engine.passport import description_path, precision_of, rebuild_command
from zoo.engine.quantizers import scales_in
from zoo.errors import ZooError
from zoo.measure.ranges import METHODS, Histogram
from zoo.network import Precision
from zoo.quantization import Scales, load_scales, quantised_channels
from zoo.registry import get_model
from zoo.trt import Api
from zoo.weights import RandomWeights, from_arrays

SIZE = (3, 64, 64)
ROOT = Path(__file__).resolve().parent.parent


def zoo(*args: object) -> subprocess.CompletedProcess[str]:
    """`python -m zoo.ARGS` in a process of its own."""
    command, *rest = map(str, args)
    return subprocess.run(
        [sys.executable, "-m", f"zoo.{command}", *rest], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def counted(values: np.ndarray, parts: int = 1) -> Histogram:
    histogram = Histogram()
    for part in np.array_split(values, parts):
        histogram.add(part)
    return histogram


# Ranges


@pytest.mark.parametrize(("method", "low", "high"), [("max", 50, 50), ("percentile", 3, 5), ("mse", 6, 10)])
def test_an_outlier_counts_as_the_method_says(method: str, low: float, high: float) -> None:
    values = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    values[7] = -50
    assert low <= METHODS[method](counted(values)) <= high


def test_entropy_keeps_the_shape_and_drops_a_far_tail() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.standard_normal(1_000_000), rng.uniform(20, 40, 20)]).astype(np.float32)
    assert 2 < METHODS["entropy"](counted(values)) < 20


@pytest.mark.parametrize("method", METHODS)
def test_equal_values_and_zeros_have_their_range(method: str) -> None:
    assert METHODS[method](counted(np.full(1000, 0.25, np.float32))) == pytest.approx(0.25, rel=1e-3)
    assert METHODS[method](counted(np.zeros(1000, np.float32))) == 0


def test_counts_do_not_depend_on_the_order_of_batches() -> None:
    values = np.abs(np.random.default_rng(0).standard_normal(10_000)).astype(np.float32)
    whole, parts = counted(np.sort(values)[::-1].copy()), counted(np.sort(values), 50)
    assert whole.amax == parts.amax and whole.counts.sum() == parts.counts.sum() == 10_000
    for method in METHODS:
        assert METHODS[method](parts) == pytest.approx(METHODS[method](whole), rel=0.15)


def test_a_step_per_channel() -> None:
    weights = np.array([[[1.0, -2.0]], [[0.5, 0.25]], [[0, 0]]], np.float32)
    whole, step = quantised_channels(weights)
    assert np.array_equal(whole, [[[64, -127]], [[127, 64]], [[0, 0]]])  # halves go to the even neighbour
    assert step == pytest.approx([2 / 127, 0.5 / 127, 1])


# The network


def scales_of(name: str, weights: Any, **changes: Any) -> Scales:
    images = np.random.default_rng(1).standard_normal((2, *SIZE)).astype(np.float32)
    return replace(calibrate(get_model(name), weights, [images], method="max", threads=1), **changes)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "yolov8n", "shufflenet_v2_x0_5"])
def test_every_convolution_and_shortcut_is_a_site(rtx: Api, name: str) -> None:
    model = get_model(name)
    definition = define(model, RandomWeights(0), rtx, (1, *model.input))
    kinds = [definition.network.get_layer(i) for i in range(definition.network.num_layers)]
    convolutions = {layer.name for layer in kinds if layer.type == rtx.trt.LayerType.CONVOLUTION}
    assert convolutions <= definition.sites.keys()
    assert all(site in convolutions or "add" in site for site in definition.sites)


def test_linear_layers_of_tokens_are_sites_and_classifiers_are_not(rtx: Api) -> None:
    model = get_model("deit_tiny_patch16_224")
    sites = define(model, RandomWeights(0), rtx, (1, *model.input)).sites
    layers = [f"blocks.{i}.{name}" for i in range(12) for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
    assert list(sites) == ["patch_embed.proj", *layers]


def test_a_shortcut_is_rounded_and_not_what_the_convolution_gives(rtx: Api) -> None:
    for name, site, shortcut in (
        ("resnet18", "layer1.1.add", "layer1.0.relu:1"),
        ("mobilenet_v2", "features.3.add", "features.2.conv.3"),
        ("yolov8n", "model.2.m.0.add", None),
    ):
        model = get_model(name)
        definition = define(model, RandomWeights(0), rtx, (1, *model.input))
        read = definition.sites[site].name
        assert shortcut is None or read == definition.taps[shortcut].name
        assert not read.startswith(site.removesuffix(".add"))  # it comes from before the block


def test_islands_and_what_is_kept_are_not_rounded(rtx: Api) -> None:
    weights = RandomWeights(0)
    scales = scales_of("resnet18", weights, keep=("layer4.*",))
    precision = Precision("int8", ("layer3.*",), scales)
    definition = define(get_model("resnet18"), weights, rtx, (1, *SIZE), precision)
    layers = [definition.network.get_layer(i) for i in range(definition.network.num_layers)]
    pairs = [layer.name for layer in layers if layer.type == rtx.trt.LayerType.QUANTIZE]
    assert any(name.startswith("layer2.") for name in pairs)
    assert not any(name.startswith(("layer3.", "layer4.")) for name in pairs)


def test_calibration_is_stable_and_bounded(rtx: Api) -> None:
    images = np.random.default_rng(1).standard_normal((4, *SIZE)).astype(np.float32)
    model, weights = get_model("resnet18"), RandomWeights(0)
    together = calibrate(model, weights, [images], threads=1)
    apart = calibrate(model, weights, iter(images[:, None]), threads=1)
    assert together.samples == apart.samples == 4 and together.amax.keys() == apart.amax.keys()
    ratios = [apart.amax[site] / together.amax[site] for site in together.amax]
    assert 0.5 < min(ratios) and max(ratios) < 2


def test_what_is_concatenated_has_one_range(rtx: Api) -> None:
    """YOLOv8's C2f: halves of a convolution, what its bottlenecks make of them, and the convolution after all."""
    scales = scales_of("yolov8n", RandomWeights(0)).amax
    block = {scales[f"model.2.{part}"] for part in ("m.0.cv1.conv", "m.0.add", "cv2.conv")}
    assert len(block) == 1 and scales["model.2.m.0.cv2.conv"] not in block
    for pyramid in (("12.cv1.conv", "7.conv"), ("15.cv1.conv", "5.conv", "18.cv1.conv")):  # enlarged and joined
        assert len({scales[f"model.{part}"] for part in pyramid}) == 1
    assert len(set(scales.values())) > 20


# Commands and files


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "class a").mkdir()
    for i in range(3):
        image = np.random.default_rng(i).integers(0, 255, (40, 40, 3), np.uint8)
        cv2.imwrite(str(folder / "class a" / f"{i}.png"), image)
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def lenet(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scales of LeNet-5, as the function writes them."""
    from zoo.engine.calibration import prepared

    model, bad = get_model("lenet5"), list[str]()
    images = prepared(model, pictures_in(pictures, 10), None, bad)
    scales = calibrate(model, find_weights(model, None), images, threads=1)
    assert scales.samples == 3 and len(bad) == 1 and "broken.jpg" in bad[0]
    return scales.save(tmp_path_factory.mktemp("scales") / "lenet5.scales.json")


def test_calibrate_and_build(pictures: Path, tmp_path: Path) -> None:
    scales, engine = tmp_path / "scales.json", tmp_path / "lenet5.engine"
    result = zoo("calibrate", "lenet5", "--data", pictures, "--samples", 9, "--output", scales, "--json")
    assert result.returncode == 0 and json.loads(result.stdout)["samples"] == 3, result.stderr
    result = zoo("build", "lenet5", "--int8", "--scales", scales, "--save-engine", engine, "--fp32-layers", "conv2")
    assert result.returncode == 0, result.stderr
    description = json.loads(description_path(engine).read_text())
    assert description["precision"] == "int8" and description["islands"] == ["conv2"]
    assert precision_of(description).scales == load_scales(scales) == load_scales(description_path(engine))
    assert f"--int8 --scales {scales} --fp32-layers conv2" in rebuild_command(description)


def test_scales_are_bound_to_their_weights(lenet: Path) -> None:
    with pytest.raises(ZooError, match="calibrated with other weights .* calibrate again"):
        build_engine("lenet5", weights="random", precision=Precision("int8", scales=load_scales(lenet)))
    with pytest.raises(ZooError, match="holds scales of lenet5, not of resnet18"):
        build_engine("resnet18", weights="random", precision=Precision("int8", scales=load_scales(lenet)))
    with pytest.raises(ZooError, match="int8 needs the ranges of tensors: python -m zoo.calibrate"):
        build_engine("lenet5", precision="int8")


def test_scales_of_another_network_are_refused(lenet: Path) -> None:
    scales = load_scales(lenet)
    amax = {site: value for site, value in scales.amax.items() if site != "conv2"}
    with pytest.raises(ZooError, match="has no range for 'conv2': it is of another network; calibrate again"):
        build_engine("lenet5", precision=Precision("int8", scales=replace(scales, amax=amax)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"amax": {"conv1": -1}}, "the range of 'conv1' in .* must be a finite number of 0 or more"),
        ({"amax": {"conv1": float("nan")}}, "the range of 'conv1'"),
        ({"amax": {"conv1": "3"}}, "the range of 'conv1'"),
        ({"amax": {}}, "'amax' in .* must hold a number per tensor"),
        ({"amax": []}, "'amax' in"),
        ({"weights": 3}, "'weights' in .* must be a short text"),
        ({"model": "x\n" * 10}, "'model' in .* must be a short text"),
        ({"samples": -1}, "'samples' in .* must be a number of pictures"),
        ({"keep": "conv1"}, "'keep' in .* must be a list of patterns"),
    ],
)
def test_files_that_were_edited(lenet: Path, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    content = json.loads(lenet.read_text())
    content["scales"] |= change
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ZooError, match=words):
        load_scales(path)


@pytest.mark.parametrize("content", ["", "no json", "[]", "{}", '{"scales": 3}', "[" * 5000])
def test_other_files_hold_no_scales(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ZooError, match="is no JSON|holds no scales"):
        load_scales(path)


def test_what_calibrate_refuses(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        (["--data", tmp_path / "empty"], "holds no picture, nor do the folders below it"),
        (["--data", tmp_path / "none"], "is no folder; --data takes a folder with pictures"),
        (["--data", pictures, "--method", "entrpy"], "entropy"),
        (["--data", pictures, "--samples", 0], "samples is 0; it must be at least 1"),
    ):
        result = zoo("calibrate", "lenet5", *arguments, "--output", tmp_path / "scales.json")
        assert result.returncode == 2 and words in result.stderr and "Traceback" not in result.stderr, result.stderr
        assert not (tmp_path / "scales.json").exists()
    with pytest.raises(ZooError, match="there is no picture to calibrate with"):
        calibrate(get_model("lenet5"), find_weights(get_model("lenet5"), None), [])


QUANTISERS = {"conv1.input_quantizer._amax": np.float32(1), "conv2._input_quantizer._amax": np.ones((1,), np.float32)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"conv2._input_quantizer._amax": None}, ["1 tensors have no range and stay in fp16, the first is 'conv2'"]),
    ],
)
def test_ranges_that_a_checkpoint_brings(changes: dict[str, Any], words: list[str], rtx: Api) -> None:
    model, base = get_model("lenet5"), find_weights(get_model("lenet5"), None)
    arrays = {name: base.read(name, base.shape(name) or ()) for name in base.names()}
    ranges = {name: value for name, value in (QUANTISERS | changes).items() if value is not None}
    own = np.abs(arrays["conv1.weight"]).max((1, 2, 3), keepdims=True)
    weights = from_arrays(arrays | {"conv1.weight_quantizer._amax": own} | ranges)
    scales, said = scales_in(model, weights)
    assert scales.of("conv1") == 1 / 127 and scales.of("conv2") == (None if "conv2" in scales.keep else 1 / 127)
    assert len(said) == len(words) and all(re.match(*pair) for pair in zip(words, said))
    define(model, weights, rtx, (1, 1, 32, 32), Precision("int8", scales=scales))
    define(model, weights, rtx, (1, 1, 32, 32))  # without int8 they are of no use, and do no harm


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({}, "brings no ranges, such as 'conv1.input_quantizer._amax'"),
        ({"conv1.input_quantizer._amax": np.ones(6, np.float32)}, "has 6 values, expected one"),
        ({"conv1.input_quantizer._amax": np.float32(np.nan)}, "is nan, expected a range of 0 or more"),
    ],
)
def test_ranges_that_are_none(ranges: dict[str, Any], words: str) -> None:
    base = find_weights(get_model("lenet5"), None)
    arrays = {name: base.read(name, base.shape(name) or ()) for name in base.names()}
    with pytest.raises(ZooError, match=words):
        scales_in(get_model("lenet5"), from_arrays(arrays | ranges))


def test_only_unreadable_pictures(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "broken.jpg").write_bytes(b"no picture")
    result = zoo("calibrate", "lenet5", "--data", tmp_path / "data", "--output", tmp_path / "scales.json")
    assert result.returncode == 2 and "there is no picture to calibrate with" in result.stderr
