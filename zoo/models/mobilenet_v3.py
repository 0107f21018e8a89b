"""MobileNetV3, small and large (Howard et al. 2019, arXiv:1905.02244).

The epsilon of every normalisation is 1e-3, not PyTorch's 1e-5. Scopes are torchvision's; preprocessing and parameter
counts are those of its IMAGENET1K_V1 weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.mobilenet_v3 import LARGE, SMALL, Row, features
from zoo.network import Net, Tensor
from zoo.ops import flatten, global_avg_pool, hardswish, linear
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    rows: tuple[Row, ...]
    hidden: int  # of the classifier
    num_classes: int = 1000


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
    classifier = net / "classifier"
    x = features(net / "features", x, cfg.rows)[-1]
    x = flatten(net, global_avg_pool(net / "avgpool", x))
    x = hardswish(classifier / 1, linear(classifier / 0, x, cfg.hidden))
    return linear(classifier / 3, x, cfg.num_classes)
