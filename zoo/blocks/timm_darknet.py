"""What timm's Darknet-53 and CSPDarknet-53 share (arXiv:1804.02767, 1911.11929), with its scopes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zoo.blocks.timm_layers import classifier
from zoo.network import Net, Tensor
from zoo.ops import add, conv_bn, leaky_relu

Stage = Callable[[Net, Tensor, int, int], Tensor]  # net, x, channels, blocks
WIDTHS, DEPTHS = (64, 128, 256, 512, 1024), (1, 2, 8, 8, 4)


@dataclass(frozen=True)
class Config:
    num_classes: int = 1000


def conv(net: Net, x: Tensor, out: int, k: int, stride: int = 1) -> Tensor:
    """Convolution, normalisation and a leaky ReLU of slope 0.01."""
    return conv_bn(net, x, out, k, stride, activation=leaky_relu)


def block(net: Net, x: Tensor, hidden: int) -> Tensor:
    y = conv(net / "conv2", conv(net / "conv1", x, hidden, 1), x.shape[1], 3)
    return net.tap(add(net, y, x))


def darknet53(net: Net, x: Tensor, cfg: Config, stage: Stage) -> Tensor:
    """The stem, five stages and the classifier."""
    x = conv(net / "stem" / "conv1", x, 32, 3)
    for i, (width, depth) in enumerate(zip(WIDTHS, DEPTHS)):
        x = stage(net / "stages" / i, x, width, depth)
    return classifier(net / "head", x, cfg.num_classes)
