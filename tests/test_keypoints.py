"""Interest points: chosen and described as transformers' SuperPoint does, and matched between pictures."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.preprocess import Placement
from zoo.tasks import get_task
from zoo.tasks.keypoints import Keypoints

TASK = get_task("keypoints")
UNMOVED = Placement((96, 64), (96, 64), (0, 0), (96, 64))


@pytest.fixture(scope="module")
def published() -> Any:
    """What the network says of one picture, densely, and what its own forward makes of it."""
    import torch

    from zoo.verify.references import load_reference

    torch.manual_seed(0)
    module = load_reference("transformers:superpoint").module
    for parameter in module.parameters():
        if parameter.ndim > 1:  # as small as they are initialised, all pixels score alike
            torch.nn.init.kaiming_normal_(parameter)
    image = torch.rand(1, 1, 64, 96)
    with torch.no_grad():
        scores, descriptors = (value[0].numpy() for value in module(image))
        found = type(module).forward(module, image)
    return {"scores": scores, "descriptors": descriptors}, found


def test_points_are_those_of_the_published_network(published: Any) -> None:
    dense, expected = published
    found = TASK(dense, UNMOVED, None, TASK.settings({}))
    points = expected.keypoints[0].numpy() * np.float32([96, 64])
    kept = (points < np.float32([92, 60])).all(axis=1)  # its border is that of a picture 8 times as large
    assert 20 < len(found.points) == kept.sum() < len(points)
    ours, theirs = (np.lexsort(p.round().T) for p in (found.points, points[kept]))
    assert np.abs(found.points[ours] - points[kept][theirs]).max() < 1e-4
    assert np.abs(found.scores[ours] - expected.scores[0].numpy()[kept][theirs]).max() < 1e-6
    assert np.abs(found.descriptors[ours] - expected.descriptors[0].numpy()[kept][theirs]).max() < 1e-5
    assert (np.diff(found.scores) <= 0).all()


def test_options_choose_points(published: Any) -> None:
    dense, _ = published
    count = len(TASK(dense, UNMOVED, None, TASK.settings({})).points)
    assert len(TASK(dense, UNMOVED, None, TASK.settings({"most": 7})).points) == 7
    assert len(TASK(dense, UNMOVED, None, TASK.settings({"radius": 1})).points) > count
    assert len(TASK(dense, UNMOVED, None, TASK.settings({"margin": 0})).points) > count
    none = TASK(dense, UNMOVED, None, TASK.settings({"conf": 1.0}))
    assert TASK.describe(none) == ["no point found"] and none.descriptors.shape == (0, 256)
    with pytest.raises(ZooError, match="overflowed"):
        TASK({**dense, "scores": dense["scores"] * np.nan}, UNMOVED, None, TASK.settings({}))


def test_points_are_matched_both_ways() -> None:
    a, b = (np.eye(3, dtype=np.float32)[rows] for rows in ([0, 1, 1], [2, 1, 0]))
    one, other = (Keypoints(np.zeros((3, 2)), np.ones(3), descriptors) for descriptors in (a, b))
    assert one.matches(other, 0.5).tolist() == [[0, 2], [1, 1]]  # the third would take what the second has
    assert one.matches(Keypoints(np.zeros((0, 2)), np.zeros(0), np.zeros((0, 3)))).shape == (0, 2)
    with pytest.raises(ZooError, match="3 and 2 numbers cannot be matched"):
        one.matches(Keypoints(np.zeros((1, 2)), np.ones(1), np.ones((1, 2))))


def test_points_are_told_and_drawn_in_the_picture(published: Any) -> None:
    dense, _ = published
    found = TASK(dense, Placement((192, 64), (96, 64), (0, 0), (96, 64)), None, TASK.settings({"most": 1}))
    x, y = found.points[0].tolist()
    assert json.loads(json.dumps(TASK.to_json(found)))["points"][0]["at"] == [x, y] and x % 2 == 0
    assert TASK.summarize(found) == "1 point"
    assert TASK.draw(np.zeros((64, 192, 3), np.uint8), found).any()
