"""The generated scenes that scripts/train_scenes.py trains on."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from zoo.measure.labelled import labelled

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def scenes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_scenes", ROOT / "scripts" / "train_scenes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_number_is_always_the_same_scene(scenes: ModuleType) -> None:
    picture, found = scenes.scene(5, 128, 5)
    again, same = scenes.scene(5, 128, 5)
    assert np.array_equal(picture, again) and found == same
    others = {hashlib.sha256(scenes.scene(number, 64, 1)[0].tobytes()).digest() for number in range(50)}
    assert len(others) == 50


def test_scenes_have_every_shape_with_its_box(scenes: ModuleType) -> None:
    kinds = set()
    for number in range(60):
        picture, found = scenes.scene(number, 128, 5)
        assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8 and 1 <= len(found) <= 5
        for kind, (x1, y1, x2, y2) in found:
            kinds.add(kind)
            assert 0 <= x1 < x2 <= 128 and 0 <= y1 < y2 <= 128 and min(x2 - x1, y2 - y1) > 3
    assert kinds == set(range(len(scenes.CLASSES)))


@pytest.mark.parametrize("name", ["arrow", "circle", "cross", "square", "star", "triangle"])
def test_outlines_fill_their_circle(name: str, scenes: ModuleType) -> None:
    corners = scenes.outline(name, np.random.default_rng(0))
    reach = np.linalg.norm(corners, axis=1).max()
    assert corners.shape[1] == 2 and 0.7 < reach <= 1.01


def test_files_are_what_zoo_eval_reads(scenes: ModuleType, tmp_path: Path) -> None:
    scenes.write_classes(tmp_path / "classify", range(12))
    assert len(labelled("classify", tmp_path / "classify", None, scenes.CLASSES)) == 12
    scenes.write_boxes(tmp_path / "detect", range(12))
    found = labelled("detect", tmp_path / "detect", "folder", scenes.CLASSES)
    first = next(sample for sample in found if sample.path.stem == "3")
    (kind, box), *rest = scenes.scene(3, 128, 5)[1]
    assert first.truth.classes[0] == kind and len(first.truth.classes) == 1 + len(rest)
    assert first.truth.corners[0] * 128 == pytest.approx(box, abs=1e-3)
