"""`--device 0,1`: pictures shared out to several GPUs, which a fake provider each plays."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fake_gpu import ENGINES, FakeCuda, FakeEngine, make_api

import zoo
from zoo import batch
from zoo.device import named_gpus
from zoo.preprocess import gray
from zoo.registry import get_model
from zoo.run import run
from zoo.runtime import engines, gpu
from zoo.runtime.gpu import GpuSession
from zoo.session import Session

PROFILE = ((1, 1, 32, 32), (1, 1, 32, 32), (4, 1, 32, 32))


def logits(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"logits": arrays["images"].reshape(-1, 16, 64)[:, :10].sum(2)}


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[FakeCuda]:
    """Two GPUs on which LeNet-5 is a sum, and the pictures that each was given."""
    fakes = [FakeCuda(), FakeCuda()]
    for number, fake in enumerate(fakes):
        outputs = {"logits": lambda s: (s["images"][0], 10)}
        monkeypatch.setitem(ENGINES, b"%d" % number, FakeEngine(fake, {"images": PROFILE}, outputs, logits))
    monkeypatch.setattr(gpu, "provider", lambda name, device: fakes[device])
    monkeypatch.setattr(engines, "driver_problem", lambda: None)
    monkeypatch.setattr(engines, "device_count", lambda: 2)
    monkeypatch.setattr(engines, "installed", lambda flavour: True)

    def load_model_session(model: Any, *_: Any, device: int, **options: Any) -> Session:
        engines.require_gpu(device)
        executor = GpuSession(b"%d" % device, api=make_api(), device=device, graphs=False)
        return Session(get_model("lenet5"), executor, "a fake GPU", gray(32), (32, 32), None, "none")

    monkeypatch.setattr(engines, "load_model_session", load_model_session)
    return fakes


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(9):
        cv2.imwrite(str(folder / f"{index}.png"), random.integers(0, 256, (32 + index, 40, 3), np.uint8))
    (folder / "4.png").write_bytes(b"no picture")
    return folder


def answers(pictures: Path, device: str, together: int, status: int = 1) -> dict[str, Any]:
    save = pictures.parent / f"{device} {together}"
    with pytest.raises(SystemExit) as ended:
        run("lenet5", [str(pictures)], save=save, no_save=True, as_json=True, batch=together, device=device)
    assert ended.value.code == status
    found = json.loads((save / "results.json").read_text())
    for item in found["results"]:
        del item["ms"]
    return found


@pytest.mark.parametrize("together", [1, 2])
def test_results_are_those_of_one_gpu_in_order(gpus: list[FakeCuda], pictures: Path, together: int) -> None:
    """Also with batches, of which the last one is not full."""
    one = answers(pictures, "1", together)
    assert (gpus[0].uploads, gpus[1].uploads) == (0, -(-8 // together))
    several = answers(pictures, "cuda:1,0", together)
    assert (gpus[0].uploads, gpus[1].uploads) == (4 // together, 12 // together)  # half of them each
    assert several.pop("executor") == f"{one.pop('executor')} (gpu:1, gpu:0)" == "a fake GPU (gpu:1, gpu:0)"
    assert several == one
    assert [Path(item["source"]).stem for item in one["results"]] == list("01235678")
    assert not gpus[0].memory and not gpus[1].memory


def test_devices_by_name() -> None:
    known = {"auto": (), "cpu": (), "gpu": (), "gpu:3": (3,), "1": (1,), "0,1": (0, 1), "cuda:2,0": (2, 0)}
    assert {text: named_gpus(text) for text in [*known, "gpu:0,gpu:1"]} == {**known, "gpu:0,gpu:1": (0, 1)}


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("0,2", "there is no gpu:2 on this machine; CUDA sees gpu:0, gpu:1"),
        ("0,cuda:0", "the device is '0,cuda:0', which names gpu:0 twice; name each GPU once"),
        ("0,cpu", "the device is '0,cpu'; several GPUs are named by their numbers: 0,1"),
        ("0,", "the device is '0,'; several GPUs are named by their numbers"),
        ("gpu:x,1", "the device is 'gpu:x,1'; several GPUs"),
    ],
)
def test_what_is_not_there_or_named_twice(gpus: list[FakeCuda], device: str, words: str) -> None:
    with pytest.raises(zoo.ZooError, match=words):
        run("lenet5", ["samples/digit_3.png"], device=device)
    with pytest.raises(zoo.ZooError, match=words):
        batch._leave_only(named_gpus(device))


@pytest.mark.parametrize("device", ["cuda:0,1", [0, 1]])
def test_a_session_is_on_one_gpu(device: Any) -> None:
    with pytest.raises(zoo.ZooError, match=r"a session is on one GPU: load one for each, or let zoo.run or zoo.batch"):
        zoo.load("lenet5", device=device)


@pytest.mark.parametrize(("visible", "wanted"), [(None, "1,0"), ("5,3", "3,5"), ("GPU-a,GPU-b", "GPU-b,GPU-a")])
def test_ray_sees_the_named_gpus_only(
    gpus: list[FakeCuda], monkeypatch: pytest.MonkeyPatch, visible: str | None, wanted: str
) -> None:
    """By their names in CUDA_VISIBLE_DEVICES, which numbers count."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    batch._leave_only((1, 0))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == wanted
