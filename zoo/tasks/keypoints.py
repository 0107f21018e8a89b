"""Interest points: places of a picture that are found again in another one, and descriptors to match them by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.preprocess import Placement
from zoo.tasks import Option, Result, Task
from zoo.tasks.detect import check_finite, rounded


@dataclass(frozen=True, eq=False)
class Keypoints(Result):
    """Points, best first: `points` (K, 2) float32 x, y in pixels of the picture, `scores` (K,) float32 in 0..1, and
    `descriptors` (K, D) float32 of length 1, which are alike where points show the same."""

    points: np.ndarray
    scores: np.ndarray
    descriptors: np.ndarray

    def matches(self, other: Keypoints, similarity: float = 0.0) -> np.ndarray:
        """Pairs (M, 2) of a point here and one of another picture, each of which is the most alike to the other, with a
        cosine of at least `similarity`. Raises ZooError for descriptors of different sizes."""
        if self.descriptors.shape[1:] != other.descriptors.shape[1:]:
            sizes = f"{self.descriptors.shape[1]} and {other.descriptors.shape[1]} numbers"
            raise ZooError(f"Descriptors of {sizes} cannot be matched; they must be of one network.")
        if not len(self.points) or not len(other.points):
            return np.zeros((0, 2), np.int64)
        cosines = self.descriptors @ other.descriptors.T
        there = cosines.argmax(axis=1)
        here = np.flatnonzero(cosines.argmax(axis=0)[there] == np.arange(len(there)))
        pairs = np.stack([here, there[here]], axis=1)
        return pairs[cosines[pairs[:, 0], pairs[:, 1]] >= similarity]


def sampled(descriptors: np.ndarray, points: np.ndarray, cell: int) -> np.ndarray:
    """The descriptors (K, D), of length 1, at `points` (K, 2) x, y of the input, between those (D, h, w) of its cells.

    As SuperPoint's authors place them: the last cell's middle is half a pixel farther than it would be, and what lies
    beside the middles of the outer cells fades into zeros.
    """
    sides = np.float32(descriptors.shape[:0:-1])  # w, h
    place = (points - np.float32((cell - 1) / 2)) / (sides * cell - np.float32(cell / 2 + 0.5)) * (sides - 1)
    first = np.floor(place).astype(np.int64)
    padded = np.pad(descriptors, ((0, 0), (1, 2), (1, 2)))
    found = np.zeros((len(descriptors), len(points)), np.float32)
    for right in (0, 1):
        for below in (0, 1):
            corner = first + (right, below)
            share = (1 - np.abs(place - corner)).prod(axis=1)
            found += share * padded[:, corner[:, 1] + 1, corner[:, 0] + 1]
    return (found / np.maximum(np.linalg.norm(found, axis=0), 1e-12)).T


class FindKeypoints(Task):
    """Scores of all pixels of the input, and descriptors of length 1 of its square cells."""

    name = "keypoints"
    outputs = {"scores": ("height", "width"), "descriptors": ("features", "rows", "columns")}
    options = (
        Option("conf", 0.005, "Points must score more than this.", low=0, high=1),
        Option("radius", 4, "Pixels of the input around a point without a better one.", low=0),
        Option("margin", 4, "Pixels at the border of the input without points.", low=0),
        Option("most", 0, "How many points at most, the best; 0 for all.", low=0),
    )
    whole = True
    finds_many = True

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> Keypoints:
        from zoo.images.peaks import peaks

        scores, descriptors, margin = outputs["scores"], outputs["descriptors"].astype(np.float32), options["margin"]
        check_finite(scores, descriptors)
        found = peaks(scores, options["radius"]) & (scores > np.float32(options["conf"]))
        rows, columns = np.nonzero(found)
        inside = np.minimum(rows, columns) >= margin
        inside &= (rows < scores.shape[0] - margin) & (columns < scores.shape[1] - margin)
        best = np.argsort(-scores[rows, columns][inside], kind="stable")[: options["most"] or None]
        rows, columns = rows[inside][best], columns[inside][best]
        points = np.stack([columns, rows], axis=1).astype(np.float32)
        told = sampled(descriptors, points, scores.shape[0] // descriptors.shape[1])
        return Keypoints(placement.points_to_image(points), scores[rows, columns].astype(np.float32), told)

    def draw(self, image: np.ndarray, result: Keypoints) -> np.ndarray:
        from zoo.images.draw import draw_skeletons, enlarged

        canvas, scale = enlarged(image)
        return draw_skeletons(canvas, result.points[:, None] * scale, np.ones((len(result.points), 1), bool), ())

    def to_json(self, result: Keypoints) -> dict[str, Any]:
        """Points and scores: descriptors are many numbers, for matching in Python."""
        rows = zip(result.scores.tolist(), result.points)
        return {"points": [{"score": round(score, 6), "at": rounded(point)} for score, point in rows]}

    def describe(self, result: Keypoints) -> list[str]:
        rows = zip(result.scores, result.points)
        return [f"{score:6.3f}  at {x:.0f}, {y:.0f}" for score, (x, y) in rows] or ["no point found"]

    def summarize(self, result: Keypoints) -> str:
        count = len(result.scores)
        return f"{count or 'no'} point{'' if count == 1 else 's'}"
