"""YOLOv7's weights as they are trained, whose head adds and multiplies by learned numbers: published ones hold both."""

from __future__ import annotations

import pytest

from zoo.engine.definition import define
from zoo.registry import get_model
from zoo.runtime.cpu import CpuSession
from zoo.trt import Api
from zoo.verify.calibration import calibrated, sample_images, state_arrays
from zoo.verify.proof import compare_reference
from zoo.weights import from_arrays

SIZE = (3, 64, 96)


@pytest.mark.parametrize("lost", ["", "ia", "im"])
def test_weights_of_training_are_read_too(lost: str, rtx: Api) -> None:
    reference = calibrated("sas_yolov7:yolov7_tiny_training", size=SIZE, classes=3)
    arrays = state_arrays(reference)
    if lost:
        arrays[f"model.77.{lost}.1.implicit"] = arrays[f"model.77.{lost}.1.implicit"] * 0 + (lost == "im")
    weights = from_arrays(arrays, "as trained")
    model = get_model("yolov7_tiny").configured(weights)
    definition = define(model, weights, rtx, (-1, *SIZE))
    assert weights.unused(model.ignored) == []

    images = sample_images(4, SIZE, seed=1)
    ours = CpuSession(definition, list(definition.taps), threads=1)(images)
    report = compare_reference(reference, images, ours, list(definition.taps), definition.folded)
    assert report.ok == (not lost)
    assert report.missing == []
