"""The preprocessing that serves nearly all networks: resize, place, normalise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError, closest
from zoo.preprocess.resampling import Resampling
from zoo.preprocess.spec import Placement, Preprocess, known_as

if TYPE_CHECKING:
    import numpy as np

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # arXiv:2103.00020
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_CHOICES = {
    "place": ("stretch", "fit", "crop"),
    "interpolation": (
        *("pillow:nearest", "pillow:bilinear", "pillow:bicubic"),
        *("cv2:nearest", "cv2:bilinear", "cv2:bicubic", "cv2:area"),
    ),
    "color": ("RGB", "BGR", "GRAY"),
    "align": ("center", "corner"),
    "rounding": ("nearest", "down"),
}


@dataclass(frozen=True)
class Resize(Preprocess):
    """A picture resized with the bytes of Pillow or OpenCV, placed in the input, and normalised: (x / divisor - mean) /
    std, in float32.

    `place` says how. "stretch": to the size of the input, whatever its shape. "fit" (a letterbox): as large as it fits,
    in the middle or (`align` "corner") at the left top, the rest filled with the byte `pad`; of the input's height
    and width `margin` pixels stay free, and the picture's are rounded to the nearest pixel or (`rounding`) "down".
    "crop": the short side becomes `resize`, then the middle is cut out; at another input size than the published one
    the share of the picture stays the same.

    `interpolation` names the reference's library. Pillow (torchvision, timm) widens its filters when it shrinks
    (antialiasing); OpenCV (ultralytics, yolov5) does not, but for "cv2:area", which averages where it shrinks and is
    bilinear where it grows. `mean` and `std` hold a value for each channel in the order of `color`, or one for all;
    grey is as OpenCV makes it. Each side of the input must be a multiple of `stride`.
    """

    size: int | tuple[int, int] = 224
    place: str = "stretch"
    resize: int | None = None
    interpolation: str = "pillow:bilinear"
    divisor: float = 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    color: str = "RGB"
    pad: int = 0
    align: str = "center"
    stride: int = 1
    margin: int = 0
    rounding: str = "nearest"

    def __post_init__(self) -> None:
        for field, choices in _CHOICES.items():
            value = getattr(self, field)
            if value not in choices:
                hint = closest(str(value), choices)
                raise ZooError(f"{field} of a Resize is '{value}'; it must be one of {', '.join(choices)}{hint}")
        if (self.place == "crop") != (self.resize is not None):
            raise ZooError(f"`resize` of a Resize is for the place 'crop'; here {self.resize} and '{self.place}'")
        sides = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        per_channel = "a number for each channel, or one for all"
        for field, fits, what in (
            ("size", len(sides) == 2 and all(map(_counts, sides)), "a side or (height, width)"),
            ("resize", self.resize is None or _counts(self.resize), "a number of pixels"),
            ("stride", _counts(self.stride), "a number of pixels"),
            ("margin", self.margin == 0 or _counts(self.margin) and self.margin < min(sides), "a number of pixels"),
            ("pad", self.pad == 0 or _counts(self.pad) and self.pad < 256, "a byte"),
            ("divisor", _numbers((self.divisor,)) and self.divisor, "a number other than 0"),
            ("mean", _numbers(self.mean, self.channels), per_channel),
            ("std", _numbers(self.std, self.channels) and all(self.std), f"{per_channel}, none of them 0"),
        ):
            if not fits:
                raise ZooError(f"{field} of a Resize is {getattr(self, field)!r}; it must be {what}")

    @property
    def channels(self) -> int:  # type: ignore[override]
        return 1 if self.color == "GRAY" else 3

    @property
    def whole(self) -> bool:  # type: ignore[override]
        return self.place != "crop"

    def placement(self, picture: tuple[int, int], size: tuple[int, int]) -> Placement:
        place = {"stretch": _stretch, "fit": self._fit, "crop": self._crop}[self.place]
        return place(picture[::-1], size[::-1])

    def _fit(self, picture: tuple[int, int], size: tuple[int, int]) -> Placement:
        """ultralytics' LetterBox(auto=False): the same roundings."""
        ratio = min((side - self.margin) / own for side, own in zip(size, picture))
        whole = round if self.rounding == "nearest" else int
        resized = (max(whole(picture[0] * ratio), 1), max(whole(picture[1] * ratio), 1))
        left, top = (round((side - new) / 2 - 0.1) for side, new in zip(size, resized))
        return Placement(picture, resized, (left, top) if self.align == "center" else (0, 0), size)

    def rectangle(self, picture: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
        """The smallest input (height, width) in which a letterboxed picture is as large as in `size`: that of
        ultralytics' LetterBox(auto=True). `size` itself where there is no letterbox."""
        if self.place != "fit":
            return size
        width, height = self._fit(picture[::-1], size[::-1]).resized
        return -(-height // self.stride) * self.stride, -(-width // self.stride) * self.stride

    def _crop(self, picture: tuple[int, int], size: tuple[int, int]) -> Placement:
        """torchvision's Resize(self.resize) and CenterCrop: the same roundings."""
        assert self.resize is not None
        short = round(self.resize * max(size) / max(self.input[1:]))
        if short < max(size):
            raise ZooError(
                f"A picture resized to {short} is too small for a crop of {size[1]}x{size[0]}; raise `resize`."
            )
        long = int(short * max(picture) / min(picture))
        resized = (short, long) if picture[0] < picture[1] else (long, short)
        left, top = (-round((new - side) / 2) for side, new in zip(size, resized))
        return Placement(picture, resized, (left, top), size)

    def pixels(self, image: np.ndarray, placement: Placement) -> np.ndarray:
        from zoo.preprocess.pixels import prepare

        return prepare(image, self, placement)

    def bytes(self, image: np.ndarray, placement: Placement) -> np.ndarray:
        from zoo.preprocess.pixels import placed

        return placed(image, self, placement)

    def resampling(self, placement: Placement) -> Resampling | None:
        from zoo.preprocess.tables import axes, rows_first

        tables = axes(self.interpolation, placement)
        if tables is None or self.color == "GRAY":
            return None
        mean, std = (values * 3 if len(values) == 1 else values for values in (self.mean, self.std))
        return Resampling(
            *tables,
            corner=(max(placement.offset[0], 0), max(placement.offset[1], 0)),
            fixed_point="cv2" if self.interpolation == "cv2:bilinear" else "pillow",
            rows_first=rows_first(placement),
            pad=self.pad,
            divisor=self.divisor,
            mean=mean,  # type: ignore[arg-type]
            std=std,  # type: ignore[arg-type]
            bgr=self.color == "BGR",
        )


def _counts(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _numbers(values: Any, channels: int = 1) -> bool:
    return (
        isinstance(values, tuple) and len(values) in (1, channels) and all(isinstance(v, int | float) for v in values)
    )


def _stretch(picture: tuple[int, int], size: tuple[int, int]) -> Placement:
    return Placement(picture, size, (0, 0), size)


def imagenet(
    resize: int | None = None,
    size: int = 224,
    *,
    share: float = 0.875,
    interpolation: str = "pillow:bilinear",
    divisor: float = 255.0,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Resize:
    """ImageNet evaluation as torchvision and timm do it: resize the short side, crop the centre, RGB, normalise.

    `resize` is the short side (torchvision); without it, the crop is this `share` of it (timm's crop_pct).
    """
    resize = math.floor(size / share) if resize is None else resize
    return Resize(size, "crop", resize, interpolation, divisor, mean, std)


def stretched(size: int | tuple[int, int], *, interpolation: str = "pillow:bilinear", stride: int = 1) -> Resize:
    """What tells every pixel's class or distance: the whole picture in the size of the input, RGB, as ImageNet's."""
    return Resize(size, interpolation=interpolation, mean=IMAGENET_MEAN, std=IMAGENET_STD, stride=stride)


def letterbox(size: int | tuple[int, int] = 640, *, pad: int = 114, stride: int = 32) -> Resize:
    """YOLO as ultralytics and yolov5 do it: scaled to fit, on a canvas of `pad` grey, RGB in 0..1."""
    return Resize(size, "fit", interpolation="cv2:bilinear", pad=pad, stride=stride)


def pasted(size: int | tuple[int, int] = (800, 1344), *, stride: int = 32) -> Resize:
    """torchvision's detectors: scaled to fit and put into the left top corner, RGB, as ImageNet's. They pad with zeros
    after normalising, which is this grey but for 0.2 of red and 0.2 of blue."""
    spec = stretched(size, interpolation="cv2:bilinear", stride=stride)
    return replace(spec, place="fit", pad=116, align="corner")


def gray(size: int) -> Resize:
    """One grey channel in 0..1, stretched to a square; shrinking averages, so that thin strokes survive."""
    return Resize(size, interpolation="cv2:area", color="GRAY")


# Kinds of descriptions written before all of them were one.


@known_as("CenterCrop")
def _center_crop(
    resize: int = 256,
    size: int = 224,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Resize:
    return imagenet(resize, size, mean=mean, std=std)


@known_as("Letterbox")
def _letterbox(size: int = 640, fill: int = 114, stride: int = 32) -> Resize:
    return letterbox(size, pad=fill, stride=stride)


@known_as("Gray")
def _gray(size: int = 32) -> Resize:
    return gray(size)
