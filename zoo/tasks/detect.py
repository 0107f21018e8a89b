"""Object detection: boxes and class scores to detections, as the predict paths of ultralytics and yolov5 decide."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zoo.errors import ZooError
from zoo.preprocess import Placement
from zoo.tasks import CLASSES, Option, Result, Task

if TYPE_CHECKING:
    from zoo.runtime.arrays import DeviceArray
    from zoo.runtime.cuda import Cuda, Stream
    from zoo.runtime.pipeline import Decoder

_MAX_CANDIDATES = 30_000
LEVELS = (8, 16, 32, 64, 128)  # strides of the maps of torchvision's dense detectors
MOST_COUNTED = 8  # classes in a summary
_BLOCK = 256  # boxes compared at once
CLASS_OFFSET = np.float32(7680)  # larger than any picture, so that boxes of two classes never overlap


@dataclass(frozen=True, eq=False)
class Detections(Result):
    """Objects, best first: `boxes` (K, 4) float32 x1, y1, x2, y2 in pixels of the picture, `scores` (K,) float32,
    `classes` (K,) int64."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    labels: list[str]


class Selection(NamedTuple):
    """What the outputs of a head come to, best first: which `anchors` (K,), `boxes` (K, 4) x1, y1, x2, y2 in pixels of
    the input, `scores` (K,) and `classes` (K,)."""

    anchors: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


def select(
    boxes: np.ndarray,
    scores: np.ndarray,
    *,
    conf: float,
    iou: float,
    max_det: int,
    nms: bool,
    multi_label: bool = False,
) -> Selection:
    """The detections among `boxes` (4, A) cx, cy, w, h with `scores` (classes, A).

    With `nms` an anchor counts once, for its best class, if that scores more than `conf`; it is dropped if a better box
    of the same class overlaps it by more than `iou`. All in float32, class offset included, as `ultralytics.utils.nms`
    and `yolov5.utils.general`: at class 79 the offset rounds coordinates to 1/16 pixel, and boxes near the threshold
    would otherwise be judged differently. With `multi_label` it counts for every class that scores enough, as in
    `torchvision.models.detection`, where classes are kept apart exactly.

    Without it boxes are final, and `iou` means nothing. As `ultralytics.nn.modules.head.Detect.postprocess`: of the
    `max_det` anchors whose best class scores most, the `max_det` best scores of any class, so that one box may stand
    for two classes.
    """
    boxes, scores = boxes.astype(np.float32, copy=False), scores.astype(np.float32, copy=False)
    if nms:
        anchors, classes = (every_class if multi_label else best_classes)(scores, conf)
    else:
        anchors, classes = best_scores(scores, conf, max_det)
    centre, half = boxes[:2, anchors], boxes[2:, anchors] / 2
    corners = np.concatenate([centre - half, centre + half])
    check_finite(scores, corners)
    if nms:
        wide = np.float64 if multi_label else np.float32
        kept = _greedy(corners + classes.astype(wide) * CLASS_OFFSET, iou, max_det)
        anchors, classes, corners = anchors[kept], classes[kept], corners[:, kept]
    return Selection(anchors, corners.T, scores[classes, anchors], classes)


def non_max_suppression(
    boxes: np.ndarray, scores: np.ndarray, conf: float = 0.25, iou: float = 0.7, max_det: int = 300
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (K, 4), scores (K,) and classes (K,) of `select` with `nms`."""
    _, corners, best, classes = select(boxes, scores, conf=conf, iou=iou, max_det=max_det, nms=True)
    return corners, best, classes


def best_classes(scores: np.ndarray, conf: float) -> tuple[np.ndarray, np.ndarray]:
    """(anchors, classes) whose best class scores more than `conf`, best first: those that are compared."""
    best = scores.max(axis=0)
    anchors = np.flatnonzero(best > np.float32(conf))
    anchors = anchors[np.argsort(-best[anchors], kind="stable")[:_MAX_CANDIDATES]]
    return anchors, scores[:, anchors].argmax(axis=0)


def every_class(scores: np.ndarray, conf: float) -> tuple[np.ndarray, np.ndarray]:
    """(anchors, classes): each pair that scores more than `conf`, best first."""
    classes, anchors = np.nonzero(scores > np.float32(conf))
    order = np.argsort(-scores[classes, anchors], kind="stable")[:_MAX_CANDIDATES]
    return anchors[order], classes[order]


def best_of_levels(scores: np.ndarray, size: tuple[int, int], conf: float, count: int) -> np.ndarray:
    """`scores` (classes, A) with zeros for what is not among the `count` best of its level, as torchvision's dense
    detectors choose before they suppress. A level is a map of an input of `size` (width, height), by the strides in
    `LEVELS`, and has as many anchors in a cell as the others."""
    width, height = size
    cells = np.array([math.ceil(width / stride) * math.ceil(height / stride) for stride in LEVELS])
    if scores.shape[1] % cells.sum():
        raise ZooError(
            f"topk_candidates is for networks with levels of strides {', '.join(map(str, LEVELS))}, which have a "
            f"multiple of {cells.sum()} anchors, and this has {scores.shape[1]}; leave it out"
        )
    ends = np.cumsum(cells * (scores.shape[1] // cells.sum()))
    scores = scores.copy()
    for level in np.split(scores, ends[:-1], axis=1):  # parts of `scores`
        candidates = level[level > np.float32(conf)]
        if candidates.size > count:
            level[level < np.partition(candidates, -count)[-count]] = 0
    return scores


def best_scores(scores: np.ndarray, conf: float, max_det: int) -> tuple[np.ndarray, np.ndarray]:
    """(anchors, classes) of the best scores of any class, of the `max_det` best anchors."""
    anchors = np.argsort(-scores.max(axis=0), kind="stable")[:max_det]
    of_these = scores[:, anchors].T.reshape(-1)  # K x classes
    order = np.argsort(-of_these, kind="stable")[:max_det]
    rows, classes = np.divmod(order[of_these[order] > np.float32(conf)], scores.shape[0])
    return anchors[rows], classes


def check_finite(*arrays: np.ndarray) -> None:
    """Raises `ZooError` for NaN and infinity."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise ZooError("Boxes or scores hold NaN or infinity: the network overflowed; build it with fp32 or bf16.")


def _greedy(corners: np.ndarray, iou: float, max_det: int) -> list[int]:
    """Positions of at most `max_det` boxes of `corners` (4, K), best first, none overlapping an earlier one.

    In blocks, so that the arrays stay small and the work ends with the block that brings the last box.
    """
    kept: list[int] = []
    for start in range(0, corners.shape[1], _BLOCK):
        block = np.arange(start, min(start + _BLOCK, corners.shape[1]))
        block = block[~_overlap(corners[:, kept], corners[:, block], iou).any(axis=0)]
        overlaps = _overlap(corners[:, block], corners[:, block], iou)
        suppressed = np.zeros(block.size, bool)
        for row, position in enumerate(block.tolist()):
            if not suppressed[row]:
                suppressed |= overlaps[row]
                kept.append(position)
                if len(kept) == max_det:
                    return kept
    return kept


def _overlap(first: np.ndarray, second: np.ndarray, iou: float) -> np.ndarray:
    """Whether the intersection over union of boxes (4, M) and (4, N) is more than `iou`: (M, N)."""
    first = first[:, :, None]
    width = np.minimum(first[2], second[2]) - np.maximum(first[0], second[0])
    height = np.minimum(first[3], second[3]) - np.maximum(first[1], second[1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    area, other = ((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    with np.errstate(invalid="ignore"):  # two boxes of no area: 0 / 0 is not more than `iou`
        return shared / (area + other - shared) > np.float32(iou)


def counted(labels: Sequence[str]) -> str:
    """«4 persons, 1 bus»: how many there are of each, the most first."""
    counts = Counter(labels).most_common()
    words = [f"{count} {label if count == 1 else _plural(label)}" for label, count in counts[:MOST_COUNTED]]
    more = f" and {len(counts) - MOST_COUNTED} more classes" if len(counts) > MOST_COUNTED else ""
    return ", ".join(words) + more or "nothing found"


def _plural(label: str) -> str:
    return f"{label}es" if label.endswith(("s", "x", "ch", "sh")) else f"{label}s"


OPTIONS = (
    Option("conf", 0.25, "Detections must score more than this.", low=0, high=1, flags=("--conf-thres",)),
    Option(  # 0.7 is ultralytics' (YOLOv8 and later, YOLOv5u)
        "iou", 0.7, "Overlap at which the weaker of two boxes goes.", low=0, high=1, flags=("--iou-thres",)
    ),
    Option("max_det", 300, "Detections kept per picture.", low=1),
    Option("nms", True, "Drop boxes that a better one of their class overlaps; some networks need it not."),
)  # of `select`


class Found(Task):
    """The base of tasks that find objects: their results have `scores`, `classes`, `labels` and `boxes`."""

    options = OPTIONS
    whole = True
    finds_many = True

    def draw(self, image: np.ndarray, result: Any) -> np.ndarray:
        from zoo.images.draw import class_color, draw_boxes

        tags = [f"{label} {score:.2f}" for label, score in zip(result.labels, result.scores)]
        colors = [class_color(index) for index in result.classes.tolist()]
        return draw_boxes(image, result.boxes, tags, colors, getattr(result, "corners", None))

    def to_json(self, result: Any) -> dict[str, Any]:
        rows = zip(result.labels, result.classes.tolist(), result.scores.tolist())
        found = [{"label": label, "index": index, "score": round(score, 6)} for label, index, score in rows]
        return {"detections": [row | more for row, more in zip(found, self.places(result))]}

    def places(self, result: Any) -> list[dict[str, Any]]:
        """Where each object is, as JSON data."""
        return [{"box": rounded(box)} for box in result.boxes]

    def describe(self, result: Any) -> list[str]:
        rows = zip(result.labels, result.scores, result.boxes)
        lines = [f"{score:5.2f}  {label}  at {', '.join(f'{x:.0f}' for x in box)}" for label, score, box in rows]
        return lines or ["nothing found"]

    def summarize(self, result: Any) -> str:
        return counted(result.labels)


def rounded(values: np.ndarray) -> Any:
    """`values` as nested lists of numbers with three digits, which are thousandths of a pixel."""
    return np.round(values.astype(np.float64), 3).tolist()


class Detect(Found):
    """Where which objects are: boxes in input pixels, and scores in 0..1."""

    name = "detect"
    outputs = {"boxes": (4, "anchors"), "scores": (CLASSES, "anchors")}  # boxes are cx, cy, w, h
    options = (
        *OPTIONS,
        Option("multi_label", False, "An anchor counts for every class that scores enough, not for its best alone."),
        Option(
            "topk_candidates", 0, "Scores of each of five levels that are considered, as torchvision's; 0: all.", low=0
        ),
    )

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> Detections:
        chosen, scores = dict(options), outputs["scores"]
        count = chosen.pop("topk_candidates")
        if count:
            scores = best_of_levels(scores, placement.input, chosen["conf"], count)
        _, boxes, scores, classes = select(outputs["boxes"], scores, **chosen)
        return self.from_gpu((placement.to_image(boxes), scores, classes), labels)

    def gpu_decoder(
        self, cuda: Cuda, outputs: Mapping[str, DeviceArray], stream: Stream, options: Mapping[str, Any]
    ) -> Decoder | None:
        from zoo.runtime.kernels import Detector

        if not options["nms"] or options["multi_label"] or options["topk_candidates"]:
            return None
        chosen = {name: options[name] for name in ("conf", "iou", "max_det")}
        return Detector(cuda, outputs["boxes"], outputs["scores"], stream, **chosen)

    def from_gpu(self, found: tuple[np.ndarray, np.ndarray, np.ndarray], labels: Sequence[str]) -> Detections:
        return Detections(*found, [labels[index] for index in found[2]])
