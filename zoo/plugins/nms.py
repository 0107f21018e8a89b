"""Class-aware non-maximum suppression with outputs of a fixed size, as ultralytics and yolov5 decide it.

An anchor counts once, for its best class, if that scores more than `conf`; it is dropped when a better box of its
class overlaps it by more than `iou`. Boxes are moved by 7680 pixels times their class, as upstream does, so that
classes never meet; equal scores keep the anchors' order.

As layers, suppression is a matrix: y = "no better row that stays overlaps mine", applied until nothing changes. The
graph of suppressions has no cycle, so that this fixed point is what greedy suppression gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.network import Net, Tensor
from zoo.ops import add, concat, div, mul, narrow, reduce_sum, sub, topk
from zoo.plugins.core.expressions import Symbol, ceil_div
from zoo.plugins.core.launches import Cuda, Launch, Offset, literal
from zoo.plugins.core.layers import (
    binary,
    cast,
    constant,
    gather,
    join,
    matmul,
    not_finite,
    scalar,
    select,
    shuffle,
    unary,
)
from zoo.plugins.core.op import Figure, Op, Shape, attribute

CLASS_OFFSET = 7680.0  # larger than any picture
MAX_CANDIDATES = 30_000  # of the kernels, as upstream
OUTPUTS = ("num_detections", "boxes", "scores", "classes", "open")


@dataclass(frozen=True)
class Nms(Op):
    """boxes (N, 4, A) as cx, cy, w, h and scores (N, classes, A) -> num_detections (N, 1), boxes (N, D, 4) as x1, y1,
    x2, y2, scores (N, D), classes (N, D), open (N, 1); integers are int32, D is `max_det`.

    Rows beyond num_detections are zeros of class -1. `open` is 0 where the result is certain. Layers consider the
    best `candidates` anchors: they count in `open` those they left out and those that were not settled. The kernels
    consider 30,000. Where a score is not finite, or a box that scores enough, nothing is found and `open` is set. With
    `apart` boxes are not moved, which rounds them, but compared within their class, as torchvision does.
    """

    name = "nms"
    version = 2
    reference = "ultralytics.utils.nms.non_max_suppression"
    outputs = OUTPUTS
    island = True
    figures = (
        Figure("H200, TensorRT 8.6.0", "8,400 anchors of 80 classes, 162 candidates", 39.8, 164.5),
        Figure("H200, TensorRT 8.6.0", "8,400 anchors of 80 classes, 4,766 candidates", 274.6, 165.3),
    )

    conf: float = attribute(0.25, low=0, high=1)
    iou: float = attribute(0.7, low=0, high=1)
    max_det: int = attribute(300, low=1, high=1024)
    candidates: int = attribute(1000, low=1, high=3840)
    rounds: int = attribute(16, low=1, high=256)  # of the layers; scenes of 60 objects settle within 12
    apart: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("boxes", "scores")

    def shapes(self, boxes: Symbol, scores: Symbol) -> tuple[Shape, ...]:
        n, rows = boxes[0], self.max_det
        return (n, 1), (n, rows, 4), (n, rows), (n, rows), (n, 1)

    # As layers

    def native(self, net: Net, boxes: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
        trt, kinds = net.trt, net.trt.ElementWiseOperation
        boxes, scores = net.enter(boxes), net.enter(scores)
        count = min(self.candidates, boxes.shape[2])
        rows = min(self.max_det, count)
        best, label = topk(net, scores, 1, axis=1)
        best, label = shuffle(net, best, shape=(0, -1)), shuffle(net, label, shape=(0, -1))
        score, order = topk(net, best, count, axis=1)  # (N, K), best first
        label = gather(net, label, order, axis=1, batched=True)
        box = gather(net, shuffle(net, _corners(net, boxes), (0, 2, 1)), order, axis=1, batched=True)  # (N, K, 4)

        matrix = self._suppressions(net, box, label, count)
        ones = add(net, mul(net, score, scalar(net, 0, score)), scalar(net, 1, score))  # of the batch's shape
        stays = shuffle(net, ones, shape=(0, count, 1))
        half = scalar(net, 0.5, stays)
        for _ in range(min(self.rounds, count)):
            last, stays = stays, cast(net, binary(net, matmul(net, matrix, stays), half, kinds.LESS), trt.float32)
        valid = cast(net, binary(net, score, scalar(net, self.conf, score), kinds.GREATER), trt.float32)
        changed = unary(net, shuffle(net, sub(net, stays, last), shape=(0, count)), trt.UnaryOperation.ABS)
        changed = reduce_sum(net, mul(net, changed, valid), 1, keepdims=True)
        kept = mul(net, shuffle(net, stays, shape=(0, count)), valid)
        found = reduce_sum(net, kept, 1, keepdims=True)
        open_ = add(net, changed, self._left_out(net, best, found, count))
        wild = self._not_finite(net, scores, box, valid)
        fine = cast(net, binary(net, wild, scalar(net, 0.5, wild), kinds.LESS), trt.float32)

        rank = sub(net, add(net, mul(net, score, kept), kept), scalar(net, 1, kept))  # kept: its score, else -1
        score, place = topk(net, rank, rows, axis=1)
        number = mul(net, binary(net, found, scalar(net, rows, found), kinds.MIN), fine)
        here = binary(net, constant(net, np.arange(rows, dtype=np.float32)[None]), number, kinds.LESS)  # (N, D)
        box = gather(net, box, place, axis=1, batched=True)
        box = select(net, shuffle(net, here, shape=(0, rows, 1)), box, scalar(net, 0, box))
        score = select(net, here, score, scalar(net, 0, score))
        label = gather(net, label, place, axis=1, batched=True)
        label = select(net, here, label, scalar(net, -1, label))
        outputs = (cast(net, number, trt.int32), box, score, label)
        return *self._padded(net, outputs, rows), cast(net, add(net, open_, wild), trt.int32)

    def _suppressions(self, net: Net, box: Tensor, label: Tensor, count: int) -> Tensor:
        """(N, K, K): 1 where the box of the column is better than the row's and overlaps it."""
        kinds = net.trt.ElementWiseOperation
        moved = box
        if not self.apart:
            offset = cast(net, label, net.trt.float32)
            offset = mul(net, offset, scalar(net, CLASS_OFFSET, offset))
            moved = add(net, box, shuffle(net, offset, shape=(0, count, 1)))
        column = [gather(net, moved, constant(net, np.int32([side])), axis=2) for side in range(4)]  # (N, K, 1)
        row = [shuffle(net, side, (0, 2, 1)) for side in column]
        area = mul(net, sub(net, column[2], column[0]), sub(net, column[3], column[1]))

        def shared(low: int, high: int) -> Tensor:
            last, first = binary(net, column[high], row[high], kinds.MIN), binary(net, column[low], row[low], kinds.MAX)
            length = sub(net, last, first)
            return binary(net, length, scalar(net, 0, length), kinds.MAX)

        both = mul(net, shared(0, 2), shared(1, 3))
        overlap = div(net, both, sub(net, add(net, area, shuffle(net, area, (0, 2, 1))), both))
        over = binary(net, overlap, scalar(net, self.iou, overlap), kinds.GREATER)
        if self.apart:
            labels = (shuffle(net, label, shape=shape) for shape in ((0, count, 1), (0, 1, count)))
            over = binary(net, over, binary(net, *labels, kinds.EQUAL), kinds.AND)
        place = np.arange(count, dtype=np.int32)
        column_of, row_of = constant(net, place.reshape(1, 1, -1)), constant(net, place.reshape(1, -1, 1))
        return cast(net, binary(net, over, binary(net, row_of, column_of, kinds.GREATER), kinds.AND), net.trt.float32)

    def _left_out(self, net: Net, best: Tensor, found: Tensor, count: int) -> Tensor:
        """(N, 1): how many anchors above the threshold were not considered, where they could still matter."""
        kinds, float32 = net.trt.ElementWiseOperation, net.trt.float32
        above = cast(net, binary(net, best, scalar(net, self.conf, best), kinds.GREATER), float32)
        more = sub(net, reduce_sum(net, above, 1, keepdims=True), scalar(net, count, found))
        more = binary(net, more, scalar(net, 0, more), kinds.MAX)
        room = binary(net, found, scalar(net, self.max_det, found), kinds.LESS)
        return mul(net, more, cast(net, room, float32))

    def _not_finite(self, net: Net, scores: Tensor, box: Tensor, valid: Tensor) -> Tensor:
        """(N, 1): how many scores are no finite numbers, and how many sides of candidates that are `valid`."""
        sides = mul(net, reduce_sum(net, not_finite(net, box), 2), valid)
        some = shuffle(net, reduce_sum(net, not_finite(net, scores), (1, 2)), shape=(-1, 1))
        return add(net, some, reduce_sum(net, sides, 1, keepdims=True))

    def _padded(self, net: Net, outputs: tuple[Tensor, ...], rows: int) -> tuple[Tensor, ...]:
        """The outputs with `max_det` rows, where there are fewer anchors than that."""
        missing = self.max_det - rows
        if not missing:
            return outputs
        number, box, score, label = outputs
        zeros = mul(net, narrow(net, score, 1, 0, 1), constant(net, np.zeros((1, missing), np.float32)))  # (N, missing)
        boxes = mul(net, shuffle(net, zeros, shape=(0, missing, 1)), constant(net, np.zeros((1, 1, 4), np.float32)))
        none = cast(net, sub(net, zeros, scalar(net, 1, zeros)), net.trt.int32)
        return number, join(net, (box, boxes)), join(net, (score, zeros)), join(net, (label, none))

    # As kernels

    def cuda(self, inputs: tuple[Symbol, ...], outputs: tuple[Symbol, ...]) -> Cuda:
        boxes, scores = inputs
        n, classes, anchors = scores[0], scores[1], scores[2]
        every = n * anchors
        parts = (0, 8 * every, 24 * every, 28 * every, 32 * every, 36 * every)
        keys, corners, best, label, labels, state = map(Offset, parts)
        chosen = (keys, labels, state, anchors)
        ordered = (corners, best, label, state)
        return Cuda(
            SOURCE,
            (
                Launch("begin", (ceil_div(n * 2, 128),), (128,), (state, n * 2)),
                Launch("choose", (ceil_div(anchors, 32), n), (256,), (boxes, scores, *chosen, classes)),
                Launch("sort", (ceil_div(anchors, 128), n), (128,), (boxes, keys, labels, *ordered, anchors)),
                Launch("suppress", (n,), (1024,), (*ordered, *outputs, anchors)),
            ),
            types={"fp32": "ff>iffii", "fp16": "fh>iffii"},
            defines={
                "CONF": literal(self.conf), "IOU": literal(self.iou), "MAX_DET": self.max_det,
                "CLASS_OFFSET": literal(0 if self.apart else CLASS_OFFSET), "MAX_CANDIDATES": MAX_CANDIDATES,
                "APART": int(self.apart),
            },
            scratch=36 * every + 8 * n,
            exact=True,
        )  # fmt: skip

    def builtin(self, net: Net, boxes: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
        """EfficientNMS, which counts an anchor once for each class and considers 4,096 of them."""
        from zoo.plugins.core.layer import add_builtin

        found = add_builtin(
            net, "EfficientNMS_TRT", [shuffle(net, boxes, (0, 2, 1)), shuffle(net, scores, (0, 2, 1))],
            score_threshold=self.conf, iou_threshold=self.iou, max_output_boxes=self.max_det, background_class=-1,
            score_activation=0, box_coding=1,
        )  # fmt: skip
        return *found, binary(net, found[0], found[0], net.trt.ElementWiseOperation.SUB)


def _corners(net: Net, boxes: Tensor) -> Tensor:
    """(N, 4, A) cx, cy, w, h as x1, y1, x2, y2."""
    centre, size = narrow(net, boxes, 1, 0, 2), narrow(net, boxes, 1, 2, 2)
    half = mul(net, size, scalar(net, 0.5, size))
    return concat(net, [sub(net, centre, half), add(net, centre, half)])


SOURCE = """
#define GROUPS 8 // threads that share the classes of an anchor
#define TILE 64  // candidates that are judged at once, a bit each

static __device__ bool overlaps(const float *a, const float *b)
{
    float width = fminf(a[2], b[2]) - fmaxf(a[0], b[0]), height = fminf(a[3], b[3]) - fmaxf(a[1], b[1]);
    float both = fmaxf(width, 0.0f) * fmaxf(height, 0.0f);
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both) > IOU;
}

// state[n] = (how many candidates, whether something is not finite)
KERNEL(begin)(uint32 *state, int count)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        state[i] = 0;
}

// Appends the anchors whose best class scores more than CONF. A key is the inverted score, then the anchor: ascending
// keys are descending scores, ties in the anchors' order.
PHASED(choose)(const float *RESTRICT boxes, const T *RESTRICT scores, uint64 *keys, int *labels, uint32 *state,
               int anchors, int classes)
{
    SHARED float group_best[GROUPS][32];
    SHARED int group_label[GROUPS][32];
    int image = blockIdx.y;
    PHASE {
        int group = threadIdx.x / 32, anchor = blockIdx.x * 32 + threadIdx.x % 32, label = 0;
        float best = -1;
        bool bad = false;
        if (anchor < anchors) {
            const T *score = scores + (int64)image * classes * anchors + anchor;
            #pragma unroll 5
            for (int c = group; c < classes; c += GROUPS) {
                float value = score[(int64)c * anchors];
                bad = bad || !(value - value == 0);
                if (value > best) {
                    best = value;
                    label = c;
                }
            }
        }
        group_best[group][threadIdx.x % 32] = best;
        group_label[group][threadIdx.x % 32] = label;
        if (bad)
            atomicOr(&state[2 * image + 1], 1u);
    }
    PHASE {
        int anchor = blockIdx.x * 32 + threadIdx.x;
        if (threadIdx.x >= 32 || anchor >= anchors)
            continue;
        float best = group_best[0][threadIdx.x];
        int label = group_label[0][threadIdx.x];
        for (int g = 1; g < GROUPS; g++) {
            float other = group_best[g][threadIdx.x];
            if (other > best || (other == best && group_label[g][threadIdx.x] < label)) {
                best = other;
                label = group_label[g][threadIdx.x];
            }
        }
        if (best > CONF) {
            uint32 slot = atomicAdd(&state[2 * image], 1u);
            keys[(int64)image * anchors + slot] = ((uint64)~__float_as_uint(best) << 32) | (uint32)anchor;
            labels[(int64)image * anchors + slot] = label;
        }
    }
}

// Writes every candidate to its place in the order of the keys, which is how many are smaller.
KERNEL(sort)(const float *RESTRICT boxes, const uint64 *RESTRICT keys, const int *RESTRICT labels, float *corners,
             float *best, int *label, uint32 *state, int anchors)
{
    int image = blockIdx.y, count = state[2 * image], i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    keys += (int64)image * anchors;
    uint64 key = keys[i];
    int place = 0;
    #pragma unroll 8
    for (int j = 0; j < count; j++)
        place += keys[j] < key;
    uint32 anchor = (uint32)key;
    const float *box = boxes + (int64)image * 4 * anchors + anchor;
    int64 at = (int64)image * anchors + place;
    for (int k = 0; k < 2; k++) {
        float centre = box[(int64)k * anchors], half = box[(int64)(k + 2) * anchors] / 2.0f;
        corners[4 * at + k] = centre - half;
        corners[4 * at + k + 2] = centre + half;
        if (!(centre - centre == 0 && half - half == 0))
            atomicOr(&state[2 * image + 1], 1u);
    }
    best[at] = __uint_as_float(~(uint32)(key >> 32));
    label[at] = labels[(int64)image * anchors + i];
}

// Greedy suppression, a block for each image: TILE candidates at a time against all kept before, then among themselves.
PHASED(suppress)(const float *RESTRICT corners, const float *RESTRICT best, const int *RESTRICT label,
                 const uint32 *RESTRICT state, int *number, float *boxes, float *scores, int *classes, int *open,
                 int anchors)
{
    SHARED float kept_box[MAX_DET][4], tile_box[TILE][4];
    SHARED uint64 beaten, beats[TILE]; // a bit for each candidate of the tile
    SHARED int kept, fresh, chosen[TILE];
    int image = blockIdx.x, count = state[2 * image];
    bool bad = state[2 * image + 1] != 0;
    corners += (int64)image * 4 * anchors;
    best += (int64)image * anchors;
    label += (int64)image * anchors;
    boxes += (int64)image * 4 * MAX_DET;
    scores += (int64)image * MAX_DET;
    classes += (int64)image * MAX_DET;
    count = bad ? 0 : count < MAX_CANDIDATES ? count : MAX_CANDIDATES;
    PHASE {
        if (threadIdx.x == 0)
            kept = 0;
    }
    for (int start = 0; start < count && kept < MAX_DET; start += TILE) {
        int size = count - start < TILE ? count - start : TILE;
        PHASE {
            int i = threadIdx.x;
            if (i < TILE)
                beats[i] = 0;
            if (i == 0)
                beaten = 0;
            if (i < size)
                for (int k = 0; k < 4; k++)
                    tile_box[i][k] = corners[4 * (start + i) + k] + label[start + i] * CLASS_OFFSET;
        }
        PHASE {
            for (int pair = threadIdx.x; pair < TILE * (kept + TILE); pair += blockDim.x) {
                int i = pair % TILE, other = pair / TILE, j = other - kept;
                if (i >= size || (j >= 0 && j >= i) || (j < 0 && (beaten >> i & 1)))
                    continue;
                if (APART && label[start + i] != (j < 0 ? classes[other] : label[start + j]))
                    continue;
                if (overlaps(j < 0 ? kept_box[other] : tile_box[j], tile_box[i]))
                    atomicOr(j < 0 ? &beaten : &beats[j], (uint64)1 << i);
            }
        }
        PHASE {
            if (threadIdx.x != 0)
                continue;
            uint64 alive = ~beaten & (~(uint64)0 >> (TILE - size));
            for (fresh = 0; alive && kept + fresh < MAX_DET; fresh++) {
                int i = __ffsll(alive) - 1;
                chosen[fresh] = i;
                alive &= ~(beats[i] | (uint64)1 << i);
            }
        }
        PHASE {
            if ((int)threadIdx.x >= fresh)
                continue;
            int i = chosen[threadIdx.x], row = kept + threadIdx.x;
            for (int k = 0; k < 4; k++) {
                kept_box[row][k] = tile_box[i][k];
                boxes[4 * row + k] = corners[4 * (start + i) + k];
            }
            scores[row] = best[start + i];
            classes[row] = label[start + i];
        }
        PHASE {
            if (threadIdx.x == 0)
                kept += fresh;
        }
    }
    PHASE {
        for (int row = kept + threadIdx.x; row < MAX_DET; row += blockDim.x) {
            for (int k = 0; k < 4; k++)
                boxes[4 * row + k] = 0;
            scores[row] = 0;
            classes[row] = -1;
        }
        if (threadIdx.x == 0) {
            number[image] = kept;
            open[image] = bad;
        }
    }
}
"""


def nms(
    net: Net, boxes: Tensor, scores: Tensor, *, conf: float = 0.25, iou: float = 0.7, max_det: int = 300
) -> tuple[Tensor, ...]:
    """boxes (N, 4, A) cx, cy, w, h, scores (N, classes, A) -> num_detections, boxes, scores, classes, open (`Nms`)."""
    return Nms(float(conf), float(iou), max_det)(net, boxes, scores)  # type: ignore[return-value]  # five outputs
