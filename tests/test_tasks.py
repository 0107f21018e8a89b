"""Pixels in, results out: against torchvision, ultralytics and yolov5 as published."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.images import sources
from zoo.images.draw import class_color, draw_bars, draw_boxes
from zoo.images.sources import BadSource, Frame, open_sources
from zoo.images.writers import VideoSink, save_image
from zoo.labels import known_labels, labels_for
from zoo.preprocess import Placement, letterbox, stretched
from zoo.tasks import get_task
from zoo.tasks.classify import top_classes
from zoo.tasks.detect import counted, non_max_suppression

ROOT = Path(__file__).resolve().parent.parent
UNMOVED = Placement((640, 640), (640, 640), (0, 0), (640, 640))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 7919 + width).integers(0, 256, (height, width, 3), np.uint8)


def test_importing_the_tasks_loads_no_library() -> None:
    code = "import sys, zoo.tasks, zoo.preprocess, zoo.labels, zoo.images; "
    code += "print({'cv2', 'numpy', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


# ---- sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, a video, and what looks like pictures but is none."""
    picture = np.full((6, 8, 3), (10, 120, 240), np.uint8)
    cv2.imwrite(str(tmp_path / "c.png"), picture)
    cv2.imwrite(str(tmp_path / "a.bmp"), picture)
    cv2.imwrite(str(tmp_path / "b.tiff"), picture)
    (tmp_path / "damaged.png").write_bytes((tmp_path / "c.png").read_bytes()[:40])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").touch()
    with VideoSink(tmp_path / "v.mp4", 12, (64, 48)) as sink:
        for shade in (0, 100, 200):
            sink.write(np.full((48, 64, 3), shade, np.uint8))
    return tmp_path


def test_a_folder_gives_its_pictures_in_order_and_goes_on_after_bad_ones(folder: Path) -> None:
    found = list(open_sources([str(folder)]))
    assert [Path(item.name).name for item in found] == ["a.bmp", "b.tiff", "c.png", "damaged.png", "empty.jpg"] + [
        "v.mp4"
    ] * 3
    assert [isinstance(item, BadSource) for item in found] == [False] * 3 + [True] * 2 + [False] * 3
    assert all((frame.image == (10, 120, 240)).all() for frame in found[:3])


def test_a_video_gives_every_frame_and_its_rate(folder: Path) -> None:
    frames = list(open_sources([str(folder / "v.mp4")]))
    assert [(frame.index, frame.fps, frame.is_video, frame.image.shape) for frame in frames] == [
        (index, 12, True, (48, 64, 3)) for index in range(3)
    ]
    assert np.allclose([frame.image.mean() for frame in frames], [0, 100, 200], atol=4)


def test_a_glob_gives_what_it_matches_and_sources_keep_their_order(folder: Path) -> None:
    found = open_sources([str(folder / "[bc].*"), str(folder / "a.bmp")])
    assert [Path(frame.name).name for frame in found] == ["b.tiff", "c.png", "a.bmp"]


def test_pictures_are_decoded_side_by_side_and_come_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [str(tmp_path / f"{number:02}.png") for number in range(11)]
    for name in names:
        cv2.imwrite(name, np.zeros((4, 4, 3), np.uint8))
    both, read = threading.Barrier(2, timeout=20), sources._read_image

    def read_beside_another(name: str) -> Any:
        if name != names[-1]:
            both.wait()  # for another thread that is here
        return read(name)

    monkeypatch.setattr(sources, "_read_image", read_beside_another)
    assert [frame.name for frame in open_sources([str(tmp_path)])] == names


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("missing.jpg", "does not exist"),
        ("", "does not exist"),
        ("*.nothing", "matches no file"),
        ("empty.jpg", "is empty (0 bytes)"),
        ("damaged.png", "not an image"),
        ("notes.txt", "not an image"),
        ("none", "not a folder with image"),
        ("damaged.mp4", "No frame could be read"),
    ],
)
def test_a_source_without_a_picture_says_why(
    folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, why: str
) -> None:
    monkeypatch.chdir(folder)
    Path("none").mkdir()
    Path("damaged.mp4").write_bytes(b"no video" * 50)
    (bad,) = open_sources([source])
    assert isinstance(bad, BadSource)
    assert bad.name == source and source in bad.message and why in bad.message


@pytest.mark.parametrize(
    "convert",
    [
        lambda image: image[..., 0],
        lambda image: np.dstack([image, image[..., 0]]),
        lambda image: image.astype(np.uint16) * 257,
        lambda image: image[..., 0].astype(np.uint16) * 257,
    ],
    ids=["grey", "alpha", "16 bit", "grey 16 bit"],
)
def test_every_kind_of_picture_becomes_three_channels_of_a_byte(
    tmp_path: Path, convert: Callable[[np.ndarray], np.ndarray]
) -> None:
    gray = np.repeat(np.arange(0, 250, 10, dtype=np.uint8).reshape(5, 5, 1), 3, axis=2)
    cv2.imwrite(str(tmp_path / "x.png"), convert(gray))
    (frame,) = open_sources([str(tmp_path / "x.png")])
    assert isinstance(frame, Frame) and frame.image.dtype == np.uint8
    assert np.array_equal(frame.image, gray)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "CMYK"])
def test_pictures_of_every_mode_are_read_upright(tmp_path: Path, mode: str) -> None:
    """Turned as their EXIF says; a picture of one of these modes is close to the same in RGB."""
    from PIL import Image

    pixels = np.kron(np.uint8([[0, 255], [255, 255], [255, 0]]), np.ones((8, 8), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise
    path = tmp_path / f"x.{'jpg' if mode == 'CMYK' else 'png'}"
    Image.fromarray(np.repeat(pixels[..., None], 3, 2)).convert(mode).save(path, exif=exif, quality=95)
    (frame,) = open_sources([str(path)])
    assert isinstance(frame, Frame) and frame.image.shape == (16, 24, 3)
    assert np.abs(frame.image.astype(int) - np.rot90(pixels, -1)[..., None]).max() < 40


# ---- classification


def test_top_classes_equal_torch() -> None:
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).normal(0, 4, 1000).astype(np.float32)
    scores, indices = torch.from_numpy(logits).softmax(0).topk(5)
    found = top_classes(logits, labels_for(1000, "imagenet"))
    assert found.classes.tolist() == indices.tolist()
    assert np.allclose(found.scores, scores, rtol=1e-5)
    assert found.labels == [known_labels("imagenet")[i] for i in indices]


def test_large_logits_and_few_classes_are_no_trouble() -> None:
    found = top_classes(np.float32([1e4, -1e4, 1e4]), ["a", "b", "c"], top=5)
    assert (found.labels, found.scores.tolist()) == (["a", "c", "b"], [0.5, 0.5, 0])
    assert top_classes(np.float32([1, 2] * 500), labels_for(1000)).classes.tolist() == [1, 3, 5, 7, 9]


@pytest.mark.parametrize(
    ("logits", "why"), [([1, np.nan, 2], "overflowed"), ([1, np.inf, 2], "overflowed"), ([1, 2], "one per class")]
)
def test_logits_that_mean_nothing_are_refused(logits: list[float], why: str) -> None:
    with pytest.raises(ZooError, match=why):
        decode("classify", {"logits": np.float32(logits)}, ["a", "b", "c"])


# ---- detection


def crowd(anchors: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that overlap a lot, and scores whose best one per anchor is unique: references order ties as they like."""
    random = np.random.default_rng(seed)
    boxes = np.concatenate([random.uniform(0, 200, (2, anchors)), random.uniform(3, 30, (2, anchors))])
    scores = random.uniform(0, 0.05, (classes, anchors))
    best = random.integers(max(classes - 4, 0), classes, anchors)  # the last ones, whose class offset rounds the most
    scores[best, np.arange(anchors)] = random.permutation(anchors) / anchors * 0.9 + 0.06
    return boxes.astype(np.float32), scores.astype(np.float32)


def as_rows(found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Detections as the references give them: (K, 6) x1, y1, x2, y2, score, class."""
    return np.column_stack(found).astype(np.float32)


@pytest.mark.parametrize(
    ("anchors", "classes", "max_det", "conf", "iou"),
    [
        (20000, 1, 300, 0.25, 0.45),
        (8400, 80, 3000, 0.8, 0.45),
        (25200, 80, 100, 0.9, 0.6),
        (2000, 2, 2000, 0.25, 0.7),
        (1, 80, 300, 0.05, 0.7),
    ],
)
def test_detections_equal_ultralytics(
    monkeypatch: pytest.MonkeyPatch, anchors: int, classes: int, max_det: int, conf: float, iou: float
) -> None:
    torch = pytest.importorskip("torch")
    from zoo.verify.torchvision_shim import import_torchvision

    import_torchvision()
    nms = pytest.importorskip("ultralytics.utils.nms")
    monkeypatch.delitem(sys.modules, "torchvision")  # then ultralytics takes its own NMS
    boxes, scores = crowd(anchors, classes)
    prediction = torch.from_numpy(np.concatenate([boxes, scores]))[None]
    (expected,) = nms.non_max_suppression(prediction, conf, iou, max_det=max_det, nc=classes, max_time_img=1e3)
    found = as_rows(non_max_suppression(boxes, scores, conf, iou, max_det))
    assert len(found) and np.array_equal(found, expected.numpy())


def test_detections_equal_yolov5() -> None:
    torch = pytest.importorskip("torch")
    from zoo.verify.torchvision_shim import import_torchvision

    import_torchvision()
    general = pytest.importorskip("yolov5.utils.general")
    boxes, class_scores = crowd(3000, 8)
    objectness = np.random.default_rng(1).uniform(0, 1, (1, 3000)).astype(np.float32)
    prediction = torch.from_numpy(np.concatenate([boxes, objectness, class_scores]).T.copy())[None]
    (expected,) = general.non_max_suppression(prediction)
    found = as_rows(non_max_suppression(boxes, objectness * class_scores, iou=0.45))
    assert 100 < len(found) and np.array_equal(found, expected.numpy())


def test_suppression_is_by_class_strict_and_first_come() -> None:
    same = np.float32([[50, 50, 50, 51, 300], [50] * 5, [20] * 5, [20] * 5])
    scores = np.float32([[0.5, 0.5, 0.1, 0.6, 0.25], [0.1, 0.2, 0.9, 0.1, 0.1]])
    _, best, classes = non_max_suppression(same, scores)
    assert list(zip(classes, best)) == [(1, np.float32(0.9)), (0, np.float32(0.6))]  # 0.25 is not more than 0.25

    half = np.float32([[10, 15, 10], [10, 10, 40], [10, 20, 0], [10, 10, 0]])  # IoU of the first two: exactly 1/2
    ties = np.float32([[0.8, 0.8, 0.7]])
    boxes, _, _ = non_max_suppression(half, ties, iou=0.5)
    assert boxes.tolist() == [[5, 5, 15, 15], [5, 5, 25, 15], [10, 40, 10, 40]]
    boxes, _, _ = non_max_suppression(half, ties, iou=0.49)
    assert boxes.tolist() == [[5, 5, 15, 15], [10, 40, 10, 40]]

    apart = np.stack([np.arange(200) * 3, np.full(200, 9), np.ones(200), np.ones(200)]).astype(np.float32)
    boxes, _, _ = non_max_suppression(apart, np.float32([[0.5, 0.6] * 100]))
    assert np.array_equal(boxes[:, 0] + 0.5, np.r_[apart[0, 1::2], apart[0, ::2]])  # equal scores in anchor order


def test_only_the_best_30000_candidates_are_looked_at() -> None:
    boxes = np.tile(np.float32([[50], [50], [20], [20]]), 30_001)
    boxes[0, -1] = 300
    scores = np.full((1, 30_001), 0.9, np.float32)
    scores[0, -1] = 0.5
    assert len(non_max_suppression(boxes, scores)[0]) == 1
    assert len(non_max_suppression(boxes[:, 1:], scores[:, 1:])[0]) == 2


def decode(task: str, outputs: dict[str, np.ndarray], names: list[str], placement: Placement = UNMOVED) -> Any:
    return get_task(task)(outputs, placement, names, get_task(task).settings())


def test_detect_gives_boxes_of_the_picture() -> None:
    _, placement = letterbox().apply(noise(810, 1080))
    outputs = {
        "boxes": np.float32([[320, 1], [320, 1], [64, 9], [64, 9]]),
        "scores": np.float32([[0.9, 0], [0.1, 0.3]]),
    }
    task = get_task("detect")
    found = decode("detect", outputs, ["cat", "dog"], placement)
    assert (found.labels, found.classes.tolist()) == (["cat", "dog"], [0, 1])
    assert np.allclose(found.boxes[0], (486, 351, 594, 459), atol=1e-3)
    assert np.allclose(found.boxes[1], (0, 0, 9.281, 0), atol=1e-3)  # clipped to the picture
    assert json.loads(json.dumps(task.to_json(found)))["detections"][0]["box"] == [486, 351, 594, 459]
    assert task.describe(found)[0].split() == ["0.90", "cat", "at", "486,", "351,", "594,", "459"]
    assert task.summarize(found) == "1 cat, 1 dog"
    nothing = decode("detect", {**outputs, "scores": np.zeros((2, 2), np.float32)}, ["cat", "dog"])
    assert (task.describe(nothing), task.to_json(nothing)) == (["nothing found"], {"detections": []})


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["bus", *["person"] * 4], "4 persons, 1 bus"),
        (["bus", "bus", "box", "box", "bench", "bench"], "2 buses, 2 boxes, 2 benches"),
        (list("abcdefghij"), "1 a, 1 b, 1 c, 1 d, 1 e, 1 f, 1 g, 1 h and 2 more classes"),
        ([], "nothing found"),
    ],
)
def test_what_was_found_is_counted(labels: list[str], said: str) -> None:
    assert counted(labels) == said


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["boxes", "scores"])
def test_an_overflow_is_refused(name: str, value: float) -> None:
    outputs = {"boxes": np.full((4, 2), 50, np.float32), "scores": np.full((1, 2), 0.9, np.float32)}
    outputs[name][0, 1] = value
    with pytest.raises(ZooError, match="overflowed"):
        decode("detect", outputs, ["x"])


@pytest.mark.parametrize(
    ("shapes", "got"),
    [
        ({"boxes": (1, 4, 9), "scores": (1, 2, 9)}, "boxes (1, 4, 9) and scores (1, 2, 9)"),
        ({"boxes": (4, 9), "scores": (2, 8)}, "boxes (4, 9) and scores (2, 8)"),
        ({"boxes": (5, 9), "scores": (2, 9)}, "boxes (5, 9) and scores (2, 9)"),
        ({"logits": (2,)}, "logits (2)"),
        ({}, "nothing"),
    ],
)
def test_outputs_of_another_shape_are_refused(shapes: dict[str, tuple[int, ...]], got: str) -> None:
    with pytest.raises(ZooError) as refused:
        decode("detect", {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, ["x", "y"])
    wanted = "boxes (4, anchors) and scores (classes, anchors) of one picture"
    assert str(refused.value) == f"Expected {wanted}, got {got}."


# ---- segmentation


def test_every_pixel_has_the_class_of_torch() -> None:
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).normal(0, 3, (5, 13, 17)).astype(np.float32)
    placement = stretched((52, 68)).placement((90, 140), (52, 68))
    resized = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], (90, 140), mode="bilinear")[0]
    top = resized.topk(2, dim=0).values
    clear = (top[0] - top[1] > 1e-4).numpy()  # rounding decides the others
    found = decode("segment", {"logits": logits}, list("abcde"), placement)
    assert found.class_map.shape == (90, 140) and clear.mean() > 0.99
    assert np.array_equal(found.class_map[clear], resized.argmax(0).numpy()[clear])
    assert np.allclose(found.shares, sorted((found.class_map == i).mean() for i in range(5))[::-1])
    assert all(label == "abcde"[index] for label, index in zip(found.labels, found.classes))


def test_segment_tells_classes_shares_and_runs() -> None:
    logits = np.full((3, 4, 6), -1, np.float32)
    logits[2] = 0
    logits[0, 1:3, 2:5] = 9
    task, placement = get_task("segment"), Placement((6, 4), (6, 4), (0, 0), (6, 4))
    found = decode("segment", {"logits": logits}, ["cat", "dog", "grass"], placement)
    assert (found.labels, found.classes.tolist(), found.shares.tolist()) == (["grass", "cat"], [2, 0], [0.75, 0.25])
    assert task.describe(found) == [" 75.0%  grass (2)", " 25.0%  cat (0)"]
    assert task.summarize(found) == "grass 75%, cat 25%"
    rows = json.loads(json.dumps(task.to_json(found)))["classes"]
    assert rows[1] == {
        "label": "cat",
        "index": 0,
        "share": 0.25,
        "rle": {"size": [4, 6], "counts": [9, 2, 2, 2, 2, 2, 5]},
    }
    assert rows[0]["rle"]["counts"] == [0, 9, 2, 2, 2, 2, 2, 5]
    image = np.zeros((480, 640, 3), np.uint8)
    large = decode(
        "segment", {"logits": logits}, ["cat", "dog", "grass"], Placement((640, 480), (6, 4), (0, 0), (6, 4))
    )
    drawn = task.draw(image, large)
    assert drawn.shape[0] > 480 and drawn[240, 384].tolist() == [c // 2 for c in class_color(0)]
    assert drawn[2, 2].tolist() == [c // 2 for c in class_color(2)]
    assert {class_color(0), class_color(2)} <= set(map(tuple, drawn[480:].reshape(-1, 3).tolist())), "the legend"


def test_a_single_class_is_there_or_not() -> None:
    logits = np.float32([[[-1, 2], [-3, -1]]])
    found = decode("segment", {"logits": logits}, ["road"], Placement((2, 2), (2, 2), (0, 0), (2, 2)))
    assert found.class_map.tolist() == [[-1, 0], [-1, -1]] and found.shares.tolist() == [0.25]
    nothing = decode("segment", {"logits": logits * 0}, ["road"], Placement((2, 2), (2, 2), (0, 0), (2, 2)))
    assert get_task("segment").describe(nothing) == [get_task("segment").summarize(nothing)] == ["no pixel has a class"]
    assert get_task("segment").to_json(nothing) == {"classes": []}
    with pytest.raises(ZooError, match="overflowed"):
        decode("segment", {"logits": logits * np.nan}, ["road"])


# ---- depth


def test_depth_is_of_the_picture_and_its_extremes_are_told() -> None:
    depth = np.zeros((3, 4), np.float32)
    depth[0, 3], depth[2, 1] = 5, -1
    task, placement = get_task("depth"), Placement((400, 300), (4, 3), (0, 0), (4, 3))
    found = decode("depth", {"depth": depth}, [], placement)
    assert found.depth.shape == (300, 400) and found.depth.dtype == np.float32
    assert found.depth[40, 360] > 4 and found.depth[260, 140] < -0.5
    told = json.loads(json.dumps(task.to_json(found)))
    assert (told["smallest"], told["largest"]) == (pytest.approx(-1, abs=0.01), 5)
    (x, y), (far_x, far_y) = told["nearest"], told["farthest"]
    assert found.depth[y, x] == 5 and found.depth[far_y, far_x] == found.depth.min() and far_y > 240
    assert task.describe(found) == [f"nearest at {x}, {y}, farthest at {far_x}, {far_y}"]
    drawn = task.draw(np.zeros((300, 400, 3), np.uint8), found)
    assert drawn.shape == (300, 400, 3) and drawn[0, 399].sum() > 500 > 100 > drawn[250, 150].sum()
    flat = decode("depth", {"depth": depth * 0}, [], placement)
    assert len(np.unique(task.draw(np.zeros((300, 400, 3), np.uint8), flat))) <= 3
    with pytest.raises(ZooError, match="overflowed"):
        decode("depth", {"depth": depth * np.inf}, [], placement)


# ---- embeddings


def test_embeddings_are_compared_by_their_directions() -> None:
    task = get_task("embed")
    found, longer, other = (decode("embed", {"embedding": np.array(v, np.float16)}, []) for v in (
        [3, 4, 0, 0, 0], [6, 8, 0, 0, 0], [-4, 3, 0, 0, 0]))  # fmt: skip
    assert found.embedding.dtype == np.float32 and found.embedding.tolist() == [3, 4, 0, 0, 0]
    assert found.similarity(longer) == pytest.approx(1) and found.similarity(other) == pytest.approx(0)
    assert found.distance(longer) == pytest.approx(5) and found.distance(other) == pytest.approx(50**0.5)
    assert json.loads(json.dumps(task.to_json(found))) == {"embedding": [3, 4, 0, 0, 0]}
    assert task.describe(found) == ["5 numbers of length 5.000: 3.000, 4.000, 0.000, 0.000, …"]
    picture = np.full((2, 3, 3), 7, np.uint8)
    drawn = task.draw(picture, found)
    assert drawn is not picture and (drawn == picture).all()
    records = [{"source": name, **task.to_json(result)} for name, result in (("a", found), ("b", other), ("c", longer))]
    assert task.compare(records) == [" 1.000  a and c", " 0.000  a and b", " 0.000  b and c"]
    assert task.compare(records[:1]) == task.compare([{"frame": 0} | record for record in records]) == []
    with pytest.raises(ZooError, match="5 and 2 numbers cannot be compared"):
        found.similarity(decode("embed", {"embedding": np.ones(2, np.float32)}, []))
    with pytest.raises(ZooError, match="overflowed"):
        decode("embed", {"embedding": np.full(4, np.nan, np.float32)}, [])


# ---- options


def test_what_is_chosen_last_counts() -> None:
    task = get_task("detect")
    usual = {"conf": 0.25, "iou": 0.7, "max_det": 300, "nms": True, "multi_label": False, "topk_candidates": 0}
    assert task.settings() == usual
    assert task.settings({"iou": 0.45}, {}) == usual | {"iou": 0.45}
    assert task.settings({"iou": 0.45}, {"iou": 1}) == usual | {"iou": 1.0}


@pytest.mark.parametrize(
    ("task", "wrong", "words"),
    [
        ("detect", {"conf": 1.5}, "^conf is 1.5; it must be between 0 and 1"),
        ("detect", {"conf": float("nan")}, "conf is nan"),
        ("detect", {"iou": -0.1}, "iou is -0.1"),
        ("detect", {"iou": "0.5"}, "iou is '0.5'; it must be of the type float"),
        ("detect", {"max_det": 0}, "^max_det is 0; it must be at least 1"),
        ("detect", {"max_det": 1.5}, "max_det is 1.5; it must be of the type int"),
        ("classify", {"top": True}, "top is True; it must be of the type int"),
        ("classify", {"conf": 0.5}, "^the task 'classify' has no option 'conf'; its options are top$"),
        (
            "detect",
            {"max_dets": 1},
            "'max_dets'; its options are conf, iou, max_det, nms, multi_label, topk_candidates; closest: max_det$",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused(task: str, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ZooError, match=words):
        get_task(task).settings(wrong)


def test_an_unknown_task_names_the_known() -> None:
    with pytest.raises(ZooError, match="No task is called 'detection'; there are .*closest: detect"):
        get_task("detection")


# ---- drawing


@pytest.mark.parametrize("shape", [(8, 8), (64, 48), (480, 640), (3000, 4000), (1, 900), (900, 1)])
def test_every_picture_can_be_annotated(shape: tuple[int, int]) -> None:
    image = noise(*shape)
    before = image.copy()
    height, width = shape
    boxes = np.float32([(0, height * i / 9, width, height) for i in range(9)])
    boxed = draw_boxes(image, boxes, ["some object 0.90"] * 9, [class_color(i) for i in range(9)])
    listed = draw_bars(image, ["an unusually long name, with its synonyms, " * 9] * 5, [1 / (1 + i) for i in range(5)])
    assert np.array_equal(image, before), "the original is left alone"
    assert boxed.dtype == listed.dtype == np.uint8
    assert max(boxed.shape[:2]) >= 320 and max(listed.shape[:2]) >= 320
    assert listed.shape[0] > boxed.shape[0] and listed.shape[1] >= boxed.shape[1]
    if max(shape) >= 320:
        assert boxed.shape == image.shape
        left = (listed.shape[1] - width) // 2
        assert np.array_equal(listed[:height, left : left + width], image), "the panel hides nothing"


def test_small_pictures_grow_and_their_boxes_with_them() -> None:
    drawn = draw_boxes(np.zeros((8, 8, 3), np.uint8), np.float32([[4, 4, 8, 8]]), ["x 0.90"], [class_color(0)])
    assert drawn.shape == (480, 480, 3)
    rows, columns = np.nonzero((drawn[300:] == class_color(0)).all(axis=2))
    assert abs(columns.min() - 240) <= 3 and columns.max() == 479 and rows.max() == 179


@pytest.mark.parametrize("corner", [(0, 0), (600, 0), (0, 440), (600, 440)])
def test_a_tag_stays_in_the_picture(corner: tuple[int, int]) -> None:
    def area(x: int, y: int) -> int:
        box, color = np.float32([[x, y, x + 39, y + 39]]), class_color(5)
        drawn = draw_boxes(np.zeros((480, 640, 3), np.uint8), box, ["person 0.90"], [color])
        return int((drawn == color).all(axis=2).sum())

    assert abs(area(*corner) - area(300, 200)) < 250  # of some 1900: the outline may leave the picture, the tag not


def test_tags_make_way_for_better_ones() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    boxes = np.float32([(100, 100, 300, 300), (110, 106, 290, 290)])
    tags, colors = ["first 0.90", "second 0.80"], [class_color(0), class_color(1)]
    drawn = draw_boxes(image, boxes, tags, colors)
    for i, color in enumerate(colors):
        alone = draw_boxes(image, boxes[i : i + 1], tags[i : i + 1], [color])
        shown, whole = ((picture == color).all(axis=2).sum() for picture in (drawn, alone))
        assert shown > 0.85 * whole


def test_longer_bars_mean_more() -> None:
    drawn = draw_bars(np.zeros((400, 400, 3), np.uint8), ["a", "b"], [0.75, 0.25])
    panel = drawn[400:].astype(int)
    saturated = panel.max(axis=2) - panel.min(axis=2)
    lengths = sorted({int(n) for n in (saturated > 40).sum(axis=1)} - {0})
    assert len(lengths) == 2 and abs(lengths[1] / lengths[0] - 3) < 0.1


def test_neighbouring_classes_have_different_colours() -> None:
    colors = np.array([class_color(i) for i in range(20)], int)
    distance = np.abs(colors[:, None] - colors).sum(axis=2)
    assert distance[~np.eye(20, dtype=bool)].min() >= 30
    assert len({class_color(i) for i in range(160)}) == 160


# ---- files


def test_an_image_is_written_whole_into_a_new_folder(tmp_path: Path) -> None:
    image = noise(30, 40)
    save_image(tmp_path / "new" / "x.png", image)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["x.png"]
    assert np.array_equal(cv2.imread(str(tmp_path / "new" / "x.png")), image)


@pytest.mark.parametrize("name", ["x", "x.nonsense", "file/x.png", "folder.png"])
def test_an_image_that_cannot_be_written_leaves_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ZooError, match="cannot write|does not end"):
        save_image(tmp_path / name, noise(3, 3))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_video_has_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "v.mp4", 25, (64, 48)) as sink:
        sink.write(noise(48, 64))
        assert not (tmp_path / "v.mp4").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["v.mp4"]


def test_a_video_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"\(64, 48, 3\) does not fit a video of 64x48"):
        with VideoSink(tmp_path / "v.mp4", 25, (64, 48)) as sink:
            sink.write(noise(64, 48))
    with pytest.raises(ZooError, match="cannot be written as a video"):
        VideoSink(tmp_path / "v.nonsense", 25, (64, 48))
    assert not list(tmp_path.iterdir())


# ---- labels


def test_labels_are_torchvisions_and_ultralytics() -> None:
    pytest.importorskip("torch")
    from zoo.verify.torchvision_shim import import_torchvision

    import_torchvision()
    from torchvision.models._meta import _COCO_CATEGORIES, _IMAGENET_CATEGORIES

    assert labels_for(1000, "imagenet") == _IMAGENET_CATEGORIES
    assert labels_for(80, "coco") == [name for name in _COCO_CATEGORIES if name not in ("__background__", "N/A")]
    ultralytics = pytest.importorskip("ultralytics")
    from ultralytics.utils import YAML

    names = YAML.load(Path(ultralytics.__file__).parent / "cfg" / "datasets" / "coco.yaml")["names"]
    assert labels_for(80, "coco") == list(names.values())


def test_labels_fit_the_classes() -> None:
    assert [labels_for(count)[9] for count in (10, 80, 1000)] == ["class 9"] * 3
    assert labels_for(10, "digits")[9] == "9"
    assert labels_for(2, ["cat", "dog"]) == ["cat", "dog"]
    with pytest.raises(ZooError, match="81 classes but 80 labels"):
        labels_for(81, "coco")
    with pytest.raises(ZooError, match="closest: imagenet"):
        labels_for(1000, "imagenette")


# ---- a task of one's own

DEPTH = '''
"""Relative depth: a task in one file, with a network of its own."""

from dataclasses import dataclass

import numpy as np

from zoo.network import Net, Tensor
from zoo.ops import conv2d, relu, reshape
from zoo.preprocess import letterbox
from zoo.registry import Variant, register
from zoo.tasks import Option, Result, Task


@dataclass(frozen=True, eq=False)
class Depth(Result):
    depth: np.ndarray


class RelativeDepth(Task):
    name = "closer"
    outputs = {"depth": ("height", "width")}
    options = (Option("far", 1.0, "Depth that is drawn black.", low=0), Option("conf", 0.5, "Of no use.", high=1))
    whole = True

    def decode(self, outputs, placement, labels, options):
        return Depth(placement.map_to_image(outputs["depth"]) / options["far"])

    def draw(self, image, result):
        return np.repeat(np.uint8(255 * np.clip(1 - result.depth, 0, 1))[..., None], 3, axis=2)

    def to_json(self, result):
        return {"depth": {"near": float(result.depth.min()), "far": float(result.depth.max())}}

    def describe(self, result):
        return [f"from {result.depth.min():.3f} to {result.depth.max():.3f}"]


@register(
    task="closer",
    reference="mine:{name}",
    preprocess=letterbox(64),
    paper="https://example.org/depth",
    options={"far": 4},
    flatland=Variant(None, params=28),
)
def build(net: Net, x: Tensor, cfg: None) -> Tensor:
    x = relu(net / "relu", conv2d(net / "conv", x, 1, 3))
    return reshape(net, x, (0, *x.shape[2:]))
'''


def in_fresh_python(
    folder: Path, code: str, *arguments: object, source: str = DEPTH
) -> subprocess.CompletedProcess[str]:
    """`code` beside the file that holds the task and its network, which it imports."""
    (folder / "flatland.py").write_text(source)
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "COLUMNS": "100"}
    command = [sys.executable, "-c", f"import flatland; {code}", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_task_in_one_file_is_run_drawn_and_written(tmp_path: Path) -> None:
    save_image(tmp_path / "in" / "x.png", noise(40, 70))
    with VideoSink(tmp_path / "in" / "y.mp4", 10, (64, 48)) as sink:
        sink.write(noise(48, 64))
    command = ("from zoo.run import main; main()", "flatland", tmp_path / "in", "--weights", "random", "--save", "out")
    done = in_fresh_python(tmp_path, *command, "--far", 2, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert re.search(r"x.png \(70x40, .*\n  from \d", done.stdout) and re.search(r"y.mp4 frame 0: from \d", done.stdout)
    picture, video = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert 0 <= picture["depth"]["near"] < picture["depth"]["far"] and video["frame"] == 0
    drawn = cv2.imread(str(tmp_path / "out" / "x.png"))
    assert drawn.shape == (40, 70, 3) and drawn.std() > 0

    nearer = in_fresh_python(tmp_path, *command, "--json", "--device", "cpu")  # the model's own default is 4
    halved = json.loads(nearer.stdout)["results"][0]["depth"]
    assert np.allclose(2 * halved["far"], picture["depth"]["far"])


def test_a_task_in_one_file_brings_its_flags(tmp_path: Path) -> None:
    shown = in_fresh_python(tmp_path, "from zoo.run import main; main()", "--help").stdout
    assert re.search(r"Options of closer ─.*\n│ --far +<float> +Depth that is drawn black. Default: 1.0", shown)
    assert re.search(r"Options of closer, detect[, a-z]* ─.*\n│ --conf,--conf-thres .*", shown)
    refused = in_fresh_python(tmp_path, "from zoo.run import main; main()", "flatland", "x.png", "--iou", "0.5")
    words = "error: the task 'closer' has no option 'iou'; its options are far, conf"
    assert (refused.returncode, refused.stdout) == (2, "") and refused.stderr.startswith(words)
    listed = in_fresh_python(tmp_path, "from zoo.list import main; main()", "--task", "closer", "--json").stdout
    assert [row["name"] for row in json.loads(listed)] == ["flatland"]


def test_a_task_in_one_file_answers_from_python(tmp_path: Path) -> None:
    code = """
import sys, numpy as np, zoo
with zoo.load("flatland", weights="random", device="cpu") as session:
    found = session.predict(np.full((30, 50, 3), 200, np.uint8), far=1)
    print(type(found).__name__, found.depth.shape, found.depth.dtype, float(found.depth.max()) > 0)
"""
    assert in_fresh_python(tmp_path, code).stdout == "Depth (30, 50) float32 True\n"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("size", "the task 'closer' cannot have an option 'size' of the type float: zoo.run itself has another"),
        ("max_det", "the task 'detect' cannot have an option 'max_det' of the type int: the task 'closer' has another"),
    ],
)
def test_an_option_that_means_something_else_is_refused(tmp_path: Path, option: str, words: str) -> None:
    source = DEPTH.replace('"far"', f'"{option}"')
    refused = in_fresh_python(tmp_path, "from zoo.run import main; main()", "--help", source=source)
    assert refused.returncode == 2 and words in refused.stderr


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    code = "exec(open('flatland.py').read().replace('__name__', 'x'), {'__name__': 'another'})"
    assert "two tasks are named 'closer': in flatland and in another" in in_fresh_python(tmp_path, code).stderr


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("x", "flatland has no output scores, which its task 'detect' needs; its build returns one tensor"),
        ("{'boxes': x, 'score': x}", "its build returns boxes, score; closest: score"),
    ],
)
def test_a_network_has_the_outputs_of_its_task(tmp_path: Path, returned: str, words: str) -> None:
    source = re.sub("    return reshape.*", f"    return {returned}", DEPTH).replace('task="closer"', 'task="detect"')
    source = source.replace('options={"far": 4},', "")
    code = "from zoo.build import main; main()"
    refused = in_fresh_python(tmp_path, code, "flatland", "--weights", "random", "--dry-run", source=source)
    assert (refused.returncode, refused.stdout) == (2, "") and words in refused.stderr
