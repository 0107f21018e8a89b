"""MobileNetV3's layers, for classification and as a backbone (Howard et al. 2019, arXiv:1905.02244).

Scopes are torchvision's. The epsilon of every normalisation is 1e-3, not PyTorch's 1e-5, but in its detectors.
"""

from __future__ import annotations

from collections.abc import Sequence

from zoo.blocks.mbconv import Activation, conv, inverted_residual, make_divisible, squeeze_excite
from zoo.network import Net, Tensor
from zoo.ops import hardsigmoid, hardswish, relu

# kernel, expanded, out, squeeze-and-excite, activation, stride
Row = tuple[int, int, int, bool, Activation, int | tuple[int, int]]

LARGE: tuple[Row, ...] = (  # table 1
    (3, 16, 16, False, relu, 1),
    (3, 64, 24, False, relu, 2),
    (3, 72, 24, False, relu, 1),
    (5, 72, 40, True, relu, 2),
    (5, 120, 40, True, relu, 1),
    (5, 120, 40, True, relu, 1),
    (3, 240, 80, False, hardswish, 2),
    (3, 200, 80, False, hardswish, 1),
    (3, 184, 80, False, hardswish, 1),
    (3, 184, 80, False, hardswish, 1),
    (3, 480, 112, True, hardswish, 1),
    (3, 672, 112, True, hardswish, 1),
    (5, 672, 160, True, hardswish, 2),
    (5, 960, 160, True, hardswish, 1),
    (5, 960, 160, True, hardswish, 1),
)
SMALL: tuple[Row, ...] = (  # table 2
    (3, 16, 16, True, relu, 2),
    (3, 72, 24, False, relu, 2),
    (3, 88, 24, False, relu, 1),
    (5, 96, 40, True, hardswish, 2),
    (5, 240, 40, True, hardswish, 1),
    (5, 240, 40, True, hardswish, 1),
    (5, 120, 48, True, hardswish, 1),
    (5, 144, 48, True, hardswish, 1),
    (5, 288, 96, True, hardswish, 2),
    (5, 576, 96, True, hardswish, 1),
    (5, 576, 96, True, hardswish, 1),
)


def squeeze(net: Net, x: Tensor) -> Tensor:
    return squeeze_excite(net, x, make_divisible(x.shape[1] // 4), gate=hardsigmoid)


def features(net: Net, x: Tensor, rows: Sequence[Row], *, dilated: bool = False, eps: float = 1e-3) -> list[Tensor]:
    """What the stem, each row and the last convolution return: strides 2 to 32, to 16 where the last stage is
    `dilated`."""
    last_stage = max(i for i, row in enumerate(rows) if row[-1] == 2)
    found = [conv(net / 0, x, 16, 3, 2, activation=hardswish, eps=eps)]
    for i, (k, hidden, out, squeezed, activation, stride) in enumerate(rows):
        gated = squeeze if squeezed else None
        dilation = 2 if dilated and i >= last_stage else 1
        step = 1 if dilation > 1 else stride
        x = inverted_residual(
            net / (i + 1), found[-1], hidden, out, k, step, activation, gated, eps=eps, dilation=dilation
        )
        found.append(x)
    return [*found, conv(net / (len(rows) + 1), x, 6 * x.shape[1], 1, activation=hardswish, eps=eps)]
