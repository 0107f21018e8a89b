"""`python -m zoo.check`: what a machine has is told, and networks are proven on it, also with a GPU that is played."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_gpu import ENGINES, FakeCuda, FakeEngine, make_api

from zoo import check, driver, trt
from zoo.errors import ZooError
from zoo.registry import get_model
from zoo.runtime.gpu import GpuSession
from zoo.session import Session
from zoo.trt import Api
from zoo.verify.compare import relative_l2
from zoo.verify.packed import SHIPPED, read_packed, shipped
from zoo.verify.pretrained import load_state
from zoo.verify.proof import execute_on_cpu, factor_on_cpu
from zoo.verify.references import load_reference
from zoo.verify.running import run_reference
from zoo.weights import Weights

ROOT = Path(__file__).resolve().parent.parent


def arrays_of(weights: Weights) -> dict[str, np.ndarray]:
    return {name: weights.read(name, weights.shape(name) or ()) for name in weights.names()}


@pytest.mark.parametrize("model", shipped())
def test_what_is_shipped_is_what_pytorch_says(model: str) -> None:
    golden = read_packed(SHIPPED / f"{model}.safetensors", model)
    reference = load_state(load_reference(get_model(model).reference), arrays_of(golden.weights))
    for name, value in run_reference(reference, golden.images, "float64").outputs.items():
        assert relative_l2(golden.ref64.outputs[name], value) < 1e-12
        loss = relative_l2(golden.ref16.outputs[name], value)
        assert 1e-8 < relative_l2(golden.ref32.outputs[name], value) < 1e-4 < loss < 0.2


def test_a_machine_without_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "all.json"
    with pytest.raises(SystemExit) as stop:
        check.run(path)
    said = capsys.readouterr().out
    found = json.loads(path.read_text())
    assert stop.value.code == 0 and all(one["ok"] for one in found["checks"]) and "underway" not in found
    assert [one["name"] for one in found["checks"]] == [
        *(f"{model} on the CPU" for model in shipped()),
        "TensorRT-RTX compiles lenet5",
    ]
    assert re.search(
        r"lenet5 on the CPU: ok, agrees with PyTorch, logits in fp32 at \d+% of the bound, logits in fp16", said
    )
    assert found["machine"]["tensorrt"]["rtx"][0].isdigit() and "numpy" in found["machine"]["packages"]["base"]
    assert f"{len(found['checks'])} of {len(found['checks'])} checks passed" in said


def test_what_is_tried_on_a_gpu(monkeypatch: pytest.MonkeyPatch, rtx: Api) -> None:
    """Each TensorRT proves every network there; the GPU's part is played by onnxruntime."""
    monkeypatch.setattr(driver, "has_driver", lambda: True)
    monkeypatch.setattr(check, "installed", lambda flavour: True)
    monkeypatch.setattr(check, "load", lambda flavour: rtx)
    monkeypatch.setattr("zoo.runtime.engines.execute_on_gpu", execute_on_cpu)
    steps = dict(check.steps())
    for name in ("TensorRT", "TensorRT-RTX"):
        assert {f"{model} by {name} on the GPU" for model in shipped()} <= steps.keys()
    assert "a session on the GPU" in steps
    assert "agrees with PyTorch" in steps["lenet5 by TensorRT on the GPU"]()


def test_a_wrong_kernel_is_told(rtx: Api) -> None:
    def execute(definition: Any, taps: list[str], images: np.ndarray) -> dict[str, np.ndarray]:
        return {name: value * 1.00001 for name, value in execute_on_cpu(definition, taps, images).items()}

    with pytest.raises(ZooError, match=r"fp32 logits: off by 1\.\de-05, \d\.\de-0[67] is"):
        check.prove("resnet18", lambda: rtx, {"execute": execute, "factor": factor_on_cpu})


@pytest.fixture
def open_session(cuda: FakeCuda) -> Any:
    """A session of LeNet-5 on the played GPU, whose engine computes what it is given."""

    def open_session(function: Any) -> Session:
        profile = ((4, 1, 32, 32),) * 3
        ENGINES[b"plan"] = FakeEngine(cuda, {"images": profile}, {"logits": lambda shapes: (4, 10)}, function)
        model = get_model("lenet5")
        return Session(model, GpuSession(b"plan", api=make_api()), "played", model.preprocess, (32, 32), None, "none")

    return open_session


def test_repeated_calls_give_the_same_bits(open_session: Any) -> None:
    def means(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"logits": arrays["images"].mean((1, 2, 3))[:, None] * np.arange(10, dtype=np.float32)}

    calls = iter(range(100))
    with open_session(means) as session:
        assert check.repeat(session) == "6 repeated calls give the same bits, played"
    with open_session(lambda arrays: {"logits": np.full((4, 10), next(calls), np.float32)}) as session:
        with pytest.raises(ZooError, match="6 of 6 repeated calls give other bits"):
            check.repeat(session)
    with open_session(lambda arrays: {"logits": np.full((4, 10), np.nan, np.float32)}) as session:
        with pytest.raises(ZooError, match="not finite"):
            check.repeat(session)


def test_the_file_tells_what_failed_and_what_was_underway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, before = tmp_path / "all.json", []

    def refused() -> str:
        before.append(json.loads(path.read_text()))
        raise ZooError(f"{Path.home()}/engine is refused")

    monkeypatch.setattr(check, "steps", lambda: iter([("first", refused), ("second", lambda: str(1 / 0))]))
    with pytest.raises(SystemExit) as stop:
        check.run(path, as_json=True)
    first, second = json.loads(path.read_text())["checks"]
    assert stop.value.code == 1 and before[0]["underway"] == "first"
    assert (
        first["found"] == "~/engine is refused"
        and first["traceback"] is None
        and str(Path.home()) not in path.read_text()
    )
    assert second["found"].startswith("ZeroDivisionError") and "Traceback" in second["traceback"]


def test_a_folder_is_no_file_to_write_to(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="it is a folder"):
        check.run(tmp_path)


def test_the_packages_are_those_of_the_project() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    base, extras = re.search(r"^dependencies = \[(.*?)^\]", text, re.M | re.S), text.partition("optional-dep")[2]
    wanted = {"base": base[1] if base else ""}
    wanted |= {extra: re.search(rf"^{extra} = \[(.*?)\]", extras, re.M | re.S)[1] for extra in list(check.PACKAGES)[1:]}
    names = {extra: tuple(re.findall(r'"([a-z-]+)', part)) for extra, part in wanted.items()}
    assert {extra: sorted(found) for extra, found in names.items()} == {
        extra: sorted(known) for extra, known in check.PACKAGES.items()
    }


# What networks are defined on


def test_full_tensorrt_defines_where_the_other_cannot_be_installed(
    monkeypatch: pytest.MonkeyPatch, rtx: Api, tensorrt8: Api
) -> None:
    monkeypatch.setattr(trt, "has_driver", lambda: True)
    monkeypatch.setattr(trt, "installed", lambda flavour: flavour == "tensorrt")
    monkeypatch.setattr(trt, "load", lambda flavour: {"rtx": rtx, "tensorrt": tensorrt8}[flavour])
    assert trt.load_to_define() is tensorrt8
    with pytest.raises(ZooError, match="TensorRT 8.6.0 has half precision only in its engines.*--fp16"):
        trt.load_to_define("fp16")
    monkeypatch.setattr(trt, "installed", lambda flavour: True)
    assert trt.load_to_define("fp16") is rtx


@pytest.mark.parametrize(
    ("system", "machine", "words"),
    [
        ("Linux", "aarch64", "no package for Linux aarch64.*on a Jetson that of JetPack"),
        ("Linux", "x86_64", "pip install tensorrt-rtx$"),
    ],
)
def test_what_to_install(monkeypatch: pytest.MonkeyPatch, system: str, machine: str, words: str) -> None:
    monkeypatch.setattr(trt.platform, "system", lambda: system)
    monkeypatch.setattr(trt.platform, "machine", lambda: machine)
    monkeypatch.setattr(trt, "installed", lambda flavour: False)
    with pytest.raises(ZooError, match=words):
        trt._load.__wrapped__("rtx")


def test_the_driver_of_windows_has_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def open_library(name: str) -> Any:
        asked.append(name)
        raise OSError

    monkeypatch.setattr(driver.ctypes, "CDLL", open_library)
    monkeypatch.setattr(driver, "LIBRARY", driver.library_name("nt"))
    assert driver.driver_problem.__wrapped__() == "no NVIDIA driver was found (nvcuda.dll)" and asked == ["nvcuda.dll"]
    assert driver.library_name("posix") == "libcuda.so.1"
