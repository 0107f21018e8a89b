"""What a network expects its pixels to be: plain data that travels with models, weights and engines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class CenterCrop:
    """ImageNet evaluation as torchvision does it: resize the short side, crop the centre, RGB, normalise."""

    resize: int = 256
    size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @property
    def input(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network gets."""
        return (3, self.size, self.size)


@dataclass(frozen=True)
class Letterbox:
    """YOLO: scale to fit, centre on a canvas of `fill` grey, RGB in 0..1. `size` must be a multiple of `stride`."""

    size: int = 640
    fill: int = 114
    stride: int = 32

    @property
    def input(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network gets."""
        return (3, self.size, self.size)


@dataclass(frozen=True)
class Gray:
    """One grey channel in 0..1, resized to a square."""

    size: int = 32

    @property
    def input(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network gets."""
        return (1, self.size, self.size)


Preprocess = CenterCrop | Letterbox | Gray


def to_dict(spec: Preprocess) -> dict[str, Any]:
    """`spec` as JSON data, with its kind."""
    return {"kind": type(spec).__name__, **asdict(spec)}


def from_dict(data: dict[str, Any]) -> Preprocess:
    """The inverse of `to_dict`: lists become tuples again."""
    kinds = {"CenterCrop": CenterCrop, "Letterbox": Letterbox, "Gray": Gray}
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key != "kind"}
    return kinds[data["kind"]](**fields)
