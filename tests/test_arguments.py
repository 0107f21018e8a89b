"""What the Python API is given and cannot mean is refused in one sentence, on every machine in the same way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from zoo import api
from zoo.device import Device, parse_device
from zoo.runtime.cpu import MOST_SUBMITTED
from zoo.weights import from_arrays, load_weights

LENET = Path(__file__).resolve().parent.parent / "zoo" / "weights" / "lenet5.safetensors"
IMAGES = np.zeros((2, 1, 32, 32), np.float32)


@pytest.mark.parametrize("precision", ["FP16", "half", "float32", "tf32", "", None, 16])
@pytest.mark.parametrize("function", [zoo.load, zoo.build_engine])
def test_an_unknown_precision(function: Any, precision: Any) -> None:
    with pytest.raises(zoo.ZooError, match="the precision is .*; it must be fp32, fp16, bf16, int8 or fp8"):
        function("lenet5", precision=precision, weights=LENET)


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("auto", Device("auto")), ("cpu", Device("cpu")), ("gpu", Device("gpu")), ("cuda", Device("gpu")),
        ("gpu:1", Device("gpu", 1)), ("cuda:3", Device("gpu", 3)), ("0", Device("gpu")), (2, Device("gpu", 2)),
    ],
)  # fmt: skip
def test_devices(text: Any, device: Device) -> None:
    assert parse_device(text) == device


@pytest.mark.parametrize(
    "device", ["GPU", "cuda:", "cuda:x", "cpu:0", "cpu ", "", "dla", None, True, -1, 1.0, "gpu:9999"]
)
def test_an_unknown_device(device: Any) -> None:
    with pytest.raises(zoo.ZooError, match="the device is .*; it must be cpu, gpu or auto, or a certain GPU: gpu:1"):
        zoo.load("lenet5", device=device, weights=LENET)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"level": 9}, "the level is 9; it must be a whole number from 0 to 5"),
        ({"level": True}, "the level is True"),
        ({"batch": 0}, "the batch is 0; it must be a positive number"),
        ({"batch": (1, 4)}, r"the batch is \(1, 4\); .* or \(min, opt, max\)"),
        ({"batch": "4"}, "the batch is '4'"),
        ({"batch": (8, 4, 2)}, "shapes must not shrink"),
        ({"size": 32}, r"the size is 32; it must be positive: \(height, width\)"),
        ({"size": (32, -1)}, r"the size is \(32, -1\)"),
        ({"size": (2**40, 32)}, "the size is"),
    ],
)
def test_values_that_cannot_be_meant(option: dict[str, Any], words: str) -> None:
    for function, more in ((zoo.load, {"device": "cpu"}), (zoo.build_engine, {})):
        with pytest.raises(zoo.ZooError, match=words):
            function("lenet5", weights=LENET, **more, **option)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"cuda": "nonsense"}, "the CUDA package is 'nonsense'; it must be cuda-python or pycuda"),
        ({"contexts": 0}, "contexts is 0"),
        ({"contexts": 2, "stream": 7}, "one stream cannot serve 2 contexts"),
        ({"threads": -1}, "threads is -1"),
    ],
)
def test_options_of_a_gpu_are_checked_on_the_cpu_too(option: dict[str, Any], words: str) -> None:
    with pytest.raises(zoo.ZooError, match=words):
        zoo.load("lenet5", weights=LENET, device="cpu", **option)


def test_an_unknown_target() -> None:
    with pytest.raises(zoo.ZooError, match="the target is 'trt'; it must be tensorrt or rtx"):
        zoo.build_engine("lenet5", weights=LENET, target="trt")  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["precison", "fp16", "half", "optins"])
def test_a_misspelt_option_is_no_option(option: str) -> None:
    for function in (zoo.load, zoo.build_engine):
        with pytest.raises(TypeError, match=option):
            function("lenet5", weights=LENET, **{option: True})


@pytest.mark.parametrize("batch", [np.int64(2), [1, 2, 4]])
def test_numbers_of_numpy_and_lists_are_numbers(batch: Any) -> None:
    assert zoo.build_engine("lenet5", weights=LENET, batch=batch).data


# What a session is called with


@pytest.fixture
def session() -> Any:
    with zoo.load("lenet5", weights=LENET, device="cpu") as opened:
        yield opened


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (IMAGES.astype(np.float64), "input 'images' is float64, the network takes float32; convert it first"),
        (np.zeros((2, 1, 32, 32), np.uint8), "input 'images' is uint8, the network takes float32"),
        (IMAGES[:0], "the images are 0x1x32x32, this network takes Nx1x32x32"),
        (IMAGES.tolist(), "the input is a list; give a numpy array"),
        (None, "the input is a NoneType"),
        ("images", "the input is a str"),
        ({"image": IMAGES}, "the inputs are image; the network has one, 'images'"),
        ({}, "the inputs are none"),
    ],
)
def test_what_is_no_input(session: Any, given: Any, words: str) -> None:
    for call in (session, session.submit):
        with pytest.raises(zoo.ZooError, match=words):
            call(given)


def test_a_batch_that_was_asked_for(session: Any) -> None:
    with zoo.load("lenet5", weights=LENET, device="cpu", batch=(1, 2, 3)) as bounded:
        assert bounded(IMAGES)["logits"].shape == (2, 10)
        with pytest.raises(zoo.ZooError, match="4 images were given, this session takes 1 to 3"):
            bounded(np.concatenate([IMAGES, IMAGES]))


def test_more_images_than_a_step_are_run_in_steps(session: Any) -> None:
    from dataclasses import replace

    seen: list[int] = []
    images = np.random.default_rng(0).standard_normal((7, 1, 32, 32), np.float32)

    class Executor:
        def __call__(self, part: np.ndarray) -> dict[str, np.ndarray]:
            seen.append(len(part))
            return session.executor(part)

        def submit(self, part: np.ndarray) -> Any:
            seen.append(len(part))
            return session.executor.submit(part)

    stepping = replace(session, executor=Executor(), step=3)
    for found in (stepping(images), stepping.submit(images).result()):
        np.testing.assert_allclose(found["logits"], session(images)["logits"], rtol=1e-5)
    assert seen == [3, 3, 1] * 2


def test_submissions_wait_where_too_many_are_under_way(session: Any) -> None:
    """Their copies would fill the memory."""
    import threading

    gate = threading.Event()
    executor = session.executor
    real, executor._run = executor._run, lambda images: gate.wait() and real(images)
    submitted: list[Any] = []
    thread = threading.Thread(
        target=lambda: submitted.extend(session.submit(IMAGES) for _ in range(MOST_SUBMITTED + 1))
    )
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    gate.set()
    thread.join(10)
    assert len(submitted) == MOST_SUBMITTED + 1 and all(ticket.result() for ticket in submitted)


def test_a_forked_child_may_submit(session: Any) -> None:
    expected = session.submit(IMAGES).result()["logits"]  # its thread does not survive the fork
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, session.submit(IMAGES).result()["logits"].tobytes())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        assert answers.read() == expected.tobytes()
    os.waitpid(child, 0)


def test_where_a_gpu_cannot_be_used_the_cpu_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_uses_gpu", lambda: False)
    with zoo.load("lenet5", weights=LENET) as opened:
        assert "CPU" in opened.runs_on


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: zoo.load(5), "the model is 5; a name or a path was expected"),
        (lambda: zoo.load(None, weights=LENET), "the model is None"),
        (lambda: zoo.load("lenet5", weights=5), "the weights are 5"),
        (lambda: zoo.load("lenet5", weights=["a"]), r"the weights are \['a'\]"),
        (lambda: zoo.get_model(5), "the model is 5; it must be a name"),
        (lambda: zoo.list_models(task="clasify"), "closest: classify"),
        (lambda: zoo.build_engine("lenet5", shapes=(1, 2)), r"the shapes are \(1, 2\)"),
        (lambda: zoo.build_engine("lenet5", timing_cache=5), "the timing cache is 5"),
        (lambda: zoo.load("tests/data"), "tests/data is a folder; give a model's name"),
    ],
)
def test_what_is_no_name(call: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(LENET.parents[2])
    with pytest.raises(zoo.ZooError, match=words):
        call()


def test_a_path_may_be_bytes() -> None:
    with zoo.load(b"lenet5", weights=os.fsencode(LENET), device="cpu") as session:
        assert session(IMAGES)["logits"].shape == (2, 10)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_weight_that_is_not_finite_is_named(value: float, precision: Any) -> None:
    weights = load_weights(LENET)
    arrays = {name: weights.read(name, weights.shape(name) or ()).copy() for name in weights.names()}
    arrays["fc2.weight"][3, 4] = value
    arrays["fc3.bias"][:] = 3e38  # finite, though its sum is not
    with pytest.raises(zoo.ZooError, match="'fc2.weight' in arrays has 1 of 10080 values that are NaN or infinite"):
        zoo.load("lenet5", weights=from_arrays(arrays), precision=precision, device="cpu")
    arrays["fc2.weight"][3, 4] = 0
    zoo.load("lenet5", weights=from_arrays(arrays), device="cpu").close()
