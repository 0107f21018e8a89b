"""Frames to final boxes in one network: the same answer as preprocessing, network and decoding one after another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from zoo.api import _cpu_session
from zoo.build import run as build_command
from zoo.engine.definition import define
from zoo.engine.end2end import EndToEnd, end2end_of
from zoo.engine.passport import describe, rebuild_command
from zoo.engine.schema import check_fields
from zoo.engine.shapes import Shapes
from zoo.errors import ZooError
from zoo.network import Precision
from zoo.onnx import to_onnx
from zoo.registry import get_model
from zoo.runtime.predict import make_predictor
from zoo.trt import Api
from zoo.weights import parse_weights

SIZE = (64, 96)


def run(definition: Any, frames: np.ndarray) -> dict[str, np.ndarray]:
    model = to_onnx(definition.network, definition.api.trt)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, {"frames": frames})))


@pytest.mark.parametrize("name", ["yolov8n", "yolov5n"])
def test_boxes_are_those_of_the_steps(name: str, rtx: Api) -> None:
    model, weights = get_model(name), parse_weights("random", name)
    with _cpu_session(model, weights, Precision(), SIZE, None, 1, "auto") as session:
        with make_predictor(session, conf=0.2, max_det=50) as predictor:
            frames = np.random.default_rng(0).integers(0, 256, (2, 110, 151, 3), np.uint8)
            wanted = [predictor(frame).result for frame in frames]
    found = run(define(model, weights, rtx, (-1, 3, *SIZE), end2end=EndToEnd((200, 300), conf=0.2, max_det=50)), frames)
    assert not found["open"].any()
    for image, result in enumerate(wanted):
        count = found["num_detections"][image, 0]
        assert count == len(result.scores) > 5
        np.testing.assert_allclose(found["scores"][image, :count], result.scores, rtol=1e-5)
        np.testing.assert_allclose(found["boxes"][image, :count], result.boxes, rtol=1e-4, atol=1e-3)
        np.testing.assert_array_equal(found["classes"][image, :count], result.classes)
        assert (found["classes"][image, count:] == -1).all() and not found["scores"][image, count:].any()


def test_the_description_says_how_to_build_it_again(rtx: Api) -> None:
    model, weights = get_model("yolov8n"), parse_weights("random", "yolov8n")
    whole, shapes = EndToEnd((200, 300), iou=0.5), Shapes.static((2, 3, *SIZE))
    definition = define(model, weights, rtx, shapes.network, end2end=whole)
    about = json.loads(json.dumps(describe(definition, model, shapes, b"engine", end2end=whole)))
    check_fields("it", about)
    assert end2end_of(about) == whole
    assert "zoo.build yolov8n --end2end --max-frame 200x300 --iou 0.5 --weights" in rebuild_command(about)
    assert about["outputs"]["classes"] == {"dtype": "int32", "shape": [2, 300]}
    with pytest.raises(ZooError, match="'end2end' in it is .*it should be an object with max_frame"):
        check_fields("it", {**about, "end2end": {"max_frame": [1, "2"]}})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet18", {}, "--end2end is for detectors; resnet18 is for the task 'classify'"),
        ("yolov10n", {}, "--end2end suppresses boxes, and those of yolov10n are final"),
        ("yolov8n", {"conf": 2.0}, "conf is 2.0; it must be between 0 and 1"),
        ("yolov8n", {"max_frame": (8, 100)}, "the largest frame is 8x100; each side must be from 16"),
    ],
)
def test_what_cannot_be_is_told(name: str, options: dict[str, Any], words: str, rtx: Api) -> None:
    model = get_model(name)
    with pytest.raises(ZooError, match=words):
        define(model, parse_weights("random", name), rtx, (1, *model.input), end2end=EndToEnd(**options))


def test_options_without_end2end_are_refused() -> None:
    with pytest.raises(ZooError, match="--max-det belongs to --end2end"):
        build_command("yolov8n", max_det=5)


def test_it_compiles(rtx: Api, tmp_path: Path) -> None:
    from zoo.engine.build import build

    model, weights = get_model("yolov8n"), parse_weights("random", "yolov8n")
    engine = build(model, weights, rtx, Shapes.static((1, 3, *SIZE)), end2end=EndToEnd((200, 300)))
    assert engine.save(tmp_path / "whole.engine").stat().st_size > 1e6
    assert replace(EndToEnd((200, 300)), conf=None) == end2end_of(engine.description)
