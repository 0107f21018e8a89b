"""Input shapes: one static shape, or the min/opt/max of an optimisation profile."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from zoo.errors import ZooError
from zoo.registry import Model

INPUT = "images"  # the name of the network's input

Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Shapes:
    """The smallest, the tuned-for and the largest (N, C, H, W) that an engine takes; all equal when it is static.

    `parts` are its optimisation profiles where there are several: ranges with kernels of their own.
    """

    min: Shape
    opt: Shape
    max: Shape
    parts: tuple[Shapes, ...] = ()

    def __post_init__(self) -> None:
        if any(n < 1 for shape in (self.min, self.opt, self.max) for n in shape):
            raise ZooError(f"shapes must be positive, found {self}")
        if not all(a <= b <= c for a, b, c in zip(self.min, self.opt, self.max)):
            raise ZooError(f"shapes must not shrink from min over opt to max, found {self}")

    @classmethod
    def static(cls, shape: Shape) -> Shapes:
        return cls(shape, shape, shape)

    @classmethod
    def of(cls, *profiles: Shapes) -> Shapes:
        """Several optimisation profiles as one range, tuned for what the first is."""
        first, *others = profiles
        if not others:
            return first
        low = tuple(map(min, *(profile.min for profile in profiles)))
        high = tuple(map(max, *(profile.max for profile in profiles)))
        return cls(low, first.opt, high, profiles)  # type: ignore[arg-type]

    @property
    def profiles(self) -> tuple[Shapes, ...]:
        """The optimisation profiles, at least one."""
        return self.parts or (self,)

    @property
    def open_sides(self) -> bool:
        """Whether the height or the width varies."""
        return self.min[2:] != self.max[2:]

    @property
    def dynamic(self) -> bool:
        return self.min != self.max

    @property
    def batches(self) -> tuple[int, int]:
        """The smallest and the largest batch."""
        return self.min[0], self.max[0]

    @property
    def network(self) -> Shape:
        """The shape to define the network with: -1 where it varies."""
        return tuple(a if a == b else -1 for a, b in zip(self.min, self.max))  # type: ignore[return-value]

    def __str__(self) -> str:
        if self.parts:
            return " and ".join(map(str, self.parts))
        shapes = (self.min, self.opt, self.max) if self.dynamic else (self.min,)
        return " / ".join("x".join(map(str, shape)) for shape in shapes)


def nearest(shape: Sequence[int], ranges: Iterable[tuple[Any, Any, Any]], multiples: Mapping[int, int] = {}) -> Any:
    """The shape nearest to `shape` inside one of the `ranges` (min, opt, max), `shape` itself where it fits.

    `multiples` says of which number the size along an axis must be a multiple; the ends of the ranges are.
    """

    def inside(low: Any, high: Any) -> tuple[int, ...]:
        found = []
        for axis, (size, a, b) in enumerate(zip(shape, low, high)):
            step = multiples.get(axis, 1)
            found.append(min(max(round(size / step) * step, a), b))
        return tuple(found)

    return min(
        (inside(low, high) for low, _, high in ranges),
        key=lambda found: sum(abs(a - b) for a, b in zip(found, shape)),
    )


def input_shapes(model: Model, batch: int | tuple[int, int, int] = 1, size: tuple[int, int] | None = None) -> Shapes:
    """The shapes for a fixed batch, or for a (min, opt, max) batch, at `size` (H, W) or the model's own."""
    channels, *own = model.input
    batches = (batch,) * 3 if _is_count(batch) else batch
    if not (isinstance(batches, (tuple, list)) and len(batches) == 3 and all(map(_is_count, batches))):
        forms = "a positive number such as 8, or (min, opt, max) such as (1, 8, 32)"
        raise ZooError(f"the batch is {batch!r}; it must be {forms}")
    sides = own if size is None else size
    if not (isinstance(sides, (tuple, list)) and len(sides) == 2 and all(map(_is_count, sides))):
        raise ZooError(f"the size is {size!r}; it must be positive: (height, width), such as (480, 640)")
    return Shapes(*((int(n), channels, *map(int, sides)) for n in batches))  # type: ignore[arg-type]


def ranged_shapes(model: Model, batch: int = 1, size: str | None = None) -> Shapes:
    """The shapes of a --size that may be a range, as "320-1280": tuned for the model's own size where that is inside,
    else for the largest."""
    if size is None or "-" not in size:
        return input_shapes(model, batch, parse_size(size) if size else None)
    ends = parse_sizes(size)
    low, high = (input_shapes(model, batch, end).opt for end in ends)
    own = input_shapes(model, batch).opt
    return Shapes(low, own if all(a <= n <= b for a, n, b in zip(low, own, high)) else high, high)


def _is_count(value: object) -> bool:
    """A whole number of at least 1, NumPy's included, that TensorRT can take."""
    return isinstance(value, Integral) and not isinstance(value, bool) and 1 <= value < 2**31


def parse_size(text: str) -> tuple[int, int]:
    """ "224" or "480x640" (height x width) as (H, W)."""
    match = re.fullmatch(r"([0-9]{1,9})(?:[x,]([0-9]{1,9}))?", text)
    if not match:
        raise ZooError(f"the size '{text}' is not a number such as 224 nor height x width such as 480x640")
    height = int(match[1])
    return height, int(match[2] or height)


def parse_sizes(text: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """ "320-1280" or "320x320-640x1280" as the smallest and the largest (H, W); "224" as twice the same."""
    low, dash, high = text.partition("-")
    first = parse_size(low)
    return first, parse_size(high) if dash else first


def parse_shape(text: str) -> Shape:
    """ "8x3x224x224", or trtexec's "images:8x3x224x224"."""
    name, colon, sizes = text.rpartition(":")
    if colon and name != INPUT:
        raise ZooError(f"the shape '{text}' is of an input '{name}', and the network has one, '{INPUT}'")
    match = re.fullmatch("x".join([r"([0-9]{1,9})"] * 4), sizes)
    if not match:
        raise ZooError(f"the shape '{text}' is not four numbers NxCxHxW such as 8x3x224x224")
    return tuple(map(int, match.groups()))  # type: ignore[return-value]
