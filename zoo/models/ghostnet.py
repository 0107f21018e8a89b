"""GhostNet (Han et al. 2020, arXiv:1911.11907).

A ghost module makes half of its channels by a convolution and the other half by cheap ones of single channels; the
first of a block ends in ReLU, the second does not. The last convolution comes after the average, has a bias and is not
normalised. Gates are hard sigmoids. Scopes are timm's.
"""

from __future__ import annotations

from zoo.blocks.ghostnet import Config, ghost, ghostnet
from zoo.network import Net, Tensor
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic"),
    paper="arXiv:1911.11907",
    configure=classes_from("classifier.bias"),
    ghostnet_050=Variant(Config(0.5), params=2_587_292),
    ghostnet_100=Variant(Config(), params=5_182_508),
    ghostnet_130=Variant(Config(1.3), params=7_358_820),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    return ghostnet(net, x, cfg, ghost)
