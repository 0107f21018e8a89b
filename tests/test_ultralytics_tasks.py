"""What ultralytics' own predictors make of the same raw outputs, in the same photograph."""

from __future__ import annotations

import functools
import json
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from zoo.labels import known_labels
from zoo.registry import get_model
from zoo.tasks import get_task

SIZE = (320, 256)  # height and width of the input, in which the photograph has grey bars at its sides
KINDS = {"pose": "PosePredictor", "instances": "SegmentationPredictor", "obb": "OBBPredictor"}


@functools.cache
def photo() -> np.ndarray:
    from zoo.verify.references.ultralytics import quiet

    quiet()
    from ultralytics.utils import ASSETS

    return cv2.imread(str(ASSETS / "bus.jpg"))


@functools.cache
def answers(name: str) -> tuple[Any, Any]:
    """What the reference with random weights returns for the photograph, but for its scores, and the reference.

    Random weights are sure of too much: scores are drawn, so that no two objects have the same.
    """
    import torch

    from zoo.verify.calibration import calibrated

    model = get_model(name)
    reference = calibrated(model.reference, 0, (3, 64, 96))
    pixels, _ = model.preprocess.apply(photo(), SIZE)
    with torch.no_grad():
        raw, head = reference.module(torch.from_numpy(pixels[None])), reference.module.model[-1]
    found = raw[0][0] if isinstance(raw[0], tuple) else raw[0]
    scores = (found.transpose(1, 2) if head.end2end else found)[:, 4 : 4 + head.nc]
    order = torch.randperm(scores.numel(), generator=torch.Generator().manual_seed(0))
    scores.copy_(order.view(scores.shape) / scores.numel())
    return raw, reference


def ours_and_theirs(name: str, count: int) -> tuple[Any, Any]:
    """About `count` objects before suppression, by our task and by ultralytics' predictor."""
    import torch
    from ultralytics import models
    from ultralytics.nn.modules.head import Detect

    model, (raw, reference) = get_model(name), answers(name)
    task, head = get_task(model.task), reference.module.model[-1]
    outputs = {key: value[0].numpy() for key, value in reference.outputs(raw).items()}
    conf = float(np.sort(outputs["scores"].max(axis=0))[-count])
    _, placement = model.preprocess.apply(photo(), SIZE)
    names = {index: f"class {index}" for index in range(head.nc)}
    ours = task(outputs, placement, list(names.values()), task.settings(model.options, {"conf": conf}))

    options = {"conf": conf, "iou": 0.7, "max_det": 300, "retina_masks": True}
    module = {"pose": models.yolo.pose, "instances": models.yolo.segment, "obb": models.yolo.obb}[model.task]
    predictor = getattr(module, KINDS[model.task])(overrides=options)
    predictor.model = SimpleNamespace(names=names, kpt_shape=getattr(head, "kpt_shape", None), end2end=head.end2end)
    predictor.batch = [["photo"]]
    if head.end2end:
        found, *more = raw[0] if isinstance(raw[0], tuple) else (raw[0],)
        found = Detect.postprocess(head, found)
        raw = ((found, *more) if more else found, raw[1])
    (theirs,) = predictor.postprocess(raw, torch.zeros(1, 3, *SIZE), [photo()])
    return ours, theirs


def in_order(found: np.ndarray) -> np.ndarray:
    """Positions of (K,) scores from the best: equal ones may come in any order, so that there must be none."""
    assert 10 < len(found) == len(np.unique(found))
    return np.argsort(-found)


@pytest.mark.parametrize("name", ["yolov8n_pose", "yolo26n_pose"])
def test_poses(name: str) -> None:
    ours, theirs = ours_and_theirs(name, 200)
    rows = theirs.boxes.data.numpy()
    assert len(ours.scores) == len(rows)
    mine, other = in_order(ours.scores), in_order(rows[:, 4])
    np.testing.assert_array_equal(ours.classes[mine], rows[other, 5])
    np.testing.assert_allclose(ours.scores[mine], rows[other, 4], rtol=1e-6)
    np.testing.assert_allclose(ours.boxes[mine], rows[other, :4], atol=1e-3)
    np.testing.assert_allclose(ours.keypoints[mine], theirs.keypoints.data.numpy()[other], atol=1e-3)


@pytest.mark.parametrize("name", ["yolov8n_seg", "yolo26n_seg"])
def test_instances(name: str) -> None:
    ours, theirs = ours_and_theirs(name, 60)
    rows = theirs.boxes.data.numpy()
    mine, other = in_order(ours.scores), in_order(rows[:, 4])
    np.testing.assert_array_equal(ours.classes[mine], rows[other, 5])
    np.testing.assert_allclose(ours.boxes[mine], rows[other, :4], atol=1e-3)
    masks = theirs.masks.data.numpy()[other].astype(bool)
    assert ours.masks.shape == masks.shape and masks.sum() > 10_000
    assert (ours.masks[mine] != masks).sum() < 1e-4 * masks.sum()  # where a sum is zero but for rounding


@pytest.mark.parametrize("name", ["yolov8n_obb", "yolo26n_obb"])
def test_turned_boxes(name: str) -> None:
    ours, theirs = ours_and_theirs(name, 200)
    mine, other = in_order(ours.scores), in_order(theirs.obb.conf.numpy())
    assert len(mine) == len(other)
    np.testing.assert_array_equal(ours.classes[mine], theirs.obb.cls.numpy()[other])
    np.testing.assert_allclose(ours.scores[mine], theirs.obb.conf.numpy()[other], rtol=1e-6)
    np.testing.assert_allclose(ours.corners[mine], theirs.obb.xyxyxyxy.numpy()[other], atol=2e-3)
    np.testing.assert_allclose(ours.angles[mine], theirs.obb.xywhr.numpy()[other, 4], rtol=1e-6)


def test_turned_boxes_suppress_as_ultralytics() -> None:
    """Many that overlap, of several classes, some of them dropped by what is dropped itself."""
    import torch

    photo()  # importing ultralytics quietly is its business
    from ultralytics.utils.nms import non_max_suppression

    random = np.random.default_rng(0)
    boxes = np.concatenate([random.uniform(0, 300, (2, 3000)), random.uniform(3, 60, (2, 3000))]).astype(np.float32)
    scores = (random.permutation(6000).reshape(2, 3000) / 6000).astype(np.float32)
    angles = random.uniform(-0.7, 2.3, (1, 3000)).astype(np.float32)
    raw = torch.from_numpy(np.concatenate([boxes, scores, angles]))[None]
    (expected,) = non_max_suppression(raw, 0.3, 0.4, max_det=500, nc=2, rotated=True)
    task, placement = get_task("obb"), get_model("lenet5").preprocess.placement((300, 300), (300, 300))
    outputs = {"boxes": boxes, "scores": scores, "angles": angles}
    found = task(outputs, placement, ["a", "b"], task.settings({"conf": 0.3, "iou": 0.4, "max_det": 500}))
    assert 100 < len(expected)
    np.testing.assert_array_equal(found.scores, expected[:, 4].numpy())
    np.testing.assert_array_equal(found.classes, expected[:, 5].numpy())
    np.testing.assert_array_equal(found.angles, expected[:, 6].numpy())


def test_a_pose_is_drawn_and_told() -> None:
    points = np.zeros((1, 17, 3), np.float32)
    points[0, 5:7] = (40, 30, 0.9), (80, 30, 0.9)  # the shoulders, which a limb joins
    points[0, 7] = (40, 70, 0.4)
    outputs = {
        "boxes": np.float32([[60], [50], [80], [90]]),
        "scores": np.float32([[0.75]]),
        "keypoints": points[0][..., None],
    }
    task, picture = get_task("pose"), np.zeros((100, 120, 3), np.uint8)
    placement = get_model("lenet5").preprocess.placement((100, 120), (100, 120))
    found = task(outputs, placement, ["person"], task.settings())
    (row,) = task.to_json(found)["detections"]
    assert (row["label"], row["box"], row["keypoints"][6]) == ("person", [20, 5, 100, 95], [80, 30, 0.9])
    assert task.describe(found)[0].split() == ["0.75", "person", "at", "20,", "5,", "100,", "95"]
    drawn = task.draw(picture, found)
    scale = len(drawn) // 100
    assert drawn[30 * scale, 60 * scale].any() and drawn[30 * scale, 40 * scale].any()
    assert not drawn[70 * scale, 40 * scale].any() and not drawn[50 * scale, 40 * scale].any()  # hardly seen


def test_instances_are_drawn_and_told() -> None:
    """Two prototypes, the left and the right half of the input; an object that its box shows nothing of is none."""
    prototypes = np.ones((2, 25, 30), np.float32)
    prototypes[0, :, 15:] = prototypes[1, :, :15] = -1
    outputs = {
        "boxes": np.float32([[60, 60, 110], [50, 50, 50], [80, 80, 10], [90, 90, 10]]),
        "scores": np.float32([[0.75, 0.5, 0.9]]),
        "coefficients": np.float32([[1, 0, 1], [0, 1, 0]]),
        "prototypes": prototypes,
    }
    task, picture = get_task("instances"), np.zeros((100, 120, 3), np.uint8)
    placement = get_model("lenet5").preprocess.placement((100, 120), (100, 120))
    found = task(outputs, placement, ["cup"], task.settings({"iou": 1.0}))
    assert found.scores.tolist() == [0.75, 0.5]
    assert found.masks[0].sum() == 90 * 40 and found.masks[0, 5:95, 20:60].all()
    first, second = json.loads(json.dumps(task.to_json(found)))["detections"]
    assert (first["box"], first["polygons"]) == ([20, 5, 100, 95], [[20, 5, 20, 94, 59, 94, 59, 5]])
    assert (second["rle"]["size"], sum(second["rle"]["counts"][1::2])) == ([100, 120], 90 * 40)
    drawn = task.draw(picture, found)
    scale = len(drawn) // 100
    left, right = drawn[50 * scale, 40 * scale], drawn[50 * scale, 80 * scale]
    assert left.any() and right.any() and (left != right).any()


def test_turned_boxes_are_drawn_and_told() -> None:
    outputs = {
        "boxes": np.float32([[60], [50], [80], [20]]),
        "scores": np.float32([[0.75]]),
        "angles": np.float32([[np.pi / 2]]),
    }
    task, picture = get_task("obb"), np.zeros((100, 120, 3), np.uint8)
    placement = get_model("lenet5").preprocess.placement((100, 120), (100, 120))
    found = task(outputs, placement, known_labels("dota")[:1], task.settings())
    (row,) = json.loads(json.dumps(task.to_json(found)))["detections"]
    assert (row["label"], row["box"], row["angle"]) == ("plane", [50, 10, 70, 90], 1.570796)
    assert sorted(map(tuple, row["corners"])) == [(50, 10), (50, 90), (70, 10), (70, 90)]
    drawn = task.draw(picture, found)
    scale = len(drawn) // 100
    assert drawn[50 * scale, 50 * scale].any() and not drawn[50 * scale, 60 * scale].any()
