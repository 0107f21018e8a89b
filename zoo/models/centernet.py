"""CenterNet with ResNet-18 and deformable convolutions (Zhou, Wang, Krähenbühl 2019, arXiv:1904.07850; resnet_dcn.py).

An object is a peak of its class's map, the cell's own size is its box: nothing is suppressed but a cell's neighbours.
What people get wrong: offsets are the first two thirds of what their convolution gives, row before column by turns, and
only the last third passes a sigmoid; pictures are BGR. Scopes are upstream's (github.com/xingyizhou/CenterNet).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.blocks.resnet import Stages, features
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    batch_norm,
    concat,
    conv2d,
    conv_transpose2d,
    fixed_size,
    hardtanh,
    max_pool,
    mul,
    relu,
    reshape,
    sigmoid,
    split,
    sub,
)
from zoo.plugins.deform_conv2d import deform_conv2d
from zoo.preprocess import Resize
from zoo.registry import Variant, classes_from, register

STRIDE = 4.0


@dataclass(frozen=True)
class Config:
    num_classes: int = 80


def deformable(net: Net, x: Tensor, out: int) -> Tensor:
    """DCN: offsets and weights of its nine taps come from a convolution of x."""
    offset, mask = split(net, conv2d(net / "conv_offset_mask", x, 27, 3), (18, 9))
    mask = sigmoid(net.functional, mask)
    return net.tap(deform_conv2d(net.functional, x, offset, out, 3, mask=mask, padding=1))


def enlarged(net: Net, x: Tensor) -> Tensor:
    """From stride 32 to stride 4."""
    for i, out in enumerate((256, 128, 64)):
        x = relu(net / (6 * i + 2), batch_norm(net / (6 * i + 1), deformable(net / (6 * i), x, out)))
        x = conv_transpose2d(net / (6 * i + 3), x, out, 4, 2, 1, bias=False)
        x = relu(net / (6 * i + 5), batch_norm(net / (6 * i + 4), x))
    return x


def head(net: Net, x: Tensor, out: int) -> Tensor:
    return conv2d(net / 2, relu(net / 1, conv2d(net / 0, x, 64, 3)), out, 1)


def peaks(net: Net, x: Tensor) -> Tensor:
    """Scores (N, classes, H, W), zero where one of the eight neighbours has more."""
    x = sigmoid(net.functional, x)
    below = sub(net, max_pool(net.functional, x, 3, 1, pad=1), x)
    below = hardtanh(net.functional, mul(net, below, 1e30), 0.0, 1.0)  # 0 or, where there is any difference, 1
    return mul(net, x, sub(net, 1.0, below))


@register(
    task="detect",
    options={"nms": False},
    reference="libreyolo:{name}",
    # upstream warps the picture by an affine transform whose pixels lie half of one beside these
    preprocess=Resize(
        512, "fit", interpolation="cv2:bilinear", color="BGR", mean=(0.408, 0.447, 0.470), std=(0.289, 0.274, 0.278),
        stride=32,
    ),
    paper="arXiv:1904.07850",
    configure=classes_from("hm.2.bias"),
    centernet_resdcn18=Variant(Config(), params=14_437_349, aliases=("centernet",)),  # as the reference counts its own
)  # fmt: skip
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    fixed_size(net, x, 32)
    x = enlarged(net / "deconv_layers", features(net, x, Stages((2, 2, 2, 2), bottleneck=False))["layer4"])
    heat, sides, beside = (head(net / name, x, out) for name, out in (("hm", cfg.num_classes), ("wh", 2), ("reg", 2)))
    at = net.fp32  # beyond 512 pixels half precision counts in halves
    height, width = x.shape[2:]
    y, x = np.mgrid[:height, :width]
    centres = add(at, beside, at.constant(np.stack([x, y])[None], "cells"))
    boxes = concat(at, [mul(at, part, STRIDE) for part in (centres, sides)])
    scores = peaks(at, heat)
    return {"boxes": reshape(at, boxes, (0, 4, -1)), "scores": reshape(at, scores, (0, cfg.num_classes, -1))}
