"""What a network expects its pixels to be: plain data that travels with models, weights and engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError, closest
from zoo.preprocess.resampling import Resampling

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Placement:
    """Where a picture lies in the network input: input = picture x scale + offset. All pairs are (x, y)."""

    picture: tuple[int, int]  # (width, height)
    resized: tuple[int, int]  # the same after scaling
    offset: tuple[int, int]  # of its left top corner; negative where a crop cut it away
    input: tuple[int, int]  # (width, height) of the network input

    @property
    def scale(self) -> tuple[float, float]:
        return self.resized[0] / self.picture[0], self.resized[1] / self.picture[1]

    def to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (..., 4) x1, y1, x2, y2 of the network input as picture pixels, clipped to the picture."""
        return self._points(boxes, 2)

    def points_to_image(self, points: np.ndarray, *, clip: bool = True) -> np.ndarray:
        """Points (..., 2) x, y of the network input as picture pixels, clipped to the picture if `clip`."""
        return self._points(points, 1, clip)

    def map_to_image(self, values: np.ndarray, *, smooth: bool = True) -> np.ndarray:
        """A map (h, w) or (h, w, C) that covers the network input, at any resolution, as one of the picture's size.

        `smooth` interpolates, in float32; without it every pixel takes its nearest value, as class numbers must.
        """
        from zoo.preprocess.pixels import map_to_image

        return map_to_image(values, self, smooth)

    def masks_to_image(self, logits: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Masks (K, H, W) bool of the picture's size: where `logits` (K, h, w), maps of the network input, are positive
        once interpolated, inside `boxes` (K, 4) x1, y1, x2, y2 of the picture.

        As `ultralytics.utils.ops.process_mask_native`: the border of the picture goes on, what lies beside it in the
        input does not reach in.
        """
        from zoo.preprocess.pixels import masks_to_image

        return masks_to_image(logits, boxes, self)

    def _points(self, values: np.ndarray, points: int, clip: bool = True) -> np.ndarray:
        import numpy as np

        moved = (values - np.float32(self.offset * points)) / np.float32(self.scale * points)
        if not clip:
            return moved
        return np.clip(moved, np.float32(0), np.float32(self.picture * points))


class Preprocess:
    """The base of all preprocessing. A subclass is a frozen dataclass whose fields are JSON data; it is found by its
    class's name, its kind.

    `size` is the published input size, a side or (height, width), and `stride` what each side must be a multiple of.
    """

    size: int | tuple[int, int]
    stride: int
    channels: int  # 1 or 3
    whole: bool  # whether the network sees the whole picture, with nothing cropped

    def __init_subclass__(cls) -> None:
        known = _kinds.setdefault(cls.__name__, cls)
        if known.__module__ != cls.__module__:
            raise ValueError(f"two preprocessings are named {cls.__name__}: in {known.__module__} and {cls.__module__}")

    @property
    def input(self) -> tuple[int, int, int]:
        """(C, H, W) of the network input at its published size."""
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        return self.channels, height, width

    def placement(self, picture: tuple[int, int], size: tuple[int, int]) -> Placement:
        """Where a picture lies in an input; both (height, width)."""
        raise NotImplementedError

    def pixels(self, image: np.ndarray, placement: Placement) -> np.ndarray:
        """The network input (C, H, W) float32 for a picture (H, W, 3) uint8 BGR."""
        raise NotImplementedError

    def bytes(self, image: np.ndarray, placement: Placement) -> np.ndarray:
        """The same before it is normalised: (H, W, C) uint8, BGR or grey. Only `Resize` has such bytes."""
        raise ZooError(f"{type(self).__name__} does not end in bytes that are only to be normalised")

    def resampling(self, placement: Placement) -> Resampling | None:
        """The same for the GPU, or None when it has no kernel: then the picture is prepared on the CPU."""
        return None

    def apply(self, image: np.ndarray, size: tuple[int, int] | None = None) -> tuple[np.ndarray, Placement]:
        """The network input (C, H, W) float32 for one picture (H, W, 3) uint8 BGR, and where the picture lies in it.

        `size` is the (height, width) of the network input, without it the published one. Raises `ZooError` for a size
        that the network cannot have.
        """
        placement = self._placed(image, size)
        return self.pixels(image, placement), placement

    def apply_bytes(self, image: np.ndarray, size: tuple[int, int] | None = None) -> tuple[np.ndarray, Placement]:
        """The same for a network that normalises: (H, W, C) uint8, BGR or grey."""
        placement = self._placed(image, size)
        return self.bytes(image, placement), placement

    def _placed(self, image: np.ndarray, size: tuple[int, int] | None) -> Placement:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != "uint8" or not image.size:
            raise ZooError(f"Expected a picture (H, W, 3) of uint8, got {image.shape} of {image.dtype}.")
        height, width = size or self.input[1:]
        self.check_size(height, width)
        return self.placement(image.shape[:2], (height, width))

    def check_size(self, height: int, width: int) -> None:
        """Raise `ZooError`, naming the nearest valid sizes, unless the network input can be `height` x `width`."""
        stride = self.stride
        for side in (height, width):
            if side <= 0 or side % stride:
                below = side // stride * stride
                nearest = f"{below} or {below + stride}" if below > 0 else f"{stride}"
                rule = f"a multiple of {stride}" if stride > 1 else "positive"
                raise ZooError(
                    f"An input of {height}x{width} is impossible: each side must be {rule}; "
                    f"nearest to {side}: {nearest}."
                )

    def to_dict(self) -> dict[str, Any]:
        """JSON data, with the kind."""
        return {"kind": type(self).__name__, **asdict(self)}  # type: ignore[call-overload]  # subclasses are dataclasses


_kinds: dict[str, Callable[..., Preprocess]] = {}


def known_as(kind: str) -> Callable[[Callable[..., Preprocess]], Callable[..., Preprocess]]:
    """A decorator: descriptions of this former kind are read by the function."""

    def decorator(make: Callable[..., Preprocess]) -> Callable[..., Preprocess]:
        _kinds[kind] = make
        return make

    return decorator


def from_dict(data: dict[str, Any]) -> Preprocess:
    """The inverse of `to_dict`; lists become tuples again. Raises `ZooError` for what describes no preprocessing.

    A "shape" is left out: the metadata of weights states the network's input beside its preprocessing.
    """
    if not isinstance(data, dict):
        raise ZooError(f"{data!r} describes no preprocessing; expected an object with its kind")
    kind = str(data.get("kind"))
    if kind not in _kinds:
        hint = closest(kind, _kinds)
        raise ZooError(f"no preprocessing is of the kind '{kind}'; there are {', '.join(sorted(_kinds))}{hint}")
    fields = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in data.items()
        if key not in ("kind", "shape")
    }
    try:
        return _kinds[kind](**fields)
    except (TypeError, ValueError) as error:
        raise ZooError(f"{data} describes no preprocessing: {error}") from None
