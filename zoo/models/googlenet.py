"""GoogLeNet, also called Inception v1 (Szegedy et al. 2014, arXiv:1409.4842).

The branch that the paper calls 5x5 is a 3x3 in torchvision's weights, poolings round their sizes up, and the epsilon of
the normalisations is 1e-3. The two classifiers beside the trunk served its training only. Scopes are torchvision's;
parameters are counted without those two. The preprocessing is what torchvision's `transform_input` makes of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.inception import conv
from zoo.network import Net, Tensor
from zoo.ops import concat, flatten, global_avg_pool, linear, max_pool
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

Widths = tuple[int, int, int, int, int, int]  # 1x1; 3x3 and what precedes it; "5x5" and what precedes it; pool
INCEPTIONS: dict[str, Widths] = {  # table 1
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


@dataclass(frozen=True)
class Config:
    num_classes: int = 1000


def inception(net: Net, x: Tensor, widths: Widths) -> Tensor:
    one, three_in, three, five_in, five, pooled = widths
    found = [
        conv(net / "branch1", x, one),
        conv(net / "branch2" / 1, conv(net / "branch2" / 0, x, three_in), three, 3, pad=1),
        conv(net / "branch3" / 1, conv(net / "branch3" / 0, x, five_in), five, 3, pad=1),
        conv(net / "branch4" / 1, max_pool(net / "branch4" / 0, x, 3, 1, pad=1, ceil_mode=True), pooled),
    ]
    return net.tap(concat(net, found))


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(mean=(0.5,) * 3, std=(0.5,) * 3),
    paper="arXiv:1409.4842",
    configure=classes_from("fc.bias"),
    ignored=("aux1.*", "aux2.*"),
    googlenet=Variant(Config(), params=6_624_904),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = max_pool(net / "maxpool1", conv(net / "conv1", x, 64, 7, 2, pad=3), 3, 2, ceil_mode=True)
    x = conv(net / "conv3", conv(net / "conv2", x, 64), 192, 3, pad=1)
    x = max_pool(net / "maxpool2", x, 3, 2, ceil_mode=True)
    for name, widths in INCEPTIONS.items():
        x = inception(net / f"inception{name}", x, widths)
        if name == "3b":
            x = max_pool(net / "maxpool3", x, 3, 2, ceil_mode=True)
        elif name == "4e":
            x = max_pool(net / "maxpool4", x, 2, 2, ceil_mode=True)
    return linear(net / "fc", flatten(net, global_avg_pool(net / "avgpool", x)), cfg.num_classes)
