"""FCN, a fully convolutional network on a dilated ResNet (Long et al. 2014, arXiv:1411.4038).

The last two stages of the backbone dilate instead of striding, and the first block of each still has the dilation
before it. The head beside the trunk served its training only. Scopes are torchvision's; parameters are counted without
that head. Torchvision resizes the short side of a picture to 520 and keeps its shape, as the input 520x693 does with
4:3.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.resnet import Stages, features
from zoo.network import Net, Tensor
from zoo.ops import conv2d, conv_bn, open_size, relu, upsample
from zoo.preprocess import stretched
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config(Stages):
    dilated: int = 2
    num_classes: int = 21


@register(
    task="segment",
    reference="torchvision:{name}",
    preprocess=stretched(520),
    paper="arXiv:1411.4038",
    configure=classes_from("classifier.4.bias"),
    ignored=("aux_classifier.*",),
    fcn_resnet50=Variant(Config(), params=32_957_013),
    fcn_resnet101=Variant(Config((3, 4, 23, 3)), params=51_949_141),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    size, head = open_size(net, x), net / "classifier"
    x = features(net / "backbone", x, cfg)["layer4"]
    x = relu(head / 2, conv_bn(head, x, x.shape[1] // 4, 3, conv=0, bn=1))
    return upsample(net, conv2d(head / 4, x, cfg.num_classes, 1), size=size, mode="bilinear")
