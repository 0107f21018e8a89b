"""Xception (Chollet 2016, arXiv:1610.02357).

ReLU comes before each separable convolution but the first block's first, and none lies between the two halves of one.
The two convolutions of the stem are not padded. Scopes are those of timm's `legacy_xception`.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_layers import pooled
from zoo.network import Net, Tensor
from zoo.ops import add, conv2d, conv_bn, linear, max_pool, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

BLOCKS = (  # widths of the separable convolutions, stride (figure 5)
    ((128, 128), 2),
    ((256, 256), 2),
    ((728, 728), 2),
    *((((728, 728, 728), 1),) * 8),
    ((728, 1024), 2),
)


@dataclass(frozen=True)
class Config:
    num_classes: int = 1000


def separable(net: Net, x: Tensor, out: int, conv: str | int, bn: str | int) -> Tensor:
    x = conv2d(net / conv / "conv1", x, x.shape[1], 3, groups=x.shape[1], bias=False)
    return conv_bn(net, x, out, 1, conv=f"{conv}.pointwise", bn=bn)


def block(net: Net, x: Tensor, widths: tuple[int, ...], stride: int, first: bool) -> Tensor:
    at, y, i = net / "rep", x, 0
    for out in widths:
        if i or not first:
            y, i = relu(at / i, y), i + 1
        y, i = separable(at, y, out, i, i + 1), i + 2
    if stride > 1:
        y = max_pool(at / i, y, 3, stride, pad=1)
        x = conv_bn(net, x, widths[-1], 1, stride, conv="skip", bn="skipbn")
    return net.tap(add(net, y, x))


@register(
    task="classify",
    reference="timm:legacy_xception",
    preprocess=imagenet(
        size=299, share=0.8975, interpolation="pillow:bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    ),
    paper="arXiv:1610.02357",
    configure=classes_from("fc.bias"),
    xception=Variant(Config(), params=22_855_952, aliases=("legacy_xception",)),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = relu(net / "act1", conv_bn(net, x, 32, 3, 2, 0, conv="conv1", bn="bn1"))
    x = relu(net / "act2", conv_bn(net, x, 64, 3, 1, 0, conv="conv2", bn="bn2"))
    for i, (widths, stride) in enumerate(BLOCKS, start=1):
        x = block(net / f"block{i}", x, widths, stride, first=i == 1)
    x = relu(net / "act3", separable(net, x, 1536, "conv3", "bn3"))
    x = relu(net / "act4", separable(net, x, 2048, "conv4", "bn4"))
    return linear(net / "fc", pooled(net / "global_pool", x), cfg.num_classes)
