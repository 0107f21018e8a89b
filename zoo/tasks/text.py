"""Text in a picture: where words are, and what they say where a cascade reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.preprocess import Placement
from zoo.tasks import Option, Result, Task
from zoo.tasks.detect import check_finite, rounded

GROWTH = 1.5  # the area over the circumference, times this, is what a box grows by on every side
SMALLEST = 2  # pixels of the map


@dataclass(frozen=True, eq=False)
class Texts(Result):
    """Words from top to bottom: `boxes` (K, 4) float32 x1, y1, x2, y2 in pixels of the picture, `scores` (K,) float32
    in 0..1, how sure it is that there is one. Where they were read, `texts` are K strings, and `sure` (K,) float32
    says how sure they are; else they are empty."""

    boxes: np.ndarray
    scores: np.ndarray
    texts: tuple[str, ...] = ()
    sure: np.ndarray | None = None


def words(likely: np.ndarray, threshold: float, conf: float) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (K, 4) float32 x1, y1, x2, y2 and scores (K,) float32 of the words in a map (h, w) of how likely text is.

    As docTR 1.1's DBPostProcessor for upright pages: what is at least `threshold`, without specks, in boxes that grow
    back to what they were before they were shrunk to be told apart. Boxes may reach beyond the map.
    """
    from zoo.images.polygons import opened, outlines

    boxes, scores = [], []
    for points in outlines(opened(likely >= np.float32(threshold))):
        low, high = points.min(axis=0), points.max(axis=0)
        if (high - low < SMALLEST).any():
            continue
        side = high - low + 1
        inside = likely[low[1] : high[1] + 2, low[0] : high[0] + 2]
        if inside.mean() < conf:
            continue
        far = side.prod() * GROWTH / (2 * side.sum())
        first, last = np.floor(low - far + 0.5), np.floor(low + side + far + 0.5)
        boxes.append([*first, *(last + 1)])
        scores.append(inside.mean())
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)


class FindText(Task):
    """A map of the input: how likely each pixel is in the middle of text."""

    name = "text"
    outputs = {"text": ("height", "width")}
    options = (
        Option("conf", 0.1, "Words must score at least this.", low=0, high=1),
        Option("bin_thresh", 0.3, "Pixels of a word must be as likely as this.", low=0, high=1),
    )
    whole = True
    finds_many = True

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> Texts:
        likely = outputs["text"]
        check_finite(likely)
        boxes, scores = words(likely, options["bin_thresh"], options["conf"])
        boxes = placement.to_image(boxes)
        seen = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1))  # the border of a letterbox is none
        order = seen[np.lexsort((boxes[seen, 0], boxes[seen, 1]))]
        return Texts(boxes[order], scores[order])

    def draw(self, image: np.ndarray, result: Texts) -> np.ndarray:
        from zoo.images.draw import class_color, draw_boxes

        tags = list(result.texts) or [f"{score:.2f}" for score in result.scores]
        return draw_boxes(image, result.boxes, tags, [class_color(0)] * len(tags))

    def to_json(self, result: Texts) -> dict[str, Any]:
        found = [{"score": round(s, 6), "box": rounded(b)} for s, b in zip(result.scores.tolist(), result.boxes)]
        if result.sure is not None:
            read = zip(found, result.texts, result.sure.tolist())
            found = [{"text": text, "sure": round(sure, 6), **word} for word, text, sure in read]
        return {"words": found}

    def describe(self, result: Texts) -> list[str]:
        sure = result.scores if result.sure is None else result.sure
        texts = result.texts or ("",) * len(sure)
        rows = zip(sure, result.boxes, texts)
        lines = [f"{s:5.2f}  at {', '.join(f'{x:.0f}' for x in box)}  {text}".rstrip() for s, box, text in rows]
        return lines or ["no text found"]

    def summarize(self, result: Texts) -> str:
        count = len(result.scores)
        found = f"{count or 'no'} word{'' if count == 1 else 's'}"
        return f"{found}: {' '.join(result.texts)}" if any(result.texts) else found
