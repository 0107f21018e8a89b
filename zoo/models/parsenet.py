"""ParseNet, the network for the parts of faces of PSFR-GAN (Chen et al. 2020, arXiv:2009.08709).

Borders are mirrored, also where a convolution strides. In a block that halves, its second convolution strides, and the
shortcut's only one; in one that doubles, both enlarge first. A second head drew the face, for training. Scopes are
facexlib's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.network import Net, Tensor
from zoo.ops import add, conv2d, conv_bn, leaky_relu, open_size, pad, upsample
from zoo.preprocess import Resize
from zoo.registry import Variant, classes_from, register

Scale = Literal["none", "down", "up"]
ENCODER, BODY, DECODER = (128, 256, 256, 256), 10, (256, 256, 128, 64)  # channels, blocks, channels


@dataclass(frozen=True)
class Config:
    num_classes: int = 19


def conv(
    net: Net, x: Tensor, out: int, scale: Scale = "none", *, normalised: bool = False, activated: bool = False
) -> Tensor:
    """A convolution with all that may follow; what does not is a module all the same."""
    if scale == "up":
        x = upsample(net.functional, x, 2)
    x, stride = pad(net / "reflection_pad", x, (1, 1, 1, 1), mode="reflect"), 2 if scale == "down" else 1
    if normalised:
        x = conv_bn(net, x, out, 3, stride, 0, conv="conv2d", bn="norm.norm")
    else:
        x = conv2d(net / "conv2d", x, out, 3, stride, 0)
    x = (net / "norm").tap(x)
    return net.tap((net / "relu").tap(leaky_relu(net / "relu" / "func", x, 0.2) if activated else x))


def block(net: Net, x: Tensor, out: int, scale: Scale) -> Tensor:
    first: Scale = "up" if scale == "up" else "none"
    second: Scale = "down" if scale == "down" else "none"
    y = conv(net / "conv1", x, out, first, normalised=True, activated=True)
    y = conv(net / "conv2", y, out, second, normalised=True)
    if scale != "none":
        x = conv(net / "shortcut_func", x, out, scale)
    return net.tap(add(net, x, y))


@register(
    task="segment",
    reference="facexlib:{name}",
    preprocess=Resize(512, interpolation="cv2:bilinear", mean=(0.5,), std=(0.5,), stride=16),
    paper="arXiv:2009.08709",
    configure=classes_from("out_mask_conv.conv2d.bias"),
    ignored=("out_img_conv.*",),
    parsenet=Variant(Config(), params=21_301_523),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    open_size(net, x, 16)
    x = conv(net / "encoder" / 0, x, 64)
    for i, out in enumerate(ENCODER, 1):
        x = block(net / "encoder" / i, x, out, "down")
    first = x = (net / "encoder").tap(x)
    for i in range(BODY):
        x = block(net / "body" / i, x, x.shape[1], "none")
    x = add(net, first, (net / "body").tap(x))
    for i, out in enumerate(DECODER):
        x = block(net / "decoder" / i, x, out, "up")
    return conv(net / "out_mask_conv", (net / "decoder").tap(x), cfg.num_classes)
