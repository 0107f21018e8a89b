"""Triton's model repositories: their configuration, their files, and what their Python code answers.

`test_a_server` starts a real tritonserver where ZOO_TRITON_PYTHON names an interpreter that has nvidia-pytriton and
what this project needs; docs/serving.md says how.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format

from zoo.api import find_weights, load
from zoo.engine.definition import define
from zoo.engine.end2end import EndToEnd
from zoo.engine.passport import Engine, describe
from zoo.engine.shapes import input_shapes
from zoo.errors import ZooError
from zoo.export import run as export
from zoo.formats import triton
from zoo.labels import known_labels
from zoo.plugins.core import shell
from zoo.registry import get_model
from zoo.runtime import triton as served
from zoo.trt import Api

ROOT = Path(__file__).parent.parent
DIGIT = ROOT / "samples" / "digit_7.png"


def config_of(folder: Path) -> Any:
    """The configuration of a model in a repository, read as Triton reads it."""
    return text_format.Parse((folder / "config.pbtxt").read_text(), triton.protobuf().ModelConfig())


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def tensors(found: Any) -> dict[str, tuple[int, list[int]]]:
    return {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in found}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeNet-5 on the zoo's CPU session."""
    folder = tmp_path_factory.mktemp("triton") / "repository"
    export("lenet5", format="triton", backend="python", max_batch=4, queue_delay=0, output=folder)
    return folder


# What is written


def test_an_ensemble_stands_around_the_network(repository: Path) -> None:
    assert files(repository) == [
        "lenet5/config.pbtxt",
        *(f"lenet5_decode/{name}" for name in ("1/model.py", "1/zoo.json", "config.pbtxt")),
        *(
            f"lenet5_network/{name}"
            for name in ("1/model.py", "1/weights.safetensors", "1/zoo.json", "config.pbtxt", "labels.txt")
        ),
        *(f"lenet5_prepare/{name}" for name in ("1/model.py", "1/zoo.json", "config.pbtxt")),
    ]
    assert (repository / "lenet5" / "1").is_dir()  # Triton asks for a version of every model
    assert (repository / "lenet5_network" / "labels.txt").read_text().splitlines() == known_labels("digits")
    messages = triton.protobuf()
    configs = {name: config_of(repository / name) for name in os.listdir(repository)}
    assert all(name == config.name and config.max_batch_size == 4 for name, config in configs.items())
    network = configs["lenet5_network"]
    assert network.backend == "python"
    assert tensors(network.input) == {"images": (messages.TYPE_FP32, [1, 32, 32])}
    assert tensors(network.output) == {"logits": (messages.TYPE_FP32, [10])}
    assert network.output[0].label_filename == "labels.txt"
    assert (
        network.HasField("dynamic_batching") and network.instance_group[0].kind == messages.ModelInstanceGroup.KIND_CPU
    )
    ensemble = configs["lenet5"]
    assert ensemble.platform == "ensemble"
    assert tensors(ensemble.input) == {"picture": (messages.TYPE_STRING, [1])}
    assert tensors(ensemble.output) == {"result": (messages.TYPE_STRING, [1])}
    known = set(tensors(ensemble.input))
    for step in ensemble.ensemble_scheduling.step:  # each takes what its model takes, from what came before
        assert set(step.input_map) == set(tensors(configs[step.model_name].input))
        assert set(step.output_map) == set(tensors(configs[step.model_name].output))
        assert set(step.input_map.values()) <= known
        known |= set(step.output_map.values())
    assert "result" in known


def test_onnx_is_for_the_cpu(tmp_path: Path) -> None:
    export("yolov8n", format="triton", weights="random", size="64x96", instances=2, output=tmp_path)
    config = config_of(tmp_path / "yolov8n_network")
    assert (config.platform, config.backend, config.max_batch_size) == ("onnxruntime_onnx", "onnxruntime", 8)
    assert config.instance_group[0].count == 2 and config.dynamic_batching.max_queue_delay_microseconds == 500
    assert config.model_warmup[0].inputs["images"].dims == [3, 64, 96]
    session = onnxruntime.InferenceSession(tmp_path / "yolov8n_network" / "1" / "model.onnx")
    found = session.run(None, {"images": np.zeros((2, 3, 64, 96), np.float32)})
    for output, wanted in zip(found, config.output):
        assert list(output.shape[1:]) == list(wanted.dims)
    assert [output.name for output in session.get_outputs()] == [output.name for output in config.output]
    assert not (tmp_path / "yolov8n_network" / "labels.txt").exists()  # random weights name no classes


def engine(
    rtx: Api, path: Path, batches: tuple[int, int, int] = (1, 4, 16), name: str = "lenet5", **changes: Any
) -> Path:
    """An engine file with the description that full TensorRT 10.3.0 would give; its data are for nobody to load."""
    model = get_model(name)
    shapes = input_shapes(model, batches)
    weights = find_weights(model, "random" if name != "lenet5" else None)
    end2end = changes.pop("end2end", None)
    definition = define(model, weights, rtx, shapes.network, end2end=end2end)
    about = describe(definition, model, shapes, b"a plan", end2end=end2end)
    about |= {"flavour": "tensorrt", "version": "10.3.0", "gpu": "NVIDIA H200", "compute_capability": "9.0", **changes}
    return Engine(b"a plan", about).save(path / "model.engine")


def test_a_plan_names_its_container(rtx: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(str(engine(rtx, tmp_path)), format="triton", output=tmp_path / "repository")
    said = capsys.readouterr()
    assert "for NVIDIA H200 and nvcr.io/nvidia/tritonserver:24.08-py3" in said.out and "tensorrt-zoo" in said.err
    network = tmp_path / "repository" / "lenet5_network"
    assert (network / "1" / "model.plan").read_bytes() == b"a plan"
    config = config_of(network)
    assert (config.platform, config.backend, config.max_batch_size) == ("tensorrt_plan", "tensorrt", 16)
    assert config.instance_group[0].kind == triton.protobuf().ModelInstanceGroup.KIND_GPU
    cuda = config.optimization.cuda
    assert cuda.graphs and [spec.batch_size for spec in cuda.graph_spec] == [1, 2, 4, 6, 8, 10, 12, 14, 16]
    assert all(spec.input["images"].dim == [1, 32, 32] for spec in cuda.graph_spec)
    assert config.model_warmup[0].inputs["images"].zero_data
    assert sorted(os.listdir(tmp_path / "repository")) == [
        "lenet5",
        "lenet5_decode",
        "lenet5_network",
        "lenet5_prepare",
    ]


def test_an_engine_that_takes_frames_needs_no_parts(rtx: Api, tmp_path: Path) -> None:
    whole = engine(rtx, tmp_path, (1, 1, 2), "yolov8n", end2end=EndToEnd((64, 96)), labels=["cat"] * 80)
    export(str(whole), format="triton", output=tmp_path / "repository")
    assert os.listdir(tmp_path / "repository") == ["yolov8n"]
    config = config_of(tmp_path / "repository" / "yolov8n")
    assert tensors(config.input) == {"frames": (triton.protobuf().TYPE_UINT8, [-1, -1, 3])}
    assert list(tensors(config.output)) == ["num_detections", "boxes", "scores", "classes", "open"]
    assert not config.optimization.cuda.graphs  # frames are of any size
    assert (tmp_path / "repository" / "yolov8n" / "labels.txt").read_text() == "cat\n" * 80


KERNEL = {"nms": {"version": 1, "implementation": "cuda"}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"flavour": "rtx"}, "is an engine of TensorRT-RTX, and Triton's .* --target tensorrt"),
        ({"version": "8.6.1"}, "TensorRT 8.6.1, and .* nothing certain is known here .*8.6.3, 10.3.0.*support matrix"),
        ({"version": "11.4.0.106"}, "TensorRT 11.4.0.106, and"),
        ({"io": "uint8"}, "was built with --io uint8, and pictures are prepared in float32"),
        ({"batches": (4, 4, 4)}, r"takes exactly 4 picture\(s\).*--minShapes.*zoo.build lenet5"),
        (
            {"plugins": {"policy": "auto", "ops": KERNEL, "self_contained": False, "shell": shell.FORMAT}},
            "needs the zoo's library of kernels.*--self-contained or --plugins native",
        ),
    ],
)
def test_engines_that_no_server_loads(rtx: Api, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ZooError, match=words):
        export(str(engine(rtx, tmp_path, **changes)), format="triton", output=tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_a_library_inside_the_plan_is_allowed_by_an_argument(
    rtx: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins = {"policy": "auto", "ops": KERNEL, "self_contained": True, "shell": shell.FORMAT}
    export(str(engine(rtx, tmp_path, plugins=plugins)), format="triton", output=tmp_path / "repository")
    assert "tritonserver with --backend-config=tensorrt,version-compatible=true" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "openvino"}, "the backend is 'openvino'; it must be onnxruntime or python"),
        ({"backend": "python", "fp16": True}, "computes in fp32; leave --fp16 away"),
    ],
)
def test_options_that_mean_nothing(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ZooError, match=words):
        export("lenet5", format="triton", output=tmp_path / "repository", **options)
    assert not list(tmp_path.iterdir())


def test_nothing_is_half_written_or_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = triton.Part.write

    def full(part: triton.Part, folder: Path) -> None:
        if folder.name == "lenet5":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(part, folder)

    monkeypatch.setattr(triton.Part, "write", full)
    with pytest.raises(ZooError, match="cannot write to .*: No space left on device"):
        export("lenet5", format="triton", output=tmp_path / "repository")
    assert [path.name for path in tmp_path.rglob("*")] == ["repository"]
    monkeypatch.undo()
    (tmp_path / "repository" / "lenet5_prepare").mkdir()
    with pytest.raises(ZooError, match="lenet5_prepare is there already; remove it, or name another folder"):
        export("lenet5", format="triton", output=tmp_path / "repository")
    assert os.listdir(tmp_path / "repository") == ["lenet5_prepare"]


def test_a_mounted_folder_cannot_be_filled_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(ZooError, match="repository is where another file system begins; name a folder in it"):
        export("lenet5", format="triton", output=tmp_path / "repository")
    assert [path.name for path in tmp_path.rglob("*")] == ["repository"]


def test_without_tritonclient_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient", None)
    monkeypatch.delitem(sys.modules, "tritonclient.grpc", raising=False)
    with pytest.raises(ZooError, match=r'pip install "tensorrt-zoo\[triton\]"'):
        export("lenet5", format="triton", output=tmp_path / "repository")


# What is answered


class Response(SimpleNamespace):
    """An answer of the backend: tensors or an error."""

    def __init__(self, tensors: list[Any] | None = None, error: str | None = None) -> None:
        super().__init__(tensors=dict(tensors or []), error=error)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server gives to its Python models, as far as they use it."""
    module = SimpleNamespace(
        get_input_tensor_by_name=lambda request, name: SimpleNamespace(as_numpy=lambda: request.tensors[name]),
        InferenceResponse=Response,
        Tensor=lambda name, array: (name, array),
        TritonError=str,
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)


def started(kind: type, folder: Path) -> Any:
    model = kind()
    config = {"instance_group": [{"count": 1}]}
    model.initialize(
        {"model_config": json.dumps(config), "model_repository": str(folder), "model_version": triton.VERSION}
    )
    return model


def request(tensors: dict[str, np.ndarray], **parameters: Any) -> Any:
    return SimpleNamespace(tensors=tensors, parameters=lambda: json.dumps(parameters))


def test_answers_are_those_of_the_session(repository: Path, backend: None) -> None:
    prepare, network, decode = (
        started(kind, repository / f"lenet5_{kind.__name__.lower()}")
        for kind in (served.Prepare, served.Network, served.Decode)
    )
    digit = DIGIT.read_bytes()
    pairs = [np.array(rows, np.object_) for rows in ([[digit], [digit]], [[b"no picture"]], [[digit]])]
    first, bad, last = prepare.execute([request({"picture": pictures}) for pictures in pairs])
    assert "is not an image that OpenCV can decode" in bad.error
    answers = network.execute([request({"images": r.tensors["images"]}) for r in (first, last)])
    assert [len(answer.tensors["logits"]) for answer in answers] == [2, 1]
    outputs = [{**a.tensors, "placement": r.tensors["placement"]} for a, r in zip(answers, (first, last))]
    two, none, wrong = decode.execute(
        [request(outputs[0], top=2), request(outputs[1], top=0), request(outputs[1], to=1)]
    )
    assert "top is 0; it must be at least 1" in none.error and "has no option 'to'" in wrong.error
    with load("lenet5", device="cpu") as session:
        wanted = decode.task.to_json(session.predict(DIGIT, top=2))
    assert [json.loads(row) for row in two.tensors["result"].ravel()] == [{"width": 128, "height": 128, **wanted}] * 2
    (small,) = network.execute([request({"images": np.zeros((1, 1, 31, 32), np.float32)})])
    assert "this network takes Nx1x32x32" in small.error
    network.finalize()


def test_a_server() -> None:
    python = os.environ.get("ZOO_TRITON_PYTHON")
    if not python:
        pytest.skip("ZOO_TRITON_PYTHON names no interpreter that has nvidia-pytriton, whose tritonserver it starts")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [python, ROOT / "tests" / "triton_server.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
