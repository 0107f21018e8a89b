"""LR-ASPP, the segmentation head of MobileNetV3 (Howard et al. 2019, arXiv:1905.02244, section 6.4).

Torchvision gates with the mean of the whole map, where the paper pools windows of 49x49. Scopes and parameter counts
are torchvision's, which resizes the short side of a picture to 520 and keeps its shape, as the input 520x693 does with
4:3.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.mobilenet_v3 import LARGE, features
from zoo.network import Net, Tensor
from zoo.ops import add, conv2d, conv_bn, global_avg_pool, mul, open_size, relu, sigmoid, upsample
from zoo.preprocess import stretched
from zoo.registry import Variant, classes_from, register

WIDTH = 128
LOW = 4  # the last layer of stride 8


@dataclass(frozen=True)
class Config:
    num_classes: int = 21


@register(
    task="segment",
    reference="torchvision:{name}",
    preprocess=stretched(520),
    paper="arXiv:1905.02244",
    configure=classes_from("classifier.low_classifier.bias"),
    lraspp_mobilenet_v3_large=Variant(Config(), params=3_221_538),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    size, head = open_size(net, x), net / "classifier"
    found = features(net / "backbone", x, LARGE, dilated=True)
    low, high = found[LOW], found[-1]
    x = relu(head / "cbr" / 2, conv_bn(head / "cbr", high, WIDTH, 1, conv=0, bn=1))
    scale = head / "scale"
    gate = sigmoid(scale / 2, conv2d(scale / 1, global_avg_pool(scale / 0, high), WIDTH, 1, bias=False))
    x = upsample(head.functional, mul(head, x, gate), size=open_size(net, low), mode="bilinear")
    x = conv2d(head / "high_classifier", x, cfg.num_classes, 1)
    x = head.tap(add(head, conv2d(head / "low_classifier", low, cfg.num_classes, 1), x))
    return upsample(net, x, size=size, mode="bilinear")
