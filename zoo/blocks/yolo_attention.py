"""Attention in ultralytics' YOLOs: over all positions (v10, 11, 26) or over strips of them (12). Upstream's scopes."""

from __future__ import annotations

from collections.abc import Callable

from zoo.blocks.yolo import conv, linear_conv
from zoo.network import Net, Tensor
from zoo.ops import add, attention, concat, open_size, reshape, split, transpose
from zoo.ops._sizes import is_open


def positions_attention(net: Net, x: Tensor, heads: int) -> Tensor:
    """(N, C, H, W) -> same. Keys have half a head's width; query, key and value lie side by side for each head.

    The positional convolution acts on the values.
    """
    channels, (height, width) = x.shape[1], open_size(net, x)
    value = channels // heads
    key = value // 2
    qkv = linear_conv(net / "qkv", x, channels + 2 * key * heads)
    q, k, v = split(net, reshape(net, qkv, (0, heads, 2 * key + value, -1)), (key, key, value), axis=2)
    y = attention(net, *(transpose(net, part, (0, 1, 3, 2)) for part in (q, k, v)))
    y = reshape(net, transpose(net, y, (0, 1, 3, 2)), (0, channels, height, width))
    place = linear_conv(net / "pe", reshape(net, v, (0, channels, height, width)), channels, 3, groups=channels)
    return net.tap(linear_conv(net / "proj", add(net, y, place), channels))


def strip_attention(net: Net, x: Tensor, heads: int, strips: int) -> Tensor:
    """(N, C, H, W) -> same, each of `strips` runs of positions by itself: runs in reading order, not of rows."""
    channels, (height, width) = x.shape[1], open_size(net, x)
    head = channels // heads
    if is_open(height, width):  # the strips have an axis of their own, since only one size can be left to be found
        runs, swap = (0, strips, -1), (0, 1, 3, 2, 4)
    else:
        runs, swap = (-1, height * width // strips), (0, 2, 1, 3)
    qkv = transpose(net, linear_conv(net / "qkv", x, 3 * channels), (0, 2, 3, 1))
    qkv = transpose(net, reshape(net, qkv, (*runs, heads, 3 * head)), swap)
    q, k, v = split(net, qkv, (head, head, head), axis=len(swap) - 1)

    def as_map(tokens: Tensor) -> Tensor:
        tokens = reshape(net, transpose(net, tokens, swap), (runs[0], height, width, channels))
        return transpose(net, tokens, (0, 3, 1, 2))

    place = linear_conv(net / "pe", as_map(v), channels, 7, groups=channels)
    return net.tap(linear_conv(net / "proj", add(net, as_map(attention(net, q, k, v)), place), channels))


def feed_forward(net: Net, x: Tensor, hidden: int) -> Tensor:
    """Two 1x1 convolutions."""
    return linear_conv(net / 1, conv(net / 0, x, hidden), x.shape[1])


def psa_block(net: Net, x: Tensor) -> Tensor:
    """Attention and a feed-forward network, each beside a shortcut; 64 channels a head."""
    x = add(net, x, positions_attention(net / "attn", x, max(x.shape[1] // 64, 1)))
    return net.tap(add(net, x, feed_forward(net / "ffn", x, 2 * x.shape[1])))


def half_attended(net: Net, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
    """`attend` on the second half of the channels; the first half passes by."""
    channels = x.shape[1]
    kept, x = split(net, conv(net / "cv1", x, channels), (channels // 2, channels // 2))
    return conv(net / "cv2", concat(net, [kept, attend(x)]), channels)


def c2psa(net: Net, x: Tensor, repeats: int) -> Tensor:
    def attend(x: Tensor) -> Tensor:
        for i in range(repeats):
            x = psa_block(net / "m" / i, x)
        return x

    return half_attended(net, x, attend)


def psa(net: Net, x: Tensor) -> Tensor:
    """`c2psa` of one block, whose modules have no scope of their own."""

    def attend(x: Tensor) -> Tensor:
        x = add(net, x, positions_attention(net / "attn", x, max(x.shape[1] // 64, 1)))
        return add(net, x, feed_forward(net / "ffn", x, 2 * x.shape[1]))

    return half_attended(net, x, attend)
