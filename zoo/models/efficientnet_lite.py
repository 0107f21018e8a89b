"""EfficientNet-Lite (Tan and Le 2019, arXiv:1905.11946): EfficientNet made for integer arithmetic.

No squeeze-and-excitation, ReLU6 for swish, and a stem, a head and a first and last stage that do not grow in depth.
Padding is TensorFlow's for the size that a variant was trained at, and stays so at others: a convolution with stride 2
gets one more pixel on the right and at the bottom where its input there is even. Scopes are those of
efficientnet-lite-pytorch; preprocessing is that of the TensorFlow weights, which it converted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from zoo.blocks.mbconv import make_divisible
from zoo.network import Net, Tensor
from zoo.ops import add, conv_bn, flatten, global_avg_pool, linear, relu6
from zoo.preprocess import Resize, imagenet
from zoo.registry import Variant, classes_from, register

EPS = 1e-3


@dataclass(frozen=True)
class Config:
    width: float = 1.0
    depth: float = 1.0
    size: int = 224  # trained at
    stages: tuple[tuple[int, int, int, int, int], ...] = (  # expansion, channels, blocks, stride of the first, kernel
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    )
    num_classes: int = 1000


def same(size: int, k: int, stride: int) -> tuple[int, int, int, int]:
    """TensorFlow's padding of a square of `size`: left, right, top, bottom."""
    total = max((math.ceil(size / stride) - 1) * stride + k - size, 0)
    return total // 2, total - total // 2, total // 2, total - total // 2


def block(net: Net, x: Tensor, expansion: int, out: int, stride: int, k: int, size: int) -> Tensor:
    """Inverted residual; `size` is that of its input when trained."""
    y, hidden = x, x.shape[1] * expansion
    if expansion != 1:
        y = relu6(net / "_swish", conv_bn(net, y, hidden, 1, eps=EPS, conv="_expand_conv", bn="_bn0"))
    y = conv_bn(
        net, y, hidden, k, stride, same(size, k, stride), groups=hidden, eps=EPS, conv="_depthwise_conv", bn="_bn1"
    )
    y = conv_bn(net, relu6(net / "_swish", y), out, 1, eps=EPS, conv="_project_conv", bn="_bn2")
    return net.tap(add(net, y, x)) if stride == 1 and x.shape[1] == out else y


def normalised(resize: int, size: int) -> Resize:
    return imagenet(
        resize, size, interpolation="pillow:bicubic", divisor=128.0, mean=(127 / 128,) * 3, std=(1.0, 1.0, 1.0)
    )


@register(
    task="classify",
    reference="efficientnet_lite_pytorch:{name}",
    paper="arXiv:1905.11946",
    configure=classes_from("_fc.bias"),
    preprocess=normalised(256, 224),
    efficientnet_lite0=Variant(Config(), params=4_652_008),
    efficientnet_lite1=Variant(Config(1.0, 1.1, 240), params=5_416_680, preprocess=normalised(272, 240)),
    efficientnet_lite2=Variant(Config(1.1, 1.2, 260), params=6_092_072, preprocess=normalised(292, 260)),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = conv_bn(net, x, 32, 3, 2, same(cfg.size, 3, 2), eps=EPS, conv="_conv_stem", bn="_bn0")
    x, size, i = relu6(net / "_swish", x), math.ceil(cfg.size / 2), 0
    for stage, (expansion, out, depth, stride, k) in enumerate(cfg.stages):
        scaled = 0 < stage < len(cfg.stages) - 1
        for j in range(math.ceil(depth * cfg.depth) if scaled else depth):
            step = stride if j == 0 else 1
            x = block(net / "_blocks" / i, x, expansion, make_divisible(out * cfg.width), step, k, size)
            size, i = math.ceil(size / step), i + 1
    x = relu6(net / "_swish", conv_bn(net, x, 1280, 1, eps=EPS, conv="_conv_head", bn="_bn1"))
    return linear(net / "_fc", flatten(net, global_avg_pool(net / "_avg_pooling", x)), cfg.num_classes)
