"""What the networks of segmentation-models-pytorch share: an encoder, blocks of decoders, the head; its scopes."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks import resnet
from zoo.network import Net, Tensor
from zoo.ops import concat, conv2d, conv_bn, relu, upsample

RESNET34 = resnet.Stages(bottleneck=False)
RESNET50 = resnet.Stages()


@dataclass(frozen=True)
class Config:
    encoder: resnet.Stages = RESNET34
    num_classes: int = 1


def encode(net: Net, x: Tensor, cfg: Config) -> list[Tensor]:
    """The maps of the encoder, from half of the input's size on."""
    return [*resnet.features(net / "encoder", x, cfg.encoder).values()]


def conv_relu(net: Net, x: Tensor, out: int, k: int) -> Tensor:
    """Convolution, normalisation and ReLU: the modules 0, 1 and 2."""
    return net.tap(relu(net / 2, conv_bn(net, x, out, k, conv=0, bn=1)))


def widen(net: Net, x: Tensor, skips: list[Tensor], out: int) -> Tensor:
    """A map twice as large, joined with the encoder's."""
    x = upsample(net.functional, x, 2)
    x = conv_relu(net / "conv1", concat(net, [x, *skips]), out, 3)
    return net.tap(conv_relu(net / "conv2", x, out, 3))


def head(net: Net, x: Tensor, cfg: Config, k: int, factor: int = 1) -> Tensor:
    """A convolution to the classes, then, where the map is smaller than the input, its size."""
    at = net / "segmentation_head"
    x = conv2d(at / 0, x, cfg.num_classes, k)
    return x if factor == 1 else upsample(at / 1, x, factor, mode="bilinear", align_corners=True)
