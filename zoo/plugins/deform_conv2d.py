"""Deformable convolution (Dai et al. 2017, arXiv:1703.06211), also modulated (Zhu et al. 2019, arXiv:1811.11168).

The op makes the columns: for each place and each tap of the kernel, the input sampled where the offset points. The
product with the weights stays a 1x1 convolution of TensorRT's own. What people get wrong: offsets are (y, x) in pixels
of the input; outside the input a sample fades to zero over one pixel; positions need fp32, fp16 counts in quarters from
pixel 256 on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.errors import ZooError
from zoo.network import Net, Tensor, configured
from zoo.ops import add, mul
from zoo.plugins.core.expressions import Size, Symbol, ceil_div
from zoo.plugins.core.launches import Cuda, Launch
from zoo.plugins.core.layers import constant, gather, grid_sample, shuffle
from zoo.plugins.core.op import Figure, Op, Shape, attribute

Pair = tuple[int, int]
CHANNELS = 16  # that a thread takes, so that a place is computed once for all of them


@dataclass(frozen=True)
class DeformColumns(Op):
    """x (N, C, H, W), offset (N, 2 G K, Ho, Wo) and, if `modulated`, mask (N, G K, Ho, Wo) -> columns (N, C K, Ho, Wo).

    K is the taps of the `kernel` (height, width), G the `groups` of channels that share offsets; C = G x `channels`.
    """

    name = "deform_columns"
    version = 1
    reference = "torchvision.ops.deform_conv2d"
    outputs = ("columns",)
    island = True
    figures = (
        Figure("H100, TensorRT 8.6.0", "256 channels, fp32, with its convolution", 177, 276),
        Figure("H100, TensorRT 8.6.0", "256 channels, fp16, with its convolution", 64, 170),
    )

    kernel: Pair = attribute(low=1, high=31)
    channels: int = attribute(low=1)
    groups: int = attribute(1, low=1)
    stride: Pair = attribute((1, 1), low=1)
    padding: Pair = attribute((0, 0), low=0)
    dilation: Pair = attribute((1, 1), low=1)
    modulated: bool = True

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("x", "offset", "mask") if self.modulated else ("x", "offset")

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    def _side(self, size: Size, axis: int) -> Size:
        """The size of the result along an axis (0 height, 1 width)."""
        span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (size + (2 * self.padding[axis] - span)) // self.stride[axis] + 1

    def shapes(self, x: Symbol, *_: Symbol) -> tuple[Shape, ...]:
        return ((x[0], x[1] * self.taps, self._side(x[2], 0), self._side(x[3], 1)),)

    def native(self, net: Net, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        """One grid_sample for all taps, which lie below each other in the grid: (N G, K Ho, Wo)."""
        x, offset = net.enter(x), net.enter(offset)
        channels, height, width = x.shape[1:]
        out = int(self._side(height, 0)), int(self._side(width, 1))
        taps, area = self.taps, out[0] * out[1]
        places = shuffle(net, offset, shape=(-1, taps, 2, area))
        places = gather(net, places, constant(net, np.int32([1, 0])), axis=2)  # x before y
        places = shuffle(net, places, (0, 1, 3, 2), (-1, taps * out[0], out[1], 2))
        size = np.float32([width, height])
        grid = add(
            net, mul(net, places, constant(net, (2 / size)[None, None, None])), constant(net, self._base(out, size))
        )
        columns = grid_sample(net, shuffle(net, x, shape=(-1, channels // self.groups, height, width)), grid)
        if mask is not None:
            columns = mul(net, columns, shuffle(net, net.enter(mask), shape=(-1, 1, taps * out[0], out[1])))
        return shuffle(net, columns, shape=(-1, channels * taps, *out))

    def _base(self, out: Pair, size: np.ndarray) -> np.ndarray:
        """Where the taps fall without offsets, (1, K Ho, Wo, 2) as x, y in grid_sample's -1 … 1 of `size` (W, H)."""
        at = [
            np.arange(out[d])[None, :] * self.stride[d]
            - self.padding[d]
            + np.arange(self.kernel[d])[:, None] * self.dilation[d]
            for d in (0, 1)
        ]  # (tap, place) for each axis
        y = np.broadcast_to(at[0][:, None, :, None], (*self.kernel, *out))
        x = np.broadcast_to(at[1][None, :, None, :], (*self.kernel, *out))
        places = (2 * np.stack([x, y], -1) + 1) / size - 1
        return places.reshape(1, self.taps * out[0], out[1], 2).astype(np.float32)

    def cuda(self, inputs: tuple[Symbol, ...], outputs: tuple[Symbol, ...]) -> Cuda:
        x, offset, mask = (*inputs, inputs[1])[:3]
        (columns,) = outputs
        parts = -(-self.channels // CHANNELS)
        grid = (ceil_div(columns[2] * columns[3], 128), self.groups * self.taps, x[0] * parts)
        sizes = (x[1], x[2], x[3], columns[2], columns[3])
        names = ("KERNEL_H", "KERNEL_W", "STRIDE_H", "STRIDE_W", "PAD_H", "PAD_W", "DILATION_H", "DILATION_W")
        defines = dict(zip(names, (*self.kernel, *self.stride, *self.padding, *self.dilation)))
        count = len(inputs)
        return Cuda(
            SOURCE,
            (Launch("deform_columns", grid, (128,), (x, offset, mask, columns, *sizes)),),
            types={"fp32": "f" * count + ">f", "fp16": "h" * count + ">h"},
            defines=defines | {"GROUPS": self.groups, "MODULATED": int(self.modulated), "CHANNELS": CHANNELS},
        )


SOURCE = """
// A thread takes one place and one tap for CHANNELS channels of the group.
KERNEL(deform_columns)(const T *RESTRICT x, const T *RESTRICT offset, const T *RESTRICT mask, T *RESTRICT columns,
                       int channels, int height, int width, int out_height, int out_width)
{
    const int taps = KERNEL_H * KERNEL_W;
    int place = blockIdx.x * blockDim.x + threadIdx.x, area = out_height * out_width;
    if (place >= area)
        return;
    int group = blockIdx.y / taps, tap = blockIdx.y % taps, each = channels / GROUPS;
    int parts = (each + CHANNELS - 1) / CHANNELS, n = blockIdx.z / parts;
    int first = blockIdx.z % parts * CHANNELS, last = first + CHANNELS < each ? first + CHANNELS : each;
    const T *at = offset + ((int64)n * 2 * GROUPS * taps + 2 * (group * taps + tap)) * area + place;
    float y = place / out_width * STRIDE_H - PAD_H + tap / KERNEL_W * DILATION_H + float(at[0]);
    float x_ = place % out_width * STRIDE_W - PAD_W + tap % KERNEL_W * DILATION_W + float(at[area]);
    float weight = 1;
    if (MODULATED)
        weight = mask[((int64)n * GROUPS * taps + group * taps + tap) * area + place];

    float top = floorf(y), left = floorf(x_), dy = y - top, dx = x_ - left;
    // far outside, or NaN, all four corners lie outside; clamped, the conversion to int is defined
    int y0 = int(fminf(fmaxf(top, -2.0f), height + 1.0f)), x0 = int(fminf(fmaxf(left, -2.0f), width + 1.0f));
    int y1 = y0 + 1, x1 = x0 + 1;
    bool in_y0 = y0 >= 0 && y0 < height, in_y1 = y1 >= 0 && y1 < height;
    bool in_x0 = x0 >= 0 && x0 < width, in_x1 = x1 >= 0 && x1 < width;
    float a = in_y0 && in_x0 ? (1 - dy) * (1 - dx) * weight : 0, b = in_y0 && in_x1 ? (1 - dy) * dx * weight : 0;
    float c = in_y1 && in_x0 ? dy * (1 - dx) * weight : 0, d = in_y1 && in_x1 ? dy * dx * weight : 0;
    int upper = (in_y0 ? y0 : 0) * width, lower = (in_y1 ? y1 : 0) * width;
    x0 = in_x0 ? x0 : 0;
    x1 = in_x1 ? x1 : 0;
    const T *image = x + ((int64)n * channels + group * each + first) * height * width;
    T *out = columns + (((int64)n * channels + group * each + first) * taps + tap) * area + place;
    for (int channel = first; channel < last; channel++, image += height * width, out += (int64)taps * area)
        *out = T(a * float(image[upper + x0]) + b * float(image[upper + x1]) + c * float(image[lower + x0]) +
                 d * float(image[lower + x1]));
}
"""


def deform_conv2d(
    net: Net,
    x: Tensor,
    offset: Tensor,
    out: int,
    kernel: int | Pair,
    *,
    mask: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    bias: bool = True,
) -> Tensor:
    """torchvision.ops.DeformConv2d: x (N, C, H, W) -> (N, out, Ho, Wo).

    `offset` (N, 2 G K, Ho, Wo) holds (y, x) for each of the K taps, `mask` (N, G K, Ho, Wo) their weights; G, the
    groups of channels with offsets of their own, follows from their shape. Raises ZooError when they do not fit.
    """
    kernel, stride, padding, dilation = (
        (pair, pair) if isinstance(pair, int) else pair for pair in (kernel, stride, padding, dilation)
    )
    channels, taps = x.shape[1], kernel[0] * kernel[1]
    offset_groups = offset.shape[1] // (2 * taps)
    wanted = [("offset", offset, 2), *([] if mask is None else [("mask", mask, 1)])]
    for name, tensor, each in wanted:
        if not offset_groups or channels % offset_groups or tensor.shape[1] != each * offset_groups * taps:
            raise ZooError(
                f"the {name} of '{net.scope}' has {tensor.shape[1]} channels; for {taps} taps and an input of "
                f"{channels} channels it must have {each * taps} times the number of offset groups"
            )
    columns = DeformColumns(
        kernel, channels // offset_groups, offset_groups, stride, padding, dilation, mask is not None
    )(net, x, offset, *(() if mask is None else (mask,)))
    columns = net.enter(columns)
    weight = net.weight("weight", out, channels // groups, *kernel).reshape(out, -1, 1, 1)
    name = net.peek("deform_conv2d")
    shift = net.pack(net.weight("bias", out), name, "bias") if bias else net.empty()
    layer = net.network.add_convolution_nd(columns, out, (1, 1), net.pack(weight, name, "kernel"), shift)
    return net.done(configured(layer, num_groups=groups), "deform_conv2d", columns)
