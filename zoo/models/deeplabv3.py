"""DeepLabV3 on a dilated ResNet or MobileNetV3 (Chen et al. 2017, arXiv:1706.05587).

The epsilon of the normalisations is 1e-3 in the backbone of MobileNetV3 and nowhere else. The head beside the trunk
served its training only. Scopes are torchvision's; parameters are counted without that head. Torchvision resizes the
short side of a picture to 520 and keeps its shape, as the input 520x693 does with 4:3.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks import mobilenet_v3, resnet
from zoo.network import Net, Tensor
from zoo.ops import concat, conv2d, conv_bn, global_avg_pool, relu, upsample
from zoo.preprocess import stretched
from zoo.registry import Variant, classes_from, register

RATES = (12, 24, 36)
WIDTH = 256


@dataclass(frozen=True)
class Config:
    backbone: resnet.Stages | tuple[mobilenet_v3.Row, ...]
    num_classes: int = 21


def features(net: Net, x: Tensor, backbone: resnet.Stages | tuple[mobilenet_v3.Row, ...]) -> Tensor:
    if isinstance(backbone, resnet.Stages):
        return resnet.features(net, x, backbone)["layer4"]
    return mobilenet_v3.features(net, x, backbone, dilated=True)[-1]


def conv(net: Net, x: Tensor, k: int, dilation: int = 1) -> Tensor:
    """Convolution, normalisation and ReLU: the modules 0, 1 and 2."""
    return net.tap(relu(net / 2, conv_bn(net, x, WIDTH, k, dilation=dilation, conv=0, bn=1)))


def whole(net: Net, x: Tensor) -> Tensor:
    """What the mean of the map says, at each of its places."""
    y = conv_bn(net, global_avg_pool(net / 0, x), WIDTH, 1, conv=1, bn=2)
    return net.tap(upsample(net.functional, relu(net / 3, y), size=tuple(x.shape[2:]), mode="bilinear"))


def pyramid(net: Net, x: Tensor) -> Tensor:
    """Atrous spatial pyramid pooling: neighbourhoods of several sizes side by side."""
    convs = net / "convs"
    found = [conv(convs / 0, x, 1), *(conv(convs / i, x, 3, rate) for i, rate in enumerate(RATES, 1))]
    found.append(whole(convs / (len(RATES) + 1), x))
    return net.tap(conv(net / "project", concat(net, found), 1))


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
    size, head = tuple(x.shape[2:]), net / "classifier"
    x = pyramid(head / 0, features(net / "backbone", x, cfg.backbone))
    x = relu(head / 3, conv_bn(head, x, WIDTH, 3, conv=1, bn=2))
    return upsample(net, conv2d(head / 4, x, cfg.num_classes, 1), size=size, mode="bilinear")
