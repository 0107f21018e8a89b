"""What engines say of themselves and take, on a real GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import zoo
from zoo.engine.flags import Flags
from zoo.engine.passport import load_engine
from zoo.engine.shapes import Shapes
from zoo.errors import ZooError
from zoo.inspect import run as inspect
from zoo.refit import refitted
from zoo.trt import Api
from zoo.weights import parse_weights

ROOT = Path(__file__).resolve().parents[2]
LENET = ROOT / "zoo" / "weights" / "lenet5.safetensors"


def test_the_layers_of_an_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = zoo.build_engine("lenet5", weights=LENET, level=0).save(tmp_path / "lenet5.engine")
    inspect(path, layers=True, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert said["intact"] and said["flavour"] == "tensorrt"
    assert any("conv1" in layer for layer in said["layers"])


@pytest.mark.parametrize("io", ["fp16", "uint8"])
def test_borders(io: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision and bytes at the borders of an fp32 network: the CPU's answers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    digit = cv2.imread(str(ROOT / "samples" / "digit_7.png"))
    options = {"weights": LENET, "io": io}
    with zoo.load("lenet5", device="cpu", **options) as on_cpu, zoo.load("lenet5", device="gpu", **options) as session:
        given, _ = session.prepare(digit)
        found, want = session(given[None])["logits"], on_cpu(given[None])["logits"]
        assert found.dtype == want.dtype
        np.testing.assert_allclose(found, want, rtol=2e-3, atol=2e-3)
        assert session.predict(digit).classes[0] == 7


def test_heights_and_widths_vary(tmp_path: Path, api: Api) -> None:
    """Two profiles of a detector at several sizes, at first without a graph and then replayed: the CPU's boxes."""
    shapes = Shapes.of(
        Shapes((1, 3, 64, 64), (1, 3, 64, 96), (2, 3, 128, 128)),
        Shapes((1, 3, 160, 160), (1, 3, 192, 192), (1, 3, 192, 320)),
    )
    path = zoo.build_engine("yolov8n", weights="random", shapes=shapes, level=0).save(tmp_path / "yolov8n.engine")
    with zoo.load(path) as session, zoo.load("yolov8n", weights="random", shapes=shapes, device="cpu") as on_cpu:
        for _ in range(3):
            for shape in ((1, 3, 64, 96), (2, 3, 128, 64), (1, 3, 160, 320), (1, 3, 64, 96)):
                x = np.random.default_rng(sum(shape)).random(shape, np.float32)
                found, want = session(x), on_cpu(x)
                for name in want:
                    assert np.linalg.norm(found[name] - want[name]) <= 1e-4 * np.linalg.norm(want[name])
        with pytest.raises(ZooError, match="the nearest is"):
            session(np.zeros((1, 3, 100, 128), np.float32))


def test_refitting_is_building_anew(tmp_path: Path) -> None:
    """Other weights in an engine of folded normalisations: the answers of one that was built with them."""
    options = {"size": (64, 96), "level": 0}
    engine = zoo.build_engine("resnet18", weights="random:1", flags=Flags(refit=True), **options)
    path = engine.save(tmp_path / "a.engine")
    new = zoo.build_engine("resnet18", weights="random:2", **options).save(tmp_path / "b.engine")
    after = refitted(load_engine(path), parse_weights("random:2"), path).save(tmp_path / "c.engine")
    x = np.random.default_rng(0).random((1, 3, 64, 96), np.float32)
    found, want, old = (_answer(file, x) for file in (after, new, path))
    assert np.linalg.norm(found - want) <= 1e-4 * np.linalg.norm(want) < np.linalg.norm(old - want)


def _answer(path: Path, x: np.ndarray) -> np.ndarray:
    with zoo.load(path) as session:
        return session(x)["logits"]


@pytest.mark.parametrize("flags", [Flags(hardware_compatible=True), Flags(sparsity=True)])
def test_flags_leave_answers_as_they_are(flags: Flags, tmp_path: Path) -> None:
    path = zoo.build_engine("lenet5", weights=LENET, level=0, flags=flags).save(tmp_path / "x.engine")
    x = np.random.default_rng(0).random((1, 1, 32, 32), np.float32)
    with zoo.load("lenet5", weights=LENET, device="cpu") as on_cpu:
        np.testing.assert_allclose(_answer(path, x), on_cpu(x)["logits"], rtol=1e-3, atol=1e-3)
