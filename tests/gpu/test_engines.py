"""What engines say of themselves and take, on a real GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import zoo
from zoo.inspect import run as inspect

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
