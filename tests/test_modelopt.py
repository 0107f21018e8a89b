"""A checkpoint that NVIDIA's ModelOpt trained for int8 (tests/modelopt_lenet5.py made it): its ranges, its answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_int8 import zoo

from zoo.engine.definition import define
from zoo.engine.quantizers import scales_in
from zoo.errors import ZooError
from zoo.network import Precision
from zoo.quantization import TRAINED, Scales, load_scales, quantised_channels
from zoo.registry import get_model
from zoo.runtime.cpu import CpuSession
from zoo.trt import Api
from zoo.verify.compare import relative_l2
from zoo.verify.proof import prove
from zoo.weights import Weights, from_arrays, load_weights

DATA = Path(__file__).resolve().parent / "data"
CHECKPOINT = DATA / "lenet5_modelopt.pt"
WANTED = np.array(json.loads((DATA / "lenet5_modelopt.json").read_text())["logits"])
ALIKE = 2e-6  # fp32 rounds 400 products by turns; what is quantised otherwise is off by more than 1e-3


def distance(api: Api, scales: Scales | None, weights: Weights) -> float:
    """Of our answers, with everything that is not rounded in fp32, from those of ModelOpt's network."""
    images = np.random.default_rng(0).random((4, 1, 32, 32), np.float32)
    definition = define(get_model("lenet5"), weights, api, (-1, 1, 32, 32), Precision(scales=scales))
    with CpuSession(definition, threads=1) as session:
        return relative_l2(session(images)["logits"], WANTED)


@pytest.fixture(scope="module")
def checkpoint() -> Weights:
    return load_weights(CHECKPOINT)


@pytest.fixture(scope="module")
def scales(checkpoint: Weights) -> Scales:
    found, said = scales_in(get_model("lenet5"), checkpoint)
    assert said == [] and found.method == TRAINED and set(found.amax) == {"conv1", "conv2"}
    return found


def test_its_ranges_give_its_own_answers(rtx: Api, checkpoint: Weights, scales: Scales) -> None:
    """Weights left the ranges that training rounds them over, so those of their values are others."""
    assert distance(rtx, scales, checkpoint) < ALIKE
    assert distance(rtx, None, checkpoint) > 1e-3, "the fp32 network"
    assert distance(rtx, replace(scales, method="max"), checkpoint) > 1e-3, "the weights' own largest values"
    amax = {**scales.amax, "conv2": scales.amax["conv2"] * 1.01}
    assert distance(rtx, replace(scales, amax=amax), checkpoint) > 1e-3, "a range that is 1 % off"


def test_the_commands_take_it(tmp_path: Path) -> None:
    """Ranges by name, a file of scales, and an engine."""
    file = tmp_path / "qat.json"
    made = zoo("calibrate", "lenet5", "--weights", CHECKPOINT, "--output", file)
    assert made.returncode == 0 and "2 tensors of lenet5, by the checkpoint's quantisers" in made.stdout, made.stderr
    assert load_scales(file).method == TRAINED
    engine = tmp_path / "qat.engine"
    built = zoo("build", "lenet5", "--int8", "--weights", CHECKPOINT, "--scales", file, "-o", engine)
    assert built.returncode == 0, built.stderr
    assert load_scales(f"{engine}.json") == load_scales(file)


def test_it_is_proven_with_the_ranges_of_training(rtx: Api, checkpoint: Weights, scales: Scales) -> None:
    proof = prove(get_model("lenet5"), rtx, checkpoint, precision="int8", scales=scales)
    assert proof.ok, proof.report.first_divergence


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            np.ones(3, np.float32),
            "conv1.weight_quantizer._amax' in .* has 3 values, expected one for each of 6 channels",
        ),
        (np.full(6, -1, np.float32), "'conv1.weight_quantizer._amax' in .* is -1.0, expected a range of 0 or more"),
        (np.full(6, np.inf, np.float32), "is inf, expected a range of 0 or more"),
    ],
)
def test_ranges_of_weights_that_are_none(rtx: Api, checkpoint: Weights, values: np.ndarray, words: str) -> None:
    arrays: dict[str, Any] = {n: checkpoint.read(n, checkpoint.shape(n) or ()) for n in checkpoint.names()}
    other = from_arrays(arrays | {"conv1.weight_quantizer._amax": values})
    scales, _ = scales_in(get_model("lenet5"), other)
    with pytest.raises(ZooError, match=words):
        define(get_model("lenet5"), other, rtx, (1, 1, 32, 32), Precision("int8", scales=scales))


def test_weights_beyond_their_range_saturate() -> None:
    weights = np.array([[-3, -1, 0.5, 3]], np.float32)
    for ranges in (np.ones(1, np.float32), np.float32([1])):
        whole, step = quantised_channels(weights, amax=ranges)
        assert whole.tolist() == [[-128, -127, 64, 127]] and step[0] == np.float32(1 / 127)
    assert quantised_channels(weights)[0].tolist() == [[-127, -42, 21, 127]]
