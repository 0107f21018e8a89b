"""BiSeNet for the parts of faces (Yu et al. 2018, arXiv:1808.00897), in zllrunning's form over ResNet-18.

There is no spatial path: the backbone's map of stride 8 stands for it. Maps are enlarged without smoothing inside, and
corner to corner at the end. Two more heads served training. Scopes are facexlib's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    concat,
    conv2d,
    conv_bn,
    global_avg_pool,
    max_pool,
    mul,
    open_size,
    relu,
    sigmoid,
    upsample,
)
from zoo.preprocess import stretched
from zoo.registry import Variant, register
from zoo.weights import Weights


@dataclass(frozen=True)
class Config:
    num_classes: int = 19


def conv(net: Net, x: Tensor, out: int, k: int = 3) -> Tensor:
    return net.tap(relu(net.functional, conv_bn(net, x, out, k)))


def block(net: Net, x: Tensor, out: int, stride: int) -> Tensor:
    y = relu(net.functional, conv_bn(net, x, out, 3, stride, conv="conv1", bn="bn1"))
    y = conv_bn(net, y, out, 3, conv="conv2", bn="bn2")
    if stride > 1:
        x = conv_bn(net / "downsample", x, out, 1, stride, conv=0, bn=1)
    return relu(net / "relu", add(net, x, y))


def backbone(net: Net, x: Tensor) -> list[Tensor]:
    """ResNet-18's maps of strides 8, 16 and 32."""
    x = relu(net.functional, conv_bn(net, x, 64, 7, 2, conv="conv1", bn="bn1"))
    x, found = max_pool(net / "maxpool", x, 3, 2, 1), []
    for stage in range(4):
        for i in (0, 1):
            x = block(net / f"layer{stage + 1}" / i, x, 64 << stage, 2 if stage and not i else 1)
        found.append(x)
    return found[1:]


def refined(net: Net, x: Tensor) -> Tensor:
    """A map whose channels are weighed by their means."""
    x = conv(net / "conv", x, 128)
    gate = conv_bn(net, global_avg_pool(net.functional, x), 128, 1, conv="conv_atten", bn="bn_atten")
    return net.tap(mul(net, x, sigmoid(net / "sigmoid_atten", gate)))


def context(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    """The backbone's map of stride 8, and what coarser ones know in its size."""
    found = backbone(net / "resnet", x)
    above = conv(net / "conv_avg", global_avg_pool(net.functional, found[2]), 128, 1)
    for stride, x, finer in ((32, found[2], found[1]), (16, found[1], found[0])):
        x = upsample(net.functional, add(net, refined(net / f"arm{stride}", x), above), size=open_size(net, finer))
        above = conv(net / f"conv_head{stride}", x, 128)
    return found[0], above


def fused(net: Net, x: Tensor) -> Tensor:
    x = conv(net / "convblk", x, 256, 1)
    gate = conv2d(net / "conv1", global_avg_pool(net.functional, x), 64, 1, bias=False)
    gate = conv2d(net / "conv2", relu(net / "relu", gate), 256, 1, bias=False)
    return net.tap(add(net, mul(net, x, sigmoid(net / "sigmoid", gate)), x))


def configure(weights: Weights, cfg: Config) -> Config:
    """The classes that the weights have: the last convolution has no bias."""
    last = weights.shape("conv_out.conv_out.weight")
    return Config(last[0]) if last else cfg


@register(
    task="segment",
    reference="facexlib:{name}",
    preprocess=stretched(512),
    paper="arXiv:1808.00897",
    configure=configure,
    ignored=("conv_out16.*", "conv_out32.*"),
    bisenet_face=Variant(Config(), params=13_150_272),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    size = open_size(net, x)
    x = fused(net / "ffm", concat(net, context(net / "cp", x)))
    out = net / "conv_out"
    x = conv2d(out / "conv_out", conv(out / "conv", x, 256), cfg.num_classes, 1, bias=False)
    return upsample(net, x, size=size, mode="bilinear", align_corners=True)
