"""Faces: the cascade of MTCNN against facenet-pytorch's, with the trained weights of that package, and what selects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import zoo
from zoo.cascades import Cascade
from zoo.cascades.mtcnn import Means, scales
from zoo.errors import ZooError
from zoo.gen_wts import run as gen_wts
from zoo.preprocess import Placement
from zoo.registry import get_model, list_cascades
from zoo.session import CascadeSession
from zoo.tasks import get_task
from zoo.tasks.faces import Faces, suppressed
from zoo.weights import load_weights

PORTRAIT = Path(__file__).parent / "data" / "grace_hopper.jpg"


@pytest.fixture(scope="module")
def mtcnn() -> Any:
    with zoo.load("mtcnn", device="cpu", threads=1) as session:
        yield session


def family() -> np.ndarray:
    """A picture with two faces, the second smaller and cut off by the edge; its sides are odd."""
    portrait = cv2.resize(cv2.imread(str(PORTRAIT)), (303, 355), interpolation=cv2.INTER_AREA)
    child = cv2.resize(portrait, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    picture = np.full((355, 385, 3), 90, np.uint8)
    picture[:, :303] = portrait
    picture[20 : 20 + child.shape[0], 310:] = child[:, : 385 - 310]
    return picture


def test_faces_are_those_of_the_published_cascade(mtcnn: CascadeSession) -> None:
    from zoo.verify.torchvision_shim import import_torchvision

    import_torchvision()
    from facenet_pytorch import MTCNN

    picture = family()
    boxes, scores, landmarks = MTCNN(select_largest=False).detect(picture[..., ::-1], landmarks=True)
    found = mtcnn.predict(picture)
    assert len(boxes) == 2 and boxes[1, 2] > 370  # the child's face reaches to the edge
    last_bits = 4 * np.spacing(np.float32(picture.shape[1]))  # 1.2e-4 of a pixel
    assert np.abs(found.boxes - boxes).max() <= last_bits
    assert np.abs(found.landmarks - landmarks).max() <= last_bits
    assert np.abs(found.scores - scores).max() <= 1e-6


def test_nothing_is_found_where_nothing_is(mtcnn: CascadeSession) -> None:
    for picture in (np.zeros((64, 50, 3), np.uint8), np.full((9, 300, 3), 200, np.uint8)):
        found = mtcnn.predict(picture)
        assert [array.shape for array in (found.boxes, found.scores, found.landmarks)] == [(0, 4), (0,), (0, 5, 2)]
        assert get_task("faces").describe(found) == ["no face found"]


def test_small_faces_are_not_looked_for(mtcnn: CascadeSession) -> None:
    assert len(mtcnn.predict(family(), min_face=100).scores) == 1
    assert list(scales(300, 301)) == [] and list(scales(300, 300)) == [12 / 300]


def test_rectangles_are_resized_as_pytorch_resizes_areas() -> None:
    import torch
    from torch.nn.functional import interpolate

    picture = np.random.default_rng(0).integers(0, 256, (41, 57, 3), np.uint8)
    means = Means(picture)
    for (left, top, right, bottom), size in (((0, 0, 57, 41), (17, 29)), ((3, 5, 20, 11), (24, 24))):
        cut = torch.from_numpy(picture[top:bottom, left:right, ::-1].copy()).permute(2, 0, 1)[None].float()
        expected = (interpolate(cut, size, mode="area")[0].numpy() - 127.5) / 128
        assert np.abs(means.resized((left, top, right, bottom), *size) - expected).max() < 1e-6


@pytest.mark.parametrize("least", [False, True])
def test_suppression_is_that_of_the_published_cascade(least: bool) -> None:
    from zoo.verify.torchvision_shim import import_torchvision

    import_torchvision()
    from facenet_pytorch.models.utils.detect_face import nms_numpy

    random = np.random.default_rng(1)
    corners, scores = random.uniform(0, 60, (80, 2)), random.permutation(80).astype(np.float32)
    boxes = np.concatenate([corners, corners + random.uniform(5, 40, (80, 2))], axis=1).astype(np.float32)
    kept = suppressed(boxes, scores, 0.4, pixel=1, least=least)
    assert 5 < len(kept) < 60
    assert kept.tolist() == nms_numpy(boxes, scores, 0.4, "Min" if least else "Union").tolist()


def test_a_detector_of_faces_is_decoded_in_pixels_of_the_picture() -> None:
    task, placement = get_task("faces"), Placement((200, 100), (100, 50), (0, 25), (100, 100))
    outputs = {
        "boxes": np.float32([[50, 50, 20, 20], [51, 50, 20, 20], [20, 40, 4, 4], [80, 60, 20, 16]]).T,
        "scores": np.float32([0.9, 0.95, 0.99, 0.2]),
        "landmarks": np.stack([np.full((5, 2), 10 * i, np.float32) for i in range(4)], axis=2),
    }
    found = task(outputs, placement, None, task.settings({}))  # the third is too small, the fourth not sure enough
    assert found.boxes.tolist() == [[82, 30, 122, 70]] and found.scores.tolist() == [np.float32(0.95)]
    assert found.landmarks[0, 0].tolist() == [20, -30]
    assert json.loads(json.dumps(task.to_json(found)))["faces"][0]["box"] == [82, 30, 122, 70]
    outputs["landmarks"][0, 0, 1] = np.nan
    with pytest.raises(ZooError, match="overflowed"):
        task(outputs, placement, None, task.settings({}))


def test_faces_are_drawn() -> None:
    image = np.zeros((400, 500, 3), np.uint8)
    landmarks = np.float32([[[120, 120], [160, 120], [140, 140], [125, 170], [155, 170]]])
    drawn = get_task("faces").draw(image, Faces(np.float32([[100, 100, 180, 200]]), np.float32([1]), landmarks))
    assert drawn.shape == image.shape
    assert drawn[140, 140].any() and drawn[150, 100].any() and not drawn[150, 140].any() and not image.any()


# ---- a cascade as such


def test_a_cascade_is_no_model_and_says_of_which_it_is_made() -> None:
    assert [cascade.name for cascade in list_cascades("mtc*", task="faces")] == ["mtcnn"]
    assert list_cascades(task="detect") == []
    for cascade in list_cascades():
        assert all(get_model(part).name == part for part in cascade.parts)
    with pytest.raises(ZooError, match="name one of mtcnn_pnet, mtcnn_rnet, mtcnn_onet"):
        get_model("MTCNN")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (64, 64)}, "sizes and batches of their own"),
        ({"batch": 2}, "sizes and batches of their own"),
        ({"weights": "weights/mtcnn_pnet.safetensors"}, "takes the weights of several networks"),
    ],
)
def test_what_one_network_takes_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        zoo.load("mtcnn", device="cpu", **options)


def test_two_cascades_cannot_have_one_name() -> None:
    with pytest.raises(ValueError, match="two cascades are named 'mtcnn'"):
        type("Another", (Cascade,), {"name": "mtcnn", "task": "faces", "__call__": lambda *a: None})


def test_the_weights_of_all_parts_are_written_with_their_licence(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    gen_wts("mtcnn")
    for part, count in (("mtcnn_pnet", 13), ("mtcnn_rnet", 16), ("mtcnn_onet", 21)):
        weights = load_weights(tmp_path / "weights" / f"{part}.safetensors")
        assert len(weights.names()) == count
        assert weights.metadata["licence"] == "MIT" and "facenet-pytorch 2.6.0" in weights.metadata["origin"]
    with zoo.load("mtcnn", device="cpu") as session:
        assert session.weights.startswith("weights/mtcnn_pnet.safetensors, weights/mtcnn_rnet.safetensors")


def test_a_part_answers_nothing_alone() -> None:
    with zoo.load("mtcnn_rnet", device="cpu") as session, pytest.raises(ZooError, match="part of a cascade"):
        session.predict(np.zeros((24, 24, 3), np.uint8))
