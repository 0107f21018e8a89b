"""ArcFace's IR-SE-50 (Deng et al. 2019, arXiv:1801.07698), in TreB1eN's form, which facexlib has.

A block normalises before its first convolution, whose padding is then no zero of the input; the second strides; and
where widths agree the shortcut takes every other pixel. There is a normalisation before and after the fully connected
layer, which takes 7x7 cells. The embedding is of length 1. It is not the layout of insightface's own iresnet.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    batch_norm,
    batch_norm1d,
    conv2d,
    conv_bn,
    fixed_size,
    flatten,
    global_avg_pool,
    l2_normalize,
    linear,
    max_pool,
    mul,
    prelu,
    relu,
    sigmoid,
)
from zoo.preprocess import Resize
from zoo.registry import Variant, register

SIDE = 112


@dataclass(frozen=True)
class Config:
    depths: tuple[int, int, int, int] = (3, 4, 14, 3)


def squeeze_excite(net: Net, x: Tensor) -> Tensor:
    channels = x.shape[1]
    y = global_avg_pool(net / "avg_pool", x)
    y = relu(net / "relu", conv2d(net / "fc1", y, channels // 16, 1, bias=False))
    return net.tap(mul(net, x, sigmoid(net / "sigmoid", conv2d(net / "fc2", y, channels, 1, bias=False))))


def shortcut(net: Net, x: Tensor, out: int, stride: int) -> Tensor:
    if x.shape[1] != out:
        return conv_bn(net, x, out, 1, stride, conv=0, bn=1)
    return max_pool(net, x, 1, stride) if stride > 1 else net.tap(x)


def block(net: Net, x: Tensor, out: int, stride: int) -> Tensor:
    at = net / "res_layer"
    y = conv2d(at / 1, batch_norm(at / 0, x), out, 3, bias=False)
    y = conv_bn(at, prelu(at / 2, y, out), out, 3, stride, conv=3, bn=4)
    return net.tap(add(net, squeeze_excite(at / 5, y), shortcut(net / "shortcut_layer", x, out, stride)))


@register(
    task="embed",
    reference="facexlib:{name}",
    preprocess=Resize(SIDE, mean=(0.5,), std=(0.5,)),
    paper="arXiv:1801.07698",
    arcface_ir_se50=Variant(Config(), params=43_797_696),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    height, width = fixed_size(net, x, 1)
    if (height, width) != (SIDE, SIDE):
        raise ZooError(f"images of {height}x{width} do not fit the fully connected layer; use {SIDE}x{SIDE}")
    at = net / "input_layer"
    x, i = prelu(at / 2, conv_bn(at, x, 64, 3, conv=0, bn=1), 64), 0
    for stage, depth in enumerate(cfg.depths):
        for j in range(depth):
            x, i = block(net / "body" / i, x, 64 << stage, 2 if j == 0 else 1), i + 1
    at = net / "output_layer"
    x = linear(at / 3, flatten(net, batch_norm(at / 0, x)), 512)
    return l2_normalize(net, batch_norm1d(at / 4, x))
