"""SqueezeNet 1.0 and 1.1 (Iandola et al. 2016, arXiv:1602.07360).

Pooling rounds its size up, which shows at some image sizes only; a ReLU follows the last convolution, and the logits
are averages of it, so they are never negative. Scopes are torchvision's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.network import Net, Tensor
from zoo.ops import concat, conv2d, flatten, global_avg_pool, max_pool, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    channels: int = 64  # of the first convolution
    k: int = 3
    pools: tuple[int, int, int] = (2, 5, 8)  # where `features` pools; the other places from 2 to 12 are fire modules
    num_classes: int = 1000


def fire(net: Net, x: Tensor, squeeze: int) -> Tensor:
    x = relu(net / "squeeze_activation", conv2d(net / "squeeze", x, squeeze, 1))
    narrow = relu(net / "expand1x1_activation", conv2d(net / "expand1x1", x, 4 * squeeze, 1))
    wide = relu(net / "expand3x3_activation", conv2d(net / "expand3x3", x, 4 * squeeze, 3))
    return net.tap(concat(net, [narrow, wide]))


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(),
    paper="arXiv:1602.07360",
    configure=classes_from("classifier.1.bias"),
    squeezenet1_0=Variant(Config(96, 7, (2, 6, 11)), params=1_248_424),
    squeezenet1_1=Variant(Config(), params=1_235_496),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    features, classifier = net / "features", net / "classifier"
    x = relu(features / 1, conv2d(features / 0, x, cfg.channels, cfg.k, 2, pad=0))
    squeeze = iter((16, 16, 32, 32, 48, 48, 64, 64))
    for i in range(2, 13):
        if i in cfg.pools:
            x = max_pool(features / i, x, 3, 2, ceil_mode=True)
        else:
            x = fire(features / i, x, next(squeeze))
    x = relu(classifier / 2, conv2d(classifier / 1, x, cfg.num_classes, 1))
    return flatten(net, global_avg_pool(classifier / 3, x))
