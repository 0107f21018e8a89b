"""Detection from photo to boxes, against the predict paths of ultralytics and yolov5 on the same weights."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from zoo.api import load
from zoo.engine.definition import define
from zoo.errors import ZooError
from zoo.network import Precision
from zoo.preprocess import Placement
from zoo.registry import get_model
from zoo.runtime.cpu import CpuSession
from zoo.runtime.predict import Predictor
from zoo.tasks import get_task
from zoo.trt import Api
from zoo.verify.calibration import calibrated, sample_images, state_arrays
from zoo.verify.compare import compare_runs
from zoo.verify.references import Reference
from zoo.verify.running import run_reference
from zoo.weights import RandomWeights, Weights, from_arrays, load_weights, save_wts

SMALL = (3, 96, 160)
NETWORKS = ["yolov5n", "yolov8n"]


@functools.cache
def reference(name: str, classes: int = 80) -> Reference:
    """With random weights that detect objects of many sizes and classes."""
    return calibrated(get_model(name).reference, size=SMALL, classes=classes)


def weights(name: str) -> Weights:
    return from_arrays(state_arrays(reference(name)), name)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    reference("yolov8n")  # importing ultralytics quietly is its business
    from ultralytics.utils import ASSETS

    return cv2.imread(str(ASSETS / "bus.jpg"))


def predict(name: str, photo: np.ndarray, size: tuple[int, int], conf: float) -> np.ndarray:
    """Our detections: (K, 6) x1, y1, x2, y2, score, class."""
    with load(name, weights=weights(name), size=size, device="cpu") as session:
        found = Predictor(session, conf=conf)(photo).result
    return np.column_stack([found.boxes, found.scores, found.classes])


def assert_same_detections(ours: np.ndarray, theirs: np.ndarray) -> None:
    """One to one: the same classes, boxes within 0.1 pixel, scores within 1e-4. Equal scores may change places."""
    assert 100 < len(theirs) < 300 and len(set(theirs[:, 5])) > 5  # enough to tell, and no limit reached
    assert len(ours) == len(theirs)
    distance = np.abs(ours[:, None, :5] - theirs[None, :, :5]).max(axis=2)
    distance[ours[:, None, 5] != theirs[None, :, 5]] = np.inf
    nearest = distance.argmin(axis=1)
    assert sorted(nearest) == list(range(len(theirs)))
    assert np.abs(ours[:, :4] - theirs[nearest, :4]).max() < 0.1
    assert np.abs(ours[:, 4] - theirs[nearest, 4]).max() < 1e-4


@pytest.mark.parametrize(("size", "rect"), [((640, 640), False), ((640, 480), True)], ids=["square", "rect"])
def test_yolov8_equals_ultralytics_predict(
    photo: np.ndarray, size: tuple[int, int], rect: bool, tmp_path: Path
) -> None:
    from ultralytics import YOLO

    torch.save({"model": reference("yolov8n").module}, tmp_path / "yolov8n.pt")
    options = {"conf": 0.94, "rect": rect, "device": "cpu", "verbose": False, "save": False}
    (result,) = YOLO(tmp_path / "yolov8n.pt").predict(photo, **options)
    assert_same_detections(predict("yolov8n", photo, size, conf=0.94), result.boxes.data.numpy())


@pytest.mark.parametrize(("size", "auto"), [((640, 640), False), ((640, 480), True)], ids=["square", "rect"])
def test_yolov5_equals_the_steps_of_its_detect(photo: np.ndarray, size: tuple[int, int], auto: bool) -> None:
    module = reference("yolov5n").module
    from yolov5.utils.augmentations import letterbox
    from yolov5.utils.general import non_max_suppression, scale_boxes

    image = letterbox(photo, 640, stride=32, auto=auto)[0].transpose(2, 0, 1)[::-1]
    with torch.no_grad():
        predictions = module(torch.from_numpy(image[None] / np.float32(255)))[0]
    (found,) = non_max_suppression(predictions, conf_thres=0.6, iou_thres=0.45)
    found[:, :4] = scale_boxes(image.shape[1:], found[:, :4], photo.shape)
    assert_same_detections(predict("yolov5n", photo, size, conf=0.6), found.numpy())


@functools.cache
def dump_of_three_classes(name: str, folder: Path) -> Path:
    """A .wts file as tensorrtx's exporters write it: no shapes, and the anchors of yolov5 twice more."""
    arrays = state_arrays(reference(name, classes=3))
    if name == "yolov5n":
        arrays |= {"model.24.anchor_grid": np.ones((3, 3, 2), np.float32), "model.24.strides": np.ones(3, np.float32)}
    save_wts(folder / f"{name}.wts", arrays)
    return folder / f"{name}.wts"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_class_count_is_that_of_the_weights(name: str, folder: Path, rtx: Api) -> None:
    weights = load_weights(dump_of_three_classes(name, folder))
    assert get_model(name).configured(weights).config.num_classes == 3
    session = CpuSession(define(get_model(name), weights, rtx, (-1, *SMALL)))
    images = sample_images(2, SMALL)
    runs = [run_reference(reference(name, classes=3), images, dtype) for dtype in ("float32", "float64")]
    found = session(images)
    assert found["scores"].shape[:2] == (2, 3)
    assert compare_runs(found, *runs, order=()).ok


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_another_size_are_named(name: str, folder: Path, rtx: Api) -> None:
    weights = load_weights(dump_of_three_classes(name, folder))
    with pytest.raises(ZooError, match=f"16 channels wide .* 48 .*; these are the weights of {name}"):
        define(get_model(f"{name[:-1]}m"), weights, rtx, (1, *SMALL))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("size", "why"),
    [
        ((100, 64), "100x64 does not fit.* multiples of 32; use 96x64 or 128x64"),
        ((20, 20), "use 32x32$"),
        ((-1, 40), r"\?x40 does not fit.* multiples of 32; use \?x32 or \?x64"),
    ],
)
def test_a_size_that_does_not_fit_is_explained(name: str, size: tuple[int, int], why: str, rtx: Api) -> None:
    with pytest.raises(ZooError, match=why):
        define(get_model(name), RandomWeights(0), rtx, (1, 3, *size))


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_does_not_round_the_boxes(name: str, rtx: Api) -> None:
    definition = define(get_model(name), weights(name), rtx, (1, 3, 32, 1280), Precision("fp16"))
    boxes = CpuSession(definition)(sample_images(1, (3, 32, 1280)))["boxes"]
    assert boxes[0, 0].max() > 1024  # where half precision has whole pixels only
    assert np.mean(boxes == boxes.astype(np.float16)) < 0.1


def test_a_name_without_a_size_is_the_small_one() -> None:
    assert (get_model("yolov5").name, get_model("yolov8").name) == ("yolov5s", "yolov8n")


@pytest.mark.parametrize("name", ["yolov10n", "yolo26n"])
def test_final_boxes_are_those_that_ultralytics_selects(name: str) -> None:
    """Heads that need no suppression: the same boxes, scores and classes, in the same order."""
    import torch
    from ultralytics.nn.modules.head import Detect as Head

    from zoo.tasks.detect import select

    size = (3, 96, 160)
    reference = calibrated(f"ultralytics:{name}", 0, size)
    head = reference.module.model[-1]
    images = sample_images(2, size, seed=3)
    with torch.no_grad():
        raw = reference.module(torch.from_numpy(images))[0]  # (N, A, 4 + classes), before any selection
        expected = Head.postprocess(head, raw).numpy()
    found = run_reference(reference, images).outputs
    for picture in range(2):
        outputs = found["boxes"][picture], found["scores"][picture]
        _, boxes, scores, classes = select(*outputs, conf=0.0, iou=0.7, max_det=300, nms=False)
        assert len(scores) == len(expected[picture])
        np.testing.assert_allclose(scores, expected[picture, :, 4], rtol=1e-6)
        distinct = np.diff(scores, prepend=2, append=-1)
        sure = (distinct[:-1] < 0) & (distinct[1:] < 0)  # equal scores may come in any order
        assert sure.sum() > 0.9 * len(sure)
        np.testing.assert_array_equal(classes[sure], expected[picture, sure, 5])
        np.testing.assert_allclose(boxes[sure], expected[picture, sure, :4], atol=2e-4)


def test_what_torchvision_finds_with_dense_anchors() -> None:
    """An anchor counts for every class; of a level the best 1000 scores are considered, fewer than there are here."""
    from zoo.verify.references import load_reference

    torch.manual_seed(0)
    reference, images = load_reference("torchvision:fcos_resnet50_fpn"), sample_images(2, SMALL, seed=3)
    logits = reference.module.head.classification_head.cls_logits
    torch.nn.init.normal_(logits.weight, std=0.05)
    torch.nn.init.constant_(logits.bias, -2.0)
    torch.nn.init.constant_(logits.bias[1:7], 2.0)
    torch.nn.init.constant_(reference.module.head.regression_head.bbox_reg.bias, 8.0)  # boxes suppress each other
    raw = run_reference(reference, images).outputs
    del reference.module.postprocess_detections  # ours, which gives every anchor
    with torch.no_grad():
        expected = reference.module(torch.from_numpy(images))
    task, size = get_task("detect"), SMALL[:0:-1]
    options = task.settings(get_model("fcos_resnet50_fpn").options)
    placement = Placement(size, size, (0, 0), size)
    for boxes, scores, theirs in zip(raw["boxes"], raw["scores"], expected):
        outputs = {"boxes": boxes, "scores": scores}
        found = task(outputs, placement, None, options)
        for name, of_theirs in (("boxes", "boxes"), ("scores", "scores"), ("classes", "labels")):
            np.testing.assert_allclose(getattr(found, name), theirs[of_theirs].numpy(), rtol=1e-5, atol=1e-4)
        for mistake in ({"topk_candidates": 0}, {"multi_label": False}):
            other = task(outputs, placement, None, options | mistake)
            assert not np.array_equal(other.boxes, found.boxes)
    with pytest.raises(ZooError, match="which have a multiple of 323 anchors, and this has 322; leave it out"):
        task({"boxes": boxes[:, 1:], "scores": scores[:, 1:]}, placement, None, options)
