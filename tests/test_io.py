"""What networks take and give at their borders: float32, float16, or bytes that the network normalises itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from fake_gpu import ENGINES, FakeCuda, FakeEngine, make_api

import zoo
from zoo.engine.build import build
from zoo.engine.definition import define
from zoo.engine.end2end import EndToEnd
from zoo.engine.io import DTYPES, outer_shapes
from zoo.engine.passport import description_path, load_engine, rebuild_at
from zoo.engine.shapes import Shapes
from zoo.errors import ZooError
from zoo.export import main as export
from zoo.network import Precision
from zoo.preprocess import Preprocess, imagenet
from zoo.registry import get_model
from zoo.runtime.engines import rebuild
from zoo.runtime.gpu import GpuSession
from zoo.runtime.predict import make_predictor
from zoo.trt import Api
from zoo.weights import RandomWeights, load_weights

ROOT = Path(__file__).resolve().parent.parent
LENET = ROOT / "zoo" / "weights" / "lenet5.safetensors"
PHOTO = ROOT / "tests" / "data" / "grace_hopper.jpg"
DIGIT = ROOT / "samples" / "digit_7.png"


@pytest.mark.parametrize(
    ("name", "size", "picture"),
    [("mobilenet_v2", (64, 96), PHOTO), ("yolov8n", (64, 96), PHOTO), ("lenet5", None, DIGIT)],
)
def test_bytes_are_normalised_as_the_preprocessing_does(name: str, size: Any, picture: Path) -> None:
    """To the bit: a mean and deviation, a range alone, and grey."""
    weights, image = (LENET if name == "lenet5" else "random"), cv2.imread(str(picture))
    with zoo.load(name, weights=weights, size=size, device="cpu") as plain:
        pixels, placement = plain.prepare(image)
        want = plain(pixels[None])
    with zoo.load(name, weights=weights, size=size, device="cpu", io="uint8") as session:
        given, place = session.prepare(image)
        assert (given.dtype, given.ndim, place) == (np.uint8, 3, placement)
        assert given.shape == (*session.size, plain.model.input[0])
        found = session(given[None])
        for output in want:
            np.testing.assert_array_equal(found[output], want[output])
        session.warm_up()
        with make_predictor(session) as predictor:
            assert predictor(image).ms.keys() == {"preprocess", "inference", "postprocess"}


def test_half_precision_at_the_borders() -> None:
    x = np.random.default_rng(0).standard_normal((2, 1, 32, 32), np.float32).astype(np.float16)
    with zoo.load("lenet5", device="cpu") as plain, zoo.load("lenet5", device="cpu", io="fp16") as session:
        found, want = session(x)["logits"], plain(x.astype(np.float32))["logits"]
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, want.astype(np.float16))
        assert session.prepare(cv2.imread(str(DIGIT)))[0].dtype == np.float16
        assert session.predict(DIGIT).classes[0] == 7
        with pytest.raises(ZooError, match="is float32, the network takes float16"):
            session(x.astype(np.float32))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_8_is_weakly_typed_inside(tensorrt8: Api, precision: Any) -> None:
    """There half precision comes from builder flags, and the definition is in fp32 but for its borders."""
    definition = define(
        get_model("lenet5"), RandomWeights(), tensorrt8, (1, 1, 32, 32), Precision(precision), io="fp16"
    )
    network, half = definition.network, tensorrt8.trt.float16
    assert network.get_input(0).dtype == half and network.get_output(0).dtype == half
    assert definition.taps["conv1"].dtype == tensorrt8.trt.float32


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("io", ["fp16", "uint8"])
def test_engines_say_what_they_take(rtx: Api, tmp_path: Path, io: Any, precision: Any) -> None:
    shapes = Shapes((1, 1, 32, 32), (2, 1, 32, 32), (4, 1, 32, 32))
    from zoo.network import Precision

    path = build(get_model("lenet5"), load_weights(LENET), rtx, shapes, Precision(precision), io=io).save(
        tmp_path / "x"
    )
    about = load_engine(path).description
    assert (about["io"], about["input"]["dtype"]) == (io, DTYPES[io].name)
    assert about["outputs"]["logits"]["dtype"] == ("float16" if io == "fp16" else "float32")
    assert f" --io {io} " in rebuild_at(path, about) and about["input"]["max"] == [4, 1, 32, 32]


def test_an_engine_is_rebuilt_with_its_borders(rtx: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.runtime.engines.load", lambda: rtx)
    shapes = Shapes.static((1, 1, 32, 32))
    path = build(get_model("lenet5"), load_weights(LENET), rtx, shapes, io="uint8").save(tmp_path / "x.engine")
    before = json.loads(description_path(path).read_text())
    rebuild(path, before)
    assert load_engine(path).description == before


def test_descriptions_from_before_are_of_float32(rtx: Api, tmp_path: Path) -> None:
    path = build(get_model("lenet5"), load_weights(LENET), rtx, Shapes.static((1, 1, 32, 32))).save(tmp_path / "x")
    about = json.loads(description_path(path).read_text())
    description_path(path).write_text(json.dumps({key: value for key, value in about.items() if key != "io"}))
    assert "--io" not in rebuild_at(path, load_engine(path).description)


@pytest.mark.parametrize(("io", "dtype"), [("uint8", "UINT8"), ("fp16", "HALF")])
def test_sessions_on_the_gpu_take_them(cuda: FakeCuda, io: Any, dtype: str) -> None:
    profile = outer_shapes(Shapes((1, 3, 4, 6), (2, 3, 4, 6), (8, 3, 4, 6)), io)
    inputs, give = {"images": (profile.min, profile.opt, profile.max)}, "HALF" if io == "fp16" else "FLOAT"
    ENGINES[b"plan"] = FakeEngine(
        cuda, inputs, {"logits": lambda s: s["images"]}, lambda a: {"logits": a["images"] / 2},
        dtypes={"images": dtype, "logits": give},
    )  # fmt: skip
    with GpuSession(b"plan", api=make_api()) as session:
        for _ in range(3):
            x = np.random.default_rng(0).integers(0, 255, (3, *profile.opt[1:])).astype(DTYPES[io])
            found = session(x)["logits"]
            assert found.dtype == (np.float16 if io == "fp16" else np.float32)
            np.testing.assert_array_equal(found, (x / 2).astype(found.dtype))
        with pytest.raises(ZooError, match="is float32, the engine takes"):
            session(x.astype(np.float32))


def test_onnx_with_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.onnx"
    command = ["export", "lenet5", "--weights", str(LENET), "--io", "uint8", "--output", str(path)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit):
        export()
    session, image = onnxruntime.InferenceSession(path), cv2.imread(str(DIGIT))
    given = session.get_inputs()[0]
    assert (given.type, given.shape[1:]) == ("tensor(uint8)", [32, 32, 1])
    logits = session.run(None, {"images": get_model("lenet5").preprocess.apply_bytes(image)[0][None]})[0]
    assert logits.argmax() == 7


class Odd(Preprocess):
    size, stride, channels, whole = 32, 1, 3, True


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"io": "fp8"}, "the type of inputs and outputs is 'fp8'; it must be fp32, fp16 or uint8"),
        ({"io": "uint8", "end2end": EndToEnd()}, "--end2end takes frames .* leave --io uint8 away"),
    ],
)
def test_what_cannot_be(rtx: Api, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ZooError, match=words):
        define(get_model("yolov8n"), RandomWeights(), rtx, (1, 3, 64, 64), **options)


def test_bytes_need_a_preprocessing_that_ends_in_them(rtx: Api) -> None:
    model = replace(get_model("resnet18"), preprocess=Odd())
    with pytest.raises(ZooError, match="--io uint8 needs bytes .* resnet18 prepares by Odd"):
        define(model, RandomWeights(), rtx, (1, 3, 64, 64), io="uint8")


def test_an_engine_has_its_own(rtx: Api, tmp_path: Path) -> None:
    path = build(get_model("lenet5"), load_weights(LENET), rtx, Shapes.static((1, 1, 32, 32))).save(tmp_path / "x")
    with pytest.raises(ZooError, match="is an engine, in which"):
        zoo.load(path, io="fp16")
    assert imagenet().apply_bytes(cv2.imread(str(PHOTO)))[0].shape == (224, 224, 3)
