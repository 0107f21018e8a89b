"""zoo.eval: layouts of labelled pictures, metrics whose values can be told by hand, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from zoo.api import load
from zoo.errors import ZooError
from zoo.images.class_maps import read_class_map
from zoo.measure.accuracy import MeanAveragePrecision, MeanIoU, TopK, answered, evaluate, labels_of
from zoo.measure.labelled import Boxes, labelled, spread

ROOT = Path(__file__).resolve().parent.parent
DIGITS = [str(i) for i in range(10)]


def digits(folder: Path, names: dict[str, list[int]]) -> Path:
    """Folders of pictures of digits, by the name of the folder."""
    for name, shown in names.items():
        (folder / name).mkdir(parents=True)
        for i, digit in enumerate(shown):
            shutil.copy(ROOT / "samples" / f"digit_{digit}.png", folder / name / f"{i}.png")
    return folder


def blank(path: Path, size: tuple[int, int] = (40, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), 90, np.uint8))


# Layouts


@pytest.mark.parametrize(
    ("folders", "labels", "expected"),
    [
        (["cat", "dog"], ["dog", "bird", "cat"], [2, 0]),
        (["0", "2"], ["dog", "bird", "cat"], [0, 2]),
        (["n01", "n02", "n03"], ["dog", "bird", "cat"], [0, 1, 2]),
        (["7", "3"], DIGITS, [3, 7]),
    ],
)
def test_folders_are_classes_by_name_by_number_or_in_order(
    folders: list[str], labels: list[str], expected: list[int], tmp_path: Path
) -> None:
    for name in folders:
        blank(tmp_path / name / "deep" / "a.png")
    assert [sample.truth for sample in labelled("classify", tmp_path, None, labels)] == expected


def test_imagenet_by_folders_and_by_a_list(tmp_path: Path) -> None:
    for name in ("n01", "n02"):
        blank(tmp_path / "val" / name / "a.JPEG".lower())
    assert [sample.truth for sample in labelled("classify", tmp_path, "imagenet", ["a", "b"])] == [0, 1]
    (tmp_path / "val" / "val.txt").write_text("x.jpg 1\ny z.jpg 0\n")
    found = labelled("classify", tmp_path, "imagenet", ["a", "b"])
    assert [(sample.path.name, sample.truth) for sample in found] == [("x.jpg", 1), ("y z.jpg", 0)]


def coco(folder: Path, **changes: Any) -> Path:
    """Two pictures, of which the first shows a dog, and a crowd of cats whose outline is said."""
    for name in ("b.png", "a.png"):
        blank(folder / "pictures" / name)
    rows = [{"id": 1, "image_id": 5, "category_id": 18, "bbox": [10, 10, 20, 10]},
            {"id": 2, "image_id": 5, "category_id": 17, "bbox": [0, 0, 4, 4], "area": 9, "iscrowd": 1}]  # fmt: skip
    content = {"images": [{"id": 5, "file_name": "b.png"}, {"id": 3, "file_name": "a.png"}], "annotations": rows,
               "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}]}  # fmt: skip
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(content | changes))
    return folder


def test_coco_and_yolo_layouts(tmp_path: Path) -> None:
    first, second = labelled("detect", coco(tmp_path / "coco"), None, ["cat", "dog"])
    assert first.path.name == "a.png" and len(first.truth.classes) == 0 and second.path.is_file()
    assert second.truth.classes.tolist() == [1, 0] and second.truth.corners[0].tolist() == [10, 10, 30, 20]
    assert second.truth.areas.tolist() == [200, 9] and second.truth.crowd.tolist() == [False, True]

    for name in ("a", "b"):
        blank(tmp_path / "yolo" / "images" / f"{name}.png")
    (tmp_path / "yolo" / "labels").mkdir()
    (tmp_path / "yolo" / "labels" / "a.txt").write_text("1 0.5 0.25 0.5 0.5\n\n")
    first, second = labelled("detect", tmp_path / "yolo", "folder", ["cat", "dog"])
    assert first.truth.shares and first.truth.corners.tolist() == [[0.25, 0, 0.75, 0.5]]
    assert len(second.truth.classes) == 0


def test_samples_are_spread() -> None:
    assert spread(range(10), 3) == [0, 3, 6] and spread(range(3), 10) == spread(range(3), None) == [0, 1, 2]


def palette_png(indices: np.ndarray, colours: list[tuple[int, int, int]]) -> bytes:
    """A PNG whose pixels are entries of a palette, as Pascal VOC's class maps are."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = indices.shape
    rows = b"".join(b"\0" + row.tobytes() for row in indices.astype(np.uint8))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, data)
        for kind, data in (
            (b"IHDR", header), (b"PLTE", bytes(sum(colours, ()))), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
        )
    )  # fmt: skip


def test_class_maps_are_grey_or_have_a_palette(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 2], [255, 1, 0]])
    cv2.imwrite(str(tmp_path / "grey.png"), indices.astype(np.uint8))
    colours = [(0, 0, 0), (128, 0, 0), (0, 128, 7)] + [(9, 9, i) for i in range(252)] + [(224, 224, 192)]
    (tmp_path / "palette.png").write_bytes(palette_png(indices, colours))
    for name in ("grey", "palette"):
        assert np.array_equal(read_class_map(tmp_path / f"{name}.png"), indices)
    blank(tmp_path / "colour.png")
    with pytest.raises(ZooError, match="has colours; its pixels must be"):
        read_class_map(tmp_path / "colour.png")
    with pytest.raises(ZooError, match="cannot be read: No such file"):
        read_class_map(tmp_path / "none.png")


# Metrics


def test_top_1_and_top_5() -> None:
    meter = TopK(DIGITS)
    for truth, found in ((3, [3, 1, 2, 4, 5]), (3, [1, 3, 2, 4, 5]), (6, [1, 2, 3, 4, 5]), (0, [0, 1, 2, 3, 4])):
        meter.add(truth, SimpleNamespace(classes=np.array(found)), (1, 1))
    metrics, rows = meter.scores()
    assert metrics == {"top-1": 0.5, "top-5": 0.75}
    assert rows[1] == {"class": "3", "pictures": 2, "top-1": 0.5, "top-5": 1.0}


def test_mean_iou_leaves_out_what_is_ignored_and_classes_that_do_not_occur(tmp_path: Path) -> None:
    truth = np.array([[0, 0, 1, 1], [0, 0, 255, 1]], np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), truth)
    meter = MeanIoU(["wall", "door", "tree"])
    meter.add(tmp_path / "a.png", SimpleNamespace(class_map=np.array([[0, 1, 1, 1], [0, 0, 2, -1]], np.int16)), (2, 4))
    metrics, rows = meter.scores()
    assert metrics == {"mIoU": pytest.approx((3 / 4 + 2 / 4) / 2), "pixel accuracy": pytest.approx(5 / 7)}
    assert [row["class"] for row in rows] == ["wall", "door"]
    with pytest.raises(ZooError, match="is 2x4, its picture is 3x3"):
        meter.add(tmp_path / "a.png", SimpleNamespace(class_map=np.zeros((3, 3), np.int16)), (3, 3))
    with pytest.raises(ZooError, match="holds the class 1, the network has 1|255 is none"):
        cv2.imwrite(str(tmp_path / "b.png"), truth + np.uint8(3))
        meter.add(tmp_path / "b.png", SimpleNamespace(class_map=np.zeros((2, 4), np.int16)), (2, 4))


def test_a_single_class_has_a_background(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 7], [7, 7]], np.uint8))
    meter = MeanIoU(["road"])
    meter.add(tmp_path / "a.png", SimpleNamespace(class_map=np.array([[-1, 0], [0, -1]], np.int16)), (2, 2))
    assert meter.scores()[0]["mIoU"] == pytest.approx(2 / 3)


def found(*rows: tuple[list[float], float, int]) -> SimpleNamespace:
    boxes, scores, classes = ([row[i] for row in rows] for i in range(3))
    return SimpleNamespace(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        classes=np.array(classes, int),
    )


def test_mean_average_precision() -> None:
    """A box that overlaps by 0.72 is right at five of the ten thresholds; a class that is missed halves the mean."""
    meter = MeanAveragePrecision(["cat", "dog", "cow"])
    box = [0.0, 0, 100, 100]
    meter.add(Boxes(np.array([box]), np.array([0])), found(([0, 0, 72, 100], 0.9, 0)), (200, 300))
    metrics, rows = meter.scores()
    assert metrics["mAP50-95"] == pytest.approx(0.5) and metrics["mAP50"] == pytest.approx(1)
    assert metrics["mAP75"] == pytest.approx(0)
    share = Boxes(np.array([[0, 0, 1 / 3, 1 / 2]]), np.array([1]), shares=True)
    meter.add(share, found(), (200, 300))
    metrics, rows = meter.scores()
    assert metrics["mAP50"] == pytest.approx(0.5) and [row["class"] for row in rows] == ["cat", "dog"]
    again = MeanAveragePrecision(["cat", "dog", "cow"])
    again.add(share, found((box, 0.3, 1), ([0, 0, 50, 50], 0.2, 1)), (200, 300))
    assert again.scores()[0]["mAP50-95"] == pytest.approx(1)
    missed = MeanAveragePrecision(["cat"])
    missed.add(Boxes(np.array([box]), np.array([0])), found(), (200, 300))
    assert missed.scores()[0]["mAP50-95"] == 0


def test_a_session_agrees_with_its_own_answers(tmp_path: Path) -> None:
    folder = digits(tmp_path / "data", {"0": [0, 3], "7": [7]})
    (folder / "0" / "broken.png").write_bytes(b"no picture")
    with load("lenet5", device="cpu", threads=1) as session:
        labels = labels_of(session)
        samples = labelled("classify", folder, None, labels)
        scores = evaluate(session, samples, labels)
        assert scores.metrics["top-1"] == pytest.approx(2 / 3) == scores.value and scores.samples == 3
        assert len(scores.errors) == 1 and "broken.png" in scores.errors[0]
        own = answered(session, [sample.path for sample in samples], labels)
        assert [sample.truth for sample in own] == [0, 3, 7] and evaluate(session, own, labels).value == 1
        with pytest.raises(ZooError, match="none of 1 pictures could be read"):
            evaluate(session, [sample for sample in samples if sample.path.name == "broken.png"], labels)


def test_a_detector_agrees_with_its_own_answers() -> None:
    """What it is sure of is right; what it is not sure of comes after that and takes nothing away."""
    result = found(([0, 0, 50, 40], 0.9, 0), ([9, 9, 80, 90], 0.6, 1), ([5, 0, 60, 60], 0.1, 1))
    own, meter = MeanAveragePrecision.truth(result), MeanAveragePrecision(["cat", "dog"])
    assert own.classes.tolist() == [0, 1]
    meter.add(own, result, (100, 100))
    assert meter.scores()[0]["mAP50-95"] == pytest.approx(1)


def test_a_detector_is_measured_by_a_session(tmp_path: Path) -> None:
    with load("yolov5n", weights="random", device="cpu", size=(64, 64), threads=1) as session:
        labels = labels_of(session)
        assert len(labels) == 80
        categories = [{"id": i, "name": label} for i, label in enumerate(labels)]
        row = {"image_id": 5, "category_id": 7, "bbox": [1, 1, 50, 30]}
        data = coco(tmp_path / "coco", categories=categories, annotations=[row])
        scores = evaluate(session, labelled("detect", data, None, labels), labels)
    assert scores.samples == 2 and [row["class"] for row in scores.classes] == [labels[7]]
    assert 0 <= scores.value < 0.5


# The command


def zoo(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zoo.eval", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_command_says_writes_and_prints(tmp_path: Path) -> None:
    folder = digits(tmp_path / "data", {"0": [0, 3], "7": [7]})
    result = zoo("lenet5", "--data", folder, "--device", "cpu", "--csv", tmp_path / "classes.csv", "--json")
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["samples"] == 3 and said["metrics"]["top-1"] == pytest.approx(2 / 3) and said["precision"] == "fp32"
    rows = list(csv.DictReader((tmp_path / "classes.csv").read_text().splitlines()))
    assert [(row["class"], row["top-1"]) for row in rows] == [("0", "0.5"), ("7", "1.0")]


def _empty(folder: Path) -> None:
    (folder / "data").mkdir()


def _zebra(folder: Path) -> None:
    digits(folder / "data", {"0": [0], "zebra": [3]})


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        (_empty, {}, "holds no folder with pictures; expected one for each class"),
        (_zebra, {}, "1 of the 2 classes of .* are none of the network's 10 .*: zebra"),
        (_zebra, {"layout": "voc"}, "format"),
        (_zebra, {"model": "yolov8n", "weights": "random"}, "say which has the annotations: --annotations FILE"),
        (_zebra, {"model": "depth_anything_v2_small"}, "the answers of the task 'depth' are not measured"),
        (_zebra, {"scales": Path("x.json")}, "--scales belongs to --int8"),
        (lambda folder: digits(folder / "data", {"0": [0]}), {"samples": 0}, "samples is 0; it must be at least 1"),
        (lambda folder: None, {}, "is no folder; --data takes a folder with labelled pictures"),
    ],
)
def test_what_is_refused(make: Callable[[Path], None], arguments: dict[str, Any], words: str, tmp_path: Path) -> None:
    from zoo.eval import run

    make(tmp_path)
    arguments = {"model": "lenet5", "size": "64" if "weights" in arguments else None} | arguments
    with pytest.raises(ZooError, match=words):
        run(data=tmp_path / "data", device="cpu", **arguments)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "unicorn"}]}, "unicorn"),
        ({"annotations": 3}, "holds no annotations as COCO has them"),
        ({"annotations": [{"image_id": 99, "category_id": 17, "bbox": [0, 0, 1, 1]}]}, "holds no annotations as COCO"),
        ({"annotations": [{"image_id": 5, "category_id": 17, "bbox": [0, 0, 1]}]}, "holds no annotations as COCO"),
    ],
)
def test_annotations_that_are_none(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=words):
        labelled("detect", coco(tmp_path / "coco", **changes), None, ["cat", "dog", "cow"])


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ZooError, match=r"needs pycocotools, which is not installed: pip install .*\[eval\]"):
        MeanAveragePrecision(["cat"])
