"""The commands as users run them: output, exit status, and one clear sentence for every mistake."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from zoo.weights import RandomWeights, load_weights, save_safetensors, save_wts

ROOT = Path(__file__).resolve().parent.parent
DIGIT = ROOT / "samples" / "digit_7.png"


def zoo(*args: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`python -m zoo.ARGS` in a process of its own."""
    command, *rest = map(str, args)
    return subprocess.run(
        [sys.executable, "-m", f"zoo.{command}", *rest], cwd=cwd, capture_output=True, text=True, timeout=120
    )


def refused(*args: object, cwd: Path = ROOT) -> str:
    """The one sentence of a command that must refuse: status 2, no traceback, nothing on stdout."""
    result = zoo(*args, cwd=cwd)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr and not result.stdout
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    return errors[0]


@pytest.fixture
def lenet(tmp_path: Path) -> dict[str, np.ndarray]:
    """The tensors of the weights that ship."""
    weights = load_weights(ROOT / "zoo" / "weights" / "lenet5.safetensors")
    return {name: weights.read(name, weights.shape(name)) for name in weights.names()}


# What works


def test_list_filters_and_speaks_json() -> None:
    rows = json.loads(zoo("list", "yolov8?", "--task", "detect", "--json").stdout)
    assert [row["name"] for row in rows] == [f"yolov8{size}" for size in "nsmlx"]
    assert rows[0]["parameters"] == 3_157_200 and rows[0]["input"] == [3, 640, 640]
    assert rows[0]["aliases"] == ["yolov8"] and rows[0]["reference"] == "ultralytics:yolov8n"
    assert "resnet50" in zoo("list", "resnet*").stdout


def test_list_groups_by_task() -> None:
    printed = zoo("list", "[ly]*5").stdout
    assert printed.splitlines() == [
        "classify: 1 model, weights of 1 here",
        "  name    parameters  input    weights  reference                       aliases",
        "  lenet5      61,706  1x32x32  file     scripts/train_lenet5.py:LeNet5",
    ]
    headings = [line.partition(":")[0] for line in zoo("list").stdout.splitlines() if not line.startswith(" ")]
    assert {"classify", "detect"} <= set(headings) and len(headings) == len(set(headings))


def test_list_knows_where_weights_are(tmp_path: Path) -> None:
    """In a file, in an installed package, in the cache, for download; a cascade's are where the farthest part's are."""
    kept = tmp_path / "zoo" / "weights" / "yolov8n.pt"
    kept.parent.mkdir(parents=True)
    kept.touch()
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "zoo.list", "--json"]
    listed = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=True).stdout
    found = {row["name"]: row["weights"] for row in json.loads(listed)}
    expected = {"lenet5": "file", "efficientnet_lite0": "package", "mtcnn": "package", "yolov8n": "kept"}
    expected |= {"yolov8s": "published", "lraspp_mobilenet_v3_large": "published", "depth_anything_v2_small": None}
    assert {name: found[name] for name in expected} == expected
    here = subprocess.run([*command, "--here"], env=environment, cwd=tmp_path, capture_output=True, check=True).stdout
    names = {row["name"] for row in json.loads(here)}
    assert names == {name for name, where in found.items() if where in ("file", "package", "kept")}


def test_list_defines_nothing(tmp_path: Path) -> None:
    """300 models are listed without TensorRT, and without calling what defines them."""
    (tmp_path / "many.py").write_text(
        "from zoo.preprocess import imagenet\n"
        "from zoo.registry import Variant, register\n"
        "variants = {f'many_{i}': Variant(None, params=i + 1) for i in range(300)}\n"
        "@register(task='classify', reference='timm:{name}', preprocess=imagenet(), paper='doi:10.1', **variants)\n"
        "def build(net, x, cfg):\n"
        "    raise AssertionError('defined')\n"
    )
    code = (
        "import atexit, sys, zoo.list\natexit.register(lambda: print(*sys.modules, file=sys.stderr))\nzoo.list.main()"
    )
    command = [sys.executable, "-c", code, "--import", str(tmp_path / "many.py"), "many"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert listed.stdout.startswith("classify: 300 models, weights of none here\n") and "many_299" in listed.stdout
    imported = set(listed.stderr.split())
    assert "zoo.models.resnet" in imported
    heavy = {"tensorrt_rtx", "tensorrt", "torch", "onnx", "onnxruntime", "cv2", "rich", "zoo.engine.definition"}
    assert imported & heavy == set()


def test_a_full_disk_under_what_is_printed_is_one_sentence() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "zoo.list", "lenet5"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: the output cannot be written: {os.strerror(errno.ENOSPC)}\n"


def test_run_reads_a_digit(tmp_path: Path) -> None:
    result = zoo("run", "lenet5", DIGIT, "--save", tmp_path, "--top", 3, "--json")
    assert result.returncode == 0 and "onnxruntime" in result.stderr
    answer = json.loads(result.stdout)
    (item,) = answer["results"]
    assert [c["label"] for c in item["classes"]][0] == "7" and len(item["classes"]) == 3
    assert cv2.imread(item["picture"]).shape[0] > 128
    assert json.loads((tmp_path / "results.json").read_text()) == answer


def test_run_does_the_rest_of_a_folder_with_a_bad_image(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(DIGIT, folder / "a.png")
    (folder / "b.png").write_bytes(b"not a picture")
    shutil.copy(DIGIT, folder / "c.png")
    result = zoo("run", "lenet5", folder, "--save", tmp_path / "out", "--json")
    assert result.returncode == 1
    answer = json.loads(result.stdout)
    assert [Path(item["source"]).name for item in answer["results"]] == ["a.png", "c.png"]
    assert "b.png" in answer["errors"][0]["error"] and "b.png" in result.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".zoo-files", "a.png", "c.png", "results.json"]


def test_run_never_writes_over_its_source(tmp_path: Path) -> None:
    shutil.copy(DIGIT, tmp_path / "digit.png")
    before = (tmp_path / "digit.png").read_bytes()
    assert zoo("run", "lenet5", tmp_path / "digit.png", "--save", tmp_path).returncode == 0
    assert (tmp_path / "digit.png").read_bytes() == before and (tmp_path / "digit-2.png").exists()


def test_run_draws_a_video(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "in.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 64))
    for shade in (0, 120, 240):
        writer.write(np.full((64, 64, 3), shade, np.uint8))
    writer.release()
    result = zoo("run", "lenet5", tmp_path / "in.mp4", "--save", tmp_path / "out", "--json")
    assert result.returncode == 0, result.stderr
    assert [item["frame"] for item in json.loads(result.stdout)["results"]] == [0, 1, 2]
    video = cv2.VideoCapture(str(tmp_path / "out" / "in.mp4"))
    assert sum(1 for _ in iter(video.grab, False)) == 3


def test_detection_prints_boxes_and_draws_them(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (120, 200, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "noise.jpg"), image)
    args = ["--size", "96x160", "--conf", 0.01, "--max-det", 7, "--save", tmp_path / "out", "--json"]
    result = zoo("run", "yolov8", tmp_path / "noise.jpg", "--weights", "random:3", *args)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["model"] == "yolov8n" and answer["weights"] == "random:3"
    (item,) = answer["results"]
    assert 0 < len(item["detections"]) <= 7
    for found in item["detections"]:
        left, top, right, bottom = found["box"]
        assert 0 <= left <= right <= 200 and 0 <= top <= bottom <= 120 and 0.01 < found["score"] <= 1


def test_a_picture_has_a_line_and_its_boxes_only_when_asked_for(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "noise.jpg"), np.random.default_rng(0).integers(0, 255, (120, 200, 3), np.uint8))
    words = ["run", "yolov8n", tmp_path / "noise.jpg", "--weights", "random:3", "--size", "96x160", "--conf", 0.01]
    words += ["--max-det", 7, "--save", tmp_path / "out", "--threads", 1, "--warmup", 1]
    brief, long = zoo(*words), zoo(*words, "--verbose")
    (line, last) = brief.stdout.splitlines()
    counted = line.removeprefix(f"{tmp_path}/noise.jpg: ").partition(" (200x120, ")[0]
    assert sum(int(part.split()[0]) for part in counted.split(", ")) == 7 and last.startswith("results: ")
    assert long.stdout.partition(" (")[0] == line.partition(" (")[0]
    boxes = [row for row in long.stdout.splitlines() if row.startswith("  ")]
    assert len(boxes) == 7 and all(" at " in row for row in boxes)
    for said in (brief.stderr, long.stderr):  # where one begins to read, and where one stops
        assert said.count("warning: the weights are random") == 2 and said.splitlines()[-1].startswith("warning: ")


def test_build_writes_an_engine_and_its_description(tmp_path: Path) -> None:
    path = tmp_path / "lenet.engine"
    profile = ["--minShapes=1x1x32x32", "--optShapes=images:4x1x32x32", "--maxShapes=8x1x32x32"]
    result = zoo("build", "lenet5", "--fp16", *profile, f"--saveEngine={path}")
    assert result.returncode == 0, result.stderr
    assert "no GPU" in result.stderr and str(path) in result.stdout
    description = json.loads((tmp_path / "lenet.engine.json").read_text())
    assert description["model"] == "lenet5" and description["precision"] == "fp16" and description["flavour"] == "rtx"
    assert description["input"]["max"] == [8, 1, 32, 32] and description["labels"] == list("0123456789")
    assert description["size"] == path.stat().st_size
    command = description["rebuild"].split()
    assert command[:3] == ["python", "-m", "zoo.build"]
    again = tmp_path / "again.engine"
    assert zoo(*command[2:][0].split(".")[1:], *command[3:], "-o", again).returncode == 0
    assert json.loads((tmp_path / "again.engine.json").read_text())["input"] == description["input"]


def test_build_dry_run_compiles_nothing(tmp_path: Path) -> None:
    result = zoo("build", "resnet18", "--weights", "random", "--dry-run", "--json", cwd=tmp_path)
    assert json.loads(result.stdout)["layers"] > 40 and not list(tmp_path.iterdir())


def test_export_runs_in_onnxruntime(tmp_path: Path) -> None:
    import onnxruntime

    path = tmp_path / "lenet.onnx"
    assert zoo("export", "lenet5", "--format", "onnx", "-o", path).returncode == 0
    session = onnxruntime.InferenceSession(path)
    (logits,) = session.run(["logits"], {"images": np.zeros((3, 1, 32, 32), np.float32)})
    assert logits.shape == (3, 10)


def test_verify_passes_and_fails(tmp_path: Path, lenet: dict[str, np.ndarray]) -> None:
    good = zoo("verify", "lenet5", "--layers", "--html", tmp_path / "report.html")
    assert good.returncode == 0 and "PASSED" in good.stdout, good.stdout + good.stderr
    assert "calibrated random weights" in good.stdout and "conv2" in (tmp_path / "report.html").read_text()
    half = zoo("verify", "lenet5", "--fp16", "--json")
    assert half.returncode == 0 and json.loads(half.stdout)["ok"] is True


def test_verify_golden_needs_no_reference_and_fails_on_other_weights(
    tmp_path: Path, lenet: dict[str, np.ndarray]
) -> None:
    made = subprocess.run(
        [sys.executable, "scripts/gen_wts.py", "lenet5", "--random", "5", "--golden", "-o", tmp_path / "w.safetensors"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    golden = tmp_path / "w.golden.safetensors"
    args = ["verify", "lenet5", "--weights", tmp_path / "w.safetensors", "--golden", golden]
    passed = zoo(*args)
    assert passed.returncode == 0 and "PASSED" in passed.stdout
    lenet_weights = {**lenet, "fc3.bias": lenet["fc3.bias"] + 1e-3}
    save_safetensors(tmp_path / "other.safetensors", lenet_weights)
    failed = zoo("verify", "lenet5", "--weights", tmp_path / "other.safetensors", "--golden", golden)
    assert failed.returncode == 1 and "FAILED" in failed.stdout
    assert "not of resnet18" in refused("verify", "resnet18", "-w", "random", "--golden", golden)


def test_verify_runs_the_module_of_a_checkpoint_only_when_it_is_asked_to(tmp_path: Path) -> None:
    import torch

    from zoo.verify.torchvision_shim import import_torchvision

    module = import_torchvision().models.mobilenet_v2(num_classes=8)
    module.features[3].conv[0][2] = torch.nn.Hardswish()
    torch.save(module, tmp_path / "mine.pt")
    args = ["verify", "mobilenet_v2", "--size", "64x96"]
    assert "'features.3.conv.0.2', a Hardswish" in refused(*args, "--weights", tmp_path / "mine.pt")
    wrong = zoo(*args, "--own-module", tmp_path / "mine.pt", "--json")
    assert wrong.returncode == 1 and not json.loads(wrong.stdout)["ok"]
    assert json.loads(wrong.stdout)["first_divergence"] == "features.3.conv.0.2", wrong.stdout
    both = refused(*args, "--own-module", tmp_path / "mine.pt", "--weights", "random")
    assert "leave --weights and --golden away" in both


# What does not


def test_unknown_model() -> None:
    assert "resnet50" in refused("build", "resnet5O")


def test_missing_weights_name_the_command_that_makes_them(tmp_path: Path) -> None:
    assert "python -m zoo.gen_wts resnet50" in refused("build", "resnet50", "--weights", tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("fc2.bias"), ["has no 'fc2.bias'", "(84,)"]),
        (lambda t: t.update({"extra.weight": t["fc3.bias"]}), ["extra.weight", "no use for"]),
        (lambda t: t.update({"conv1.weight": t["conv1.weight"][:, :, :3]}), ["conv1.weight", "(6, 1, 3, 5)", "5, 5)"]),
    ],
    ids=["missing", "unused", "misshaped"],
)  # fmt: skip
def test_weights_that_do_not_fit(tmp_path: Path, lenet: dict[str, np.ndarray], change, words: list[str]) -> None:  # noqa: ANN001
    change(lenet)
    save_safetensors(tmp_path / "w.safetensors", lenet)
    message = refused("build", "lenet5", "-w", tmp_path / "w.safetensors", "-o", tmp_path / "x.engine")
    assert all(word in message for word in words), message
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.safetensors"]


def test_truncated_and_garbled_weights(tmp_path: Path, lenet: dict[str, np.ndarray]) -> None:
    save_safetensors(tmp_path / "a.safetensors", lenet)
    save_wts(tmp_path / "b.wts", lenet)
    for path in (tmp_path / "a.safetensors", tmp_path / "b.wts"):
        path.write_bytes(path.read_bytes()[:-1000])
        assert path.name in refused("build", "lenet5", "-w", path)
    (tmp_path / "c.wts").write_bytes(b"\x00\x01rubbish")
    assert "c.wts" in refused("build", "lenet5", "-w", tmp_path / "c.wts")


def test_weights_of_another_variant(tmp_path: Path) -> None:
    from zoo.engine.definition import define
    from zoo.registry import get_model
    from zoo.trt import load
    from zoo.verify.proof import arrays_of

    model = get_model("resnet18")
    arrays = arrays_of(define(model, RandomWeights(0), load("rtx"), (1, *model.input)))
    save_safetensors(tmp_path / "w.safetensors", arrays)
    assert "weights of resnet18" in refused("build", "resnet34", "-w", tmp_path / "w.safetensors", "--dry-run")


def test_unreadable_and_empty_images(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff rubbish")
    (tmp_path / "b.png").write_bytes(b"")
    assert "a.jpg" in refused("run", "lenet5", tmp_path / "a.jpg", "--save", tmp_path / "out")
    assert "empty" in refused("run", "lenet5", tmp_path / "b.png", "--save", tmp_path / "out")
    assert "does not exist" in refused("run", "lenet5", tmp_path / "none.png", "--save", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_impossible_sizes() -> None:
    assert "96" in refused("build", "yolov8n", "-w", "random", "--size", "100")
    assert "positive" in refused("build", "resnet18", "-w", "random", "--size", "0")
    assert "'big'" in refused("build", "resnet18", "-w", "random", "--size", "big")
    assert "224x224" in refused("build", "vit_b_16", "-w", "random", "--size", "200")


def test_options_that_exclude_each_other() -> None:
    assert "--fp16" in refused("build", "lenet5", "--fp16", "--bf16")
    assert "--batch" in refused("build", "lenet5", "--batch", 2, "--maxShapes=4x1x32x32")
    assert "shrink" in refused("build", "lenet5", "--minShapes=4x1x32x32", "--maxShapes=2x1x32x32")


@pytest.mark.parametrize("where", [".", "", "folder", "folder/", "/proc/none/x.engine"])
def test_where_an_engine_cannot_go_is_told_before_it_is_built(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    result = zoo("build", "lenet5", "-o", where, cwd=tmp_path)
    assert result.returncode == 2 and result.stderr.startswith("error: cannot write ") and not result.stdout
    assert result.stderr.count("\n") == 1  # nothing was compiled before


def test_shapes_that_say_nothing() -> None:
    assert "--max-shapes" in refused("build", "lenet5", "--batch", -1)
    shapes = ("--minShapes=input:1x1x32x32", "--maxShapes=input:4x1x32x32")
    assert "the network has one, 'images'" in refused("build", "lenet5", *shapes)


def test_an_engine_on_a_machine_without_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / "lenet.engine"
    assert zoo("build", "lenet5", "-o", path).returncode == 0
    message = refused("run", path, DIGIT, "--save", tmp_path / "out")
    assert "python -m zoo.build lenet5" in message
    assert "no GPU" in message or "driver" in message
    path.with_name("lenet.engine.json").write_text("{")
    assert "rebuild" in refused("run", path, DIGIT)


def test_no_tensorrt_installed(tmp_path: Path) -> None:
    """A folder that shadows nothing but TensorRT-RTX: the extra to install is named."""
    code = "import importlib.util as u; f = u.find_spec; "
    code += "u.find_spec = lambda n, *a: None if 'tensorrt' in n else f(n, *a); "
    code += "import sys; sys.argv = ['build', 'lenet5']; import zoo.build; zoo.build.main()"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and "pip install tensorrt-rtx" in result.stderr, result.stderr


def test_full_tensorrt_without_a_gpu() -> None:
    message = refused("build", "lenet5", "--target", "tensorrt")
    assert "tensorrt" in message.lower() and ("pip install" in message or "GPU" in message)
