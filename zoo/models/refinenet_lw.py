"""Light-weight RefineNet over ResNets (Nekrasov et al. 2018, arXiv:1810.03272).

All convolutions of the decoder but the last are 1x1 and have no bias. A chain of poolings adds what each of them and
its convolution give; they all keep the size. The first stage activates before its chain by the stem's own ReLU. Scopes
are those of the package refinenet.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.resnet import Stages, features
from zoo.network import Net, Tensor
from zoo.ops import add, conv2d, max_pool, open_size, relu, upsample
from zoo.preprocess import stretched
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config(Stages):
    num_classes: int = 21


def thin(net: Net, x: Tensor, out: int) -> Tensor:
    return conv2d(net, x, out, 1, bias=False)


def chain(net: Net, x: Tensor) -> Tensor:
    at, top = net / 0, x
    for i in range(1, 5):
        top = thin(at / f"{i}_outvar_dimred", max_pool(at / "maxpool", top, 5, 1, 2), x.shape[1])
        x = add(at, top, x)
    return net.tap(at.tap(x))


@register(
    task="segment",
    reference="refinenet:{name}",
    preprocess=stretched(512),
    paper="arXiv:1810.03272",
    configure=classes_from("clf_conv.bias"),
    refinenet_lw50=Variant(Config(), params=27_357_525),
    refinenet_lw101=Variant(Config((3, 4, 23, 3)), params=46_349_653),
    refinenet_lw152=Variant(Config((3, 8, 36, 3)), params=61_993_301),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    """Logits at a quarter of the size."""
    found = features(net, x, cfg)
    x = relu(net / "relu", thin(net / "p_ims1d2_outl1_dimred", found["layer4"], 512))
    for i, name in enumerate(("layer3", "layer2", "layer1"), 2):
        x = thin(net / f"mflow_conv_g{i - 1}_b3_joint_varout_dimred", chain(net / f"mflow_conv_g{i - 1}_pool", x), 256)
        x = upsample(net.functional, x, size=open_size(net, found[name]), mode="bilinear", align_corners=True)
        finer = thin(net / f"p_ims1d2_outl{i}_dimred", found[name], 256)
        finer = thin(net / f"adapt_stage{i}_b2_joint_varout_dimred", finer, 256)
        x = relu(net.functional, add(net, finer, x))
    return conv2d(net / "clf_conv", chain(net / "mflow_conv_g4_pool", x), cfg.num_classes, 3)
