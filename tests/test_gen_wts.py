"""scripts/gen_wts.py from end to end: what it makes out of every kind of checkpoint, and what it refuses.

Checkpoints are made here as their projects make them; the script and the commands run in processes of their own.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from zoo import gen_wts as gen_wts_module
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


class WritesAFile:
    """Pickled, this is a call of `open` that makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


# Random weights and what is made of them


def test_random_weights_are_built_verified_and_proven_without_torch(tmp_path: Path) -> None:
    path, text = tmp_path / "w.safetensors", tmp_path / "w.wts"
    said = gen_wts("lenet5", "--random", 7, "--golden", "-o", path)
    assert "10 tensors, 61,706 parameters" in said and "seed 7" in said
    gen_wts("lenet5", "--random", 7, "-o", text)

    ours, theirs = tensors(path), tensors(text)
    others = gen_wts_module.arrays_of(gen_wts_module.from_random(get_model("lenet5"), 8))
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
    gen_wts("yolov5n", "--checkpoint", detectors[kind], "-o", path)
    assert json.loads(load_weights(path).metadata["classes"]) == list(NAMES.values())


def test_class_names_of_a_checkpoint_are_those_of_its_answers(tmp_path: Path, detectors: dict[str, Path]) -> None:
    path = tmp_path / "w.safetensors"
    gen_wts("yolov8n", "--checkpoint", detectors["ultralytics"], "-o", path)
    assert json.loads(load_weights(path).metadata["classes"]) == list(NAMES.values())

    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), noise)
    arguments = ["--size", "64x96", "--conf", "0.001", "--save", tmp_path / "out", "--json", "--device", "cpu"]
    answer = python("-m", "zoo.run", "yolov8n", tmp_path / "noise.png", "-w", path, *arguments)
    assert answer.returncode == 0, answer.stderr
    (item,) = json.loads(answer.stdout)["results"]
    assert item["detections"] and {found["label"] for found in item["detections"]} <= set(NAMES.values())


def test_converting_needs_no_pytorch(tmp_path: Path, detectors: dict[str, Path]) -> None:
    stub = tmp_path / "stub"
    stub.mkdir()
    for package in ("torch", "torchvision", "ultralytics", "yolov5"):
        (stub / f"{package}.py").write_text("raise ImportError('not here')\n")
    path = tmp_path / "w.safetensors"
    gen_wts("yolov8n", "--checkpoint", detectors["ultralytics"], "-o", path, PYTHONPATH=str(stub))
    module = torch.load(detectors["ultralytics"], weights_only=False)["model"]
    assert all(np.array_equal(found, module.state_dict()[n].float()) for n, found in tensors(path).items())


def test_a_checkpoint_that_runs_code_does_not_run_it(tmp_path: Path) -> None:
    proof, checkpoint = tmp_path / "it ran", tmp_path / "c.pt"
    torch.save({"model": WritesAFile(proof)}, checkpoint)
    assert "holds no state_dict and no model" in refused(tmp_path / "w.safetensors", "lenet5", "-c", checkpoint)
    assert not proof.exists()
    torch.load(checkpoint, weights_only=False)["model"].close()
    assert proof.exists()  # it would have


# What the weights say


def test_names_are_given_and_counted(tmp_path: Path, detectors: dict[str, Path]) -> None:
    path, file = tmp_path / "w.safetensors", tmp_path / "names.txt"
    arguments = ["yolov8n", "--checkpoint", detectors["ultralytics"]]
    message = refused(path, *arguments, "--names", "cat,dog")
    assert "has 3 classes and 2 names; give one for each with --names FILE" in message
    file.write_text("a cat\na dog\nan owl\n")
    gen_wts(*arguments, "--names", file, "-o", path)
    assert json.loads(load_weights(path).metadata["classes"]) == ["a cat", "a dog", "an owl"]


def test_the_training_size_is_the_size_of_the_network(tmp_path: Path) -> None:
    import zoo

    module = calibrated("ultralytics:yolov8n", 0, (3, 64, 64), len(NAMES)).module
    torch.save({"model": module, "train_args": {"imgsz": 96}}, tmp_path / "best.pt")
    gen_wts("yolov8n", "-c", tmp_path / "best.pt", "-o", tmp_path / "w.safetensors")
    for file in ("best.pt", "w.safetensors"):
        with zoo.load("yolov8n", weights=tmp_path / file, device="cpu") as session:
            assert session.size == (96, 96)


def test_values_that_are_not_finite_are_named(tmp_path: Path, lenet: torch.nn.Module) -> None:
    state = {name: tensor.clone() for name, tensor in lenet.module.state_dict().items()}
    state["fc3.bias"][2] = float("nan")
    torch.save(state, tmp_path / "c.pth")
    message = refused(tmp_path / "w.safetensors", "lenet5", "-c", tmp_path / "c.pth")
    assert "'fc3.bias' in" in message and "has 1 of 10 values that are NaN or infinite" in message


# What is no checkpoint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no checkpoint"),
        (b"", "is empty"),
        (b"hello", "is no checkpoint of PyTorch: it begins with"),
        (b"PK\3\4 but nothing more", "cannot be read as a PyTorch checkpoint"),
        (pickle.dumps({"epoch": 3}, protocol=2)[:-1], "cannot be read as a PyTorch checkpoint"),
    ],
    ids=["none", "empty", "text", "cut zip", "cut pickle"],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "c.pth").write_bytes(content)
    with pytest.raises(ZooError, match=f"c.pth.*{words}" if content is not None else words):
        gen_wts_module.from_checkpoint(tmp_path / "c.pth", "lenet5")


def test_a_checkpoint_without_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "c.pth")
    message = refused(tmp_path / "w.safetensors", "lenet5", "--checkpoint", tmp_path / "c.pth")
    assert "c.pth holds no state_dict and no model; found a dict of epoch" in message


def test_a_checkpoint_and_random_weights_exclude_each_other(tmp_path: Path) -> None:
    assert "--random" in refused(tmp_path / "w.safetensors", "lenet5", "--checkpoint", "c.pth", "--random", 1)


# Published weights


def test_published_weights_without_the_internet(tmp_path: Path) -> None:
    output, cache = (
        tmp_path / "w.safetensors",
        {**OFFLINE, "XDG_CACHE_HOME": str(tmp_path / "cache"), "ZOO_OFFLINE": ""},
    )
    message = refused(output, "resnet18", **cache)
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth could not be downloaded (" in message
    assert "publishes no weights" in refused(output, "lenet5", **cache)


# Weights that name their model


def test_weights_that_name_their_model_are_run(tmp_path: Path, detectors: dict[str, Path]) -> None:
    gen_wts("yolov8n", "-c", detectors["ultralytics"], "-o", tmp_path / "w.safetensors")
    cv2.imwrite(str(tmp_path / "noise.png"), np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    arguments = [tmp_path / "noise.png", "--size", "64", "--save", tmp_path / "out", "--device", "cpu"]
    for file in (tmp_path / "w.safetensors", detectors["ultralytics"]):
        answer = python("-m", "zoo.run", file, *arguments)
        assert answer.returncode == 0 and f"yolov8n with {file}" in answer.stderr, answer.stderr
    torch.save({"a": torch.ones(1)}, tmp_path / "my best.pt")
    answer = python("-m", "zoo.run", tmp_path / "my best.pt", *arguments)
    assert answer.returncode == 2 and f"zoo.run MODEL SOURCE --weights '{tmp_path}/my best.pt'" in answer.stderr
