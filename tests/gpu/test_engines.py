"""What engines say of themselves and take, on a real GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import zoo
from zoo.inspect import run as inspect

LENET = Path(__file__).resolve().parents[2] / "zoo" / "weights" / "lenet5.safetensors"


def test_the_layers_of_an_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = zoo.build_engine("lenet5", weights=LENET, level=0).save(tmp_path / "lenet5.engine")
    inspect(path, layers=True, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert said["intact"] and said["flavour"] == "tensorrt"
    assert any("conv1" in layer for layer in said["layers"])
