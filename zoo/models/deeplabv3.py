"""DeepLabV3 on a dilated ResNet or MobileNetV3 (Chen et al. 2017, arXiv:1706.05587).

The epsilon of the normalisations is 1e-3 in the backbone of MobileNetV3 and nowhere else. The head beside the trunk
served its training only. Scopes are torchvision's; parameters are counted without that head. Torchvision resizes the
short side of a picture to 520 and keeps its shape, as the input 520x693 does with 4:3.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks import mobilenet_v3, resnet
from zoo.blocks.deeplab import WIDTH, conv, pyramid
from zoo.network import Net, Tensor
from zoo.ops import conv2d, conv_bn, open_size, relu, upsample
from zoo.preprocess import stretched
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    backbone: resnet.Stages | tuple[mobilenet_v3.Row, ...]
    num_classes: int = 21


def features(net: Net, x: Tensor, backbone: resnet.Stages | tuple[mobilenet_v3.Row, ...]) -> Tensor:
    if isinstance(backbone, resnet.Stages):
        return resnet.features(net, x, backbone)["layer4"]
    return mobilenet_v3.features(net, x, backbone, dilated=True)[-1]


def around(net: Net, x: Tensor, rate: int) -> Tensor:
    return conv(net, x, 3, rate)


@register(
    task="segment",
    reference="torchvision:{name}",
    preprocess=stretched(520),
    paper="arXiv:1706.05587",
    configure=classes_from("classifier.4.bias"),
    ignored=("aux_classifier.*",),
    deeplabv3_resnet50=Variant(Config(resnet.Stages(dilated=2)), params=39_638_869),
    deeplabv3_resnet101=Variant(Config(resnet.Stages((3, 4, 23, 3), dilated=2)), params=58_630_997),
    deeplabv3_mobilenet_v3_large=Variant(Config(mobilenet_v3.LARGE), params=11_025_477),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    size, head = open_size(net, x), net / "classifier"
    x = pyramid(head / 0, features(net / "backbone", x, cfg.backbone), around)
    x = relu(head / 3, conv_bn(head, x, WIDTH, 3, conv=1, bn=2))
    return upsample(net, conv2d(head / 4, x, cfg.num_classes, 1), size=size, mode="bilinear")
