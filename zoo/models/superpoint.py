"""SuperPoint (DeTone et al. 2017, arXiv:1712.07629): points found again in other pictures, and their descriptors.

Each cell of 8x8 pixels scores its pixels and, last, that none of them is a point, which takes part in the softmax and
is then dropped. There is no normalisation but that of the descriptors. Scopes are transformers'.
"""

from __future__ import annotations

from zoo.network import Net, Tensor
from zoo.ops import (
    conv2d,
    l2_normalize,
    max_pool,
    narrow,
    open_size,
    pixel_shuffle,
    relu,
    reshape,
    softmax,
)
from zoo.preprocess import Resize
from zoo.registry import Variant, register

CELL = 8
WIDTHS, HEAD, DESCRIPTOR = (64, 64, 128, 128), 256, 256


def block(net: Net, x: Tensor, out: int, pooled: bool) -> Tensor:
    for name in ("conv_a", "conv_b"):
        x = relu(net / "relu", conv2d(net / name, x, out, 3))
    return net.tap(max_pool(net / "pool", x, 2) if pooled else x)


def decoded(net: Net, x: Tensor, name: str, out: int) -> Tensor:
    x = relu(net / "relu", conv2d(net / f"conv_{name}_a", x, HEAD, 3))
    return conv2d(net / f"conv_{name}_b", x, out, 1)


@register(
    task="keypoints",
    reference="transformers:{name}",
    preprocess=Resize((480, 640), color="GRAY", stride=CELL),
    paper="arXiv:1712.07629",
    superpoint=Variant(None, params=1_300_865),
)
def build(net: Net, x: Tensor, cfg: None) -> dict[str, Tensor]:
    """`scores` (N, H, W) of all pixels, and `descriptors` (N, 256, H / 8, W / 8) of length 1 of the cells."""
    height, width = open_size(net, x, CELL)
    for i, out in enumerate(WIDTHS):
        x = block(net / "encoder" / "conv_blocks" / i, x, out, pooled=i < 3)
    found = softmax(net, decoded(net / "keypoint_decoder", x, "score", CELL**2 + 1), 1)
    scores = pixel_shuffle(net, narrow(net, found, 1, 0, CELL**2), CELL)
    descriptors = l2_normalize(net, decoded(net / "descriptor_decoder", x, "descriptor", DESCRIPTOR))
    return {"scores": reshape(net, scores, (0, height, width), "pixels"), "descriptors": descriptors}
