"""Counting: the sum of a map, kept where the map is enlarged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.preprocess import Placement
from zoo.tasks import get_task

TASK = get_task("count")


def test_the_count_is_the_sum_and_stays_it_in_the_picture() -> None:
    density = np.zeros((4, 6), np.float32)
    density[1, 2], density[3, 5] = 2.5, 0.75
    placement = Placement((97, 70), (48, 32), (0, 0), (48, 32))
    found = TASK({"density": density}, placement, None, {})
    assert found.count == 3.25 and found.density.shape == (70, 97)
    assert found.density.sum() == pytest.approx(3.25, rel=1e-4)
    assert np.unravel_index(found.density.argmax(), (70, 97)) == pytest.approx((26, 40), abs=4)
    assert TASK.describe(found) == ["3.2 people"] and json.loads(json.dumps(TASK.to_json(found))) == {"count": 3.25}
    assert TASK.draw(np.zeros((70, 97, 3), np.uint8), found).any()


def test_nobody_is_nobody() -> None:
    placement = Placement((48, 32), (48, 32), (0, 0), (48, 32))
    assert TASK({"density": np.zeros((4, 6), np.float32)}, placement, None, {}).count == 0
    with pytest.raises(ZooError, match="overflowed"):
        TASK({"density": np.full((4, 6), np.nan)}, placement, None, {})
