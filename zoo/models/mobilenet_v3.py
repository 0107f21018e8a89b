"""MobileNetV3, small and large (Howard et al. 2019, arXiv:1905.02244).

The epsilon of every normalisation is 1e-3, not PyTorch's 1e-5. Scopes are torchvision's; preprocessing and parameter
counts are those of its IMAGENET1K_V1 weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zoo.network import Net, Tensor
from zoo.ops import add, conv2d, conv_bn, flatten, global_avg_pool, hardsigmoid, hardswish, linear, mul, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

Activation = Callable[[Net, Tensor], Tensor]
Row = tuple[int, int, int, bool, Activation, int]  # kernel, expanded, out, squeeze-and-excite, activation, stride

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


@dataclass(frozen=True)
class Config:
    rows: tuple[Row, ...]
    hidden: int  # of the classifier
    num_classes: int = 1000


def conv(
    net: Net, x: Tensor, out: int, k: int, stride: int = 1, groups: int = 1, activation: Activation | None = None
) -> Tensor:
    x = conv_bn(net, x, out, k, stride, groups=groups, eps=1e-3, conv=0, bn=1)
    return activation(net / 2, x) if activation else x


def squeeze_excite(net: Net, x: Tensor) -> Tensor:
    channels = x.shape[1]
    y = conv2d(net / "fc1", global_avg_pool(net / "avgpool", x), make_divisible(channels // 4), 1)
    y = conv2d(net / "fc2", relu(net / "activation", y), channels, 1)
    return net.tap(mul(net, hardsigmoid(net / "scale_activation", y), x))


def make_divisible(channels: int, by: int = 8) -> int:
    """The multiple of `by` nearest to `channels`, but not less than nine tenths of it."""
    nearest = max(by, (channels + by // 2) // by * by)
    return nearest if nearest >= 0.9 * channels else nearest + by


def inverted_residual(net: Net, x: Tensor, row: Row) -> Tensor:
    k, hidden, out, squeeze, activation, stride = row
    block, y, i = net / "block", x, 0
    if hidden != x.shape[1]:
        y, i = conv(block / i, y, hidden, 1, activation=activation), i + 1
    y, i = conv(block / i, y, hidden, k, stride, groups=hidden, activation=activation), i + 1
    if squeeze:
        y, i = squeeze_excite(block / i, y), i + 1
    y = conv(block / i, y, out, 1)
    return net.tap(add(net, y, x)) if stride == 1 and x.shape[1] == out else y


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(),
    paper="arXiv:1905.02244",
    configure=classes_from("classifier.3.bias"),
    mobilenet_v3_small=Variant(Config(SMALL, 1024), params=2_542_856),
    mobilenet_v3_large=Variant(Config(LARGE, 1280), params=5_483_032),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    features, classifier = net / "features", net / "classifier"
    x = conv(features / 0, x, 16, 3, 2, activation=hardswish)
    for i, row in enumerate(cfg.rows, start=1):
        x = inverted_residual(features / i, x, row)
    x = conv(features / (len(cfg.rows) + 1), x, 6 * x.shape[1], 1, activation=hardswish)
    x = flatten(net, global_avg_pool(net / "avgpool", x))
    x = hardswish(classifier / 1, linear(classifier / 0, x, cfg.hidden))
    return linear(classifier / 3, x, cfg.num_classes)
