"""A few models proven on this GPU; prove.py does all of them. Needs golden files: see goldens.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MODELS = ("lenet5", "mobilenet_v2", "resnet18", "yolov8n")
STAGES = {"fp32", "batch", "fp16"}


@pytest.fixture(scope="module")
def pack() -> Path:
    folder = os.environ.get("ZOO_GPU_PACK")
    if not folder:
        pytest.skip("ZOO_GPU_PACK names no folder of golden files; to make them: python tests/gpu/goldens.py --out DIR")
    return Path(folder)


def test_models_against_their_goldens(pack: Path, tmp_path: Path, say: Callable[[str], None]) -> None:
    program = Path(__file__).with_name("prove.py")
    command = [sys.executable, str(program), "--pack", str(pack), "--out", str(tmp_path), "--models", ",".join(MODELS)]
    done = subprocess.run([*command, "--jobs", "4", "--limit-seconds", "300"], capture_output=True, encoding="utf-8")
    say(done.stdout)
    records = [json.loads(line) for line in (tmp_path / "prove.jsonl").read_text("utf-8").splitlines()]
    assert done.returncode == 0, [r for r in records if not r.get("ok", True)]
    for model in MODELS:
        stages = {r["stage"]: r for r in records if r.get("model") == model}
        assert STAGES | {"reload"} <= stages.keys()
        assert stages["reload"]["same_bits"]
        assert all(row["error"] > 0 for row in stages["fp16"]["outputs"])  # half precision was really used
