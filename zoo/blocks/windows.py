"""Attention within windows of a map (arXiv:2103.14030): tokens (N, H, W, C) are brought into their order by one gather.

Where each token comes from is worked out on the host, for the size that the network is defined at.
"""

from __future__ import annotations

import numpy as np

from zoo.network import Net, Tensor
from zoo.ops import concat, expand_batch, index_select, reshape, split, transpose


def pick(net: Net, x: Tensor, places: np.ndarray) -> Tensor:
    """The tokens of x (N, H, W, C) at `places`, in their order: (N, places, C). At H * W is a token of zeros."""
    _, height, width, channels = x.shape
    x = reshape(net, x, (0, height * width, channels))
    if places.max() == height * width:
        zeros = expand_batch(net, net.constant(np.zeros((1, 1, channels)), "zeros"), like=x)
        x = concat(net, [x, zeros], 1)
    return index_select(net, x, 1, places.reshape(-1).tolist())


def padded_places(height: int, width: int, multiple: int) -> np.ndarray:
    """The place of each token of a map that zeros fill up, right and below, to multiples of a window's side."""
    places = np.arange(height * width).reshape(height, width)
    return np.pad(places, ((0, -height % multiple), (0, -width % multiple)), constant_values=height * width)


def windows(array: np.ndarray, side: int) -> np.ndarray:
    """(H, W) cut into windows: (windows, side * side)."""
    height, width = array.shape
    return array.reshape(height // side, side, width // side, side).swapaxes(1, 2).reshape(-1, side * side)


def grouped_heads(net: Net, qkv: Tensor, groups: int, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (N, groups * S, 3 * C), each as (N, groups * heads, S, C / heads)."""
    tokens, width = qkv.shape[1] // groups, qkv.shape[2] // 3
    qkv = transpose(net, reshape(net, qkv, (0, groups, tokens, 3, heads, width // heads)), (0, 3, 1, 4, 2, 5))
    qkv = reshape(net, qkv, (0, 3 * groups * heads, tokens, width // heads))
    q, k, v = split(net, qkv, [groups * heads] * 3)
    return q, k, v


def ungrouped(net: Net, x: Tensor, groups: int) -> Tensor:
    """(N, groups * heads, S, D) -> (N, groups * S, heads * D)."""
    _, both, tokens, depth = x.shape
    x = transpose(net, reshape(net, x, (0, groups, both // groups, tokens, depth)), (0, 1, 3, 2, 4))
    return reshape(net, x, (0, groups * tokens, both // groups * depth))


def relative_positions(rows: int, columns: int) -> np.ndarray:
    """For each pair of tokens of a window, where the table of relative positions has theirs, which holds
    (2 * rows - 1) * (2 * columns - 1) of them.
    """
    down, right = np.divmod(np.arange(rows * columns), columns)
    down, right = down[:, None] - down + rows - 1, right[:, None] - right + columns - 1
    return down * (2 * columns - 1) + right


def distances(rows: int, columns: int, stride: int = 1) -> np.ndarray:
    """For each pair of a map's tokens, which bias is that of their distances: (queries, rows * columns).

    Only every `stride`-th token down and across is a query.
    """
    places = np.arange(rows * columns).reshape(rows, columns)
    (down, right), queries = np.divmod(places.reshape(-1), columns), places[::stride, ::stride].reshape(-1)
    return abs(down[queries, None] - down) * columns + abs(right[queries, None] - right)


def continuous_position_bias(net: Net, heads: int, side: int) -> np.ndarray:
    """(heads, S, S): 16 * sigmoid of what the two layers of `cpb_mlp` make of the distances (arXiv:2111.09883)."""
    for i in range(3):
        net.definition.folded.add((net / "cpb_mlp" / i).scope)
    first, second, span = net / "cpb_mlp" / 0, net / "cpb_mlp" / 2, 2 * side - 1
    arrays = (
        net.buffer("relative_coords_table", 1, span, span, 2).reshape(-1, 2),
        first.weight("weight", 512, 2),
        first.weight("bias", 512),
        second.weight("weight", heads, 512),
    )
    x, weight, bias, last = (np.asarray(array, np.float64) for array in arrays)
    table = 16 / (1 + np.exp(-(np.maximum(x @ weight.T + bias, 0) @ last.T)))
    return table[relative_positions(side, side)].transpose(2, 0, 1)


def shares_by_place(net: Net, heads: int, side: int) -> np.ndarray:
    """(heads, S, S): what each token gives to the others for how far they are across, down and squared, by the layer
    `pos_proj` and a softmax (arXiv:2103.10697).
    """
    rows, columns = np.divmod(np.arange(side * side), side)
    across, down = columns - columns[:, None], rows - rows[:, None]
    places = np.stack([across, down, across**2 + down**2])
    net.definition.folded.add((net / "pos_proj").scope)
    weight, bias = (net / "pos_proj").weight("weight", heads, 3), (net / "pos_proj").weight("bias", heads)
    scores = np.einsum("hi,iqk->hqk", np.asarray(weight, np.float64), places) + np.asarray(bias)[:, None, None]
    exponents = np.exp(scores - scores.max(axis=2, keepdims=True))
    return exponents / exponents.sum(axis=2, keepdims=True)
