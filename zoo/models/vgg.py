"""VGG with 11 to 19 layers, plain and with batch normalisation (Simonyan & Zisserman 2014, arXiv:1409.1556).

The convolutions of the `_bn` variants keep their bias, which the normalisation after them makes redundant. Scopes are
torchvision's, where every convolution, normalisation, activation and pooling is the next number of `features`;
preprocessing and parameter counts are those of its IMAGENET1K_V1 weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from zoo.network import Net, Tensor
from zoo.ops import adaptive_avg_pool, conv2d, conv_bn, flatten, linear, max_pool, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

WIDTHS = (64, 128, 256, 512, 512)


@dataclass(frozen=True)
class Config:
    depths: tuple[int, int, int, int, int]  # convolutions before each of the five poolings
    batch_norm: bool = False
    num_classes: int = 1000


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(),
    paper="arXiv:1409.1556",
    configure=classes_from("classifier.6.bias"),
    vgg11=Variant(Config((1, 1, 2, 2, 2)), params=132_863_336),
    vgg11_bn=Variant(Config((1, 1, 2, 2, 2), batch_norm=True), params=132_868_840),
    vgg13=Variant(Config((2, 2, 2, 2, 2)), params=133_047_848),
    vgg13_bn=Variant(Config((2, 2, 2, 2, 2), batch_norm=True), params=133_053_736),
    vgg16=Variant(Config((2, 2, 3, 3, 3)), params=138_357_544),
    vgg16_bn=Variant(Config((2, 2, 3, 3, 3), batch_norm=True), params=138_365_992),
    vgg19=Variant(Config((2, 2, 4, 4, 4)), params=143_667_240),
    vgg19_bn=Variant(Config((2, 2, 4, 4, 4), batch_norm=True), params=143_678_248),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    features, classifier, i = net / "features", net / "classifier", count()
    for width, depth in zip(WIDTHS, cfg.depths):
        for _ in range(depth):
            if cfg.batch_norm:
                x = conv_bn(features, x, width, 3, bias=True, conv=next(i), bn=next(i))
            else:
                x = conv2d(features / next(i), x, width, 3)
            x = relu(features / next(i), x)
        x = max_pool(features / next(i), x, 2)
    x = flatten(net, adaptive_avg_pool(net / "avgpool", x, 7))
    x = relu(classifier / 1, linear(classifier / 0, x, 4096))
    x = relu(classifier / 4, linear(classifier / 3, x, 4096))
    return linear(classifier / 6, x, cfg.num_classes)
