"""R-CNNs of torchvision: proven with few proposals, which is torchvision's own parameter and makes it quick.

`python tests/prove_all.py` proves them with all of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession
from planting import Arrays, Plant, changed, plant, planted, zero

from zoo.blocks import rcnn
from zoo.engine.definition import creation_flags, define
from zoo.network import Definition, Net
from zoo.onnx import to_onnx
from zoo.preprocess import pasted
from zoo.preprocess.pixels import paste_mask
from zoo.registry import get_model
from zoo.runtime.cpu import CpuSession
from zoo.tasks import get_task
from zoo.trt import Api
from zoo.verify.compare import Report, relative_l2
from zoo.verify.pretrained import load_state
from zoo.verify.proof import compare_batches, compare_reference
from zoo.verify.references import load_reference
from zoo.verify.torchvision_shim import import_torchvision
from zoo.weights import from_arrays

SIZE, PROPOSALS = (3, 32, 64), 16


class Case:
    """A model with few proposals and detections, its reference with the same weights, and images.

    Weights that are not given are calibrated.
    """

    def __init__(self, name: str, api: Api, detections: int, arrays: Arrays | None = None) -> None:
        from zoo.verify.calibration import calibrated, sample_images, state_arrays

        model, self.api = get_model(name), api
        numbers = {"rpn_pre_nms_top_n_test": PROPOSALS, "rpn_post_nms_top_n_test": PROPOSALS}
        source = f"{model.reference}?{urlencode({**numbers, 'box_detections_per_img': detections})}"
        self.model = replace(model, config=replace(model.config, proposals=PROPOSALS, detections=detections))
        if arrays is None:
            self.reference: Any = calibrated(source, 0, SIZE)
            arrays = state_arrays(self.reference)
        else:
            self.reference = load_reference(source)
            wanted = state_arrays(self.reference)
            arrays = {name: arrays[name] for name in wanted}
            load_state(self.reference, arrays)
        self.arrays, self.images = arrays, sample_images(2, SIZE, seed=1)

    def report(self, *plants: Plant) -> Report:
        """The verdict on the definition with mistakes."""
        with planted(plants, self.arrays) as arrays:
            self.definition = define(self.model, from_arrays(arrays), self.api, (-1, *SIZE))
        taps = list(self.definition.taps)
        self.ours = CpuSession(self.definition, taps, threads=1)(self.images)
        return compare_reference(self.reference, self.images, self.ours, taps, self.definition.folded)


@pytest.fixture(scope="module")
def masked(rtx: Api) -> Case:
    return Case("maskrcnn_resnet50_fpn", rtx, 3)


@pytest.fixture(scope="module")
def faster(masked: Case, rtx: Api) -> Case:
    return Case("fasterrcnn_resnet50_fpn", rtx, 100, masked.arrays)


def test_faster_rcnn_equals_its_reference(faster: Case) -> None:
    report = faster.report()
    assert report.ok, report.first_divergence
    assert report.missing == []
    found = faster.ours["scores"].max(1) > 0
    assert found.any(1).all() and not found.all(1).any()  # some rows are filled up

    alone = CpuSession(faster.definition, faster.reference.choosers, threads=1)(faster.images[1:])
    again = compare_batches(faster.reference, faster.images, report, faster.ours, alone, [1])
    assert again.ok, again.first_divergence


def test_mask_rcnn_equals_its_reference(masked: Case) -> None:
    report = masked.report()
    assert report.ok, report.first_divergence
    assert report.missing == []
    assert masked.ours["masks"].std(axis=(2, 3)).min() > 0.01


def having(name: str, value: Any) -> Plant:
    """`zoo.blocks.rcnn` with another constant."""

    @contextmanager
    def enter(arrays: Arrays) -> Iterator[None]:
        with mock.patch.object(rcnn, name, value):
            yield

    return enter


@pytest.mark.parametrize(
    ("bugs", "starts"),
    [
        (
            {
                "an epsilon of its own": plant("backbone.body.layer2.0.bn1", changed(eps=1e-5)),
                "a bias lost": zero("roi_heads.box_head.fc7.bias"),
                "codes of the second stage as large as the first's": having("CODES", (1.0,) * 4),
            },
            ["backbone.body.layer2.0.bn1", "roi_heads.box_head.fc7", "boxes", "scores"],
        ),
        (
            {"proposals suppressed as detections are": having("PROPOSAL_IOU", 0.5)},
            ["roi_heads.box_roi_pool", "boxes", "scores"],
        ),
    ],
    ids=lambda given: ", ".join(given) if isinstance(given, dict) else "",
)
def test_mistakes_are_named(bugs: dict[str, Plant], starts: list[str], faster: Case) -> None:
    assert [row.name for row in faster.report(*bugs.values()).wrong] == starts


# Pooling, where boxes are large enough for each of the levels

SIDES = (16, 111.9, 112, 112.1, 160, 223.9, 224, 300, 447.9, 448, 600)


def pooled(api: Api) -> float:
    """How far our pooling of boxes of all sizes is from torchvision's, as its relative error in float64."""
    random, (height, width) = np.random.default_rng(0), (640, 1024)
    maps = [random.standard_normal((2, 3, height // s, width // s)).astype(np.float32) for s in (4, 8, 16, 32)]
    boxes = np.float32([[[3.3 * i, 1.7 * i, 3.3 * i + s, 1.7 * i + s] for i, s in enumerate(SIDES)]] * 2)
    builder = api.trt.Builder(api.log.logger)
    definition = Definition(api, builder, builder.create_network(creation_flags(api)), from_arrays({}))
    feeds = {**{f"map{i}": x for i, x in enumerate(maps)}, "boxes": boxes}
    *levels, given = (definition.network.add_input(name, api.trt.float32, x.shape) for name, x in feeds.items())
    y = rcnn.pool(Net(definition) / "pool", levels, given, (height, width), 7)
    definition.network.mark_output(y)
    session = InferenceSession(to_onnx(definition.network, api.trt).SerializeToString())
    published = import_torchvision().ops.MultiScaleRoIAlign([*"0123"], 7, 2)
    exact = published(
        {str(i): torch.from_numpy(x).double() for i, x in enumerate(maps)},
        list(torch.from_numpy(boxes).double()),
        [(height, width)] * 2,
    )
    return relative_l2(session.run(None, feeds)[0], exact.numpy())


def test_a_box_is_pooled_from_the_level_of_its_size(rtx: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pooled(rtx) < 1e-5  # places of about 250 pixels are rounded in float32, between neighbours that differ
    with monkeypatch.context() as patch:
        patch.setattr(rcnn, "CANONICAL", 223)
        assert pooled(rtx) > 1e-2
    monkeypatch.setattr(rcnn, "roi_align", partial(rcnn.roi_align, aligned=True))
    assert pooled(rtx) > 1e-2


# Masks in the picture


def test_masks_are_pasted_as_torchvision_does() -> None:
    """Smooth masks in boxes of many sizes, some at the border; pixels that are near 0.5 may fall on either side."""
    from zoo.verify.calibration import sample_images

    task, spec, picture = get_task("masks"), pasted((96, 160)), (120, 170)
    placement, random = spec.placement(picture, (96, 160)), np.random.default_rng(0)
    count = 12
    low = random.uniform(0, 70, (count, 2))
    high = np.minimum(low + random.uniform(0.3, 70, (count, 2)), placement.resized)
    low[0], high[1] = 0, placement.resized
    corners = np.concatenate([low, high], 1).astype(np.float32)
    boxes = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1).T
    logits = sample_images(count, (1, 28, 28), seed=2)[:, 0]
    maps = 1 / (1 + np.exp(-2 * logits))
    scores = np.zeros((3, count), np.float32)
    scores[1] = np.linspace(0.9, 0.2, count)
    outputs = {"boxes": boxes.astype(np.float32), "scores": scores, "masks": maps}
    found = task(outputs, placement, None, task.settings({"nms": False, "conf": 0.05}))

    import_torchvision()
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    expected = paste_masks_in_image(torch.tensor(maps)[:, None], torch.tensor(found.boxes), picture)[:, 0].numpy()
    sure = np.abs(expected - 0.5) > 1e-5
    assert found.masks.shape == expected.shape and found.masks.any((1, 2)).sum() > 9
    np.testing.assert_array_equal(found.masks[sure], (expected > 0.5)[sure])
    assert sure.mean() > 0.999

    unpadded = np.zeros_like(found.masks)
    with mock.patch.object(np, "pad", lambda array, width: array):
        for mask, values, box in zip(unpadded, maps, found.boxes):
            paste_mask(mask, values, box)
    assert (unpadded != found.masks).any((1, 2)).sum() > 9  # a mistake would show
