"""Exported ONNX: what others read of it, and how it is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from zoo.engine.shapes import parse_size
from zoo.errors import ZooError
from zoo.export import run as export
from zoo.labels import known_labels
from zoo.onnx import files, save, to_onnx
from zoo.preprocess import from_dict
from zoo.registry import get_model
from zoo.trt import Api

ROOT = Path(__file__).parent.parent


def outputs(path: Path, images: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(path).run(None, {"images": images})


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


def open_sizes(model: onnx.ModelProto) -> set[str]:
    """The names of the sizes that no number states, "" where one has no name."""
    graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {dim.dim_param for v in values for dim in v.type.tensor_type.shape.dim if not dim.HasField("dim_value")}


@pytest.mark.parametrize(
    "name, size, names",
    [
        ("mobilenet_v2", "64", {"batch"}),
        ("yolov8n", "64x96", {"batch"}),
        ("yolo12n", "64", {"batch", "4*batch"}),  # its attention sees each quarter as a picture of its own
    ],
)
def test_what_others_read(tmp_path: Path, name: str, size: str, names: set[str]) -> None:
    path = tmp_path / "model.onnx"
    export(name, weights="random", size=size, output=path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    assert open_sizes(model) == names
    export(name, weights="random", size=size, opset=20, output=tmp_path / "latest.onnx")
    assert onnx.load(tmp_path / "latest.onnx").opset_import[0].version == 20
    height, width = map(int, size.split("x")) if "x" in size else (int(size),) * 2
    images = pictures(2, 3, height, width)
    for found, wanted in zip(outputs(path, images), outputs(tmp_path / "latest.onnx", images)):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name, size", [("mobilenet_v3_small", "64"), ("yolov8n", "64x96"), ("yolov10n", "64")])
@pytest.mark.parametrize("opset", [17, 20])
def test_nvidias_parser_reads_the_network_that_was_written(
    tmp_path: Path, rtx: Api, name: str, size: str, opset: int
) -> None:
    path = tmp_path / "model.onnx"
    export(name, weights="random", size=size, opset=opset, output=path)
    trt = rtx.trt
    network = trt.Builder(rtx.log.logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, rtx.log.logger)
    assert parser.parse_from_file(str(path)), rtx.log.drain()
    save(to_onnx(network, trt), tmp_path / "read.onnx")
    images = pictures(2, 3, *parse_size(size))
    for found, wanted in zip(outputs(tmp_path / "read.onnx", images), outputs(path, images)):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_fixed_batch_leaves_no_size_open(tmp_path: Path) -> None:
    export("lenet5", batch=2, output=tmp_path / "model.onnx")
    assert open_sizes(onnx.load(tmp_path / "model.onnx")) == set()


def test_metadata_say_how_to_use_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export("lenet5", output=path)
    said = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert (said["model"], said["task"], said["precision"]) == ("lenet5", "classify", "fp32")
    assert json.loads(said["labels"]) == known_labels("digits")
    assert from_dict(json.loads(said["preprocess"])) == get_model("lenet5").preprocess
    assert json.loads(said["weights"])["file"] == "lenet5.safetensors"
    export("lenet5", weights="random", output=path)
    assert json.loads(onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["labels"]) is None


@pytest.mark.parametrize("opset", [16, 21])
def test_other_opsets_are_refused(tmp_path: Path, opset: int) -> None:
    with pytest.raises(ZooError, match=f"the opset is {opset}; it must be 17 to 20"):
        export("lenet5", opset=opset, output=tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


CIRCULAR = """
from zoo.network import configured
from zoo.ops import global_avg_pool, flatten
from zoo.preprocess import gray
from zoo.registry import Variant, register

@register(task="classify", reference="none", paper="none", preprocess=gray(8), circular=Variant(None, params=1))
def build(net, x, _):
    layer = net.network.add_slice(x, (0, 0, -1, -1), (2, 1, 10, 10), (1, 1, 1, 1))
    layer.mode = net.trt.SampleMode.WRAP
    return flatten(net, global_avg_pool(net, net.step(layer, "wrap", x)))
"""


def test_a_later_opset_is_taken_where_a_layer_needs_it_and_said(tmp_path: Path) -> None:
    (tmp_path / "circular.py").write_text(CIRCULAR)
    command = [sys.executable, "-m", "zoo.export", "circular", "--import", "circular.py", "--weights", "random"]

    def said(*more: str) -> Any:
        options = {"cwd": tmp_path, "env": {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}}
        return subprocess.run([*command, "--batch", "2", *more], capture_output=True, text=True, **options)

    raised = said("--json")
    assert raised.returncode == 0 and json.loads(raised.stdout)["opset"] == 19, raised.stderr
    assert "layer 'wrap' cannot be written in opset 17: Pad that wraps is of opset 19" in raised.stderr
    images = pictures(2, 1, 8, 8)
    (means,) = outputs(tmp_path / "circular.onnx", images)
    np.testing.assert_allclose(
        means[:, 0], np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), "wrap").mean((1, 2, 3)), 1e-5
    )
    refused = said("--opset", "18", "-o", "other.onnx")
    assert refused.returncode == 2 and "opset 18: Pad that wraps is of opset 19" in refused.stderr
    assert not (tmp_path / "other.onnx").exists()


# External data


def test_external_data_lie_beside_the_model(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.onnx", tmp_path / "parts" / "model.onnx"
    export("lenet5", output=whole)
    for weights in ("random", None):  # the second pair takes the place of the first
        export("lenet5", weights=weights, external_data=True, output=parts)
    assert sorted(path.name for path in parts.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert parts.stat().st_size < 20_000 < whole.stat().st_size
    onnx.checker.check_model(str(parts), full_check=True)
    images = pictures(2, 1, 32, 32)
    np.testing.assert_array_equal(outputs(parts, images), outputs(whole, images))
    places = [
        {entry.key: int(entry.value) for entry in tensor.external_data if entry.key != "location"}
        for tensor in onnx.load(parts, load_external_data=False).graph.initializer
        if tensor.external_data
    ]
    assert places and all(place["offset"] % 4096 == 0 for place in places)
    assert (
        max(place["offset"] + place["length"] for place in places) == (parts.parent / "model.onnx.data").stat().st_size
    )


def test_more_than_one_file_holds_goes_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST", 100_000)
    export("lenet5", output=tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").stat().st_size > 100_000
    outputs(tmp_path / "model.onnx", pictures(1, 1, 32, 32))


def test_bf16_weights_can_lie_beside_it(tmp_path: Path) -> None:
    export("lenet5", bf16=True, external_data=True, output=tmp_path / "model.onnx")
    export("lenet5", bf16=True, output=tmp_path / "whole.onnx")
    parts, whole = (onnx.load(tmp_path / f"{name}.onnx").graph.initializer for name in ("model", "whole"))
    assert any(tensor.data_type == onnx.TensorProto.BFLOAT16 for tensor in whole)
    assert [tensor.raw_data for tensor in parts] == [tensor.raw_data for tensor in whole]


def test_external_data_need_a_file_to_lie_beside(tmp_path: Path) -> None:
    (tmp_path / "link.onnx").symlink_to(tmp_path / "target.onnx")
    for path in (Path("/dev/null"), tmp_path / "link.onnx"):
        with pytest.raises(ZooError, match="it is no regular file"):
            export("lenet5", external_data=True, output=path)
    assert [path.name for path in tmp_path.iterdir()] == ["link.onnx"]


# Other formats

NAMES = """
from typing import Annotated
import typer
from zoo.cli import Output
from zoo.formats import Format
from zoo.registry import get_model

Upper = Annotated[bool, typer.Option("--upper", help="In capitals.")]

def export(model: str, *, output: Output = None, upper: Upper = False) -> None:
    name = get_model(model).name
    output.write_text(name.upper() if upper else name)

FORMAT = Format("name", export)
"""


def test_a_format_is_a_file_with_its_own_options(tmp_path: Path) -> None:
    (tmp_path / "names.py").write_text(NAMES)

    def said(*more: str) -> Any:
        command = [sys.executable, "-m", "zoo.export", "lenet5", "--import", "names.py", "-o", "out", *more]
        options = {"cwd": tmp_path, "env": {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}}
        return subprocess.run(command, capture_output=True, text=True, **options)

    assert said("--format", "name", "--upper").returncode == 0
    assert (tmp_path / "out").read_text() == "LENET5"
    refused = said("--upper")
    assert refused.returncode == 2
    assert "--upper is not an option of the format onnx, but of name" in refused.stderr


def test_another_format_is_refused() -> None:
    with pytest.raises(ZooError, match="the format is 'onxx'; it must be .*; closest: onnx"):
        export("lenet5", format="onxx")
