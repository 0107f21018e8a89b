"""AlexNet in one column (Krizhevsky 2014, arXiv:1404.5997).

Not the network of the 2012 paper: 64 first filters, no groups and no local response normalisation. Scopes are
torchvision's; preprocessing and parameter count are those of its IMAGENET1K_V1 weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.network import Net, Tensor
from zoo.ops import adaptive_avg_pool, conv2d, flatten, linear, max_pool, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    num_classes: int = 1000


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(),
    paper="arXiv:1404.5997",
    configure=classes_from("classifier.6.bias"),
    alexnet=Variant(Config(), params=61_100_840),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    features, classifier = net / "features", net / "classifier"
    x = relu(features / 1, conv2d(features / 0, x, 64, 11, 4, pad=2))
    x = max_pool(features / 2, x, 3, 2)
    x = relu(features / 4, conv2d(features / 3, x, 192, 5))
    x = max_pool(features / 5, x, 3, 2)
    x = relu(features / 7, conv2d(features / 6, x, 384, 3))
    x = relu(features / 9, conv2d(features / 8, x, 256, 3))
    x = relu(features / 11, conv2d(features / 10, x, 256, 3))
    x = max_pool(features / 12, x, 3, 2)
    x = flatten(net, adaptive_avg_pool(net / "avgpool", x, 6))
    x = relu(classifier / 2, linear(classifier / 1, x, 4096))
    x = relu(classifier / 5, linear(classifier / 4, x, 4096))
    return linear(classifier / 6, x, cfg.num_classes)
