"""A picture that no network is as large as, cut into overlapping tiles of the network's size."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import ZooError


@dataclass(frozen=True)
class Span:
    """One side of a tile, in pixels of the picture: it begins at `start`, and answers for `first` … `end` - 1."""

    start: int
    first: int
    end: int


@dataclass(frozen=True)
class Tile:
    """A part of a picture that a network sees at once, by its rows and its columns."""

    rows: Span
    columns: Span


def tiles(picture: tuple[int, int], size: tuple[int, int], overlap: int, stride: int) -> list[Tile]:
    """The tiles of `size` for a picture, both (height, width), row by row. Each pixel is answered for by one tile, that
    sees `overlap` pixels or the border of the picture on every side of it.

    So what a network of no wider view than `overlap` says of it is what it says of the whole picture. Tiles begin at
    multiples of `stride`. The last ones may reach beyond the picture by less than that, or where it is smaller than a
    tile. Raises ZooError for tiles that are all overlap.
    """
    rows, columns = (_spans(*sides, overlap, stride) for sides in zip(picture, size))
    return [Tile(row, column) for row in rows for column in columns]


def _spans(length: int, side: int, overlap: int, stride: int) -> list[Span]:
    whole = max(-(-length // stride) * stride, side)
    if whole == side:
        return [Span(0, 0, length)]
    step = (side - 2 * overlap) // stride * stride
    if step <= 0:
        raise ZooError(
            f"tiles of {side} pixels that overlap by {overlap} on each side leave nothing between; use a larger --size "
            f"(more than {2 * overlap}) or a smaller --overlap"
        )
    gaps = -(-(whole - side) // step)
    starts = [i * ((whole - side) // stride) // gaps * stride for i in range(gaps + 1)]
    edges = [0, *(start + overlap for start in starts[1:]), length]
    return [Span(start, first, end) for start, first, end in zip(starts, edges, edges[1:])]
