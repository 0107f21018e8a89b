"""Letterbox: uint8 frames of any size to the network's input, with the bytes of OpenCV's bilinear resize.

As ultralytics and yolov5 do it: scaled to fit, in the middle of a canvas of grey, RGB in 0 … 1. What people get wrong:
OpenCV resizes in whole numbers (weights in 1/2048, sums shifted), from positions that are rounded to float32; another
bilinear resize is off by a grey level in most places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.network import Net, Tensor
from zoo.ops import add, div, mul, sub
from zoo.plugins.core.expressions import Symbol, ceil_div
from zoo.plugins.core.launches import Cuda, Launch, Offset
from zoo.plugins.core.layers import binary, cast, constant, gather, join, scalar, select, shuffle, unary
from zoo.plugins.core.op import Figure, Op, Shape, attribute

UNITS = 2048  # of OpenCV's weights


@dataclass(frozen=True)
class Letterbox(Op):
    """frames (N, h, w, 3), BGR in 0 … 255 of any type -> images (N, 3, H, W) and placement (1, 3, 4).

    `size` is (H, W), `pad` the grey around the picture. The rows of `placement` are offset, scale and size of the
    picture, as x, y, x, y: a box of the input is (box - offset) / scale in the frame. Layers round the picture's size
    half up, the kernels half to even as Python does: where they differ, the picture is a pixel smaller.
    """

    name = "letterbox"
    version = 1
    reference = "ultralytics.data.augment.LetterBox"
    outputs = ("images", "placement")
    island = True
    figures = (
        Figure("H200, TensorRT 8.6.0", "1080p to 640, fp32", 8.4, 15.6),
        Figure("H200, TensorRT 8.6.0", "1080p to 640, fp16 written as fp32", 23.6, 15.6),
    )

    size: tuple[int, int] = attribute(low=1, high=2047)
    pad: int = attribute(114, low=0, high=255)

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("frames",)

    def shapes(self, frames: Symbol) -> tuple[Shape, ...]:
        return (frames[0], 3, *self.size), (1, 3, 4)

    # As layers

    def native(self, net: Net, frames: Tensor) -> tuple[Tensor, ...]:
        """Whole numbers stay exact: below 2^24 in float32, above in int32."""
        trt, kinds = net.trt, net.trt.ElementWiseOperation
        frames = cast(net, frames, trt.float32)
        shape = cast(net, net.step(net.network.add_shape(frames), "shape", frames), trt.int32)
        length = [gather(net, shape, constant(net, np.int32([axis])), axis=0) for axis in (1, 2)]  # (1,) each: h, w
        resized = [self._resized(net, length, axis) for axis in (0, 1)]
        offset = [
            _halved(net, binary(net, scalar(net, self.size[axis], new), new, kinds.SUB))
            for axis, new in enumerate(resized)
        ]
        rows, columns = (self._taps(net, length[axis], resized[axis], offset[axis], axis) for axis in (0, 1))
        lines = []
        for row in rows.pixels:
            line = gather(net, frames, row, axis=1)
            left, right = (gather(net, line, column, axis=2) for column in columns.pixels)
            first, second = (shuffle(net, weight, shape=(1, 1, -1, 1)) for weight in columns.weights)
            line = add(net, mul(net, left, first), mul(net, right, second))
            lines.append(
                cast(net, unary(net, mul(net, line, scalar(net, 1 / 16, line)), trt.UnaryOperation.FLOOR), trt.int32)
            )
        parts = []
        for line, weight in zip(lines, rows.weights):
            weight = cast(net, shuffle(net, weight, shape=(1, -1, 1, 1)), trt.int32)
            part = binary(net, line, weight, kinds.PROD)
            parts.append(binary(net, part, scalar(net, 1 << 16, part), kinds.FLOOR_DIV))
        total = binary(net, binary(net, *parts, kinds.SUM), scalar(net, 2, parts[0]), kinds.SUM)
        pixels = cast(net, binary(net, total, scalar(net, 4, total), kinds.FLOOR_DIV), trt.float32)
        inside = binary(
            net,
            shuffle(net, rows.inside, shape=(1, -1, 1, 1)),
            shuffle(net, columns.inside, shape=(1, 1, -1, 1)),
            kinds.AND,
        )
        pixels = select(net, inside, pixels, scalar(net, self.pad, pixels))
        planes = gather(net, shuffle(net, pixels, (0, 3, 1, 2)), constant(net, np.int32([2, 1, 0])), axis=1)
        images = div(net, planes, scalar(net, 255, planes))
        return images, self._placement(net, length, resized, offset)

    def _resized(self, net: Net, length: list[Tensor], axis: int) -> Tensor:
        """The picture's size along an axis: its share of the canvas, where the other axis fills it, or all of it."""
        kinds = net.trt.ElementWiseOperation
        own, other = length[axis], length[1 - axis]
        twice = binary(net, own, scalar(net, 2 * self.size[1 - axis], own), kinds.PROD)
        twice = binary(net, twice, other, kinds.SUM)
        share = binary(net, twice, binary(net, other, scalar(net, 2, other), kinds.PROD), kinds.FLOOR_DIV)
        share = binary(net, share, scalar(net, self.size[axis], share), kinds.MIN)
        return binary(net, share, scalar(net, 1, share), kinds.MAX)

    def _taps(self, net: Net, length: Tensor, resized: Tensor, offset: Tensor, axis: int) -> Taps:
        """What each place takes: from position p = (i + 1/2) length / resized - 1/2, its floor and the next."""
        trt, kinds = net.trt, net.trt.ElementWiseOperation
        place = constant(net, np.arange(self.size[axis], dtype=np.int32))
        index = binary(net, place, offset, kinds.SUB)
        within = binary(
            net,
            binary(net, index, scalar(net, -1, index), kinds.GREATER),
            binary(net, index, resized, kinds.LESS),
            kinds.AND,
        )
        odd = binary(net, binary(net, index, scalar(net, 2, index), kinds.PROD), scalar(net, 1, index), kinds.SUM)
        above = binary(net, binary(net, odd, length, kinds.PROD), resized, kinds.SUB)
        below = binary(net, resized, scalar(net, 2, resized), kinds.PROD)
        first = binary(net, above, below, kinds.FLOOR_DIV)
        rest = binary(net, above, binary(net, first, below, kinds.PROD), kinds.SUB)
        whole = cast(net, first, trt.float32)
        position = add(net, whole, div(net, cast(net, rest, trt.float32), cast(net, below, trt.float32)))
        weight = sub(net, position, whole)  # rounded as the position is
        last = binary(net, length, scalar(net, 1, length), kinds.SUB)
        if axis == 1:  # columns beyond the border have no weight, rows beyond it are the border's
            inner = binary(
                net,
                binary(net, first, scalar(net, -1, first), kinds.GREATER),
                binary(net, first, last, kinds.LESS),
                kinds.AND,
            )
            weight = mul(net, weight, cast(net, inner, trt.float32))
        other = sub(net, scalar(net, 1, weight), weight)
        weights = [unary(net, mul(net, w, scalar(net, UNITS, w)), trt.UnaryOperation.ROUND) for w in (other, weight)]
        pixels = [first, binary(net, first, scalar(net, 1, first), kinds.SUM)]
        pixels = [binary(net, binary(net, p, scalar(net, 0, p), kinds.MAX), last, kinds.MIN) for p in pixels]
        return Taps(pixels, weights, within)

    def _placement(self, net: Net, length: list[Tensor], resized: list[Tensor], offset: list[Tensor]) -> Tensor:
        float32 = net.trt.float32
        h, w = (cast(net, x, float32) for x in length)
        rows = [[cast(net, x, float32) for x in offset], [], [h, w]]
        rows[1] = [div(net, cast(net, new, float32), old) for new, old in zip(resized, (h, w))]
        flat = [value for y, x in rows for value in (x, y, x, y)]
        return shuffle(net, join(net, flat, axis=0), shape=(1, 3, 4))

    # As kernels

    def cuda(self, inputs: tuple[Symbol, ...], outputs: tuple[Symbol, ...]) -> Cuda:
        (frames,), (images, placement) = inputs, outputs
        height, width = self.size
        return Cuda(
            SOURCE,
            (
                Launch("tables", (ceil_div(width + height, 128),), (128,), (Offset(), placement, frames[1], frames[2])),
                Launch(
                    "letterbox",
                    (ceil_div(width, 32), ceil_div(height, 8), frames[0]),
                    (32, 8),
                    (frames, Offset(), images, frames[1], frames[2]),
                ),
            ),
            types={"fp32": "f>ff", "fp16": "h>hf"},
            defines={"HEIGHT": height, "WIDTH": width, "PAD": self.pad, "UNITS": UNITS},
            scratch=16 * (height + width),
            exact=True,
        )


@dataclass(frozen=True)
class Taps:
    """Along one axis: the two pixels (size,) that a place takes, their weights in 1/2048, and whether it is inside."""

    pixels: list[Tensor]
    weights: list[Tensor]
    inside: Tensor


def _halved(net: Net, x: Tensor) -> Tensor:
    """x / 2, rounded down."""
    return binary(net, x, scalar(net, 2, x), net.trt.ElementWiseOperation.FLOOR_DIV)


SOURCE = """
// A place along one axis: the two pixels that it takes and their weights; pixel -1 is the canvas.
struct alignas(16) Tap { int first, second, weight, other; };

static __device__ void geometry(int height, int width, int &new_height, int &new_width)
{
    double down = HEIGHT / (double)height, across = WIDTH / (double)width, ratio = down < across ? down : across;
    new_height = (int)rint(height * ratio), new_width = (int)rint(width * ratio); // half to even, as Python rounds
    new_height = new_height < 1 ? 1 : new_height;
    new_width = new_width < 1 ? 1 : new_width;
}

KERNEL(tables)(Tap *taps, float *placement, int height, int width)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x, new_height, new_width;
    if (i >= WIDTH + HEIGHT)
        return;
    geometry(height, width, new_height, new_width);
    int left = (WIDTH - new_width) / 2, top = (HEIGHT - new_height) / 2;
    bool column = i < WIDTH;
    int length = column ? width : height, resized = column ? new_width : new_height;
    int place = column ? i - left : i - WIDTH - top;
    Tap tap = {-1, -1, 0, 0};
    if (place >= 0 && place < resized) {
        double scale = 1 / (resized / (double)length);
        float position = (float)((place + 0.5) * scale - 0.5), whole = floorf(position), weight = position - whole;
        int first = (int)whole, last = length - 1;
        if (column && (first < 0 || first >= last)) // columns beyond the border have no weight, rows are the border's
            weight = 0;
        tap.first = first < 0 ? 0 : first > last ? last : first;
        tap.second = first + 1 > last ? last : first + 1;
        tap.weight = (int)rintf((1 - weight) * UNITS);
        tap.other = (int)rintf(weight * UNITS);
    }
    taps[i] = tap;
    if (i < 4) {
        placement[i] = i % 2 ? top : left;
        placement[4 + i] = (float)((i % 2 ? new_height : new_width) / (double)(i % 2 ? height : width));
        placement[8 + i] = i % 2 ? height : width;
    }
}

KERNEL(letterbox)(const T *RESTRICT frames, const Tap *RESTRICT taps, T *RESTRICT images, int height, int width)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= WIDTH || y >= HEIGHT)
        return;
    Tap column = taps[x], row = taps[WIDTH + y];
    bool inside = column.first >= 0 && row.first >= 0;
    const T *frame = frames + (int64)blockIdx.z * height * width * 3;
    const T *upper = frame + (int64)row.first * width * 3, *lower = frame + (int64)row.second * width * 3;
    for (int channel = 0; channel < 3; channel++) {
        int value = PAD;
        if (inside) {
            int a = 3 * column.first + channel, b = 3 * column.second + channel;
            int above = (int)float(upper[a]) * column.weight + (int)float(upper[b]) * column.other;
            int below = (int)float(lower[a]) * column.weight + (int)float(lower[b]) * column.other;
            value = (((row.weight * (above >> 4)) >> 16) + ((row.other * (below >> 4)) >> 16) + 2) >> 2;
        }
        images[(((int64)blockIdx.z * 3 + 2 - channel) * HEIGHT + y) * WIDTH + x] = T(value / 255.0f);
    }
}
"""


def letterbox(net: Net, frames: Tensor, size: tuple[int, int], pad: int = 114) -> tuple[Tensor, Tensor]:
    """frames (N, h, w, 3) uint8 BGR -> images (N, 3, H, W) RGB in 0 … 1 for `size` (H, W), placement (`Letterbox`)."""
    frames = cast(net, frames, net.trt.float32)  # plugins take no bytes
    return Letterbox(size, pad)(net, frames)  # type: ignore[return-value]  # two outputs


def to_frame(net: Net, boxes: Tensor, placement: Tensor) -> Tensor:
    """Boxes (N, D, 4) of the network's input as pixels of the frame, clipped to it."""
    kinds = net.trt.ElementWiseOperation
    offset, scale, picture = (gather(net, placement, constant(net, np.int32([row])), axis=1) for row in range(3))
    moved = div(net, sub(net, boxes, offset), scale)
    return binary(net, binary(net, moved, scalar(net, 0, moved), kinds.MAX), picture, kinds.MIN)
