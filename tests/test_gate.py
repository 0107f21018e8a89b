"""The accuracy gate, on a network that is made to lose in int8."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import small_model
from sklearn.datasets import load_digits

from zoo import ops
from zoo.build import run
from zoo.errors import ZooError
from zoo.measure.gate import _fewest, find_layers
from zoo.measure.labelled import Sample
from zoo.network import Net, Tensor
from zoo.preprocess import gray
from zoo.quantization import load_scales
from zoo.registry import Model
from zoo.weights import Weights, from_arrays

HELD_OUT = 400


def build(net: Net, x: Tensor) -> Tensor:
    for i in range(3):
        x = ops.relu(net.functional, ops.conv2d(net / f"conv{i}", x, 32, 3, stride=1 + i % 2, bias=False))
    return ops.linear(net / "fc", ops.flatten(net, x), 10)


def model() -> Model:
    return replace(small_model(build), preprocess=gray(16), input=(1, 16, 16))


@functools.cache
def fragile() -> Weights:
    """Reads digits: random convolutions, and a linear layer by least squares.

    Three of four channels of `conv1` are 1000 times as small, and `conv2` makes up for it: ReLU lets scales through, so
    that the network is the same in fp32. One step of int8 is more than they ever are.
    """
    rng, digits = np.random.default_rng(0), load_digits()
    arrays = {
        f"conv{i}.weight": rng.standard_normal((32, 32 if i else 1, 3, 3)).astype(np.float32) / 12 for i in range(3)
    }
    x = torch.from_numpy(np.stack([cv2.resize(image, (16, 16)) for image in digits.images]) / 16).float()[:, None]
    for i in range(3):
        x = F.relu(F.conv2d(x, torch.from_numpy(arrays[f"conv{i}.weight"]), padding=1, stride=1 + i % 2))
    features = np.concatenate([x.flatten(1).double().numpy(), np.ones((len(x), 1))], 1)[:-HELD_OUT]
    wanted = np.eye(10)[digits.target[:-HELD_OUT]]
    solved = np.linalg.solve(features.T @ features + 1e-3 * np.eye(features.shape[1]), features.T @ wanted)
    arrays["fc.weight"], arrays["fc.bias"] = solved[:-1].T.astype(np.float32), solved[-1].astype(np.float32)
    small = np.where(np.arange(32) % 4, 1e-3, 1).astype(np.float32)
    arrays["conv1.weight"] *= small[:, None, None, None]
    arrays["conv2.weight"] /= small[None, :, None, None]
    return from_arrays(arrays)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder, digits, found = tmp_path_factory.mktemp("digits"), load_digits(), []
    for i in range(len(digits.images) - HELD_OUT, len(digits.images)):
        path = folder / f"{i}.png"
        cv2.imwrite(str(path), (digits.images[i] * 15.9).astype(np.uint8))
        found.append(Sample(path, int(digits.target[i])))
    return found


@pytest.mark.parametrize("agreement", [False, True])
def test_a_fragile_network_is_brought_back(agreement: bool, samples: list[Sample]) -> None:
    """Plain int8 loses more than 5 points; keeping the one layer that reads the small channels brings them back."""
    gate = find_layers(model(), fragile(), samples, 0.5, agreement=agreement, threads=1)
    assert gate.metric == "top-1" and gate.samples == HELD_OUT
    assert gate.fp32 == 1 if agreement else gate.fp32 > 0.9
    (kept, plain), *_, last = gate.tried
    assert kept == 0 and (gate.fp32 - plain) * 100 > 5
    assert gate.scales.keep == ("conv2",) and next(iter(gate.sensitivity)) == "conv2"
    assert last[0] == 1 and gate.drop == pytest.approx((gate.fp32 - last[1]) * 100) and gate.drop < 0.501
    assert any(line.startswith("conv2: alone in int8") and line.endswith("stays higher") for line in gate.table())


def test_what_loses_little_stays_whole(samples: list[Sample]) -> None:
    gate = find_layers(model(), fragile(), samples[:20], 100, threads=1)
    assert gate.scales.keep == () and len(gate.tried) == 1 and gate.sensitivity == {}


def test_a_drop_is_in_points(samples: list[Sample]) -> None:
    with pytest.raises(ZooError, match="max_drop is -1; it must be between 0 and 100 points"):
        find_layers(model(), fragile(), samples, -1)


def wanted(*needed: str) -> Callable[[Sequence[str]], bool]:
    return lambda keep: set(needed) <= set(keep)


def test_the_fewest_layers_are_kept() -> None:
    order = list("abcdefghij")
    assert _fewest(order, wanted("a")) == ["a"]
    assert _fewest(order, wanted("a", "e")) == ["a", "e"]  # b, c and d are tried in int8 again
    assert _fewest(order, wanted(*order)) == order
    with pytest.raises(ZooError, match="even with everything in fp16"):
        _fewest(order, wanted("z"))


def test_a_build_calibrates_and_keeps_what_it_found(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for sample in samples[:6]:
        folder = tmp_path / "data" / str(sample.truth)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(sample.path, folder)
    run("lenet5", int8=True, data=tmp_path / "data", max_drop=50, dry_run=True)
    assert "all, in fp32" in capsys.readouterr().err
    scales = load_scales("lenet5.scales.json")
    assert scales.samples == 6 and scales.keep == ()
    run("lenet5", int8=True, dry_run=True)  # takes them again
    run("lenet5", int8=True, data=folder, max_drop=50, dry_run=True, samples=2)
    assert "the fp32 answers count as right, since the pictures have no labels" in capsys.readouterr().err
    with pytest.raises(ZooError, match="holds no folder with pictures"):
        run("lenet5", int8=True, data=folder, layout="folder", dry_run=True)
    with pytest.raises(ZooError, match="--data belongs to --int8"):
        run("lenet5", data=folder, dry_run=True)
