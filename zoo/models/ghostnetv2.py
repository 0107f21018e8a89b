"""GhostNetV2 (Tang et al. 2022, arXiv:2211.12905).

From the third block on, the first ghost module of a block is gated by what a fully connected layer along each axis
would see: convolutions of 1x5 and 5x1 of the map at half its size, without ReLU between them, stretched by the nearest
neighbour. This gate is a sigmoid; those of squeeze-and-excite are hard ones. Scopes are timm's.
"""

from __future__ import annotations

from zoo.blocks.ghostnet import Config, ghostnet, halves
from zoo.blocks.mbconv import Activation
from zoo.network import Net, Tensor
from zoo.ops import avg_pool, conv_bn, mul, open_size, sigmoid, upsample
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


def attentive(net: Net, x: Tensor, out: int, activation: Activation) -> Tensor:
    y, at = avg_pool(net.functional, x, 2, 2), net / "short_conv"
    y = conv_bn(at, y, out, 1, conv=0, bn=1)
    y = conv_bn(at, y, out, (1, 5), groups=out, conv=2, bn=3)
    y = conv_bn(at, y, out, (5, 1), groups=out, conv=4, bn=5)
    gate = upsample(net.functional, sigmoid(net / "gate_fn", y), size=open_size(net, x))
    return net.tap(mul(net, halves(net, x, out, activation), gate))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic"),
    paper="arXiv:2211.12905",
    configure=classes_from("classifier.bias"),
    ghostnetv2_100=Variant(Config(), params=6_156_908),
    ghostnetv2_130=Variant(Config(1.3), params=8_960_404),
    ghostnetv2_160=Variant(Config(1.6), params=12_392_698),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    return ghostnet(net, x, cfg, attentive)
