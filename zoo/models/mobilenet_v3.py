"""MobileNetV3, small and large (Howard et al. 2019, arXiv:1905.02244).

The epsilon of every normalisation is 1e-3, not PyTorch's 1e-5. Scopes are torchvision's; preprocessing and parameter
counts are those of its IMAGENET1K_V1 weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.mbconv import Activation, conv, inverted_residual, make_divisible, squeeze_excite
from zoo.network import Net, Tensor
from zoo.ops import flatten, global_avg_pool, hardsigmoid, hardswish, linear, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

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


def squeeze(net: Net, x: Tensor) -> Tensor:
    return squeeze_excite(net, x, make_divisible(x.shape[1] // 4), gate=hardsigmoid)


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
    x = conv(features / 0, x, 16, 3, 2, activation=hardswish, eps=1e-3)
    for i, (k, hidden, out, squeezed, activation, stride) in enumerate(cfg.rows, start=1):
        gated = squeeze if squeezed else None
        x = inverted_residual(features / i, x, hidden, out, k, stride, activation, gated, eps=1e-3)
    x = conv(features / (len(cfg.rows) + 1), x, 6 * x.shape[1], 1, activation=hardswish, eps=1e-3)
    x = flatten(net, global_avg_pool(net / "avgpool", x))
    x = hardswish(classifier / 1, linear(classifier / 0, x, cfg.hidden))
    return linear(classifier / 3, x, cfg.num_classes)
