"""RoIAlign of Mask R-CNN (He et al. 2017, arXiv:1703.06870): a box of a feature map as a grid of a fixed size.

A bin of the grid is the mean of `samples` x `samples` places, each interpolated. What people get wrong: `aligned` moves
the box by half a pixel, and torchvision's detectors do not, but stretch boxes to at least one pixel instead; up to one
pixel beyond the border the border's value counts, further out zero; places need fp32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import add, avg_pool, mul, sub
from zoo.plugins.core.expressions import Symbol, ceil_div
from zoo.plugins.core.launches import Cuda, Launch, literal
from zoo.plugins.core.layers import binary, cast, constant, gather, grid_sample, join, scalar, shuffle
from zoo.plugins.core.op import Figure, Op, Shape, attribute

CHANNELS = 16  # that a thread takes, so that a place is computed once for all of them


@dataclass(frozen=True)
class RoiAlign(Op):
    """x (N, C, H, W), boxes (N, R, 4) as x1, y1, x2, y2 -> pooled (N R, C, *size), the boxes of a picture together.

    A box times `scale` is in pixels of x. `samples` along each side of a bin; 0 takes as many as the bin has pixels,
    rounded up, which is another number for each box: the kernel can, layers cannot.
    """

    name = "roi_align"
    version = 1
    reference = "torchvision.ops.roi_align"
    outputs = ("pooled",)
    island = True
    figures = (
        Figure("H200, TensorRT 8.6.0", "1,000 boxes of 256 channels, fp32", 336.8, 536.9),
        Figure("H200, TensorRT 8.6.0", "1,000 boxes of 256 channels, fp16", 338.4, 536.8),
    )

    size: tuple[int, int] = attribute(low=1, high=256)
    scale: float = attribute(1.0, low=0)
    samples: int = attribute(2, low=0, high=32)
    aligned: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("x", "boxes")

    def shapes(self, x: Symbol, boxes: Symbol) -> tuple[Shape, ...]:
        return ((x[0] * boxes[1], x[1], *self.size),)

    def native(self, net: Net, x: Tensor, boxes: Tensor) -> Tensor:
        """One grid_sample for all boxes, which lie below each other in the grid: (N, R rows, columns)."""
        if not self.samples:
            raise ZooError(
                f"{self} at '{net.scope}' has samples 0, another number for each box, which layers of a fixed shape "
                "cannot take; use --plugins cuda, or samples of 1 or more"
            )
        x, boxes = net.enter(x), net.enter(boxes)
        channels, height, width = x.shape[1:]
        count = boxes.shape[1]
        rows, columns = (side * self.samples for side in self.size)
        across, inside_x = self._places(net, boxes, 0, width)  # (N, R, columns)
        down, inside_y = self._places(net, boxes, 1, height)
        flat, tall = (0, count, 1, columns), (0, count, rows, 1)
        across, inside_x = (shuffle(net, t, shape=flat) for t in (across, inside_x))
        down, inside_y = (shuffle(net, t, shape=tall) for t in (down, inside_y))
        inside = mul(net, inside_y, inside_x)  # (N, R, rows, columns)
        ones = add(net, mul(net, inside, scalar(net, 0, inside)), scalar(net, 1, inside))
        pair = [shuffle(net, mul(net, ones, t), shape=(0, count * rows, columns, 1)) for t in (across, down)]
        found = grid_sample(net, x, join(net, pair, axis=3), border="border")  # (N, C, R rows, columns)
        found = mul(net, found, shuffle(net, inside, shape=(0, 1, count * rows, columns)))
        found = avg_pool(net.functional, found, self.samples, self.samples)
        found = shuffle(net, found, shape=(0, channels, count, self.size[0] * self.size[1]))
        return shuffle(net, found, (0, 2, 1, 3), (-1, channels, *self.size))

    def _places(self, net: Net, boxes: Tensor, axis: int, length: int) -> tuple[Tensor, Tensor]:
        """Where the samples lie along an axis (0 x, 1 y), as grid_sample counts them, and 1 where x counts, else 0."""
        kinds, bins = net.trt.ElementWiseOperation, self.size[1 - axis]
        low, high = (gather(net, boxes, constant(net, np.int32([side])), axis=2) for side in (axis, axis + 2))
        low, high = (mul(net, side, scalar(net, self.scale, side)) for side in (low, high))  # (N, R, 1)
        if self.aligned:
            low, high = (sub(net, side, scalar(net, 0.5, side)) for side in (low, high))
        extent = sub(net, high, low)
        if not self.aligned:
            extent = binary(net, extent, scalar(net, 1, extent), kinds.MAX)
        steps = (np.arange(bins * self.samples, dtype=np.float64) + 0.5) / (bins * self.samples)
        at = add(net, low, mul(net, extent, constant(net, steps.astype(np.float32).reshape(1, 1, -1))))
        before = binary(net, at, scalar(net, -1, at), kinds.LESS)
        outside = binary(net, before, binary(net, at, scalar(net, length, at), kinds.GREATER), kinds.OR)
        inside = sub(net, scalar(net, 1, at), cast(net, outside, net.trt.float32))
        grid = mul(net, at, scalar(net, 2 / length, at))
        return add(net, grid, scalar(net, 1 / length - 1, grid)), inside

    def cuda(self, inputs: tuple[Symbol, ...], outputs: tuple[Symbol, ...]) -> Cuda:
        x, boxes = inputs
        (pooled,) = outputs
        places = x[0] * boxes[1] * (self.size[0] * self.size[1])
        grid = (ceil_div(places, 128), ceil_div(x[1], CHANNELS))
        return Cuda(
            SOURCE,
            (Launch("roi_align", grid, (128,), (x, boxes, pooled, places, boxes[1], x[1], x[2], x[3])),),
            types={"fp32": "ff>f", "fp16": "hf>h"},
            defines={
                "BINS_H": self.size[0], "BINS_W": self.size[1], "SCALE": literal(self.scale),
                "SAMPLES": self.samples, "ALIGNED": int(self.aligned), "CHANNELS": CHANNELS,
            },
        )  # fmt: skip

    def builtin(self, net: Net, x: Tensor, boxes: Tensor) -> Tensor:
        """ROIAlign, which takes the boxes of all pictures in one list, and whose picture each is of."""
        from zoo.plugins.core.layer import add_builtin

        batch, count = x.shape[0], boxes.shape[1]
        if batch < 0:
            raise ZooError(f"NVIDIA's ROIAlign at '{net.scope}' needs a fixed batch; use --plugins native")
        picture = constant(net, np.repeat(np.arange(batch, dtype=np.int32), count))
        (found,) = add_builtin(
            net, "ROIAlign_TRT", [x, shuffle(net, boxes, shape=(-1, 4)), picture],
            coordinate_transformation_mode=int(self.aligned), mode=1, output_height=self.size[0],
            output_width=self.size[1], sampling_ratio=self.samples, spatial_scale=float(self.scale),
        )  # fmt: skip
        return found


SOURCE = """
// A thread takes one bin of one box for CHANNELS channels.
KERNEL(roi_align)(const T *RESTRICT x, const float *RESTRICT boxes, T *RESTRICT pooled, int places, int rois,
                  int channels, int height, int width)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x, bins = BINS_H * BINS_W;
    if (i >= places)
        return;
    int roi = i / bins, bin = i % bins;
    const float *box = boxes + (int64)roi * 4, shift = ALIGNED ? 0.5f : 0.0f;
    float left = box[0] * SCALE - shift, top = box[1] * SCALE - shift;
    float box_width = box[2] * SCALE - shift - left, box_height = box[3] * SCALE - shift - top;
    if (!ALIGNED) {
        box_width = fmaxf(box_width, 1.0f);
        box_height = fmaxf(box_height, 1.0f);
    }
    float bin_width = box_width / BINS_W, bin_height = box_height / BINS_H;
    // as many as a map has pixels at most, so that no box keeps a thread for ever
    int columns = SAMPLES ? SAMPLES : int(fminf(fmaxf(ceilf(bin_width), 0.0f), width + 2.0f));
    int rows = SAMPLES ? SAMPLES : int(fminf(fmaxf(ceilf(bin_height), 0.0f), height + 2.0f));
    top += bin / BINS_W * bin_height;
    left += bin % BINS_W * bin_width;

    int first = blockIdx.y * CHANNELS, left_over = channels - first, area = height * width;
    int count = left_over < CHANNELS ? left_over : CHANNELS;
    const T *image = x + ((int64)(roi / rois) * channels + first) * area;
    float sum[CHANNELS] = {};
    for (int sample = 0; sample < rows * columns; sample++) {
        float y = top + (sample / columns + 0.5f) * bin_height / rows;
        float x_ = left + (sample % columns + 0.5f) * bin_width / columns;
        if (!(y >= -1 && y <= height && x_ >= -1 && x_ <= width)) // NaN is outside
            continue;
        y = fminf(fmaxf(y, 0.0f), height - 1.0f);
        x_ = fminf(fmaxf(x_, 0.0f), width - 1.0f);
        int y0 = int(y), x0 = int(x_), y1 = y0 + 1 < height ? y0 + 1 : y0, x1 = x0 + 1 < width ? x0 + 1 : x0;
        float dy = y - y0, dx = x_ - x0;
        float a = (1 - dy) * (1 - dx), b = (1 - dy) * dx, c = dy * (1 - dx), d = dy * dx;
        const T *at = image;
        #pragma unroll
        for (int k = 0; k < CHANNELS; k++, at += area)
            if (k < count)
                sum[k] += a * float(at[y0 * width + x0]) + b * float(at[y0 * width + x1]) +
                          c * float(at[y1 * width + x0]) + d * float(at[y1 * width + x1]);
    }
    float share = 1.0f / (rows * columns > 1 ? rows * columns : 1);
    T *out = pooled + ((int64)roi * channels + first) * bins + bin;
    #pragma unroll
    for (int k = 0; k < CHANNELS; k++, out += bins)
        if (k < count)
            *out = T(sum[k] * share);
}
"""


def roi_align(
    net: Net,
    x: Tensor,
    boxes: Tensor,
    size: int | tuple[int, int],
    scale: float = 1.0,
    *,
    samples: int = 2,
    aligned: bool = False,
) -> Tensor:
    """torchvision.ops.roi_align: x (N, C, H, W), boxes (N, R, 4) as x1, y1, x2, y2 -> (N R, C, *size).

    A box times `scale` is in pixels of x. Compute the boxes in `net.fp32`.
    """
    size = (size, size) if isinstance(size, int) else size
    return RoiAlign(size, float(scale), samples, aligned)(net, x, boxes)  # type: ignore[return-value]  # one output
