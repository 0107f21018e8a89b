"""Multi-scale deformable attention (Zhu et al. 2021, Deformable DETR, arXiv:2010.04159).

Every query looks at a few points of each level of a pyramid and sums what it finds, weighted. What people get wrong:
locations are (x, y) in 0 … 1 of a level, the sizes of the levels are (height, width); outside a level a sample fades to
zero; locations need fp32, in fp16 they are off by up to a tenth of a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import add, concat, mul, narrow, reduce_sum
from zoo.plugins.core.expressions import Symbol, ceil_div
from zoo.plugins.core.launches import Cuda, Launch
from zoo.plugins.core.layers import grid_sample, scalar, shuffle
from zoo.plugins.core.op import Figure, Op, Shape, attribute


@dataclass(frozen=True)
class MsDeformAttn(Op):
    """value (N, S, M, D), locations (N, Q, M, L, P, 2), weights (N, Q, M, L, P) -> (N, Q, M D).

    S runs over the cells of all `sizes` (height, width), level by level; M are the heads of D = `channels` each, P the
    `points`.
    """

    name = "ms_deform_attn"
    version = 1
    reference = "transformers.models.deformable_detr.modeling_deformable_detr.multi_scale_deformable_attention"
    outputs = ("attended",)
    island = True
    figures = (
        Figure("H100, TensorRT 8.6.0", "17,821 queries, fp32", 169, 1826),
        Figure("H100, TensorRT 8.6.0", "300 queries, fp32", 6.5, 33.7),
        Figure("H200, TensorRT 8.6.0", "an encoder's 17,821 queries, fp32", 44.9, 902.1),
        Figure("H200, TensorRT 8.6.0", "an encoder's 17,821 queries, fp16", 63.6, 903.6),
        Figure("H200, TensorRT 8.6.0", "a decoder's 300 queries, fp32", 8.8, 29.0),
    )

    sizes: tuple[tuple[int, int], ...] = attribute(low=1)
    points: int = attribute(low=1, high=64)
    heads: int = attribute(low=1)
    channels: int = attribute(low=1)

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("value", "locations", "weights")

    def shapes(self, value: Symbol, locations: Symbol, weights: Symbol) -> tuple[Shape, ...]:
        return ((value[0], locations[1], value[2] * value[3]),)

    def native(self, net: Net, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        """One grid_sample a level, then the weighted sum over all points."""
        value, locations, weights = net.enter(value), net.enter(locations), net.enter(weights)
        heads, channels, levels = self.heads, self.channels, len(self.sizes)
        queries = locations.shape[1]
        grid = add(net, mul(net, locations, scalar(net, 2, locations)), scalar(net, -1, locations))
        grid = shuffle(net, grid, (0, 2, 1, 3, 4, 5), (-1, queries, levels, self.points * 2))  # (N M, Q, L, P 2)
        found, start = [], 0
        for level, (height, width) in enumerate(self.sizes):
            cells = shuffle(net, narrow(net, value, 1, start, height * width), (0, 2, 3, 1))
            cells = shuffle(net, cells, shape=(-1, channels, height, width))
            places = shuffle(net, narrow(net, grid, 2, level, 1), shape=(-1, queries, self.points, 2))
            found.append(grid_sample(net, cells, places))  # (N M, D, Q, P)
            start += height * width
        sampled = concat(net, found, axis=3)
        weights = shuffle(net, weights, (0, 2, 1, 3, 4), (-1, 1, queries, levels * self.points))
        summed = reduce_sum(net, mul(net, sampled, weights), 3)
        summed = shuffle(net, summed, shape=(-1, heads * channels, queries))
        return shuffle(net, summed, (0, 2, 1))

    def cuda(self, inputs: tuple[Symbol, ...], outputs: tuple[Symbol, ...]) -> Cuda:
        value, locations, weights = inputs
        (out,) = outputs
        pack = next(n for n in (4, 2, 1) if self.channels % n == 0)
        threads = value[0] * locations[1] * (self.heads * self.channels // pack)
        sizes = "{" + ", ".join(f"{{{height}, {width}}}" for height, width in self.sizes) + "}"
        return Cuda(
            SOURCE,
            (
                Launch(
                    "ms_deform_attn",
                    (ceil_div(threads, 128),),
                    (128,),
                    (value, locations, weights, out, threads, value[1], locations[1]),
                ),
            ),
            types={"fp32": "fff>f", "fp16": "hfh>h"},
            defines={
                "SIZES": sizes, "LEVELS": len(self.sizes), "POINTS": self.points,
                "HEADS": self.heads, "CHANNELS": self.channels, "PACK": pack,
            },
        )  # fmt: skip

    def builtin(self, net: Net, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        from zoo.plugins.core.layer import add_builtin
        from zoo.plugins.core.layers import constant

        sizes = np.array(self.sizes, np.int32)
        starts = np.concatenate([[0], np.cumsum(sizes.prod(1))[:-1]]).astype(np.int32)
        inputs = [value, constant(net, sizes), constant(net, starts), locations, weights]
        (found,) = add_builtin(net, "MultiscaleDeformableAttnPlugin_TRT", inputs)
        return shuffle(net, found, shape=(0, 0, -1))


SOURCE = """
// A thread takes PACK channels of one head of one query, so that places and weights are computed once for all of them.
struct alignas(PACK * sizeof(T)) Pack { T v[PACK]; };

KERNEL(ms_deform_attn)(const T *RESTRICT value, const float *RESTRICT locations, const T *RESTRICT weights,
                       T *RESTRICT out, int threads, int cells, int queries)
{
    const int sizes[LEVELS][2] = SIZES, packs = CHANNELS / PACK, row = HEADS * packs;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= threads)
        return;
    int pack = i % packs, head = i / packs % HEADS, query = i / row, n = query / queries;
    const float *at = locations + ((int64)query * HEADS + head) * LEVELS * POINTS * 2;
    const T *weight = weights + ((int64)query * HEADS + head) * LEVELS * POINTS;
    const Pack *level = (const Pack *)value + ((int64)n * cells * HEADS + head) * packs + pack;
    float sum[PACK] = {};
    for (int l = 0; l < LEVELS; l++) {
        int height = sizes[l][0], width = sizes[l][1];
        for (int p = 0; p < POINTS; p++, at += 2, weight++) {
            float x = at[0] * width - 0.5f, y = at[1] * height - 0.5f;
            if (!(y > -1 && x > -1 && y < height && x < width)) // NaN is outside
                continue;
            float left = floorf(x), top = floorf(y), dx = x - left, dy = y - top, w = float(*weight);
            int x0 = int(left), y0 = int(top);
            bool in_x0 = x0 >= 0, in_x1 = x0 + 1 < width, in_y0 = y0 >= 0, in_y1 = y0 + 1 < height;
            float a = in_y0 && in_x0 ? (1 - dy) * (1 - dx) * w : 0, b = in_y0 && in_x1 ? (1 - dy) * dx * w : 0;
            float c = in_y1 && in_x0 ? dy * (1 - dx) * w : 0, d = in_y1 && in_x1 ? dy * dx * w : 0;
            const Pack *upper = level + (int64)(in_y0 ? y0 : 0) * width * row;
            const Pack *lower = level + (int64)(in_y1 ? y0 + 1 : 0) * width * row;
            int l_ = (in_x0 ? x0 : 0) * row, r_ = (in_x1 ? x0 + 1 : 0) * row;
            Pack v0 = upper[l_], v1 = upper[r_], v2 = lower[l_], v3 = lower[r_];
            for (int k = 0; k < PACK; k++)
                sum[k] += a * float(v0.v[k]) + b * float(v1.v[k]) + c * float(v2.v[k]) + d * float(v3.v[k]);
        }
        level += (int64)height * width * row;
    }
    Pack result;
    for (int k = 0; k < PACK; k++)
        result.v[k] = T(sum[k]);
    ((Pack *)out)[i] = result;
}
"""


def ms_deform_attn(
    net: Net, value: Tensor, locations: Tensor, weights: Tensor, sizes: Sequence[tuple[int, int]]
) -> Tensor:
    """value (N, S, M, D), locations (N, Q, M, L, P, 2) as x, y in 0 … 1, weights (N, Q, M, L, P) -> (N, Q, M D).

    `sizes` are the (height, width) of the L levels whose cells lie one after another in S. Compute the locations in
    `net.fp32`. Raises ZooError when the shapes do not fit together.
    """
    cells, heads, channels = value.shape[1:]
    levels, points = locations.shape[3:5]
    if (
        levels != len(sizes)
        or cells != sum(height * width for height, width in sizes)
        or tuple(locations.shape[1:]) != (*weights.shape[1:], 2)
        or locations.shape[2] != heads
    ):
        raise ZooError(
            f"'{net.scope}' attends to {cells} cells in {heads} heads with locations {tuple(locations.shape)} and "
            f"weights {tuple(weights.shape)}, which do not fit the levels {list(sizes)}"
        )
    op = MsDeformAttn(tuple((int(h), int(w)) for h, w in sizes), int(points), int(heads), int(channels))
    return op(net, value, locations, weights)  # type: ignore[return-value]  # one output
