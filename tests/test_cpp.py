"""Exported C++: its programs are compiled here, against headers of the test's own (tests/cpp), and run: a network
remembers what it is told, and an engine gives what stands in files. With TensorRT itself they run in benchmarks/cpp.py.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.cpp import to_cpp
from zoo.cpp.code import WRITERS, number
from zoo.engine.definition import define
from zoo.errors import ZooError
from zoo.export import run as export
from zoo.formats.cpp import RUNNER, SOURCES, WEIGHTS
from zoo.network import Definition, Net, Precision, Tensor
from zoo.onnx.reading import Layer
from zoo.preprocess import imagenet, letterbox
from zoo.registry import get_model
from zoo.tasks import get_task
from zoo.trt import Api
from zoo.weights import RandomWeights, load_weights

HEADERS = Path(__file__).with_name("cpp")
DefineNet = Callable[..., Definition]


def compiled(folder: Path, program: str, *sources: str) -> Path:
    """The program of these sources in `folder`, with every warning an error."""
    warnings = ["-Wall", "-Wextra", "-Werror", "-std=c++17"]
    command = ["g++", *warnings, f"-I{HEADERS}", *(str(folder / name) for name in sources), "-o", str(folder / program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    return folder / program


def said(*command: Any, status: int = 0) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


# The network


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector whose batch is open, as C++ that is compiled."""
    folder = tmp_path_factory.mktemp("cpp") / "yolov8n"
    export("yolov8n", weights="random", format="cpp", definition=True, size="64x96", output=folder)
    compiled(folder, "build-it", "build.cpp", "network.cpp", "definition.cpp", "weights.cpp")
    return folder


def of_network(network: Any, trt: Any) -> list[str]:
    """kind|name|inputs|outputs of each layer, as the fake builder tells them."""
    layers = [Layer(network.get_layer(index), trt, {}) for index in range(network.num_layers)]
    lines = []
    for layer in layers:
        inputs, outputs = ("".join(f"{t.name if t else '-'} " for t in side) for side in (layer.inputs, layer.outputs))
        lines.append(f"{layer.kind}|{layer.name}|{inputs}|{outputs}")
    return sorted(lines)


def test_the_program_builds_the_network_that_was_defined(written: Path, rtx: Api, tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    said(written / "build-it", written / WEIGHTS, plan, "--level", "3", "--batch", "1:2:4")
    head, *lines = plan.read_text().splitlines()
    assert head.split() == ["no-tf32", "level=3", "profile"]
    definition = define(get_model("yolov8n"), RandomWeights(0), rtx, (-1, 3, 64, 96))
    assert sorted(line.rpartition("|")[0] for line in lines if "|" in line) == of_network(definition.network, rtx.trt)
    assert [line for line in lines if line.startswith("output ")] == ["output boxes", "output scores"]
    first = next(line for line in lines if line.startswith("CONVOLUTION|model.0.conv|"))
    kernel = load_weights(written / WEIGHTS).read("model.0.conv.kernel", (16 * 3 * 3 * 3,))
    ends = ",".join(str(int(bits)) for bits in kernel.view(np.uint32)[[0, -1]])
    assert f"weights=432,{ends} " in first and first.endswith(" kernel=3x3 stride=2x2 padding=1x1")
    assert any("axes=1" in line for line in lines if line.startswith("SLICE|"))  # with an open batch


def test_each_weight_is_read_once_and_each_layer_stands_in_its_module(written: Path) -> None:
    text = (written / "network.cpp").read_text()
    read = re.findall(r'weights\.read\("([^"]+)"', text)
    assert sorted(read) == sorted(load_weights(written / WEIGHTS).names())
    assert "\n    // model.0\n    auto* model_0_conv_layer = made(" in text
    assert max(map(len, text.splitlines())) <= 120


def test_weights_of_another_network_are_refused(written: Path, tmp_path: Path) -> None:
    from zoo.weights import save_safetensors

    build, plan = written / "build-it", tmp_path / "plan"
    weights = load_weights(written / WEIGHTS)
    arrays = {name: weights.read(name, weights.shape(name) or ()) for name in weights.names()}

    def refusal(path: Path) -> str:
        return said(build, path, plan, status=2)

    path = tmp_path / "other.safetensors"
    save_safetensors(path, arrays | {"more": np.zeros(1, np.float32)})
    assert "holds 'more', for which the network has no use" in refusal(path)
    save_safetensors(path, arrays | {"model.0.conv.bias": np.zeros(3, np.float32)})
    assert "'model.0.conv.bias'" in refusal(path) and "12 bytes of F32, and the network needs 16 values" in refusal(
        path
    )
    del arrays["model.0.conv.bias"]
    save_safetensors(path, arrays)
    assert "has no tensor 'model.0.conv.bias', which the network needs" in refusal(path)
    path.write_bytes(path.read_bytes()[:1000])
    assert "is no safetensors file: its header ends beyond it" in refusal(path)
    assert "cannot read the weights" in refusal(tmp_path / "missing")
    assert not plan.exists()


def test_wts_gives_the_same_engine(written: Path, tmp_path: Path) -> None:
    from zoo.weights import save_wts

    weights = load_weights(written / WEIGHTS)
    save_wts(tmp_path / "w.wts", {name: weights.read(name, weights.shape(name) or ()) for name in weights.names()})
    for file in (written / WEIGHTS, tmp_path / "w.wts"):
        said(written / "build-it", file, tmp_path / f"{file.suffix}.plan")
    assert (tmp_path / ".wts.plan").read_bytes() == (tmp_path / ".safetensors.plan").read_bytes()


def test_what_cannot_be_written_is_named(define_net: DefineNet, rtx: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def pool(net: Net, x: Tensor) -> Tensor:
        layer = net.network.add_activation(x, net.trt.ActivationType.RELU)
        return net.step(layer, "gate", x)

    definition = define_net(lambda net, x: pool(net / "block", x), {})
    monkeypatch.delitem(WRITERS, "ACTIVATION")
    with pytest.raises(ZooError, match=r"layer 'block.gate' \(ACTIVATION\) cannot be written in C\+\+"):
        to_cpp(definition.network, rtx.trt, strong=True)


def test_halves_are_the_networks_own(rtx: Api) -> None:
    definition = define(get_model("lenet5"), RandomWeights(0), rtx, (1, 1, 32, 32), Precision("fp16"))
    text, weights = to_cpp(definition.network, rtx.trt, strong=True)
    assert "const bool kTyped = true;" in text and 'static_assert(kTensorRT >= 1000, "a network with types' in text
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float16)}


@pytest.mark.parametrize("value", [0.1, 1e-5, 6.0, -3.4e38, 1 / 3, float("inf")])
def test_a_number_gives_back_its_float(value: float) -> None:
    text = number(value)
    found = float(text[:-1]) if text.endswith("F") else float("inf")
    assert np.float32(found) == np.float32(value)


# The runner


def runner(folder: Path, about: dict[str, Any]) -> Path:
    from zoo.cpp.model import header

    folder.mkdir()
    for name in RUNNER:
        (folder / name).write_bytes((SOURCES / name).read_bytes())
    (folder / "model.h").write_text(header(about))
    return compiled(folder, "run-it", "run.cpp", "picture.cpp", "results.cpp")


def ppm(path: Path, height: int, width: int) -> np.ndarray:
    """A picture (H, W, 3) BGR, also as a file."""
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    path.write_bytes(b"P6\n# noise\n%d %d\n255\n" % (width, height) + image[..., ::-1].tobytes())
    return image


def test_a_detectors_frame_is_prepared_and_its_boxes_found(tmp_path: Path) -> None:
    spec, rng = letterbox(64), np.random.default_rng(1)
    labels = [f'the "{name}"' for name in "abc"]
    about = {"model": "yolov8n", "task": "detect", "preprocess": spec.to_dict(), "labels": labels}
    program, engine = runner(tmp_path / "cpp", about), tmp_path / "engine"
    boxes = np.concatenate([rng.uniform(0, 64, (2, 80)), rng.uniform(4, 40, (2, 80))]).astype(np.float32)
    scores = rng.random((3, 80), np.float32) ** 3
    boxes.tofile(tmp_path / "boxes")
    scores.tofile(tmp_path / "scores")
    engine.write_text(
        f"input images 1 3 64 64\noutput boxes {tmp_path}/boxes 1 4 80\noutput scores {tmp_path}/scores 1 3 80\n"
        "output echo - 1 3 64 64\n"
    )
    for height, width in ((48, 100), (300, 71), (64, 64)):
        image = ppm(tmp_path / "p.ppm", height, width)
        lines = said(program, engine, tmp_path / "p.ppm", "--save", tmp_path, "--repeat", "3").splitlines()
        placement = spec.placement((height, width), (64, 64))
        prepared = np.fromfile(tmp_path / "echo.bin", np.float32).reshape(3, 64, 64)
        np.testing.assert_array_equal(prepared, spec.pixels(image, placement))
        task = get_task("detect")
        found = task({"boxes": boxes, "scores": scores}, placement, labels, task.settings())
        assert lines.pop() == "time: 1.5 ms (median of 3, fastest 1.5, slowest 1.5)"
        assert len(lines) == len(found.scores) > 10
        for line, score, label, box in zip(lines, found.scores, found.labels, found.boxes):
            told, name, places = line.split("  ")
            assert (told, name) == (f"{score:.3f}", label)
            np.testing.assert_allclose(list(map(float, places.split())), box, atol=0.051)
    assert "bytes, and the input 49152" in said(program, engine, tmp_path / "boxes", status=2)
    (tmp_path / "p.ppm").write_bytes(b"P5\n1 1\n255\n0")
    assert "is no binary PPM" in said(program, engine, tmp_path / "p.ppm", status=2)


def test_a_classifiers_frame_is_cropped_and_its_classes_are_told(tmp_path: Path) -> None:
    spec = imagenet(40, 32, interpolation="pillow:bicubic")
    about = {
        "model": "resnet18",
        "task": "classify",
        "preprocess": spec.to_dict(),
        "labels": None,
        "version": "10.3.1.2",
    }
    program, engine = runner(tmp_path / "cpp", about), tmp_path / "engine"
    logits = np.random.default_rng(2).standard_normal(9).astype(np.float32)
    logits.tofile(tmp_path / "logits")
    engine.write_text(f"input images 1 3 32 32\noutput logits {tmp_path}/logits 1 9\noutput echo - 1 3 32 32\n")
    for height, width in ((50, 33), (30, 90), (400, 41)):
        image = ppm(tmp_path / "p.ppm", height, width)
        lines = said(program, engine, tmp_path / "p.ppm", "--save", tmp_path).splitlines()
        prepared = np.fromfile(tmp_path / "echo.bin", np.float32).reshape(3, 32, 32)
        np.testing.assert_array_equal(prepared, spec.pixels(image, spec.placement((height, width), (32, 32))))
        best = np.argsort(-logits)[:5]
        share = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum()
        assert lines == [f"{share[i]:6.1%}  class {i} ({i})" for i in best]


def test_an_engine_brings_its_description(tmp_path: Path, rtx: Api) -> None:
    from zoo.engine.build import build
    from zoo.engine.shapes import Shapes

    engine = build(get_model("lenet5"), RandomWeights(0), rtx, Shapes.static((1, 1, 32, 32)))
    path = engine.save(tmp_path / "rtx.engine")
    with pytest.raises(ZooError, match="is an engine of TensorRT-RTX"):
        export(str(path), format="cpp", output=tmp_path / "no")
    description = json.loads((tmp_path / "rtx.engine.json").read_text())
    description |= {"flavour": "tensorrt", "version": "10.3.0.26", "gpu": "NVIDIA X", "compute_capability": "9.0"}
    (tmp_path / "rtx.engine.json").write_text(json.dumps(description))
    export(str(path), format="cpp", output=tmp_path / "cpp")
    head = (tmp_path / "cpp" / "model.h").read_text()
    assert 'kTensorRT[] = "10.3.0";' in head and f"kBytes = {len(engine.data)};" in head
    assert "kPictures = false;" in head  # grey, averaged
    assert (tmp_path / "cpp" / "rtx.engine").read_bytes() == engine.data
    with pytest.raises(ZooError, match="in which that is built in; leave --definition away"):
        export(str(path), format="cpp", definition=True, output=tmp_path / "more")
