"""Pixels to network input, and the way back. Importing this imports no library."""

from zoo.preprocess.resampling import Axis, Resampling
from zoo.preprocess.resize import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Resize,
    gray,
    imagenet,
    letterbox,
    pasted,
    stretched,
)
from zoo.preprocess.spec import Placement, Preprocess, from_dict
from zoo.preprocess.tiles import Span, Tile, tiles

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Axis",
    "Placement",
    "Preprocess",
    "Resampling",
    "Resize",
    "Span",
    "Tile",
    "from_dict",
    "gray",
    "imagenet",
    "letterbox",
    "pasted",
    "stretched",
    "tiles",
]
