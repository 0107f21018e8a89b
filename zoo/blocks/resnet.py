"""ResNet's blocks and stages (He et al. 2015, arXiv:1512.03385), with torchvision's scopes.

This is "v1.5": the stride of a bottleneck sits on its 3x3 convolution, not on the first 1x1.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.network import Net, Tensor
from zoo.ops import add, conv_bn, max_pool, relu

FROZEN_RESNET50 = 53_120  # scales and shifts of its normalisations, which torchvision's detectors freeze


@dataclass(frozen=True)
class Stages:
    """`dilated`: how many of the last stages dilate instead of striding, as DeepLab wants them. The first block of such
    a stage still has the dilation before it, unless it `dilates_at_once`."""

    depths: tuple[int, ...] = (3, 4, 6, 3)
    bottleneck: bool = True
    groups: int = 1
    base_width: int = 64
    dilated: int = 0
    dilates_at_once: bool = False


def basic(net: Net, x: Tensor, planes: int, stride: int, dilation: int) -> Tensor:
    x = relu(net / "relu", conv_bn(net, x, planes, 3, stride, dilation=dilation, conv="conv1", bn="bn1"))
    return conv_bn(net, x, planes, 3, dilation=dilation, conv="conv2", bn="bn2")


def bottleneck(net: Net, x: Tensor, planes: int, stride: int, dilation: int, cfg: Stages) -> Tensor:
    width, groups = planes * cfg.base_width // 64 * cfg.groups, cfg.groups
    x = relu(net / "relu", conv_bn(net, x, width, 1, conv="conv1", bn="bn1"))
    x = conv_bn(net, x, width, 3, stride, dilation=dilation, groups=groups, conv="conv2", bn="bn2")
    return conv_bn(net, relu(net / "relu", x), planes * 4, 1, conv="conv3", bn="bn3")


def residual(net: Net, x: Tensor, planes: int, stride: int, dilation: int, cfg: Stages) -> Tensor:
    """A block with its shortcut, which is projected where the shapes differ."""
    y = bottleneck(net, x, planes, stride, dilation, cfg) if cfg.bottleneck else basic(net, x, planes, stride, dilation)
    if stride != 1 or x.shape[1] != y.shape[1]:
        x = conv_bn(net / "downsample", x, y.shape[1], 1, stride, conv=0, bn=1)
    return relu(net / "relu", add(net, y, x))


def features(net: Net, x: Tensor, cfg: Stages) -> dict[str, Tensor]:
    """What the stem's `relu` and the four stages return, by their names: strides 2, 4, 8, 16 and 32."""
    found = {"relu": relu(net / "relu", conv_bn(net, x, 64, 7, 2, conv="conv1", bn="bn1"))}
    x, dilation = max_pool(net / "maxpool", found["relu"], 3, 2, pad=1), 1
    for stage, depth in enumerate(cfg.depths):
        dilated = stage >= len(cfg.depths) - cfg.dilated
        if dilated and cfg.dilates_at_once:
            dilation *= 2
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 and not dilated else 1
            x = residual(net / f"layer{stage + 1}" / i, x, 64 << stage, stride, dilation, cfg)
            if dilated and i == 0 and not cfg.dilates_at_once:
                dilation *= 2
        found[f"layer{stage + 1}"] = x
    return found
