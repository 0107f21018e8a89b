"""PyTorch checkpoints read without PyTorch: equal to PyTorch's own reading bit for bit, and nothing of a file runs."""

from __future__ import annotations

import copy
import fnmatch
import io
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from zoo.engine.definition import define
from zoo.errors import ZooError
from zoo.registry import get_model
from zoo.trt import load as load_api
from zoo.verify.references import load_reference
from zoo.weights import Weights, from_arrays, load_weights
from zoo.weights.families import family_of

ROOT = Path(__file__).resolve().parent.parent


def module_of(source: str, classes: int = 3) -> torch.nn.Module:
    return load_reference(source, classes).module


@pytest.fixture(scope="module")
def resnet() -> torch.nn.Module:
    torch.manual_seed(0)
    module = module_of("torchvision:resnet18", 5)
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_()
    return module


@pytest.fixture(scope="module")
def yolo() -> torch.nn.Module:
    torch.manual_seed(0)
    return module_of("ultralytics:yolov8n")


def saved(path: Path, content: Any, **options: Any) -> Weights:
    torch.save(content, path, **options)
    return load_weights(path)


def same(weights: Weights, state: dict[str, torch.Tensor]) -> None:
    """`weights` hold exactly the tensors of `state`, in their order and bit for bit."""
    assert weights.names() == list(state)
    for name, tensor in state.items():
        expected = (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
        found = weights.read(name, tuple(tensor.shape))
        assert found.dtype == expected.dtype and found.tobytes() == expected.tobytes(), name


# Equal to PyTorch


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "older container"])
@pytest.mark.parametrize("form", ["state_dict", "whole module"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_a_resnet_in_both_containers(
    tmp_path: Path, resnet: torch.nn.Module, legacy: bool, form: str, dtype: str
) -> None:
    module = copy.deepcopy(resnet).to(getattr(torch, dtype))
    content = module if form == "whole module" else module.state_dict()
    weights = saved(tmp_path / "c.pt", content, _use_new_zipfile_serialization=not legacy)
    same(weights, module.state_dict())
    assert len(weights.modules) == (len(list(module.modules())) if form == "whole module" else 0)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_module_in_every_protocol(tmp_path: Path, resnet: torch.nn.Module, protocol: int) -> None:
    same(saved(tmp_path / "c.pt", resnet, pickle_protocol=protocol), resnet.state_dict())


@pytest.mark.parametrize("protocol", range(6))
def test_a_state_dict_that_pickle_itself_wrote(tmp_path: Path, protocol: int) -> None:
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.bfloat16)}
    (tmp_path / "c.pt").write_bytes(pickle.dumps(state, protocol))
    if protocol < 2:  # no file of PyTorch begins so
        with pytest.raises(ZooError, match="is no checkpoint of PyTorch"):
            load_weights(tmp_path / "c.pt")
    else:
        same(load_weights(tmp_path / "c.pt"), state)


@pytest.mark.parametrize("source", ["ultralytics:yolov8n", "yolov5:yolov5n"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "older container"])
def test_a_whole_detector_as_its_training_leaves_it(tmp_path: Path, source: str, legacy: bool) -> None:
    module = module_of(source)
    module.names = {2: "owl", 0: "cat", 1: "dog"}
    content = {
        "epoch": -1, "model": module.half(), "ema": None, "optimizer": None, "date": "2026-01-01",
        "train_args": {"imgsz": 128, "data": "x.yaml"}, "path": pathlib.PureWindowsPath("C:\\runs"),
        "fitness": np.float64(0.5), "history": np.arange(4), "opt": SimpleNamespace(lr=0.1),
    }  # fmt: skip
    weights = saved(tmp_path / "best.pt", content, _use_new_zipfile_serialization=not legacy)
    same(weights, module.state_dict())
    assert weights.metadata["classes"] == '["cat", "dog", "owl"]'
    assert weights.metadata["input"] == '{"size": [128, 128]}'
    assert weights.metadata["model"] == source.split(":")[1]


def test_torchscript_archives_are_read_too(tmp_path: Path, resnet: torch.nn.Module) -> None:
    torch.jit.script(resnet).save(str(tmp_path / "s.pt"))
    weights = load_weights(tmp_path / "s.pt")
    assert set(weights.names()) == set(resnet.state_dict())
    assert np.array_equal(weights.read("conv1.weight", (64, 3, 7, 7)), resnet.conv1.weight.detach().numpy())


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "older container"])
def test_views_types_and_tensors_without_values(tmp_path: Path, legacy: bool) -> None:
    base = torch.arange(24.0)
    state = {
        "transposed": base.reshape(4, 6).t(), "part": base[5:9], "expanded": torch.ones(1).expand(4), "scalar": base[3],
        "empty": torch.zeros(0, 3), "parameter": torch.nn.Parameter(base[:3]), "half": base.half(), "flags": base > 3,
        "int": base.int(), "short": base.short(), "bytes": base.byte(), "unsigned": base.to(torch.uint16),
        "e4m3": base[:8].to(torch.float8_e4m3fn), "e5m2": base[:8].to(torch.float8_e5m2),
    }  # fmt: skip
    state["parameter"].note = "a parameter with state"
    odd = {"sparse": torch.eye(3).to_sparse(), "meta": torch.ones(3, device="meta"), "complex": torch.ones(2) * 1j}
    weights = saved(tmp_path / "c.pt", {**state, **odd}, _use_new_zipfile_serialization=not legacy)
    for name, tensor in state.items():
        float32 = tensor.is_floating_point()
        expected = (tensor.detach().float() if float32 else tensor).contiguous().numpy()
        assert np.array_equal(weights.read(name, tuple(tensor.shape)), expected), name
    for name, words in {"sparse": "it is sparse", "meta": "has no values", "complex": "complex numbers"}.items():
        with pytest.raises(ZooError, match=f"'{name}' in .*c.pt.*{words}"):
            weights.read(name, weights.shape(name) or ())


def test_quantised_tensors_are_refused_by_name(tmp_path: Path) -> None:
    quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    weights = saved(tmp_path / "c.pt", {"a": quantised, "b": torch.ones(1)})
    with pytest.raises(ZooError, match="'a' in .* is quantised; use the checkpoint from before quantisation"):
        weights.read("a", (3,))


def test_non_persistent_buffers_stay_out(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 2)
    module.register_buffer("kept", torch.ones(2))
    module.register_buffer("lost", torch.ones(3), persistent=False)
    same(saved(tmp_path / "c.pt", module), module.state_dict())


def test_a_large_checkpoint_is_not_copied(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(64 << 20), "b": torch.ones(3)}, tmp_path / "c.pt")  # 256 MiB
    code = (
        "import re, sys; from zoo.weights import load_weights; w = load_weights(sys.argv[1]); w.read('b', (3,));"
        "owns = w.read('a', (64 << 20,)).flags.owndata;"
        "print(re.search(r'RssAnon:\\s+(\\d+)', open('/proc/self/status').read())[1], owns)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "c.pt")],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    anonymous, owns = result.stdout.split()
    assert int(anonymous) < 100 << 10 and owns == "False"


# Where the weights lie

Make = Callable[[dict[str, torch.Tensor], torch.nn.Module], Any]
FORMS: dict[str, Make] = {
    "averaged": lambda state, m: {"model": wrong(state), "model_ema": AveragedModel(m).state_dict()},
    "Lightning": lambda state, m: {"state_dict": {f"model.{n}": t for n, t in state.items()}},
    "DataParallel": lambda state, m: torch.nn.DataParallel(m),
    "compiled": lambda state, m: {f"module._orig_mod.{n}": t for n, t in state.items()},
    "a text before it": lambda state, m: {"model": "resnet18", "state_dict": state},
    "settings of an average": lambda state, m: {"model": state, "ema": {"decay": 0.9999, "updates": 7}},
    "one level down": lambda state, m: {"model": wrong(state), "ema": {"module": state, "updates": 7}},
    "a number": lambda state, m: {"ema": 0.999, "net": state},
    "a teacher": lambda state, m: {"student": wrong(state), "teacher": {f"backbone.{n}": state[n] for n in state}},
    "an unknown key": lambda state, m: {"optimizer": {"state": {0: {"x": torch.ones(2)}}}, "mine": state, "epoch": 2},
    "thop": lambda state, m: {**state, "total_ops": torch.ones(1), "layer1.total_params": torch.ones(1)},
    "fx": lambda state, m: torch.fx.symbolic_trace(m),
}  # fmt: skip


def wrong(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found_where_people_have_them(tmp_path: Path, resnet: torch.nn.Module, form: str) -> None:
    weights = saved(tmp_path / "c.pt", FORMS[form](resnet.state_dict(), copy.deepcopy(resnet)))
    definition = define(get_model("resnet18"), weights, load_api("rtx"), (1, 3, 64, 64))
    found = definition.weights.read("fc.weight", (5, 512))
    assert np.array_equal(found, resnet.fc.weight.detach().numpy())


@pytest.mark.parametrize("change", [lambda n: f"model.{n}", lambda n: n.removeprefix("model.")], ids=["more", "less"])
def test_a_yolo_with_another_prefix(tmp_path: Path, yolo: torch.nn.Module, change: Callable[[str], str]) -> None:
    weights = saved(tmp_path / "c.pt", {change(name): tensor for name, tensor in yolo.state_dict().items()})
    assert (
        "model.22.dfl.conv.weight" in define(get_model("yolov8n"), weights, load_api("rtx"), (1, 3, 64, 64)).parameters
    )


def test_what_holds_no_weights_says_what_it_holds(tmp_path: Path) -> None:
    for content, words in (({"epoch": 3}, "a dict of epoch"), (3, "int"), (torch.optim.SGD, "Global")):
        with pytest.raises(ZooError, match=f"c.pt holds no state_dict and no model; found {words}"):
            saved(tmp_path / "c.pt", content)


# Class names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({10: "k", **{i: chr(97 + i) for i in range(10)}}, list("abcdefghijk")),
        ({"1": "b", "0": "a"}, ["a", "b"]),
        (["x", "y"], ["x", "y"]),
        ({0: "0", 1: "1"}, None),
    ],
    ids=["by number", "numbers as text", "list", "placeholders"],
)
def test_class_names_go_by_their_numbers(tmp_path: Path, names: Any, expected: list[str] | None) -> None:
    module = torch.nn.Linear(2, 2)
    module.names = names
    found = saved(tmp_path / "c.pt", module).metadata.get("classes")
    assert found == (None if expected is None else str(expected).replace("'", '"'))


def test_class_names_that_are_numbered_with_a_gap_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="the classes are numbered 0, 2; 0 to 1 was expected"):
        saved(tmp_path / "c.pt", {"model": {"a": torch.ones(1)}, "names": {0: "a", 2: "b"}})
    weights = saved(tmp_path / "d.pt", {"model": {"a": torch.ones(1)}, "class_to_idx": {"b": 1, "a": 0}})
    assert weights.metadata["classes"] == '["a", "b"]'


# Files of other networks


def other_yolo(kind: str, yaml: str) -> torch.nn.Module:
    from ultralytics.nn import tasks

    return getattr(tasks, kind)(yaml, nc=3, verbose=False)


@pytest.mark.parametrize(
    ("kind", "yaml", "words"),
    [
        ("DetectionModel", "yolo11n.yaml", "holds a YOLO11 detector, not yolov8n"),
        ("DetectionModel", "yolov9t.yaml", "holds a YOLOv9 detector, not yolov8n"),
        ("DetectionModel", "yolov10n.yaml", "holds a YOLOv10 detector, not yolov8n"),
        ("DetectionModel", "yolov5n.yaml", "holds a YOLOv5u detector, not yolov8n"),
        ("DetectionModel", "yolov3-tiny.yaml", "holds a YOLOv3-tinyu detector, not yolov8n: use yolov3_tinyu"),
        ("DetectionModel", "yolov6n.yaml", "holds a YOLOv6 detector, not yolov8n: use yolov6n"),
        ("DetectionModel", "yolov8n-p2.yaml", "holds a YOLOv8-p2 detector, not yolov8n: use yolov8n_p2"),
        ("DetectionModel", "yolo26n-p6.yaml", "holds a YOLO26-p6 detector, not yolov8n: use yolo26n_p6"),
        ("DetectionModel", "yolov5n-p6.yaml", "holds a YOLOv5u P6 detector, not yolov8n: use yolov5n6u"),
        ("SegmentationModel", "yolov8n-seg.yaml", "holds a YOLOv8 for segmentation, not yolov8n.*yolov8n_seg"),
        ("PoseModel", "yolov8n-pose.yaml", "holds a YOLOv8 for poses, not yolov8n.*yolov8n_pose"),
        ("PoseModel", "yolo26n-pose.yaml", "holds a YOLO26 for poses, not yolov8n.*yolo26n_pose"),
        ("OBBModel", "yolov8n-obb.yaml", "holds a YOLOv8 for oriented boxes, not yolov8n.*yolov8n_obb"),
        ("ClassificationModel", "yolo11n-cls.yaml", "holds a YOLO11 or YOLO26 classifier, not yolov8n.*yolo11n_cls"),
        ("ClassificationModel", "yolo12n-cls.yaml", "holds a YOLO12 classifier, not yolov8n.*yolo12n_cls"),
        ("ClassificationModel", "yolov8n-cls.yaml", "holds a YOLOv8 classifier, not yolov8n.*yolov8n_cls"),
    ],
)
def test_a_refusal_names_the_family(tmp_path: Path, kind: str, yaml: str, words: str) -> None:
    weights = saved(tmp_path / "c.pt", other_yolo(kind, yaml).state_dict())
    with pytest.raises(ZooError, match=words):
        define(get_model("yolov8n"), weights, load_api("rtx"), (1, 3, 64, 64))


def state() -> dict[str, torch.Tensor]:
    return load_reference("torchvision:resnet18").module.state_dict()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda: {n.replace("fc.", "fc.1."): t for n, t in state().items()}, "'fc' is a Sequential there.*'fc.1'"),
        (lambda: {**state(), "conv1.weight": torch.zeros(64, 1, 7, 7)}, "it is for pictures of 1 channel, and the de"),
        (
            lambda: {("head." if n.startswith("fc") else "backbone.") + n: t for n, t in state().items()},
            "holds a network of OpenMMLab",
        ),
    ],
)
def test_a_refusal_says_what_is_otherwise(
    tmp_path: Path, changed: Callable[[], dict[str, torch.Tensor]], words: str
) -> None:
    weights = saved(tmp_path / "c.pt", changed())
    with pytest.raises(ZooError, match=words):
        define(get_model("resnet18"), weights, load_api("rtx"), (1, 3, 64, 64))


DARKNET = ["model.0.conv.weight", "model.2.cv1.conv.weight", "model.4.0.cv1.conv.weight"]


@pytest.mark.parametrize(
    ("names", "what", "models"),
    [
        ([*DARKNET, "model.28.cv2.0.0.conv.weight", "model.28.cv3.0.0.conv.weight"], "YOLOv3u", ["yolov3u"]),
        ([*DARKNET, "model.28.anchors", "model.28.m.0.weight"], "YOLOv3 with anchors", []),
        (["model.0.conv.weight", "model.20.anchors", "model.20.m.0.weight"], "YOLOv3 with anchors", []),
        (["model.0.conv.weight", "model.33.anchors", "model.33.m.0.weight"], "YOLOv5 P6", []),
        (["model.0.conv.conv.weight", "model.24.anchors"], "before v6.0", []),
        (["model.decoder.layers.0.self_attn.out_proj.weight", "model.enc_score_head.weight"], "before 5", []),
    ],
)
def test_old_names_are_told(names: list[str], what: str, models: list[str]) -> None:
    """The networks that are large, by some of their names."""
    family = family_of(from_arrays({name: np.zeros(1, np.float32) for name in names}))
    assert family is not None and what in family.what
    assert [name for name in ("yolov3u", "yolov5n", "yolov8n") if fnmatch.fnmatchcase(name, family.models)] == models
    assert "-" not in family.models  # no name has a hyphen


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("maskrcnn_resnet50_fpn_v2", "a Mask R-CNN"),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "a Faster R-CNN"),
        ("retinanet_resnet50_fpn", "a RetinaNet"),
        ("fcos_resnet50_fpn", "an FCOS"),
    ],
)
def test_detectors_of_torchvision_are_told(name: str, what: str) -> None:
    from zoo.verify.references import load_reference

    with torch.device("meta"):
        names = load_reference(f"torchvision:{name}").module.state_dict()
    family = family_of(from_arrays({name: np.zeros(1, np.float32) for name in names}))
    assert family is not None and family.what == f"{what} of torchvision"
    assert fnmatch.fnmatchcase(name, family.models)


def test_a_fused_yolo_is_told_so(tmp_path: Path, yolo: torch.nn.Module) -> None:
    weights = saved(tmp_path / "c.pt", {"model": copy.deepcopy(yolo).fuse(verbose=False)})
    with pytest.raises(ZooError, match="holds a fused YOLO.*take the checkpoint as the training wrote it"):
        define(get_model("yolov8n"), weights, load_api("rtx"), (1, 3, 64, 64))


# Hostile files


class Calls:
    """Pickled, this is a call of `function` when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "older container"])
def test_nothing_of_a_file_runs(tmp_path: Path, legacy: bool) -> None:
    proof, checkpoint = tmp_path / "it ran", tmp_path / "c.pt"
    evil = [
        Calls(open, str(proof), "w"),
        Calls(os.system, f"touch '{proof}'"),
        Calls(eval, f"open({str(proof)!r}, 'w')"),
    ]
    state = {"weight": torch.ones(3)}
    same(saved(checkpoint, {"model": state, "evil": evil}, _use_new_zipfile_serialization=not legacy), state)
    assert not proof.exists()
    torch.load(checkpoint, weights_only=False)["evil"][0].close()
    assert proof.exists()  # it would have


def changed(path: Path, name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    """The zip with the content of an entry replaced."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(path.with_name("changed.pt"), "w", compression) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, content if entry.filename.endswith(name) else source.read(entry))
    return path.with_name("changed.pt")


def with_pickle(tmp_path: Path, content: bytes) -> Path:
    torch.save({"a": torch.ones(4)}, tmp_path / "c.pt")
    return changed(tmp_path / "c.pt", "data.pkl", content)


def tensor(arguments: bytes) -> bytes:
    """A pickle of {"a": a tensor of the storage "0" of 4 values}; `arguments` are the offset, shape and strides."""
    storage = b"(" + b"X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\4tQ"
    return b"\x80\2}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" + storage + arguments + b"\x89NtRs."


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tensor(b"K\1(K\4t(K\1t"), "reaches beyond its storage of 4 values"),
        (tensor(b"K\0(K\4t(K\2t"), "reaches beyond its storage"),
        (tensor(b"J\xff\xff\xff\xff(K\1t(K\1t"), "impossible shape"),
        (tensor(b"K\0(K\4t(J\xff\xff\xff\xfft"), "impossible shape"),
        (tensor(b"K\0(K\2K\2t(K\1t"), "impossible shape"),
        (tensor(b"K\0(J\0\0\0\x40K\4t(K\0K\1t"), "is made of 4 values"),
        (tensor(b"K\0(" + b"K\1" * 65 + b"t(" + b"K\1" * 65 + b"t"), "impossible shape"),
        (b"\x80\2]K\1K\2s.", "sets items of a list"),
        (b"\x80\2K\1N b.".replace(b" ", b""), "gives attributes to a int"),
        (b"\x80\2}]K\1s.", "has a key that is a list"),
        (b"\x80\2}" + b")" + b"\x85" * 100_000 + b"K\1s.", "has a key that is a tuple"),
        (b"\x80\2X\1\0\0\0aQ.", "refers to something that is no storage"),
        (b"\x80\2Pabc\n.", "refers to something that is no storage"),
        (b"\x80\2\x82\1.", "uses EXT1"),
        (b"\x80\5\x97.", "uses NEXT_BUFFER"),
        (b"\x80\2h\7.", "is broken"),
        (b"\x80\2B\xff\xff\xff\x7fabc.", "is broken"),
        (b"\x80\2X\xff\xff\xff\xff.", "is broken"),
        (b"\x80\2\x8b\xff\xff\xff\x7f.", "is broken"),
        (b"\x80\2\x8a\xff" + b"\x7f" * 255 + b"K\1s.", "is broken"),
        (b"", "is broken"),
        (b"\x80\2", "is broken"),
    ],
)
def test_pickles_that_lie(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(ZooError, match=f"changed.pt cannot be read as a PyTorch checkpoint: .*{words}"):
        load_weights(with_pickle(tmp_path, content))


def test_copies_of_copies_are_bounded(tmp_path: Path) -> None:
    """A list of 100,000 elements that 100,000 calls copy: 80 GB."""
    many = b"](" + b"N" * 100_000 + b"eq\0"
    content = b"\x80\2" + many + b"0]q\1(" + b"cbuiltins\ntuple\nh\0\x85R" * 100_000 + b"e."
    with pytest.raises(ZooError, match="copies the same things over and over"):
        load_weights(with_pickle(tmp_path, content))


def test_a_memo_index_makes_no_table(tmp_path: Path) -> None:
    content = tensor(b"K\0(K\4t(K\1t").replace(b"\x80\2}", b"\x80\2}r\xff\xff\xff\xff")
    assert load_weights(with_pickle(tmp_path, content)).names() == ["a"]


def test_damaged_archives_are_refused_in_one_sentence(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "c.pt")
    good = (tmp_path / "c.pt").read_bytes()
    at = good.index(np.arange(1000, dtype=np.float32).tobytes())
    flipped = bytearray(good)
    flipped[at + 100] ^= 1
    for content, words in (
        (good[: len(good) // 2], "damaged or cut short"),
        (bytes(flipped), "'a' in .* cannot be read: the checksum of an entry is wrong"),
        (b"PK\3\4 but nothing more", "damaged or cut short"),
    ):
        (tmp_path / "bad.pt").write_bytes(content)
        with pytest.raises(ZooError, match=words):
            load_weights(tmp_path / "bad.pt").read("a", (1000,))


def test_compressed_archives_are_read_and_bombs_are_not(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "c.pt")
    path = changed(tmp_path / "c.pt", "nothing", b"", zipfile.ZIP_DEFLATED)
    assert np.array_equal(load_weights(path).read("a", (1000,)), np.arange(1000, dtype=np.float32))
    torch.save({"a": torch.zeros(8 << 20)}, tmp_path / "c.pt")
    with pytest.raises(ZooError, match="would grow from .* bytes to 33554432"):
        load_weights(changed(tmp_path / "c.pt", "nothing", b"", zipfile.ZIP_DEFLATED))


def test_other_archives_are_named(tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "p.pt2")
    with pytest.raises(ZooError, match="torch.export; save the module's state_dict"):
        load_weights(tmp_path / "p.pt2")
    with zipfile.ZipFile(tmp_path / "z.pt", "w") as archive:
        archive.writestr("best.pt", b"x")
    with pytest.raises(ZooError, match="another zip archive"):
        load_weights(tmp_path / "z.pt")


def test_an_older_file_cut_short(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(9), "b": torch.ones(8)}, buffer, _use_new_zipfile_serialization=False)
    good = buffer.getvalue()
    for length in (len(good) - 1, len(good) - 40, len(good) - 60, 200, 30):
        (tmp_path / "c.pt").write_bytes(good[:length])
        with pytest.raises(ZooError, match="c.pt cannot be read as a PyTorch checkpoint"):
            load_weights(tmp_path / "c.pt")


# What the modules say


def changed_yolo(yolo: torch.nn.Module, change: Callable[[torch.nn.Module], None]) -> torch.nn.Module:
    module = copy.deepcopy(yolo)
    change(module)
    return module


def set_at(path: str, **attributes: Any) -> Callable[[torch.nn.Module], None]:
    def change(module: torch.nn.Module) -> None:
        for name, value in attributes.items():
            setattr(module.get_submodule(path), name, value)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_at("model.3", act=torch.nn.ReLU()), "'model.3.act', a ReLU, has relu, the definition silu"),
        (set_at("model.3", act=torch.nn.Identity()), "'model.3.act', a Identity, has nothing, the definition silu"),
        (set_at("model.3", act=torch.nn.Softsign()), "its own function Softsign, the definition silu"),
        (
            set_at("model.4.cv1.bn", eps=1e-5),
            "'model.4.cv1.bn', a BatchNorm2d, has eps 1e-05, the definition eps 0.001",
        ),
        (set_at("model.2.m.0", add=False), "'model.2.m.0', a Bottleneck, has no shortcut, the definition one"),
        (set_at("model.12.m.0", add=True), "'model.12.m.0', a Bottleneck, has a shortcut, the definition none"),
        (set_at("model.5.conv", stride=(1, 1)), r"stride \(1, 1\), the definition stride \(2, 2\)"),
        (set_at("model.5.conv", padding=(0, 0)), r"padding \(0, 0\), the definition padding \(1, 1\)"),
        (set_at("model.5.conv", dilation=(2, 2)), r"dilation \(2, 2\), the definition dilation \(1, 1\)"),
        (set_at("model.5.conv", padding_mode="reflect"), "padding_mode reflect, the definition zeros"),
        (set_at("model.9.m", kernel_size=3), r"kernel_size 3, the definition kernel_size \(5, 5\)"),
    ],
)
def test_a_module_that_is_another_is_refused_by_its_path(
    tmp_path: Path, yolo: torch.nn.Module, change: Callable[[torch.nn.Module], None], words: str
) -> None:
    weights = saved(tmp_path / "c.pt", {"model": changed_yolo(yolo, change)})
    with pytest.raises(ZooError, match=f"is another network than yolov8n: its .*{words}"):
        define(get_model("yolov8n"), weights, load_api("rtx"), (1, 3, 64, 64))


MODELS = [
    "resnet18",
    "alexnet",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "yolov5n",
    "yolov8n",
    "efficientnet_lite0",
    "vit_b_32",
]


@pytest.mark.parametrize("name", MODELS)
def test_published_modules_are_taken(tmp_path: Path, name: str) -> None:
    model = get_model(name)
    weights = saved(tmp_path / "c.pt", load_reference(model.reference).module)
    assert len(weights.modules) > 20
    define(model, weights, load_api("rtx"), (1, *model.input))
