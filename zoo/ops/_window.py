"""How ops with a window (convolutions, pooling) take its size, stride and padding."""

from __future__ import annotations

from typing import Any, Literal

from zoo.errors import ZooError
from zoo.network import Net, Tensor

# One number for both, or (height, width).
Pair = int | tuple[int, int]

# One number; (height, width) as PyTorch's convolutions have it; four sides (left, right, top, bottom) as its ZeroPad2d
# has them; or "same" as TensorFlow pads: the size is divided by the stride and rounded up, an odd pixel comes last.
Padding = int | tuple[int, int] | tuple[int, int, int, int] | Literal["same"]


def pair(value: Pair) -> tuple[int, int]:
    """(height, width)."""
    return (value, value) if isinstance(value, int) else value


def padding_of(net: Net, x: Tensor, pad: Padding, k: Pair, stride: Pair, dilation: Pair = 1) -> dict[str, Any]:
    """The attributes by which a layer of TensorRT on x (N, C, H, W) pads so."""
    if pad == "same" and -1 in tuple(x.shape)[2:]:
        if pair(dilation) != (1, 1):
            raise ZooError(
                f"'{net.scope}' pads a dilated kernel by the size of its map: height and width must be fixed"
            )
        return {"padding_mode": net.trt.PaddingMode.SAME_UPPER}
    if pad == "same":
        sizes = zip(x.shape[2:], pair(k), pair(stride), pair(dilation))
        total = [max((-(-size // s) - 1) * s + (kernel - 1) * d + 1 - size, 0) for size, kernel, s, d in sizes]
        return {"pre_padding": tuple(n // 2 for n in total), "post_padding": tuple(n - n // 2 for n in total)}
    left, right, top, bottom = sides(pad)
    return {"pre_padding": (top, left), "post_padding": (bottom, right)}


def symmetric(padding: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """The `padding` of PyTorch's module for such attributes; nothing where its sides differ."""
    known = "pre_padding" in padding and padding["pre_padding"] == padding["post_padding"]
    return {"padding": padding["pre_padding"]} if known else {}


def sides(pad: int | tuple[int, ...]) -> tuple[int, int, int, int]:
    """(left, right, top, bottom)."""
    if isinstance(pad, tuple) and len(pad) == 4:
        return pad
    height, width = pair(pad)
    return width, width, height, height
