"""scripts/gen_wts.py from end to end: what it makes out of every kind of checkpoint, and what it refuses.

Checkpoints are made here as their projects make them; the script and the commands run in processes of their own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from zoo.errors import ZooError
from zoo.registry import get_model
from zoo.verify.calibration import calibrated, state_arrays
from zoo.verify.references import Reference, load_reference
from zoo.weights import load_weights, save_safetensors

ROOT = Path(__file__).resolve().parent.parent
NAMES = {0: "cat", 1: "dog", 2: "owl"}
OFFLINE = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}  # nobody listens there


def python(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def gen_wts(*args: object, **environment: str) -> str:
    """Runs the script, which must succeed; what it prints."""
    result = python("scripts/gen_wts.py", *args, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def refused(output: Path, *args: object, **environment: str) -> str:
    """Runs the script, which must refuse in one sentence and write nothing."""
    result = python("scripts/gen_wts.py", *args, "-o", output, **environment)
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    assert not output.exists() and not result.stdout
    return next(line for line in result.stderr.splitlines() if line.startswith("error: "))


def tensors(path: Path) -> dict[str, np.ndarray]:
    weights = load_weights(path)
    return {name: weights.read(name, weights.shape(name) or (weights.size(name),)) for name in weights.names()}


@pytest.fixture(scope="module")
def lenet() -> Reference:
    return load_reference("scripts/train_lenet5.py:LeNet5")


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of detectors with three classes as their training scripts leave them: half precision, pickled."""
    folder = tmp_path_factory.mktemp("detectors")
    paths = {"ultralytics": save_detector(folder / "ultralytics.pt", "ultralytics:yolov8n")}
    paths["yolov5"] = save_detector(folder / "yolov5.pt", "yolov5:yolov5n")
    paths["yolov5 repository"] = as_in_the_repository(paths["yolov5"], folder / "best.pt")
    return paths


def save_detector(path: Path, reference: str) -> Path:
    module = calibrated(reference, 0, (3, 64, 64), len(NAMES)).module
    module.names = NAMES
    torch.save({"epoch": -1, "ema": None, "model": module.half()}, path)
    return path


def as_in_the_repository(packaged: Path, path: Path) -> Path:
    """The same checkpoint with the class paths of yolov5's own repository, which has no package around its modules."""
    with zipfile.ZipFile(packaged) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert b"cyolov5.models." in content
                content = content.replace(b"cyolov5.models.", b"cmodels.")
            target.writestr(entry, content)
    return path


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module, for the many files that it only has to refuse."""
    spec = importlib.util.spec_from_file_location("gen_wts", ROOT / "scripts" / "gen_wts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class WritesAFile:
    """Pickled, this is a call of `open` that makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


# Random weights and what is made of them


def test_random_weights_are_built_verified_and_proven_without_torch(tmp_path: Path, script: ModuleType) -> None:
    path, text = tmp_path / "w.safetensors", tmp_path / "w.wts"
    said = gen_wts("lenet5", "--random", 7, "--golden", "-o", path)
    assert "10 tensors, 61,706 parameters" in said and "seed 7" in said
    gen_wts("lenet5", "--random", 7, "-o", text)

    ours, theirs = tensors(path), tensors(text)
    others, _ = script.from_random(get_model("lenet5"), 8)
    assert ours.keys() == theirs.keys() and len(ours) == 10
    assert all(np.array_equal(ours[name].ravel(), theirs[name]) for name in ours)
    assert not any(np.array_equal(ours[name], others[name]) for name in ours)
    metadata = load_weights(path).metadata
    assert (metadata["model"], metadata["source"]) == ("lenet5", "calibrated random weights, seed 7")
    assert json.loads(metadata["input"])["shape"] == [1, 32, 32] and "classes" not in metadata

    for file in (path, text):
        assert python("-m", "zoo.build", "lenet5", "-w", file, "--dry-run").returncode == 0
    verified = python("-m", "zoo.verify", "lenet5", "-w", text)
    assert verified.returncode == 0 and "PASSED" in verified.stdout, verified.stderr

    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "torch.py").write_text("raise ImportError('no torch here')\n")
    assert "no torch here" in python("-c", "import torch", PYTHONPATH=str(stub)).stderr
    arguments = ["lenet5", "-w", path, "--golden", tmp_path / "w.golden.safetensors"]
    proven = python("-m", "zoo.verify", *arguments, PYTHONPATH=str(stub))
    assert proven.returncode == 0 and "PASSED" in proven.stdout, proven.stderr


# Checkpoints of plain tensors


@pytest.mark.parametrize("form", ["state_dict", "prefixed", "safetensors"])
def test_checkpoints_of_plain_tensors(tmp_path: Path, lenet: Reference, form: str) -> None:
    state = lenet.module.state_dict()
    checkpoint = tmp_path / ("c.safetensors" if form == "safetensors" else "c.pth")
    if form == "state_dict":
        torch.save(state, checkpoint)
    elif form == "prefixed":  # of DataParallel, among a training's other things
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, checkpoint)
    else:
        save_safetensors(checkpoint, state_arrays(lenet), {"classes": json.dumps(list("abcdefghij"))})
    path = tmp_path / "w.safetensors"
    assert f"({checkpoint.name})" in gen_wts("lenet5", "--checkpoint", checkpoint, "-o", path)
    found, expected = tensors(path), state_arrays(lenet)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    metadata = load_weights(path).metadata
    assert metadata["source"] == checkpoint.name
    assert metadata.get("classes") == (
        '["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]' if form == "safetensors" else None
    )


def test_a_checkpoint_of_another_variant_is_recognised(tmp_path: Path) -> None:
    torch.save(load_reference("torchvision:resnet18", 5).module.state_dict(), tmp_path / "c.pth")
    message = refused(tmp_path / "w.safetensors", "resnet34", "--checkpoint", tmp_path / "c.pth")
    assert "these are the weights of resnet18, not of resnet34: use that name" in message


# Checkpoints that hold a pickled model


@pytest.mark.parametrize("kind", ["yolov5", "yolov5 repository"])
def test_checkpoints_of_yolov5(tmp_path: Path, detectors: dict[str, Path], kind: str) -> None:
    path = tmp_path / "w.safetensors"
    gen_wts("yolov5n", "--checkpoint", detectors[kind], "--unpickle", "-o", path)
    assert json.loads(load_weights(path).metadata["classes"]) == list(NAMES.values())


def test_class_names_of_a_checkpoint_are_those_of_its_answers(tmp_path: Path, detectors: dict[str, Path]) -> None:
    path = tmp_path / "w.safetensors"
    gen_wts("yolov8n", "--checkpoint", detectors["ultralytics"], "--unpickle", "-o", path)
    assert json.loads(load_weights(path).metadata["classes"]) == list(NAMES.values())

    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), noise)
    arguments = ["--size", "64x96", "--conf", "0.001", "--save", tmp_path / "out", "--json", "--device", "cpu"]
    answer = python("-m", "zoo.run", "yolov8n", tmp_path / "noise.png", "-w", path, *arguments)
    assert answer.returncode == 0, answer.stderr
    (item,) = json.loads(answer.stdout)["results"]
    assert item["detections"] and {found["label"] for found in item["detections"]} <= set(NAMES.values())


def test_a_pickled_model_is_refused_without_unpickle(tmp_path: Path, detectors: dict[str, Path]) -> None:
    message = refused(tmp_path / "w.safetensors", "yolov8n", "--checkpoint", detectors["ultralytics"])
    assert "holds more than plain tensors, and opening it can run code; if you trust it, add --unpickle" in message


def test_a_checkpoint_that_runs_code_does_not_run_it(tmp_path: Path, script: ModuleType) -> None:
    proof, checkpoint = tmp_path / "it ran", tmp_path / "c.pt"
    torch.save({"model": WritesAFile(proof)}, checkpoint)
    assert "add --unpickle" in refused(tmp_path / "w.safetensors", "lenet5", "--checkpoint", checkpoint)
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"model": WritesAFile(proof)}, protocol=2))
    with pytest.raises(ZooError, match="add --unpickle"):
        script.from_checkpoint(tmp_path / "old.pt", unpickle=False)
    assert not proof.exists()
    torch.load(checkpoint, weights_only=False)["model"].close()
    assert proof.exists()  # it would have


# What is no checkpoint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no checkpoint"),
        (b"", "neither a zip archive nor a pickle"),
        (b"hello", "neither a zip archive nor a pickle"),
        (b"PK\3\4 but nothing more", "cannot be opened as a PyTorch checkpoint"),
        (pickle.dumps({"epoch": 3}, protocol=2)[:-1], "cannot be opened as a PyTorch checkpoint"),
    ],
    ids=["none", "empty", "text", "cut zip", "cut pickle"],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, script: ModuleType, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "c.pth").write_bytes(content)
    for unpickle in (False, True):
        with pytest.raises(ZooError, match=f"c.pth.*{words}" if content is not None else words):
            script.from_checkpoint(tmp_path / "c.pth", unpickle)


def test_a_checkpoint_without_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "c.pth")
    message = refused(tmp_path / "w.safetensors", "lenet5", "--checkpoint", tmp_path / "c.pth")
    assert "c.pth holds no state_dict and no model; found dict" in message


def test_a_checkpoint_and_random_weights_exclude_each_other(tmp_path: Path) -> None:
    assert "--random" in refused(tmp_path / "w.safetensors", "lenet5", "--checkpoint", "c.pth", "--random", 1)


# Published weights


def test_published_weights_without_the_internet(tmp_path: Path, script: ModuleType) -> None:
    output, cache = tmp_path / "w.safetensors", {**OFFLINE, "TORCH_HOME": str(tmp_path / "cache")}
    message = refused(output, "resnet18", **cache)
    assert "the published weights of torchvision:resnet18 could not be downloaded (" in message
    assert message.endswith("give --checkpoint FILE, or --random SEED for calibrated random weights")
    with pytest.raises(ZooError, match="publishes no weights of .*LeNet5"):
        script.from_published(get_model("lenet5"))
