"""What draws results. Each size follows from the picture's, so that text can be read on 8x8 as on 4000x3000."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from zoo.text import LONGEST_LABEL, clean

Color = tuple[int, int, int]  # blue, green, red
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom

_MOST_PIXELS = 1 << 22  # of a panel that is much wider than the picture
_FONT = cv2.FONT_HERSHEY_DUPLEX
_PALETTE = (  # red, green, blue; neighbours far apart, all bright enough for dark and light pictures
    "2d7ff9 ff6b35 20c997 f72585 ffc300 8b5cf6 e63946 06b6d4 84cc16 ff8fab "
    "b5651d 10a34a c77dff f4a261 00e5a8 d946ef 4361ee bfd200 ff4d6d 5bc0eb"
).split()
_BLACK, _WHITE = (24, 20, 20), (255, 255, 255)
_PANEL, _TRACK, _BAR, _BEST, _MUTED = (34, 27, 24), (62, 52, 47), (150, 122, 104), (80, 200, 120), (196, 184, 176)


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    tags: Sequence[str],
    colors: Sequence[Color],
    outlines: np.ndarray | None = None,
) -> np.ndarray:
    """A copy of `image` with boxes (K, 4) x1, y1, x2, y2 and a tag on each, the first ones on top. `outlines` (K, 4, 2)
    are the corners of turned boxes that are drawn instead."""
    canvas, factor = enlarged(image)
    pen = Pen(canvas)
    corners = [tuple(round(side * factor) for side in box) for box in boxes.tolist()]
    places = _free_places([pen.places(tag, box) for tag, box in zip(tags, corners)])
    if outlines is not None:
        for outline, color in reversed(list(zip(np.rint(outlines * factor).astype(np.int32), colors))):
            cv2.polylines(canvas, [outline], True, color, pen.line, cv2.LINE_AA)
    else:
        for (left, top, right, bottom), color in reversed(list(zip(corners, colors))):
            cv2.rectangle(canvas, (left, top), (right, bottom), color, pen.line, cv2.LINE_AA)
    for tag, place, color in reversed(list(zip(tags, places, colors))):
        pen.tag(tag, place, color)
    return canvas


def draw_skeletons(
    image: np.ndarray, points: np.ndarray, seen: np.ndarray, limbs: Sequence[tuple[int, int]]
) -> np.ndarray:
    """A copy of `image` with points (K, points, 2) x, y and the limbs between two of them, each in a colour of its own,
    where they are `seen` (K, points)."""
    canvas = image.copy()
    pen = Pen(canvas)
    for body, visible in reversed(list(zip(np.rint(points).astype(int).tolist(), seen.tolist()))):
        for limb, (first, second) in enumerate(limbs):
            if visible[first] and visible[second]:
                cv2.line(canvas, body[first], body[second], class_color(limb), pen.line, cv2.LINE_AA)
        for index, (point, shown) in enumerate(zip(body, visible)):
            if shown:
                cv2.circle(canvas, point, pen.line + 1, class_color(index), -1, cv2.LINE_AA)
    return canvas


def paint(image: np.ndarray, indices: np.ndarray, colors: Mapping[int, Color]) -> np.ndarray:
    """A copy of `image` half covered with the colour of every pixel's index (H, W), where it has one in `colors`."""
    canvas = image.copy()
    for index, color in colors.items():
        inside = indices == index
        canvas[inside] = (image[inside].astype(np.uint16) + np.uint16(color)) // 2
    return canvas


def heat_map(values: np.ndarray) -> np.ndarray:
    """A picture of `values` (H, W) from the smallest, black, over red to the largest, light yellow."""
    low, high = float(values.min()), float(values.max())
    shades = ((values - low) * (255 / (high - low or 1))).round().astype(np.uint8)
    return enlarged(cv2.applyColorMap(shades, cv2.COLORMAP_INFERNO))[0]


def draw_bars(
    image: np.ndarray, names: Sequence[str], shares: Sequence[float], colors: Sequence[Color] | None = None
) -> np.ndarray:
    """A copy of `image` above a panel with a row for each name: the name, a bar, its share (0..1) in percent.

    With `colors`, one for each bar, the panel is a legend; without, the first is the best.
    """
    colors = colors or [_BEST, *[_BAR] * len(names)]
    picture, _ = enlarged(image)
    height, width = picture.shape[:2]
    pen = Pen(picture)
    gap = pen.height
    row = round(1.9 * pen.height)
    columns = max(width, 24 * pen.height)
    if height > (most := max(_MOST_PIXELS // columns, 1)) and columns > 2 * width:  # a ribbon beside a wide panel
        picture = cv2.resize(picture, (max(width * most // height, 1), most), interpolation=cv2.INTER_AREA)
        height, width = picture.shape[:2]
    canvas = np.full((height + len(names) * row + 2 * gap, columns, 3), _PANEL, np.uint8)
    left = (canvas.shape[1] - width) // 2
    canvas[:height, left : left + width] = picture

    pen = Pen(picture, canvas)
    right = min(canvas.shape[1], 40 * pen.height) - gap
    number = pen.width("100.0%")
    names = [pen.fitted(name, (right - gap) // 2) for name in names]
    start = 2 * gap + max(map(pen.width, names), default=0)
    stop = right - number - gap
    for line, (name, share) in enumerate(zip(names, shares)):
        middle = height + gap + line * row + row // 2
        half = max(pen.height // 4, 2)
        reach = start + round((stop - start) * share)
        cv2.rectangle(canvas, (start, middle - half), (stop, middle + half), _TRACK, -1)
        cv2.rectangle(canvas, (start, middle - half), (reach, middle + half), colors[line], -1)
        percent = f"{share:.1%}"
        color = _WHITE if line == 0 else _MUTED
        pen.text(name, gap, middle + pen.height // 2, color)
        pen.text(percent, right - pen.width(percent), middle + pen.height // 2, color)
    return canvas


def class_color(index: int) -> Color:
    """The fixed colour of class `index`: of the palette, then its shades, so that 160 classes differ."""
    turn, place = divmod(int(index), len(_PALETTE))  # OpenCV takes no NumPy numbers
    red, green, blue = bytes.fromhex(_PALETTE[place])
    shade = 100 - 8 * (5 * turn % 8)  # percent
    return blue * shade // 100, green * shade // 100, red * shade // 100


def _free_places(choices: Sequence[Sequence[Rectangle]]) -> list[Rectangle]:
    """For each tag the first of its places that no earlier tag covers, or just its first."""
    taken: list[Rectangle] = []
    for places in choices:
        free = (place for place in places if not any(_touch(place, other) for other in taken))
        taken.append(next(free, places[0]))
    return taken


def _touch(first: Rectangle, second: Rectangle) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def enlarged(image: np.ndarray) -> tuple[np.ndarray, int]:
    """A copy of `image`, times a whole factor if it is small: pixel art stays sharp, small photos become smooth."""
    longest = max(image.shape[:2])
    factor = -(-480 // longest) if longest < 320 else 1
    method = cv2.INTER_NEAREST if longest <= 64 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=method) if factor > 1 else image.copy(), factor


class Pen:
    """Draws on `canvas` with lines and letters that suit the size of `picture`."""

    def __init__(self, picture: np.ndarray, canvas: np.ndarray | None = None) -> None:
        self.canvas = picture if canvas is None else canvas
        size = min(sum(picture.shape[:2]) / 2, 2 * min(picture.shape[:2]))  # a ribbon is no large picture
        self.line = max(round(size * 0.003), 2)
        self.scale = max(size * 0.0009, 0.5)
        self.weight = max(round(self.scale * 1.6), 1)
        (_, self.height), self.depth = cv2.getTextSize("Ag", _FONT, self.scale, self.weight)

    def width(self, text: str) -> int:
        return cv2.getTextSize(clean(text, LONGEST_LABEL), _FONT, self.scale, self.weight)[0][0]

    def fitted(self, text: str, width: int) -> str:
        """`text`, cut with an ellipsis if it is wider than `width` pixels."""
        if self.width(text) <= width:
            return text
        fits = bisect.bisect_right(range(len(text)), width, key=lambda n: self.width(text[:n] + "...")) - 1
        return text[: max(fits, 0)].rstrip() + "..."

    def text(self, text: str, left: int, baseline: int, color: Color) -> None:
        cv2.putText(
            self.canvas,
            clean(text, LONGEST_LABEL),
            (left, baseline),
            _FONT,
            self.scale,
            color,
            self.weight,
            cv2.LINE_AA,
        )

    def places(self, text: str, box: Rectangle) -> list[Rectangle]:
        """Where a tag with `text` may go, all in the picture: above the box, inside it at the top or bottom, below."""
        pad, (rows, columns) = self._pad(), self.canvas.shape[:2]
        width, height = self.width(text) + 2 * pad, self.height + 2 * pad + self.depth // 2
        left = max(min(box[0] - self.line // 2, columns - width), 0)
        tops = [top for top in (box[1] - height, box[1], box[3] - height, box[3]) if 0 <= top <= rows - height]
        return [(left, top, left + width, top + height) for top in tops or [0]]

    def tag(self, text: str, place: Rectangle, color: Color) -> None:
        cv2.rectangle(self.canvas, place[:2], place[2:], color, -1)
        blue, green, red = color
        readable = _BLACK if 0.114 * blue + 0.587 * green + 0.299 * red > 140 else _WHITE
        self.text(text, place[0] + self._pad(), place[1] + self._pad() + self.height, readable)

    def _pad(self) -> int:
        return max(self.height // 4, 2)
