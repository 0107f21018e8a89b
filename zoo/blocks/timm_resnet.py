"""The frame of timm's ResNets, which SE-ResNet, Res2Net and ResNeSt fill with blocks of their own; timm's scopes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zoo.blocks.timm_layers import pooled
from zoo.network import Net, Tensor
from zoo.ops import avg_pool, conv_bn, linear, max_pool, relu

Block = Callable[[Net, Tensor, int, int], Tensor]  # net, x, planes, stride


def shortcut(net: Net, x: Tensor, out: int, stride: int, *, k: int = 1, average: bool = False) -> Tensor:
    """x in the shape of the block's result: as it is, projected, or (ResNet-D) averaged and projected."""
    at = net / "downsample"
    if stride == 1 and x.shape[1] == out:
        return x
    if not average:
        return conv_bn(at, x, out, 1 if stride == 1 else k, stride, conv=0, bn=1)
    if stride > 1:
        x = avg_pool(at / 0, x, 2, stride, ceil_mode=True, count_include_pad=False)
    return conv_bn(at, x, out, 1, conv=1, bn=2)


def basic(net: Net, x: Tensor, planes: int, stride: int = 1) -> Tensor:
    """The residual branch of a basic block."""
    x = relu(net / "act1", conv_bn(net, x, planes, 3, stride, conv="conv1", bn="bn1"))
    return conv_bn(net, x, planes, 3, conv="conv2", bn="bn2")


def bottleneck(net: Net, x: Tensor, out: int, stride: int, *, width: int, first: int, groups: int = 1) -> Tensor:
    """The residual branch of a bottleneck: 1x1 to `first` channels, 3x3 to `width`, 1x1 to `out`."""
    x = relu(net / "act1", conv_bn(net, x, first, 1, conv="conv1", bn="bn1"))
    x = relu(net / "act2", conv_bn(net, x, width, 3, stride, groups=groups, conv="conv2", bn="bn2"))
    return conv_bn(net, x, out, 1, conv="conv3", bn="bn3")


def stem(net: Net, x: Tensor, deep: int | None = None) -> Tensor:
    """One convolution of 7x7, or three of 3x3 of which the first two have `deep` channels; then a pooling."""
    if deep is None:
        x = conv_bn(net, x, 64, 7, 2, conv="conv1", bn="bn1")
    else:
        at = net / "conv1"
        x = relu(at / 2, conv_bn(at, x, deep, 3, 2, conv=0, bn=1))
        x = relu(at / 5, conv_bn(at, x, deep, 3, conv=3, bn=4))
        x = conv_bn(net, x, 2 * deep, 3, conv="conv1.6", bn="bn1")
    return max_pool(net / "maxpool", relu(net / "act1", x), 3, 2, pad=1)


def resnet(
    net: Net, x: Tensor, depths: Sequence[int], block: Block, classes: int, *, deep: int | None = None
) -> Tensor:
    """Stem, four stages of `block` and the classifier."""
    x = stem(net, x, deep)
    for stage, depth in enumerate(depths):
        for i in range(depth):
            x = block(net / f"layer{stage + 1}" / i, x, 64 << stage, 2 if stage > 0 and i == 0 else 1)
    return linear(net / "fc", pooled(net / "global_pool", x), classes)
