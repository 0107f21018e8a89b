"""The goldens of the proof on a GPU, made and used on the CPU: the weights come out with the same bits elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "gpu"))

import goldens

from zoo.errors import ZooError
from zoo.registry import get_model
from zoo.verify.compare import relative_l2
from zoo.verify.packed import read_packed
from zoo.weights import load_weights, save_safetensors

PROVE = Path(__file__).parent / "gpu" / "prove.py"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("goldens")
    goldens.make(folder, "resnet18", (3, 64, 64))
    goldens.make(folder, "lenet5", get_model("lenet5").input)
    return folder


def test_a_golden_is_small_and_its_weights_are_whole(pack: Path) -> None:
    path = pack / "resnet18.safetensors"
    assert path.stat().st_size < 300_000  # of 47 MB of weights
    golden = read_packed(pack / "resnet18.safetensors", "resnet18")
    kernel = golden.weights.read("layer3.0.conv1.weight", (256, 128, 3, 3))
    assert 0.5 < kernel.std() / (2 / (128 * 9)) ** 0.5 < 1.5
    spread = kernel.reshape(256, -1).std(axis=1)
    assert spread.max() / spread.min() > 5  # filters of unlike size show a wrong epsilon
    assert golden.images.shape == (1, 3, 64, 64)
    noise = relative_l2(golden.ref32.outputs["logits"], golden.ref64.outputs["logits"])
    loss = relative_l2(golden.ref16.outputs["logits"], golden.ref32.outputs["logits"])
    assert 1e-8 < noise < 1e-5 < loss < 0.1


def test_other_bits_are_refused(pack: Path, tmp_path: Path) -> None:
    source = load_weights(pack / "lenet5.safetensors")
    arrays = {name: source.read(name, source.shape(name) or ()) for name in source.names()}
    name = next(name for name in arrays if name.startswith("weights/") and arrays[name].ndim == 1)
    arrays[name] = arrays[name] * 1.0000001
    save_safetensors(tmp_path / "lenet5.safetensors", arrays, source.metadata)
    golden = read_packed(tmp_path / "lenet5.safetensors", "lenet5")
    tensor, (shape, _) = next(
        (n, t) for n, t in json.loads(source.metadata["tensors"]).items() if f"weights/{n}" == name
    )
    with pytest.raises(ZooError, match="other bits here"):
        golden.weights.read(tensor, shape)


def prove(pack: Path, out: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], list[dict]]:
    command = [sys.executable, str(PROVE), "--pack", str(pack), "--out", str(out), "--device", "cpu", "--jobs", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *options], capture_output=True, text=True, env=environment)
    return done, [json.loads(line) for line in (out / "prove.jsonl").read_text("utf-8").splitlines()]


def test_the_proof_runs_on_the_cpu(pack: Path, tmp_path: Path) -> None:
    done, records = prove(pack, tmp_path)
    assert done.returncode == 0, done.stderr
    stages = {(r["model"], r["stage"]): r for r in records if "model" in r}
    assert set(stages) == {(m, s) for m in ("lenet5", "resnet18") for s in ("fp32", "batch", "fp16")}
    assert all(r["ok"] for r in stages.values())
    assert "out of bound or unfinished: none" in done.stdout and "| resnet18 | logits |" in done.stdout


def test_a_wrong_network_and_a_crash_are_told(pack: Path, tmp_path: Path) -> None:
    broken = tmp_path / "pack"
    broken.mkdir()
    (broken / "lenet5.safetensors").write_bytes((pack / "lenet5.safetensors").read_bytes())
    source = load_weights(pack / "resnet18.safetensors")
    arrays = {name: source.read(name, source.shape(name) or ()) for name in source.names()}
    arrays |= {name: arrays[name] * 1.0001 for name in ("float32/logits", "float64/logits")}
    save_safetensors(broken / "resnet18.safetensors", arrays, source.metadata)
    metadata = json.loads(source.metadata["tensors"])
    metadata["bn1.weight"][1] += 1
    save_safetensors(broken / "resnet34.safetensors", arrays, {**source.metadata, "tensors": json.dumps(metadata)})
    done, records = prove(broken, tmp_path / "out")
    assert done.returncode == 1
    found = {(r["model"], r["stage"]): r["ok"] for r in records if "model" in r}
    assert found["lenet5", "fp32"] and not found["resnet18", "fp32"] and found["resnet18", "batch"]
    assert found["resnet34", "failed"] is False
    assert "out of bound or unfinished: resnet18 fp32, resnet34 failed" in done.stdout
