"""Where a picture lies in the network input: what preprocessing on the CPU and on the GPU share. Needs no pixels."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import ZooError
from zoo.tasks.spec import CenterCrop


@dataclass(frozen=True)
class Geometry:
    """Where a picture lies in the network input: input = picture x scale + offset; sizes are (width, height)."""

    picture: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        return self.resized[0] / self.picture[0], self.resized[1] / self.picture[1]


def letterbox_geometry(picture: tuple[int, int], size: tuple[int, int]) -> Geometry:
    """ultralytics' LetterBox(auto=False, center=True): the same roundings; sizes are (width, height)."""
    ratio = min(size[1] / picture[1], size[0] / picture[0])
    resized = (max(round(picture[0] * ratio), 1), max(round(picture[1] * ratio), 1))
    return Geometry(
        picture, resized, (round((size[0] - resized[0]) / 2 - 0.1), round((size[1] - resized[1]) / 2 - 0.1))
    )


def center_crop_geometry(picture: tuple[int, int], size: tuple[int, int], spec: CenterCrop) -> Geometry:
    """torchvision's Resize(spec.resize) and CenterCrop; another crop size keeps the share of the picture.

    Sizes are (width, height). Raises ZooError when the crop is larger than the resized picture.
    """
    short = round(spec.resize * max(size) / spec.size)
    if short < max(size):
        raise ZooError(f"A picture resized to {short} is too small for a crop of {size[1]}x{size[0]}; raise `resize`.")
    long = int(short * max(picture) / min(picture))
    resized = (short, long) if picture[0] < picture[1] else (long, short)
    return Geometry(picture, resized, (-round((resized[0] - size[0]) / 2), -round((resized[1] - size[1]) / 2)))
