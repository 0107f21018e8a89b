"""One line a case: an op with its attributes, inputs that reach its borders, and the published reference.

A reference takes and gives torch tensors, float64 for the op's float inputs. Every op of `zoo.plugins` has a case here.
PyTorch is imported by the references only: the inputs serve on a GPU, where there is none.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from zoo.plugins.core.op import Op
from zoo.plugins.deform_conv2d import DeformColumns
from zoo.plugins.letterbox import Letterbox
from zoo.plugins.ms_deform_attn import MsDeformAttn
from zoo.plugins.nms import Nms
from zoo.plugins.roi_align import RoiAlign
from zoo.plugins.yolo_decode import YoloDecode

if TYPE_CHECKING:
    import torch

Random = np.random.Generator


@dataclass(frozen=True)
class Case:
    """`inputs(random)` are float32 arrays; `reference` takes them as torch tensors and gives one output or several."""

    name: str
    op: Op
    inputs: Callable[[Random], tuple[np.ndarray, ...]]
    reference: Callable[..., Any]

    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.inputs(np.random.default_rng(zlib.crc32(self.name.encode())))

    def expected(self, arrays: tuple[np.ndarray, ...], dtype: torch.dtype | None = None) -> list[np.ndarray]:
        """The reference's outputs, computed in `dtype`, by default float64."""
        import torch

        dtype = dtype or torch.float64
        given = [torch.tensor(np.float64(a)).to(dtype) if a.dtype.kind == "f" else torch.tensor(a) for a in arrays]
        with torch.no_grad():
            found = self.reference(*given)
        return [y.numpy() for y in (found if isinstance(found, (tuple, list)) else [found])]


# ------------------------------------------------------------------------------------------------ deformable columns


def deform(name: str, op: DeformColumns, size: tuple[int, int], reach: float = 2.0) -> Case:
    """Offsets of `reach` pixels, so that many samples lie beyond the border."""
    out = [int(op._side(size[d], d)) for d in (0, 1)]
    channels = op.channels * op.groups

    def inputs(r: Random) -> tuple[np.ndarray, ...]:
        x = r.standard_normal((2, channels, *size), np.float32)
        offset = r.standard_normal((2, 2 * op.groups * op.taps, *out), np.float32) * np.float32(reach)
        return x, offset, r.random((2, op.groups * op.taps, *out), np.float32)

    def reference(x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        import torch

        from zoo.verify.torchvision_shim import import_torchvision

        torchvision = import_torchvision()
        every = torch.eye(channels * op.taps, dtype=x.dtype).reshape(-1, channels, *op.kernel)  # a tap each
        return torchvision.ops.deform_conv2d(
            x, offset, every, stride=op.stride, padding=op.padding, dilation=op.dilation, mask=mask
        )

    return Case(name, op, (lambda r: inputs(r) if op.modulated else inputs(r)[:2]), reference)


# ------------------------------------------------------------------------------------ multi-scale deformable attention


def attention(name: str, sizes: tuple[tuple[int, int], ...], channels: int, queries: int, points: int = 4) -> Case:
    """Locations from -0.2 to 1.2: a third of the points lie beyond a border."""
    heads, levels, cells = 4, len(sizes), sum(height * width for height, width in sizes)

    def inputs(r: Random) -> tuple[np.ndarray, ...]:
        value = r.standard_normal((2, cells, heads, channels), np.float32)
        where = r.random((2, queries, heads, levels, points, 2), np.float32) * np.float32(1.4) - np.float32(0.2)
        weights = r.random((2, queries, heads, levels, points), np.float32)
        return value, where, weights / weights.sum((3, 4), keepdims=True)

    def reference(value: torch.Tensor, where: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        import torch
        from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

        published = MultiScaleDeformableAttention()
        return published(value, torch.tensor(sizes), list(sizes), None, where, weights, 64)

    return Case(name, MsDeformAttn(sizes, points, heads, channels), inputs, reference)


# ----------------------------------------------------------------------------------------------------- suppression


def suppression(name: str, op: Nms, anchors: int, classes: int = 3, objects: int = 12) -> Case:
    """Boxes as a detector makes them, many near each object, most of them weak; every fourth score is another's.

    The reference decides in float32, as the op does: its outputs are equal, not near. Of equal scores the first comes
    first, as the op promises; PyTorch sorts them as the machine's vector instructions have it, unless it is asked to.
    """

    def inputs(r: Random) -> tuple[np.ndarray, ...]:
        of = r.integers(0, objects, (2, anchors))
        centre, size = r.uniform(50, 600, (2, objects, 2)), np.exp(r.uniform(2.5, 5.5, (2, objects, 2)))
        pick = [np.take_along_axis(a, of[..., None], 1) for a in (centre, size)]
        boxes = [pick[0] + r.normal(0, 8, pick[0].shape), pick[1] * np.exp(r.normal(0, 0.15, pick[1].shape))]
        scores = r.uniform(0, 0.05, (2, classes, anchors))
        np.put_along_axis(scores, (of % classes)[:, None], r.beta(1, 3, (2, 1, anchors)), 1)
        scores[:, :, ::4] = scores[:, :, :1]
        scores = np.float16(scores).astype(np.float32)  # the same in both precisions
        return np.concatenate(boxes, 2).swapaxes(1, 2).astype(np.float32), scores

    def apart(raw: torch.Tensor) -> torch.Tensor:
        """torchvision's, class by class: rows of x1, y1, x2, y2, score, class."""
        import torch

        from zoo.verify.torchvision_shim import import_torchvision

        best, label = raw[4:].max(0)
        centre, half = raw[:2], raw[2:4] / 2
        found = torch.cat([centre - half, centre + half, best[None], label[None]]).T[best > np.float32(op.conf)]
        stays = torch.zeros(len(found), dtype=torch.bool)
        for each in found[:, 5].unique():
            (of_class,) = torch.where(found[:, 5] == each)
            stays[of_class[import_torchvision().ops.nms(found[of_class, :4], found[of_class, 4], op.iou)]] = True
        found = found[stays]
        return found[found[:, 4].argsort(descending=True, stable=True)][: op.max_det]

    def reference(boxes: torch.Tensor, scores: torch.Tensor) -> list[torch.Tensor]:
        import torch
        from ultralytics.utils.nms import non_max_suppression

        rows = op.max_det
        number, open_ = torch.zeros(2, 1, dtype=torch.int32), torch.zeros(2, 1, dtype=torch.int32)
        found = [torch.zeros(2, rows, 4), torch.zeros(2, rows), torch.full((2, rows), -1, dtype=torch.int32)]
        raw = torch.cat([boxes, scores], 1).float()

        def argsort(x: torch.Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> torch.Tensor:
            return torch.sort(x, dim=dim, descending=descending, stable=True).indices

        if op.apart:
            suppressed = [apart(one) for one in raw]
        else:
            with patch.object(torch.Tensor, "argsort", argsort):
                suppressed = non_max_suppression(raw, op.conf, op.iou, max_det=rows, nc=classes)
        for i, kept in enumerate(suppressed):
            number[i] = len(kept)
            for table, values in zip(found, (kept[:, :4], kept[:, 4], kept[:, 5])):
                table[i, : len(kept)] = values
        return [number, *found, open_]

    return Case(name, op, inputs, reference)


# ------------------------------------------------------------------------------------------------------ YOLO decode


def decoded(name: str, op: YoloDecode, sizes: tuple[tuple[int, int], ...], classes: int, least: float = -4.0) -> Case:
    """Each anchor's best logit is one of evenly spaced ones from `least` on, so that precisions agree on the order; a
    fifth are equal."""

    def inputs(r: Random) -> tuple[np.ndarray, ...]:
        counts = [op.times * height * width for height, width in sizes]
        total = sum(counts)
        best = r.permuted(np.tile(np.linspace(least, 2, total), (2, 1)), axis=1)
        best[:, ::5] = best[:, :1]
        logits = best[:, None] - r.exponential(2, (2, classes, total))
        np.put_along_axis(logits, r.integers(0, classes, (2, 1, total)), best[:, None], 1)
        first = r.normal(0, 2, (2, op.before, total))
        if op.anchors:
            first[:, 4] = 6  # objects everywhere: what orders is the class
        every = np.concatenate([first, logits], 1)
        parts = np.split(every, np.cumsum(counts)[:-1], axis=2)
        shaped = (part.reshape(2, -1, *size) for part, size in zip(parts, sizes))
        return tuple(np.float16(part).astype(np.float32) for part in shaped)

    def reference(*levels: torch.Tensor) -> list[torch.Tensor]:
        import torch

        every = (yolov5_head if op.anchors else ultralytics_head)(op, levels, classes)
        best = every[:, 4:].amax(1)
        order = torch.sort(best, dim=1, descending=True, stable=True).indices[:, : op.top, None]
        rows = every.transpose(1, 2).take_along_dim(order, 1)
        rows = torch.where(best[..., None].take_along_dim(order, 1) > op.conf, rows, 0).transpose(1, 2)
        more = ((best > op.conf).sum(1, keepdim=True) - op.top).clamp(min=0).int()
        return [rows[:, :4], rows[:, 4:], more]

    return Case(name, op, inputs, reference)


def ultralytics_head(op: YoloDecode, levels: tuple[torch.Tensor, ...], classes: int) -> torch.Tensor:
    """(N, 4 + classes, A) of the published head, which is given what its convolutions would give."""
    import torch
    from ultralytics.nn.modules.head import Detect

    head = Detect(classes, op.bins, ch=(16,) * len(levels)).to(levels[0].dtype)
    head.stride = torch.tensor(op.strides)
    box, scores = torch.cat([x.flatten(2) for x in levels], 2).split((op.before, classes), 1)
    return head._inference({"boxes": box, "scores": scores, "feats": list(levels)})


def yolov5_head(op: YoloDecode, levels: tuple[torch.Tensor, ...], classes: int) -> torch.Tensor:
    """The same of YOLOv5's, whose channels have all values of an anchor before the next anchor."""
    import torch

    from zoo.verify.torchvision_shim import import_torchvision

    import_torchvision()
    from yolov5.models.yolo import Detect

    dtype, values = levels[0].dtype, op.before + classes
    head = Detect(classes, op.anchors, ch=[op.times * values] * len(levels)).to(dtype).eval()
    head.stride = torch.tensor(op.strides, dtype=dtype)
    head.anchors /= head.stride.view(-1, 1, 1)
    head.m = torch.nn.ModuleList(torch.nn.Identity() for _ in levels)
    given = [x.unflatten(1, (values, op.times)).transpose(1, 2).flatten(1, 2) for x in levels]
    raw = head(given)[0]
    return torch.cat([raw[..., :4], raw[..., 5:] * raw[..., 4:5]], 2).transpose(1, 2)


# -------------------------------------------------------------------------------------------------------- letterbox


def boxed(name: str, size: tuple[int, int], frame: tuple[int, int]) -> Case:
    """The bytes of ultralytics' LetterBox over 255, and the project's own placement of a picture."""
    from zoo.preprocess import letterbox

    def inputs(r: Random) -> tuple[np.ndarray, ...]:
        return (r.integers(0, 256, (2, *frame, 3)).astype(np.float32),)

    def reference(frames: torch.Tensor) -> list[torch.Tensor]:
        import torch
        from ultralytics.data.augment import LetterBox

        resize = LetterBox(size, auto=False)
        made = [resize(image=image.numpy().astype(np.uint8)) for image in frames]
        images = torch.tensor(np.stack(made)[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))
        where = letterbox(size).placement(frame, size)
        rows = np.float32([where.offset * 2, where.scale * 2, where.picture * 2])[None]
        return [images, torch.tensor(rows)]

    return Case(name, Letterbox(size), inputs, reference)


# -------------------------------------------------------------------------------------------------------- RoI align


def roi_pool(name: str, op: RoiAlign, size: tuple[int, int], channels: int = 5, count: int = 7) -> Case:
    """Boxes from specks to larger than the map, many of them beyond a border."""

    def inputs(r: Random) -> tuple[np.ndarray, ...]:
        x = r.standard_normal((2, channels, *size), np.float32)
        extent = np.float32([size[1], size[0]]) / op.scale
        centre, half = (r.random((2, count, 2), np.float32) for _ in range(2))
        half = half**2 * np.float32(0.8)
        return x, np.concatenate([centre - half, centre + half], 2) * np.tile(extent, 2).astype(np.float32)

    def reference(x: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        from zoo.verify.torchvision_shim import import_torchvision

        published = import_torchvision().ops.roi_align
        return published(x, list(boxes.to(x.dtype)), op.size, op.scale, op.samples, op.aligned)

    return Case(name, op, inputs, reference)


ANCHORS = ((10.0, 13.0, 16.0, 30.0, 33.0, 23.0), (116.0, 90.0, 156.0, 198.0, 373.0, 326.0))  # of YOLOv5

CASES = [
    deform("deform 3x3", DeformColumns((3, 3), 20, padding=(1, 1)), (13, 17)),
    deform("deform groups", DeformColumns((3, 3), 4, groups=3, padding=(1, 1)), (9, 8), reach=5.0),
    deform("deform stride", DeformColumns((3, 5), 6, 1, (2, 1), (2, 1), (1, 2)), (13, 17)),
    deform("deform plain", DeformColumns((2, 2), 5, modulated=False), (7, 6)),
    attention("attention", ((8, 10), (4, 5), (2, 3)), 32, 21),
    attention("attention odd", ((3, 2),), 5, 4, points=1),
    suppression("nms", Nms(0.05, 0.7, 300), 700),
    suppression("nms full", Nms(0.05, 0.45, 20, 512), 500, objects=60),
    suppression("nms many classes", Nms(0.25, 0.7, 300), 900, classes=80, objects=60),
    boxed("letterbox shrinks", (64, 96), (108, 192)),
    boxed("letterbox grows", (96, 64), (17, 23)),
    boxed("letterbox tall", (64, 64), (301, 77)),
    boxed("letterbox same", (32, 64), (32, 64)),
    suppression("nms few anchors", Nms(0.05, 0.5, 100), 33),
    suppression("nms apart", Nms(0.05, 0.5, 200, apart=True), 700, classes=40, objects=6),
    roi_pool("roi align", RoiAlign((7, 7), 0.25), (13, 17), channels=20),
    roi_pool("roi align aligned", RoiAlign((7, 7), 0.25, aligned=True), (12, 19)),
    roi_pool("roi align uneven", RoiAlign((3, 5), 1.0, 3), (9, 8)),
    decoded("yolo decode", YoloDecode((8, 16), top=20, conf=0.05), ((5, 9), (3, 5)), classes=11),
    decoded("yolo decode distances", YoloDecode((8,), bins=1, top=60), ((7, 9),), classes=1),
    decoded("yolo decode anchors", YoloDecode((8, 32), anchors=ANCHORS, top=30, conf=0.1), ((4, 5), (2, 3)), classes=9),
    roi_pool("roi align once", RoiAlign((2, 1), 0.0625, 1, aligned=True), (4, 5)),
]  # fmt: skip
