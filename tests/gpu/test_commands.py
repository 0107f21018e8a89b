"""The commands on a real GPU, each in a process of its own, as a user types them.

Engines are built once and several at a time, while the tests of those that are done go on. Most weights come from
golden files (see goldens.py). The picture is the US Navy's portrait of Grace Hopper, which is in the public domain.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from zoo.driver import compute_capability, device_name
from zoo.engine.definition import define
from zoo.engine.passport import description_path, load_engine
from zoo.images.sources import open_sources
from zoo.registry import get_model
from zoo.runtime.cpu import CpuSession
from zoo.runtime.predict import Predictor
from zoo.session import Session
from zoo.tasks.detect import non_max_suppression
from zoo.trt import Api
from zoo.verify.packed import read_packed
from zoo.weights import load_weights, save_safetensors

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "tests" / "data" / "grace_hopper.jpg"
DIGIT = ROOT / "samples" / "digit_7.png"
LENET = ROOT / "zoo" / "weights" / "lenet5.safetensors"
FRAMES = 30
BUILDS = 6  # at a time
ENGINES = {  # name -> model and precision; the quick ones are wanted first, the slow ones begin early
    "lenet5": ("lenet5", "fp32"),
    "resnet18": ("resnet18", "fp32"),
    "yolov8n": ("yolov8n", "fp32"),
    "yolov5s": ("yolov5s", "fp32"),
    "vit_b_16": ("vit_b_16", "fp32"),
    "resnet50": ("resnet50", "fp32"),
    "mobilenet_v2": ("mobilenet_v2", "fp32"),
    "resnet50-fp16": ("resnet50", "fp16"),
}

# Preprocessing gives the same bits on the GPU (test_kernels.py), so only the rounding of the networks differs. Measured
# on an H200 (docs/benchmarks.md), relative to the whole tensor: 2e-5 of resnet50's logits, which spread by 16 here, so
# that they move by 3e-4 and a probability by at most a quarter of that; 8e-6 of scores and 5e-6 of boxes, which are 0.7
# and 300 pixels in the mean: 6e-6 and 0.002 pixels. Single values may differ more than the mean does.
PROBABILITY, SCORE, PIXELS = 5e-4, 1e-4, 0.05
HALF_PROBABILITY = 2e-2  # in fp16 the logits lose 5 % of their spread, 0.8; the first class of resnet50 leads by 8


# ---- commands, engines, and the CPU's answers -----------------------------------------------------------------------


def zoo(*arguments: object, env: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    """`python -m zoo.ARGUMENTS` in a process of its own."""
    command, *rest = map(str, arguments)
    return subprocess.run(
        [sys.executable, "-m", f"zoo.{command}", *rest],
        cwd=ROOT, env={**os.environ, **env}, capture_output=True, encoding="utf-8", timeout=400,
    )  # fmt: skip


def answered(done: subprocess.CompletedProcess[str], status: int = 0) -> dict[str, Any]:
    """The JSON of a command that ended with `status`."""
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def refused(*arguments: object, env: Mapping[str, str] = {}) -> str:
    """The one sentence of a command that must refuse: status 2, no traceback, nothing on stdout."""
    done = zoo(*arguments, env=env)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and not done.stdout
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    return errors[0]


def together(*commands: tuple[object, ...]) -> list[subprocess.CompletedProcess[str]]:
    """Several commands at the same time; their results in order."""
    with ThreadPoolExecutor(len(commands)) as pool:
        return list(pool.map(lambda command: zoo(*command), commands))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder for compiled kernels and engines that starts empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@dataclass(frozen=True)
class Workshop:
    """Weights files, and engines that are being built from them by `python -m zoo.build`."""

    folder: Path
    pack: Path | None
    pool: ThreadPoolExecutor
    weights: dict[str, Future[Path]]
    engines: dict[str, Future[Path]]

    def weights_of(self, model: str) -> Path:
        """The weights file of `model`; skips the test when there is no golden file to make it from."""
        if model not in self.weights:
            pytest.skip("ZOO_GPU_PACK names no folder of golden files; make it: python tests/gpu/goldens.py --out DIR")
        return self.weights[model].result()

    def engine(self, name: str) -> Path:
        """The engine `name` of ENGINES, as soon as it is built."""
        self.weights_of(ENGINES[name][0])
        return self.engines[name].result()

    def start(self) -> None:
        for name, (model, precision) in ENGINES.items():
            if model == "lenet5" or self.pack is not None:
                if model not in self.weights:
                    self.weights[model] = self.pool.submit(self._save_weights, model)
                self.engines[name] = self.pool.submit(self._build, name, model, precision)

    def _save_weights(self, model: str) -> Path:
        path = self.folder / f"{model}.safetensors"
        if model == "lenet5":
            return Path(shutil.copy(LENET, path))
        return save_golden_weights(self.pack, model, path)

    def _build(self, name: str, model: str, precision: str) -> Path:
        path, weights = self.folder / f"{name}.engine", self.weights[model].result()
        half = ("--fp16",) if precision == "fp16" else ()
        done = zoo("build", model, "--weights", weights, "--level", 0, "-o", path, *half)
        assert done.returncode == 0, done.stderr
        return path


def save_golden_weights(pack: Path, model: str, path: Path) -> Path:
    """The weights of a golden file as a file that --weights takes."""
    weights = read_packed(pack / f"{model}.safetensors", model).weights
    save_safetensors(path, {name: weights.read(name, weights.shape(name) or ()) for name in weights.names()})
    return path


@pytest.fixture(scope="module")
def pack() -> Path | None:
    folder = os.environ.get("ZOO_GPU_PACK")
    return Path(folder) if folder else None


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, pack: Path | None, cache: None) -> Iterator[Workshop]:
    pool = ThreadPoolExecutor(BUILDS)
    workshop = Workshop(tmp_path_factory.mktemp("engines"), pack, pool, {}, {})
    workshop.start()
    yield workshop
    pool.shutdown(cancel_futures=True)


def on_cpu(api: Api, model: str, weights: Path, **options: Any) -> Predictor:
    """What answers on the CPU: the definition in onnxruntime, preprocessing and decoding by zoo.tasks."""
    entry, source = get_model(model), load_weights(weights)
    executor = CpuSession(define(entry, source, api, (1, *entry.input)))
    size = (entry.input[1], entry.input[2])
    session = Session(entry, executor, executor.runs_on, entry.preprocess, size, None, source.name)
    return Predictor(session, **options)


def same_classes(found: list[dict[str, Any]], wanted: list[dict[str, Any]], bound: float) -> None:
    """The same classes in the same order, probabilities within `bound`."""
    assert [(c["index"], c["label"]) for c in found] == [(c["index"], c["label"]) for c in wanted]
    np.testing.assert_allclose([c["score"] for c in found], [c["score"] for c in wanted], rtol=0, atol=bound)


def same_detections(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> float:
    """As many boxes of the same classes, best first, scores and corners within their bounds; the largest distance."""
    (boxes, scores, classes), (want_boxes, want_scores, want_classes) = map(columns, (found, wanted))
    assert (np.diff(scores) <= 0).all()
    order = pairs(want_boxes, want_classes, boxes, classes)  # scores that are as good as equal may change places
    assert order is not None, f"{found}\n{wanted}"
    np.testing.assert_allclose(scores[order], want_scores, rtol=0, atol=SCORE)
    np.testing.assert_allclose(boxes[order], want_boxes, rtol=0, atol=PIXELS)
    return float(np.abs(boxes[order] - want_boxes).max())


def columns(detections: list[dict[str, Any]]) -> tuple[np.ndarray, ...]:
    """Boxes (K, 4), scores (K,) and classes (K,)."""
    return tuple(np.array([detection[key] for detection in detections]) for key in ("box", "score", "index"))


def pairs(boxes: np.ndarray, classes: np.ndarray, others: np.ndarray, their: np.ndarray) -> np.ndarray | None:
    """For each box its like among the `others`, of the same class and within 2 pixels; None unless all have one."""
    if len(boxes) != len(others):
        return None
    far = np.abs(boxes[:, None] - others).max(axis=2) + 1e6 * (classes[:, None] != their)
    nearest = far.argmin(axis=1)
    return nearest if len(set(nearest.tolist())) == len(boxes) and far.min(axis=1).max() < 2 else None


def steady_confidence(boxes: np.ndarray, scores: np.ndarray, iou: float) -> float:
    """The threshold that leaves 20 to 60 boxes and bears the most rounding in `boxes` and `scores`.

    Random weights know no sensible threshold, and what is as good as equal would be decided by the last bit.
    """
    rng = np.random.default_rng(0)

    def shake(x: np.ndarray, error: float) -> np.ndarray:
        return (x * (1 + error * rng.standard_normal(x.shape))).astype(np.float32)

    shaken = [(shake(boxes, error), shake(scores, error)) for error in np.geomspace(1e-5, 1e-3, 12)]
    best = -np.sort(-scores.max(axis=0))
    steadiest, survived = 0.0, 0
    for rank in range(20, 400):
        conf = float(best[rank - 1] + best[rank]) / 2
        kept = non_max_suppression(boxes, scores, conf, iou)
        if 20 <= len(kept[1]) <= 60:
            others = (non_max_suppression(*outputs, conf, iou) for outputs in shaken)
            alike = sum(pairs(kept[0], kept[2], other[0], other[2]) is not None for other in others)
            if alike > survived:
                steadiest, survived = conf, alike
    assert survived >= 8, "no threshold is clear of rounding errors up to 2e-4: take another --iou or picture"
    return steadiest


def copy_of(engine: Path, folder: Path, **claims: Any) -> Path:
    """A copy of `engine` in `folder` whose description claims something else."""
    copy = Path(shutil.copy(engine, folder))
    description = json.loads(description_path(engine).read_text("utf-8"))
    description_path(copy).write_text(json.dumps({**description, **claims}))
    return copy


def rebuild_of(engine: Path) -> str:
    return json.loads(description_path(engine).read_text("utf-8"))["rebuild"]


def top(item: dict[str, Any]) -> str:
    return item["classes"][0]["label"]


# ---- pictures, videos, and how the GPU is reached -------------------------------------------------------------------


def test_a_folder_with_an_unreadable_picture(workshop: Workshop, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for digit in (0, 3, 7):
        shutil.copy(ROOT / "samples" / f"digit_{digit}.png", folder)
    (folder / "digit_1.png").write_bytes(b"not a picture")
    done = zoo("run", workshop.engine("lenet5"), folder, "--save", out, "--json")
    answer = answered(done, status=1)
    assert [top(item) for item in answer["results"]] == ["0", "3", "7"]
    assert [Path(error["source"]).name for error in answer["errors"]] == ["digit_1.png"]
    assert "digit_1.png" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        ".zoo-files", "digit_0.png", "digit_3.png", "digit_7.png", "results.json",
    ]  # fmt: skip


def test_a_models_name_builds_its_engine_once(api: Api, tmp_path: Path) -> None:
    command = ("run", "lenet5", DIGIT, "--device", "gpu", "--json", "--save", tmp_path / "out")
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    first, again = (zoo(*command, env=env) for _ in range(2))
    for done in (first, again):
        answer = answered(done)
        assert top(answer["results"][0]) == "7" and api.name in answer["executor"]
    assert f"layers with {api.name}" in first.stderr and "compiling" not in again.stderr
    assert len(list((tmp_path / "cache" / "zoo" / "engines").glob("lenet5-fp32-*/engine.plan"))) == 1


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A walk over the photograph, 30 frames of 320x240."""
    path, photo = tmp_path_factory.mktemp("video") / "walk.mp4", cv2.imread(str(PHOTO))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (320, 240))
    for i in range(FRAMES):
        writer.write(np.ascontiguousarray(photo[12 * i : 12 * i + 240, 6 * i : 6 * i + 320]))
    writer.release()
    return path


def test_a_video_with_and_without_graphs_and_through_pycuda(
    api: Api, workshop: Workshop, video: Path, tmp_path: Path
) -> None:
    ways: list[tuple[str, ...]] = [(), ("--no-cuda-graph",)]
    if has_pycuda():
        ways.append(("--cuda", "pycuda"))
    engine = workshop.engine("resnet18")
    saves = [tmp_path / str(number) for number in range(len(ways))]
    runs = together(*(("run", engine, video, "--save", save, "--json", *way) for save, way in zip(saves, ways)))
    answers = [[(item["frame"], item["classes"]) for item in answered(done)["results"]] for done in runs]
    assert [frame for frame, _ in answers[0]] == list(range(FRAMES))
    for way, answer in zip(ways[1:], answers[1:]):
        assert answer == answers[0], way  # the same kernels, so the same bits
    assert len({json.dumps(classes) for _, classes in answers[0]}) == FRAMES  # an answer to another frame would show
    predictor = on_cpu(api, "resnet18", workshop.weights_of("resnet18"))
    for frame, (_, classes) in zip(open_sources([str(video)]), answers[0]):
        same_classes(classes, predictor.task.to_json(predictor(frame.image).result)["classes"], PROBABILITY)
    for save in saves:
        drawn = cv2.VideoCapture(str(save / "walk.mp4"))
        assert sum(1 for _ in iter(drawn.grab, False)) == FRAMES and (save / "results.json").exists()


def has_pycuda() -> bool:
    try:
        import pycuda.driver  # noqa: F401
    except ImportError:
        return False
    return True


# ---- the wrong machine, and damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", [{"version": "10.9.0"}, {"compute_capability": "7.5"}], ids=["TensorRT", "GPU"])
def test_an_engine_of_another_machine(workshop: Workshop, api: Api, tmp_path: Path, claim: dict[str, str]) -> None:
    good = workshop.engine("lenet5")
    engine = copy_of(good, tmp_path, **claim)
    named = {"version": ("TensorRT 10.9.0", api.name), "compute_capability": ("7.5", compute_capability())}
    message = refused("run", engine, DIGIT, "--save", tmp_path / "out")
    assert all(word in message for word in named[next(iter(claim))]), message
    assert message.endswith(f"to rebuild it: {rebuild_of(good)} --save-engine {engine}")
    assert "python -m zoo.build lenet5" in message

    done = zoo("run", engine, DIGIT, "--save", tmp_path / "out", "--auto-rebuild", "--json")
    assert top(answered(done)["results"][0]) == "7"
    assert f"layers with {api.name}" in done.stderr
    rebuilt, wanted = load_engine(engine).description, load_engine(good).description  # they check their own hashes
    each_time = {"sha256": "", "size": 0, "built": {}}
    assert {**rebuilt, **each_time} == {**wanted, **each_time}


def test_nothing_is_rebuilt_from_other_weights(workshop: Workshop, tmp_path: Path) -> None:
    other = changed(LENET, tmp_path / "other.safetensors")
    sha256 = load_weights(LENET).digest()
    engine = copy_of(
        workshop.engine("lenet5"), tmp_path, version="10.9.0", weights={"file": str(other), "sha256": sha256}
    )
    before = engine.read_bytes()
    message = refused("run", engine, DIGIT, "--save", tmp_path / "out", "--auto-rebuild")
    assert str(other) in message and "content differs" in message
    assert engine.read_bytes() == before


def test_a_truncated_engine(workshop: Workshop, tmp_path: Path) -> None:
    engine = copy_of(workshop.engine("lenet5"), tmp_path)
    engine.write_bytes(engine.read_bytes()[:5000])
    message = refused("run", engine, DIGIT, "--save", tmp_path / "out")
    assert "5000 bytes" in message and "damaged" in message and rebuild_of(engine) in message
    done = zoo("run", engine, DIGIT, "--save", tmp_path / "out", "--auto-rebuild", "--json")
    assert top(answered(done)["results"][0]) == "7"


def test_no_gpu_is_visible(workshop: Workshop, api: Api, tmp_path: Path) -> None:
    env = {"CUDA_VISIBLE_DEVICES": ""}
    engine = workshop.engine("lenet5")
    message = refused("run", engine, DIGIT, "--save", tmp_path / "out", env=env)
    assert "NVIDIA driver" in message and api.name in message and rebuild_of(engine) in message
    message = refused("run", "lenet5", DIGIT, "--device", "gpu", "--save", tmp_path / "out", env=env)
    assert "NVIDIA driver" in message and "--device cpu" in message
    message = refused("build", "lenet5", "--target", "tensorrt", "-o", tmp_path / "x.engine", env=env)
    assert api.name in message and "needs an NVIDIA GPU" in message
    assert not list(tmp_path.iterdir())


# ---- proof without PyTorch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["lenet5", "resnet18"])
def test_verify_with_a_golden_file(workshop: Workshop, pack: Path | None, tmp_path: Path, model: str) -> None:
    workshop.weights_of("resnet18")  # skips without the pack
    assert pack is not None
    good = save_golden_weights(pack, model, tmp_path / "good.safetensors")
    bad = changed(good, tmp_path / "bad.safetensors")
    command = ("verify", model, "--device", "gpu", "--golden", pack / f"{model}.safetensors", "--weights")
    passed, failed = together((*command, good), (*command, bad))
    assert passed.returncode == 0 and "PASSED" in passed.stdout, passed.stdout + passed.stderr
    assert f"TensorRT on {device_name()}" in " ".join(passed.stdout.split())
    assert failed.returncode == 1 and "FAILED" in failed.stdout, failed.stdout + failed.stderr


def changed(weights: Path, path: Path) -> Path:
    """A copy of a weights file in which the first kernel is 0.1 % larger."""
    source = load_weights(weights)
    arrays = {name: source.read(name, source.shape(name) or ()) for name in source.names()}
    arrays["conv1.weight"] = arrays["conv1.weight"] * np.float32(1.001)
    save_safetensors(path, arrays, source.metadata)
    return path


# ---- a photograph: the GPU's answer is the CPU's --------------------------------------------------------------------


def look(api: Api, workshop: Workshop, name: str, save: Path, *options: object) -> dict[str, Any]:
    """What `python -m zoo.run ENGINE PHOTO` says, after a look at the rest of what it must give."""
    precision = ENGINES[name][1]
    done = zoo("run", workshop.engine(name), PHOTO, "--json", "--save", save, *options)
    answer = answered(done)
    assert answer["executor"] == f"{api.name} on {device_name()}, {precision}"
    assert answer["executor"] in done.stderr
    assert json.loads((save / "results.json").read_text("utf-8")) == answer
    (item,) = answer["results"]
    photo, drawn = cv2.imread(str(PHOTO)), cv2.imread(item["picture"])
    assert Path(item["picture"]).parent == save and drawn.shape[0] >= photo.shape[0]
    assert drawn.shape != photo.shape or (drawn != photo).any()
    assert (item["height"], item["width"]) == photo.shape[:2] and answer["errors"] == []
    assert list(item["ms"]) == ["total"]  # the whole way was on the GPU
    return item


Answer = Callable[[str, Workshop], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def cpu_classes(api: Api) -> Answer:
    """`cpu_classes(model, workshop)`: all classes of the photograph on the CPU, best first."""
    known: dict[str, list[dict[str, Any]]] = {}

    def classes(model: str, workshop: Workshop) -> list[dict[str, Any]]:
        if model not in known:
            predictor = on_cpu(api, model, workshop.weights_of(model), top=1000)
            known[model] = predictor.task.to_json(predictor(cv2.imread(str(PHOTO))).result)["classes"]
        return known[model]

    return classes


@pytest.mark.parametrize("model", ["resnet50", "mobilenet_v2", "vit_b_16"])
def test_classes_of_a_photograph(api: Api, workshop: Workshop, cpu_classes: Answer, tmp_path: Path, model: str) -> None:
    wanted = cpu_classes(model, workshop)
    item = look(api, workshop, model, tmp_path / "out")
    assert len(item["classes"]) == 5
    same_classes(item["classes"], wanted[:5], PROBABILITY)


def test_classes_in_fp16(api: Api, workshop: Workshop, cpu_classes: Answer, tmp_path: Path) -> None:
    wanted = cpu_classes("resnet50", workshop)
    classes = look(api, workshop, "resnet50-fp16", tmp_path / "out")["classes"]
    same_classes(classes[:1], wanted[:1], HALF_PROBABILITY)
    probability = {c["index"]: c["score"] for c in wanted}
    found = [c["score"] for c in classes]
    np.testing.assert_allclose(found, [probability[c["index"]] for c in classes], rtol=0, atol=HALF_PROBABILITY)


@pytest.mark.parametrize(("model", "iou"), [("yolov5s", None), ("yolov8n", 0.5)])
def test_boxes_in_a_photograph(
    api: Api, workshop: Workshop, tmp_path: Path, model: str, iou: float | None, say: Callable[[str], None]
) -> None:
    photo = cv2.imread(str(PHOTO))
    predictor = on_cpu(api, model, workshop.weights_of(model))
    session = predictor.session
    outputs = {name: value[0] for name, value in session(session.preprocess.apply(photo)[0][None]).items()}
    chosen = {"iou": iou} if iou else {}
    conf = steady_confidence(outputs["boxes"], outputs["scores"], Predictor(session, **chosen).options["iou"])
    wanted = Predictor(session, conf=conf, **chosen)(photo).result
    options = ("--conf", repr(conf), *(("--iou", iou) if iou else ()))
    found = look(api, workshop, model, tmp_path / "out", *options)["detections"]
    distance = same_detections(found, predictor.task.to_json(wanted)["detections"])
    say(f"{model}: {len(found)} boxes above {conf:.4f}, corners at most {distance:.4f} pixels apart")
