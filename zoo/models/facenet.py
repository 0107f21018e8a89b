"""FaceNet's Inception-ResNet v1 (Schroff et al. 2015, arXiv:1503.03832; Szegedy et al. 2016, arXiv:1602.07261).

What a block adds is scaled by 0.17, 0.10 or 0.20, and by 1.0 in the last, which alone has no ReLU after the sum. The
epsilon of all normalisations is 1e-3; what halves a map is not padded. The embedding is of length 1. Scopes are
facenet-pytorch's; its published weights also hold the classifier that they were trained with.
"""

from __future__ import annotations

from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    batch_norm1d,
    concat,
    conv2d,
    conv_bn,
    flatten,
    global_avg_pool,
    l2_normalize,
    linear,
    max_pool,
    mul,
    relu,
)
from zoo.preprocess import Resize
from zoo.registry import Variant, register

EPS = 1e-3
ROW, COLUMN, SHORT_ROW, SHORT_COLUMN = (1, 7), (7, 1), (1, 3), (3, 1)
Layers = tuple[tuple[int, int | tuple[int, int]], ...]  # channels and kernel of each convolution


def conv(net: Net, x: Tensor, out: int, k: int | tuple[int, int], stride: int = 1, pad: int | None = None) -> Tensor:
    return net.tap(relu(net / "relu", conv_bn(net, x, out, k, stride, pad, eps=EPS)))


def branch(net: Net, x: Tensor, layers: Layers) -> Tensor:
    for i, (out, k) in enumerate(layers):
        x = conv(net / i, x, out, k)
    return x


def halved(net: Net, x: Tensor, layers: Layers) -> Tensor:
    """A branch whose last convolution halves the map."""
    *before, (out, k) = layers
    return conv(net / len(before), branch(net, x, tuple(before)), out, k, 2, 0)


def residual(
    net: Net, x: Tensor, width: int, branches: tuple[Layers, ...], scale: float, *, last: bool = False
) -> Tensor:
    """Branches beside a 1x1 convolution of `width` channels, joined, brought back to the width of x, and added."""
    joined = [conv(net / "branch0", x, width, 1)]
    joined += [branch(net / f"branch{i}", x, layers) for i, layers in enumerate(branches, 1)]
    y = conv2d(net / "conv2d", concat(net, joined), x.shape[1], 1)
    y = add(net, mul(net, y, scale), x)
    return net.tap(y if last else relu(net / "relu", y))


@register(
    task="embed",
    reference="facenet_pytorch:facenet",
    preprocess=Resize(160, divisor=128.0, mean=(127.5 / 128,)),
    paper="arXiv:1503.03832",
    ignored=("logits.*",),
    facenet=Variant(None, params=23_482_624),
)
def build(net: Net, x: Tensor, cfg: None) -> Tensor:
    x = conv(net / "conv2d_2a", conv(net / "conv2d_1a", x, 32, 3, 2, 0), 32, 3, 1, 0)
    x = max_pool(net / "maxpool_3a", conv(net / "conv2d_2b", x, 64, 3), 3, 2)
    x = conv(net / "conv2d_4a", conv(net / "conv2d_3b", x, 80, 1), 192, 3, 1, 0)
    x = conv(net / "conv2d_4b", x, 256, 3, 2, 0)
    for i in range(5):
        x = residual(net / "repeat_1" / i, x, 32, (((32, 1), (32, 3)), ((32, 1), (32, 3), (32, 3))), 0.17)
    at = net / "mixed_6a"
    strided, longer = conv(at / "branch0", x, 384, 3, 2, 0), halved(at / "branch1", x, ((192, 1), (192, 3), (256, 3)))
    x = at.tap(concat(at, [strided, longer, max_pool(at / "branch2", x, 3, 2)]))
    for i in range(10):
        x = residual(net / "repeat_2" / i, x, 128, (((128, 1), (128, ROW), (128, COLUMN)),), 0.10)
    at = net / "mixed_7a"
    ways = (((256, 1), (384, 3)), ((256, 1), (256, 3)), ((256, 1), (256, 3), (256, 3)))
    joined = [halved(at / f"branch{i}", x, layers) for i, layers in enumerate(ways)]
    x = at.tap(concat(at, [*joined, max_pool(at / "branch3", x, 3, 2)]))
    forked = (((192, 1), (192, SHORT_ROW), (192, SHORT_COLUMN)),)
    for i in range(5):
        x = residual(net / "repeat_3" / i, x, 192, forked, 0.20)
    x = residual(net / "block8", x, 192, forked, 1.0, last=True)
    x = linear(net / "last_linear", flatten(net, global_avg_pool(net / "avgpool_1a", x)), 512, bias=None)
    return l2_normalize(net, batch_norm1d(net / "last_bn", x, EPS))
