"""The heads of YOLO to boxes and scores of their best anchors only, so that suppression sees a few hundred and no more.

Anchor-free (YOLOv8 and later): a distribution over the distance of each side from a cell's centre. Anchor-based
(YOLOv5, v7): a correction of anchor boxes, and scores that are objectness x class. What people get wrong: candidates
come in the order in which threads found them, up to a fixed number; here they come by score, equal ones in the anchors'
order, and those beyond the number are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import add, concat, mul, reduce_max, reduce_sum, reshape, sigmoid, softmax, split, sub, topk
from zoo.plugins.core.expressions import Expr, Symbol, ceil_div
from zoo.plugins.core.launches import Cuda, Launch, Offset, literal
from zoo.plugins.core.layers import binary, cast, constant, gather, join, not_finite, scalar, select, shuffle
from zoo.plugins.core.op import Figure, Op, Shape, attribute

GROUPS = 8  # threads that share the classes of an anchor


@dataclass(frozen=True)
class YoloDecode(Op):
    """levels (N, anchors x values, H, W), largest first -> boxes (N, 4, K) as cx, cy, w, h in pixels, scores (N,
    classes, K), left_out (N, 1) int32.

    The K = `top` anchors whose best class scores more than `conf`, best first; rows beyond them are zeros. `left_out`
    says how many more there were. An anchor with a score that is NaN comes before all, for whoever checks. A cell of
    level i has `strides[i]` pixels. The values of an anchor are 4 x `bins` logits and one for each class. With
    `anchors`, each level's widths and heights in pixels (w, h, w, h …), they are x, y, w, h, objectness and the
    classes, and channels have a value of all anchors of a cell before the next value.
    """

    name = "yolo_decode"
    version = 1
    reference = "ultralytics.nn.modules.head.Detect, yolov5.models.yolo.Detect"
    outputs = ("boxes", "scores", "left_out")
    island = True
    figures = (
        Figure("H200, TensorRT 8.6.0", "8,400 anchors of 80 classes, fp32", 19.4, 65.5),
        Figure("H200, TensorRT 8.6.0", "8,400 anchors of 80 classes, fp16", 28.9, 65.6),
    )

    strides: tuple[int, ...] = attribute(low=1)
    bins: int = attribute(16, low=1, high=64)
    anchors: tuple[tuple[float, ...], ...] = attribute((), low=0)
    conf: float = attribute(0.25, low=0, high=1)
    top: int = attribute(1000, low=1, high=3840)

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {len(level) for level in self.anchors}
        if self.anchors and (len(self.anchors) != len(self.strides) or len(sizes) != 1 or sizes.pop() % 2):
            raise ZooError(
                f"{self}: anchors are {self.anchors!r}; each of the {len(self.strides)} levels needs the same number "
                "of widths and heights"
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(f"level{i}" for i in range(len(self.strides)))

    @property
    def times(self) -> int:
        """How many anchors a cell has."""
        return len(self.anchors[0]) // 2 if self.anchors else 1

    @property
    def before(self) -> int:
        """How many values of an anchor come before its classes."""
        return 5 if self.anchors else 4 * self.bins

    def shapes(self, *levels: Symbol) -> tuple[Shape, ...]:
        n, classes = levels[0][0], levels[0][1] // self.times - self.before
        return (n, 4, self.top), (n, classes, self.top), (n, 1)

    # As layers

    def native(self, net: Net, *levels: Tensor) -> tuple[Tensor, ...]:
        kinds = net.trt.ElementWiseOperation
        rows = self._rows(net, levels)
        values = levels[0].shape[1] // self.times
        every = concat(net, [reshape(net, net.enter(x), (0, values, -1)) for x in levels], axis=2)
        box, *objectness, names = split(
            net, every, (*((4, 1) if self.anchors else (self.before,)), values - self.before)
        )
        scores = sigmoid(net.functional, names)  # (N, classes, A)
        if objectness:
            scores = mul(net, scores, sigmoid(net.functional, objectness[0]))
        wild = reduce_max(net, not_finite(net, scores), 1)
        wild = binary(net, wild, scalar(net, 0.5, wild), kinds.GREATER)
        best = reduce_max(net, scores, 1)
        best = select(net, wild, scalar(net, 2, best), best)
        score, order = topk(net, best, self.top, axis=1)  # (N, K)

        valid = binary(net, score, scalar(net, self.conf, score), kinds.GREATER)
        valid = shuffle(net, valid, shape=(0, self.top, 1))
        box, scores = (gather(net, shuffle(net, x, (0, 2, 1)), order, axis=1, batched=True) for x in (box, scores))
        box = self._boxes(net, box, gather(net, constant(net, rows), order, axis=0))
        box, scores = (select(net, valid, x, scalar(net, 0, x)) for x in (box, scores))

        above = cast(net, binary(net, best, scalar(net, self.conf, best), kinds.GREATER), net.trt.float32)
        count = reduce_sum(net, above, 1, keepdims=True)
        more = binary(net, sub(net, count, scalar(net, self.top, count)), scalar(net, 0, count), kinds.MAX)
        return shuffle(net, box, (0, 2, 1)), shuffle(net, scores, (0, 2, 1)), cast(net, more, net.trt.int32)

    def _rows(self, net: Net, levels: Sequence[Tensor]) -> np.ndarray:
        """(A, 6) float32: for each anchor what is added to x, y, and the factors of x, y, w, h."""
        parts = []
        for i, (level, stride) in enumerate(zip(levels, self.strides)):
            height, width = level.shape[2:]
            if height < 0 or width < 0:
                raise ZooError(
                    f"{self} at '{net.scope}' needs a fixed height and width as layers; use --plugins cuda, or --size"
                )
            y, x = np.mgrid[:height, :width].reshape(2, -1)
            one = np.ones(height * width)
            for own in np.reshape(self.anchors[i] if self.anchors else (0, 0), (-1, 2)):
                if self.anchors:
                    factors = (2 * stride, 2 * stride, *(4 * own))
                else:
                    factors = (stride / 2, stride / 2, stride, stride)
                shift = -0.5 if self.anchors else 0.5
                parts.append(np.stack([(x + shift) * stride, (y + shift) * stride, *(one * f for f in factors)], 1))
        rows = np.concatenate(parts).astype(np.float32)
        if len(rows) < self.top:
            raise ZooError(f"{self} at '{net.scope}': top is {self.top}, and there are {len(rows)} anchors; give less")
        return rows

    def _boxes(self, net: Net, raw: Tensor, rows: Tensor) -> Tensor:
        """(N, K, 4 or 4 x bins) and (N, K, 6) as in `_rows` -> (N, K, 4)."""
        offset, factors = split(net, rows, (2, 4), axis=2)
        if self.anchors:
            xy, wh = split(net, sigmoid(net.functional, raw), (2, 2), axis=2)
            box = join(net, (xy, mul(net, wh, wh)), axis=2)
        else:
            far = raw
            if self.bins > 1:
                shares = softmax(net.functional, shuffle(net, raw, shape=(0, self.top, 4, self.bins)), axis=3)
                place = constant(net, np.arange(self.bins, dtype=np.float32).reshape(1, 1, 1, -1))
                far = reduce_sum(net, mul(net, shares, place), 3)
            left_top, right_bottom = split(net, far, (2, 2), axis=2)
            box = join(net, (sub(net, right_bottom, left_top), add(net, right_bottom, left_top)), axis=2)
        box = mul(net, box, factors)
        xy, wh = split(net, box, (2, 2), axis=2)
        return join(net, (add(net, xy, offset), wh), axis=2)

    # As kernels

    def cuda(self, inputs: tuple[Symbol, ...], outputs: tuple[Symbol, ...]) -> Cuda:
        boxes, scores, left_out = outputs
        n, classes, count = inputs[0][0], scores[1], len(inputs)
        cells = [level[2] * level[3] for level in inputs]
        anchors: Expr = cells[0] * self.times
        for level in cells[1:]:
            anchors = anchors + level * self.times
        maps = [part for level, size in zip(inputs, cells) for part in (level, size, level[3])]
        keys, order, state = Offset(), Offset(8 * n * anchors), Offset(8 * n * anchors + 4 * self.top * n)
        numbers = range(count)
        return Cuda(
            SOURCE,
            (
                Launch("begin", (ceil_div(n, 128),), (128,), (state, n)),
                Launch("choose", (ceil_div(anchors, 32), n), (32 * GROUPS,), (*maps, keys, state, anchors, classes)),
                Launch("rank", (ceil_div(anchors, 128), n), (128,), (keys, state, order, left_out, anchors)),
                Launch(
                    "decode", (ceil_div(self.top, 32), n), (32 * GROUPS,), (*maps, order, state, boxes, scores, classes)
                ),
            ),
            types={"fp32": "f" * count + ">ffi", "fp16": "h" * count + ">fhi"},
            defines={
                "TIMES": self.times, "BINS": self.bins, "BEFORE": self.before, "ANCHORED": int(bool(self.anchors)),
                "CONF": literal(self.conf), "TOP": self.top, "GROUPS": GROUPS, "COUNT": count,
                "MAPS": ", ".join(f"const T *RESTRICT map{i}, int cells{i}, int width{i}" for i in numbers),
                "LEVELS": ", ".join(f"{{map{i}, cells{i}, width{i}}}" for i in numbers),
                "STRIDES": ", ".join(map(str, self.strides)),
                "SIZES": ", ".join(literal(size) for level in self.anchors or ((0, 0),) for size in level),
            },
            scratch=8 * n * anchors + 4 * (self.top + 1) * n,
        )  # fmt: skip


SOURCE = """
struct Level { const T *map; int cells, width; };
struct Anchor { const T *map; int64 at, step; int level, cell, width, which; };

// Where the values of an anchor are: each is `step` after the one before.
static __device__ Anchor find(const Level *levels, int anchor, int image, int classes)
{
    Anchor found = {};
    #pragma unroll
    for (int i = 0; i < COUNT; i++) {
        int cells = levels[i].cells;
        if (anchor >= 0 && anchor < TIMES * cells) {
            int which = anchor / cells, cell = anchor % cells;
            int64 step = (int64)TIMES * cells, values = BEFORE + classes;
            found = {levels[i].map, image * values * step + (int64)which * cells + cell, step, i, cell, levels[i].width,
                     which};
        }
        anchor -= TIMES * cells;
    }
    return found;
}

static __device__ float sigmoid(float x) { return float(T(1.0f / (1.0f + expf(-x)))); }

static __device__ float score_of(const Anchor &a, float logit)
{
    float score = sigmoid(logit);
    return ANCHORED ? float(T(score * sigmoid(a.map[a.at + 4 * a.step]))) : score;
}

// state[n]: how many candidates an image has
KERNEL(begin)(uint32 *state, int count)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        state[i] = 0;
}

// Appends the anchors whose best class scores more than CONF. A key is the inverted score, then the anchor: ascending
// keys are descending scores, ties in the anchors' order. What is NaN comes first.
PHASED(choose)(MAPS, uint64 *keys, uint32 *state, int anchors, int classes)
{
    SHARED float group_best[GROUPS][32];
    const Level levels[COUNT] = {LEVELS};
    int image = blockIdx.y;
    PHASE {
        int group = threadIdx.x / 32, anchor = blockIdx.x * 32 + threadIdx.x % 32;
        float best = -3.4e38f;
        if (anchor < anchors) {
            Anchor a = find(levels, anchor, image, classes);
            #pragma unroll 5
            for (int c = group; c < classes; c += GROUPS) {
                float logit = a.map[a.at + (BEFORE + c) * a.step];
                best = logit <= best ? best : logit; // NaN stays: nothing is less than it
                if (best != best)
                    break;
            }
        }
        group_best[group][threadIdx.x % 32] = best;
    }
    PHASE {
        int anchor = blockIdx.x * 32 + threadIdx.x;
        if (threadIdx.x >= 32 || anchor >= anchors)
            continue;
        float best = group_best[0][threadIdx.x];
        for (int g = 1; g < GROUPS; g++) {
            float other = group_best[g][threadIdx.x];
            best = best != best || other <= best ? best : other;
        }
        float score = score_of(find(levels, anchor, image, classes), best);
        bool wild = score != score;
        if (score > CONF || wild) {
            uint32 slot = atomicAdd(&state[image], 1u), high = wild ? 0 : ~__float_as_uint(score);
            keys[(int64)image * anchors + slot] = ((uint64)high << 32) | (uint32)anchor;
        }
    }
}

// A candidate's place is how many keys are smaller.
KERNEL(rank)(const uint64 *RESTRICT keys, const uint32 *RESTRICT state, int *order, int *left_out, int anchors)
{
    int image = blockIdx.y, count = state[image], i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i == 0)
        left_out[image] = count > TOP ? count - TOP : 0;
    if (i >= count)
        return;
    keys += (int64)image * anchors;
    uint64 key = keys[i];
    int place = 0;
    #pragma unroll 8
    for (int j = 0; j < count; j++)
        place += keys[j] < key;
    if (place < TOP)
        order[image * TOP + place] = (uint32)key;
}

// How far a side lies from the middle of its cell, in cells: the mean of a distribution.
static __device__ float distance(const Anchor &a, int side)
{
    const T *logits = a.map + a.at + (int64)side * BINS * a.step;
    if (BINS == 1)
        return logits[0];
    float most = logits[0], sum = 0, mean = 0;
    for (int bin = 1; bin < BINS; bin++)
        most = fmaxf(most, logits[bin * a.step]);
    for (int bin = 0; bin < BINS; bin++) {
        float share = expf(float(logits[bin * a.step]) - most);
        sum += share;
        mean += share * bin;
    }
    return mean / sum;
}

// A block takes 32 rows; the groups share a row's classes, and its sides.
PHASED(decode)(MAPS, const int *RESTRICT order, const uint32 *RESTRICT state, float *boxes, T *scores, int classes)
{
    SHARED float sides[4][32];
    const Level levels[COUNT] = {LEVELS};
    const int strides[COUNT] = {STRIDES};
    const float sizes[] = {SIZES};
    int image = blockIdx.y, count = min((int)state[image], TOP);
    PHASE {
        int group = threadIdx.x / 32, row = blockIdx.x * 32 + threadIdx.x % 32;
        if (row >= TOP)
            continue;
        Anchor a = find(levels, row < count ? order[image * TOP + row] : 0, image, classes);
        T *out = scores + (int64)image * classes * TOP + row;
        for (int c = group; c < classes; c += GROUPS)
            out[(int64)c * TOP] = T(row < count ? score_of(a, a.map[a.at + (BEFORE + c) * a.step]) : 0.0f);
        if (group < 4 && row < count)
            sides[group][threadIdx.x % 32] =
                ANCHORED ? 1.0f / (1.0f + expf(-float(a.map[a.at + group * a.step]))) : distance(a, group);
    }
    PHASE {
        int row = blockIdx.x * 32 + threadIdx.x, lane = threadIdx.x;
        if (lane >= 32 || row >= TOP)
            continue;
        float box[4] = {};
        if (row < count) {
            Anchor a = find(levels, order[image * TOP + row], image, classes);
            for (int k = 0; k < 2; k++) {
                float first = sides[k][lane], second = sides[k + 2][lane];
                int place = k ? a.cell / a.width : a.cell % a.width, stride = strides[a.level];
                if (ANCHORED) {
                    box[k] = first * 2 * stride + (place - 0.5f) * stride;
                    box[k + 2] = second * second * 4 * sizes[(a.level * TIMES + a.which) * 2 + k];
                } else {
                    box[k] = (second - first) * 0.5f * stride + (place + 0.5f) * stride;
                    box[k + 2] = (second + first) * stride;
                }
            }
        }
        for (int k = 0; k < 4; k++)
            boxes[((int64)image * 4 + k) * TOP + row] = box[k];
    }
}
"""


def yolo_decode(
    net: Net,
    levels: Sequence[Tensor],
    strides: Sequence[int],
    *,
    bins: int = 16,
    anchors: Sequence[Sequence[float]] = (),
    conf: float = 0.25,
    top: int = 1000,
) -> tuple[Tensor, Tensor, Tensor]:
    """levels (N, anchors x values, H, W) -> boxes (N, 4, K), scores (N, classes, K), left_out (N, 1) (`YoloDecode`)."""
    sizes = tuple(tuple(map(float, level)) for level in anchors)
    return YoloDecode(tuple(strides), bins, sizes, float(conf), top)(net, *levels)  # type: ignore[return-value]
