"""DeepLabV3+ over a ResNet (Chen et al. 2018, arXiv:1802.02611).

The last stage dilates from its first block on, unlike torchvision's. The pyramid's convolutions are separable, without
normalisation between depth and width; maps are resized corner to corner. Scopes and parameter counts are those of
segmentation-models-pytorch, whose default is one class.
"""

from __future__ import annotations

from zoo.blocks.deeplab import WIDTH, pyramid
from zoo.blocks.encoder_decoder import Config, conv_relu, encode, head
from zoo.blocks.resnet import Stages
from zoo.network import Net, Tensor
from zoo.ops import concat, conv2d, conv_bn, open_size, relu, upsample
from zoo.preprocess import stretched
from zoo.registry import Variant, classes_from, register

SKIP = 48


def separable(net: Net, x: Tensor, dilation: int = 1, first: int = 0) -> Tensor:
    """Depthwise and pointwise convolution, normalisation and ReLU: the modules `first` and the two after it."""
    at = net / first
    y = conv2d(at / 0, x, x.shape[1], 3, dilation=dilation, groups=x.shape[1], bias=False)
    return net.tap(relu(net / (first + 2), conv_bn(net, y, WIDTH, 1, conv=f"{first}.1", bn=first + 1)))


@register(
    task="segment",
    reference="segmentation_models_pytorch:{name}",
    preprocess=stretched(512, stride=16),
    paper="arXiv:1802.02611",
    configure=classes_from("segmentation_head.0.bias"),
    deeplabv3plus_resnet34=Variant(
        Config(Stages(bottleneck=False, dilated=1, dilates_at_once=True)), params=22_437_457
    ),
    deeplabv3plus_resnet50=Variant(Config(Stages(dilated=1, dilates_at_once=True)), params=26_677_585),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    open_size(net, x, 16)
    _, skip, *_, x = encode(net, x, cfg)
    decoder = net / "decoder"
    x = separable(decoder / "aspp", pyramid(decoder / "aspp" / 0, x, separable), first=1)
    x = upsample(decoder / "up", x, 4, mode="bilinear", align_corners=True)
    x = concat(decoder, [x, conv_relu(decoder / "block1", skip, SKIP, 1)])
    return head(net, separable(decoder / "block2", x), cfg, 1, factor=4)
