"""`python -m zoo.inspect`: what it says of each kind of file, of damaged ones, and of files that want to do harm."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from zoo.engine.build import build
from zoo.engine.definition import define
from zoo.engine.passport import Engine, describe, description_path
from zoo.engine.shapes import Shapes
from zoo.errors import ZooError
from zoo.export import run as export
from zoo.inspect import inspect, run, to_html
from zoo.quantization import Scales
from zoo.registry import get_model
from zoo.trt import Api
from zoo.weights import RandomWeights, load_weights, save_safetensors

ROOT = Path(__file__).resolve().parent.parent
LENET = ROOT / "zoo" / "weights" / "lenet5.safetensors"


@pytest.fixture(scope="module")
def built(rtx: Api) -> Engine:
    shapes = Shapes((1, 1, 32, 32), (2, 1, 32, 32), (4, 1, 32, 32))
    return build(get_model("lenet5"), load_weights(LENET), rtx, shapes)


@pytest.fixture
def engine(built: Engine, tmp_path: Path) -> Path:
    """An engine of LeNet-5 in a file, with its description."""
    return built.save(tmp_path / "lenet5.engine")


def edited(engine: Path, **fields: Any) -> Path:
    """The engine with other fields in its description."""
    path = description_path(engine)
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return engine


class Page(HTMLParser):
    """The tags, attributes and text of a page; every tag that needs an end must have one."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: dict[str, set[str]] = {}
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_an_engine_says_what_it_is(engine: Path) -> None:
    found = inspect(engine)
    assert found.what.startswith("an engine of lenet5, fp32, input 1x1x32x32 / 2x1x32x32 / 4x1x32x32, rtx 1.")
    assert found.facts["intact"] and found.facts["input"]["max"] == [4, 1, 32, 32]
    assert str(engine) in found.facts["rebuild"]
    tree = found.modules
    assert tree.parameters == get_model("lenet5").params
    fc1 = tree.children["fc1"]
    assert (fc1.what, fc1.shape, fc1.parameters) == ("linear", "?x120", 120 * 400 + 120)


def test_its_description_is_the_same(engine: Path) -> None:
    assert inspect(description_path(engine)) == inspect(engine)


def test_modules_that_are_folded_are_there(rtx: Api) -> None:
    shapes = Shapes.static((1, 3, 64, 64))
    model = get_model("resnet18")
    definition = define(model, RandomWeights(), rtx, shapes.network)
    modules = describe(definition, model, shapes, b"")["modules"]
    assert modules["layer1.0.conv1"] == {"op": "conv2d", "shape": None, "parameters": 64 * 64 * 9}
    assert modules["layer1.0.bn1"]["shape"] == [1, 64, 16, 16]
    assert sum(module["parameters"] for module in modules.values()) == model.params


@pytest.mark.parametrize(("content", "intact"), [(b"something else", False), (b"", None), (None, None)])
def test_an_engine_that_is_damaged_or_gone(engine: Path, content: bytes | None, intact: bool | None) -> None:
    if content is None:
        engine.unlink()
    else:
        engine.write_bytes(content)
    assert inspect(engine).facts["intact"] is intact


def test_neither_tensorrt_nor_a_gpu_is_asked(engine: Path) -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys(('tensorrt', 'tensorrt_rtx', 'torch', 'onnxruntime'))\n"
        "from zoo.inspect import main; main()"
    )
    command = [sys.executable, "-c", code, engine, "--json"]
    said = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    assert said["model"] == "lenet5" and said["modules"]["children"][0]["name"] == "conv1"


def test_an_onnx_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lenet5.onnx"
    export("lenet5", weights=str(LENET), output=path)
    capsys.readouterr()
    run(path, depth=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path}: an ONNX network of lenet5, input float batchx1x32x32"
    assert any(line.split() == ["outputs.logits", "float", "batchx10"] for line in lines)
    assert any(line.split() == ["fc1", "48,120", "Add", "?x120"] for line in lines)
    assert inspect(path).modules.parameters == 61706


def test_modules_as_pytorch_names_them(tmp_path: Path) -> None:
    """PyTorch repeats the path of a ModuleList or a Sequential in the name of what is in it."""
    one = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2, 3], np.zeros(6, np.float32))
    names = ["/layer1/layer1.0/conv/Conv", "/layer1/layer1.0/Add", "/Flatten", ""]
    nodes = [onnx.helper.make_node("Add", [f"x{i}", "w"], [f"x{i + 1}"], name) for i, name in enumerate(names)]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 3]) for name in ("x0", "x4")]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], [one])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "torch.onnx")
    found = inspect(tmp_path / "torch.onnx")
    assert found.facts["inputs"] == {"x0": "float ?x3"}
    layer = found.modules.children["layer1"].children["0"]
    assert (layer.what, layer.parameters, list(layer.children)) == ("Add", 6, ["conv"])


def test_weights(capsys: pytest.CaptureFixture[str]) -> None:
    run(LENET)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{LENET}: weights, 10 tensors of 61,706 values"
    assert any(line.split() == ["weight", "150", "6x1x5x5"] for line in lines)
    assert any(line.split() == ["metadata.model", "lenet5"] for line in lines)


def test_scales(tmp_path: Path) -> None:
    path = Scales("lenet5", "0" * 64, {"conv1": 1.5, "fc1": 2.0}).save(tmp_path / "lenet5.scales.json")
    found = inspect(path)
    assert found.what == "scales of int8 for lenet5, 2 tensors"
    assert found.modules.children["conv1"].what == "up to 1.5"


def test_the_page_needs_nothing_else(engine: Path, tmp_path: Path) -> None:
    run(engine, page=tmp_path / "page.html", as_json=True)
    text = (tmp_path / "page.html").read_text("utf-8")
    page = Page(text)
    assert "://" not in text and not {"src", "href"} & page.attributes.keys() and not page.tags["script"]
    assert {"conv1", "48,120", "?x120"} <= set(page.text)


HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e'\"&"


def test_what_a_file_says_is_text_and_nothing_else(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    array = {f"{HOSTILE}.weight": np.zeros(3, np.float32)}
    weights = tmp_path / "bad.safetensors"
    save_safetensors(weights, array, {"model": HOSTILE, HOSTILE: HOSTILE})
    for file in (edited(engine, labels=[HOSTILE], modules={}), weights):
        run(file, page=tmp_path / "page.html")
        assert not {"\x1b", "\u202e"} & set(capsys.readouterr().out)
        page = Page((tmp_path / "page.html").read_text("utf-8"))
        assert not page.tags["script"] and not any("<script" in value for v in page.attributes.values() for value in v)
        assert any("<script>alert(1)</script>\\x1b[2J\\u202e" in part for part in page.text)


@pytest.mark.parametrize("modules", [{"fc1": {"op": 1, "shape": None, "parameters": 0}}, {"a": []}, [], {"\x1b": {}}])
def test_modules_that_are_none_are_refused(engine: Path, modules: Any) -> None:
    with pytest.raises(ZooError, match="'modules' in the description .* it should be an object of modules"):
        inspect(edited(engine, modules=modules))


def test_names_of_any_depth(tmp_path: Path) -> None:
    path = tmp_path / "deep.safetensors"
    save_safetensors(path, {"a." * 100_000 + "weight": np.zeros(3, np.float32)})
    assert "a.a.a" in to_html(inspect(path), "deep")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.onnx", b"\x00\x01garbage", "is no ONNX file"),
        ("x.onnx", b"", "is no ONNX file with a network"),
        ("x.onnx", None, "cannot be read: No such file"),
        ("x.json", b"{}", "holds no scales"),
        ("x.json", b"[", "is no JSON"),
        ("x.engine", b"plan", "has no description x.engine.json beside it"),
        ("x.safetensors", b"{", "is damaged"),
        ("x", None, "no weights file"),
    ],
)
def test_what_cannot_be_inspected(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ZooError, match=words):
        inspect(tmp_path / name)


def test_layers_need_a_gpu(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.driver.driver_problem", lambda: "no NVIDIA driver was found")
    with pytest.raises(ZooError, match="no NVIDIA driver was found"):
        run(engine, layers=True)
