"""Embedding: a picture as a vector, for search, grouping and comparison."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.preprocess import Placement
from zoo.tasks import Result, Task

MOST_COMPARED, MOST_TOLD = 1000, 10  # pictures, and pairs of them


@dataclass(frozen=True, eq=False)
class Embedding(Result):
    """`embedding` (D,) float32, as the network gave it: alike pictures have vectors of alike directions."""

    embedding: np.ndarray

    def similarity(self, other: Embedding) -> float:
        """The cosine of the angle between two embeddings of one network: 1 for the same direction.

        Raises ZooError for embeddings of different sizes.
        """
        a, b = self._with(other)
        return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))

    def distance(self, other: Embedding) -> float:
        """How far apart two embeddings of one network are (Euclidean), which re-identification ranks by.

        Raises ZooError for embeddings of different sizes.
        """
        a, b = self._with(other)
        return float(np.linalg.norm(a - b))

    def _with(self, other: Embedding) -> tuple[np.ndarray, np.ndarray]:
        if self.embedding.shape != other.embedding.shape:
            sizes = f"{self.embedding.size} and {other.embedding.size} numbers"
            raise ZooError(f"Embeddings of {sizes} cannot be compared; they must be of one network.")
        return self.embedding.astype(np.float64), other.embedding.astype(np.float64)


class Embed(Task):
    """What the picture looks like, as numbers."""

    name = "embed"
    outputs = {"embedding": ("features",)}

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> Embedding:
        if not np.isfinite(outputs["embedding"]).all():
            raise ZooError("The embedding holds NaN or infinity: the network overflowed; build it with fp32 or bf16.")
        return Embedding(outputs["embedding"].astype(np.float32))

    def draw(self, image: np.ndarray, result: Embedding) -> np.ndarray:
        """The picture as it is: numbers have no place in it."""
        return image.copy()

    def to_json(self, result: Embedding) -> dict[str, Any]:
        return {"embedding": [round(float(value), 6) for value in result.embedding]}

    def describe(self, result: Embedding) -> list[str]:
        first = ", ".join(f"{value:.3f}" for value in result.embedding[:4])
        return [f"{result.embedding.size} numbers of length {np.linalg.norm(result.embedding):.3f}: {first}, …"]

    def compare(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """The similarities of pairs of pictures, the most alike first. Frames of a video, and more than
        `MOST_COMPARED` pictures, are not compared."""
        pictures = [record for record in records if "frame" not in record]
        if not 2 <= len(pictures) <= MOST_COMPARED:
            return []
        vectors = np.array([picture["embedding"] for picture in pictures], np.float64)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        cosines = vectors @ vectors.T
        pairs = sorted(itertools.combinations(range(len(pictures)), 2), key=lambda pair: -cosines[pair])
        return [
            f"{cosines[a, b]:6.3f}  {pictures[a]['source']} and {pictures[b]['source']}" for a, b in pairs[:MOST_TOLD]
        ]
