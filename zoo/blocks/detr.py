"""What detection transformers share (Carion et al. 2020, arXiv:2005.12872; Zhao et al. 2023, arXiv:2304.08069).

A query has a box (N, Q, 4): cx, cy, w, h in 0 ... 1 of the picture. Boxes stay in fp32, whatever the precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo.blocks.transformer import attend_each
from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    div,
    expand_batch,
    hardtanh,
    layer_norm,
    linear,
    log,
    matmul,
    mul,
    narrow,
    reduce_max,
    relu,
    reshape,
    sigmoid,
    softmax,
    sub,
    take_rows,
    topk,
    transpose,
)
from zoo.plugins.ms_deform_attn import ms_deform_attn

Sizes = Sequence[tuple[int, int]]  # (height, width) of each level

ANCHOR = 0.05  # the side of an anchor on the finest level
EDGE = 0.01  # places whose anchor lies so near to a border take no part
NEVER = 1e4  # the logit of 1


def mlp_head(net: Net, x: Tensor, hidden: int, out: int, layers: int = 3, act: Net | None = None) -> Tensor:
    """Linear layers with ReLU between them, which is at `act` where it is a module."""
    for i in range(layers - 1):
        x = relu(act or net.functional, linear(net / "layers" / i, x, hidden))
    return net.tap(linear(net / "layers" / (layers - 1), x, out))


def attend_placed(net: Net, x: Tensor, positions: Tensor, heads: int) -> Tensor:
    """Self-attention of x (N, S, C) whose queries and keys know their positions, and whose values do not."""
    placed = add(net, x, positions)
    return attend_projected(net, placed, placed, x, heads)


def attend_projected(net: Net, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention of q (N, Q, C) to k and v (N, S, C), each projected by itself."""
    width = q.shape[-1]
    q, k, v = (linear(net / f"{name}_proj", x, width) for name, x in zip("qkv", (q, k, v)))
    return net.tap(linear(net / "o_proj", attend_each(net, q, k, v, heads), width))


def fed_forward(net: Net, x: Tensor, hidden: int) -> Tensor:
    """The end of a layer: an MLP with ReLU, and the normalisation after its sum with x (N, S, C)."""
    at = net / "mlp"
    y = linear(at / "fc2", relu(at / "activation_fn", linear(at / "fc1", x, hidden)), x.shape[-1])
    return net.tap(layer_norm(net / "final_layer_norm", add(net, x, at.tap(y))))


def attend_packed(net: Net, x: Tensor, positions: Tensor, heads: int, *, batch_first: bool) -> Tensor:
    """The same in torch.nn.MultiheadAttention, which keeps the three projections in one.

    Unless `batch_first`, its own result has the tokens before the batch: it is judged with what comes next.
    """
    width, placed = x.shape[-1], add(net, x, positions)
    weight, bias = net.weight("in_proj_weight", 3 * width, width), net.weight("in_proj_bias", 3 * width)

    def project(x: Tensor, part: int) -> Tensor:
        rows = slice(part * width, (part + 1) * width)
        kernel = net.constant(weight[None, rows], "in_proj_weight")
        return add(net, matmul(net, x, kernel, transpose=True), net.constant(bias[None, None, rows], "in_proj_bias"))

    x = attend_each(net, project(placed, 0), project(placed, 1), project(x, 2), heads)
    x = linear(net.functional, x, width, weight="out_proj.weight", bias="out_proj.bias")
    if batch_first:
        return net.tap(x)
    net.definition.folded.add(net.scope)
    return x


def attend_deformable(
    net: Net, at: Net, x: Tensor, boxes: Tensor, memory: Tensor, sizes: Sizes, heads: int, points: int
) -> Tensor:
    """Each query of x (N, Q, C) looks at `points` places around its box on each level of `memory` (N, S, C).

    `at` is where the attention itself is named. An offset of `points` reaches from the centre to the border of the box.
    """
    (queries, width), levels = x.shape[1:], len(sizes)
    value = reshape(net, linear(net / "value_proj", memory, width), (0, -1, heads, width // heads))
    offsets = linear(net / "sampling_offsets", x, heads * levels * points * 2)
    weights = linear(net / "attention_weights", x, heads * levels * points)
    weights = softmax(net.functional, reshape(net, weights, (0, queries, heads, levels * points)), axis=3)
    weights = reshape(net, weights, (0, queries, heads, levels, points))

    exact = net.fp32
    centres, sides = (reshape(exact, narrow(exact, boxes, 2, start, 2), (0, queries, 1, 2)) for start in (0, 2))
    offsets = reshape(exact, exact.enter(offsets), (0, queries, -1, 2))
    places = add(exact, centres, mul(exact, offsets, mul(exact, sides, 0.5 / points)))
    places = reshape(exact, places, (0, queries, heads, levels, points, 2))
    return ms_deform_attn(at, value, places, weights, sizes)


def positions(net: Net, size: tuple[int, int], width: int) -> Tensor:
    """(1, H * W, width) for each place of a map: sines and cosines of its row, then those of its column."""
    waves = 10000.0 ** -(np.arange(width // 4) / (width // 4))
    angles = [places.reshape(-1, 1) * waves for places in np.mgrid[: size[0], : size[1]]]
    values = np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=1)
    return net.constant(values[None], "positions")


def waves(net: Net, size: tuple[int, int], width: int) -> Tensor:
    """The same as DETR has them: angles run to 2 pi over the map, sines and cosines take turns.

    The reference makes a map of it for each picture: it is judged with what reads it.
    """
    net.definition.folded.add(net.scope)
    rates = 10000.0 ** -(np.arange(width // 4) * 4 / width)
    angles = [
        2 * np.pi * (places.reshape(-1, 1) + 1) / (side + 1e-6) * rates
        for places, side in zip(np.mgrid[: size[0], : size[1]], size)
    ]
    values = [np.stack([np.sin(angle), np.cos(angle)], -1).reshape(len(angle), -1) for angle in angles]
    return net.constant(np.concatenate(values, axis=1)[None], "positions")


def anchors(sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """The logits (1, S, 4) of a square box around each place of all levels, and which places take part (1, S, 1)."""
    boxes = []
    for level, (height, width) in enumerate(sizes):
        y, x = np.mgrid[:height, :width]
        centres = np.stack([(x + 0.5) / width, (y + 0.5) / height], -1).reshape(-1, 2)
        boxes.append(np.concatenate([centres, np.full_like(centres, ANCHOR * 2**level)], 1))
    logits = np.concatenate(boxes)[None]
    valid = ((logits > EDGE) & (logits < 1 - EDGE)).all(-1, keepdims=True)
    return np.where(valid, np.log(logits / (1 - logits)), NEVER), valid


def without_edges(net: Net, memory: Tensor, sizes: Sizes) -> Tensor:
    """`memory` (N, S, C) of all levels with zeros where a place takes no part, as happens on maps of over 50 cells."""
    valid = anchors(sizes)[1]
    return memory if valid.all() else mul(net, memory, net.constant(valid.astype(np.float32), "valid"))


def anchored(net: Net, changes: Tensor, sizes: Sizes) -> Tensor:
    """Boxes (N, S, 4) as logits: the anchors of all levels, changed."""
    at = net.fp32
    return add(at, at.enter(changes), at.constant(anchors(sizes)[0], "anchors"))


def anchored_at(net: Net, changes: Tensor, sizes: Sizes, places: Tensor) -> Tensor:
    """The same for some `places` (N, Q) alone, with their `changes` (N, Q, 4)."""
    at = net.fp32
    logits = expand_batch(at, at.constant(anchors(sizes)[0], "anchors"), like=changes)
    return add(at, at.enter(changes), take_rows(at, logits, places))


def best(net: Net, logits: Tensor, queries: int) -> Tensor:
    """The places (N, queries), int32, whose best class scores most, of logits (N, S, classes).

    In fp32: in half precision many scores are equal, and the order of the places would decide.
    """
    places = logits.shape[1]
    if places < queries:
        raise ZooError(f"the image is too small: it has {places} places for {queries} queries; use a larger one")
    return topk(net.fp32, reduce_max(net.fp32, logits, 2), queries, 1)[1]


def refined(net: Net, change: Tensor, boxes: Tensor) -> Tensor:
    """`boxes` moved by `change`, both (N, Q, 4), in the space of logits."""
    at = net.fp32
    ratio = div(at, _clipped(at, boxes), _clipped(at, sub(at, 1.0, boxes)))
    return sigmoid(at.functional, add(at, at.enter(change), log(at, ratio)))


def _clipped(net: Net, x: Tensor) -> Tensor:
    return hardtanh(net.functional, x, 1e-5, 1.0)


def detections(net: Net, boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """Boxes (N, 4, Q) in pixels of an input of `size` (height, width), and scores (N, classes, Q)."""
    at, (height, width) = net.fp32, size
    boxes = mul(at, boxes, at.constant(np.array([[[width, height] * 2]]), "size"))
    return {"boxes": transpose(at, boxes, (0, 2, 1)), "scores": transpose(net, scores, (0, 2, 1))}
