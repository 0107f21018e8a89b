"""OSNet (Zhou et al. 2019, arXiv:1905.00953), which tells people apart.

Four branches of one to four light convolutions see as many scales, and one gate, the same for all, weighs the channels
of each. A light convolution has nothing between its 1x1 and its 3x3. The variant with instance normalisation has it in
the stem, and after the sums of the first stage. Scopes are torchreid's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    avg_pool,
    batch_norm1d,
    conv2d,
    conv_bn,
    flatten,
    global_avg_pool,
    instance_norm,
    linear,
    max_pool,
    mul,
    relu,
    sigmoid,
)
from zoo.preprocess import stretched
from zoo.registry import Variant, register

SCALES = "abcd"  # branches, with as many convolutions as their place


@dataclass(frozen=True)
class Config:
    widths: tuple[int, int, int, int] = (64, 256, 384, 512)
    instance: bool = False


def conv(net: Net, x: Tensor, out: int) -> Tensor:
    return net.tap(relu(net / "relu", conv_bn(net, x, out, 1)))


def light(net: Net, x: Tensor) -> Tensor:
    out = x.shape[1]
    x = conv2d(net / "conv1", x, out, 1, bias=False)
    return net.tap(relu(net / "relu", conv_bn(net, x, out, 3, groups=out, conv="conv2")))


def gated(net: Net, x: Tensor) -> Tensor:
    y = conv2d(net / "fc1", global_avg_pool(net / "global_avgpool", x), x.shape[1] // 16, 1)
    y = sigmoid(net / "gate_activation", conv2d(net / "fc2", relu(net / "relu", y), x.shape[1], 1))
    return net.tap(mul(net, x, y))


def block(net: Net, x: Tensor, out: int, instance: bool) -> Tensor:
    first, branches = conv(net / "conv1", x, out // 4), []
    for depth, scale in enumerate(SCALES, 1):
        at, y = net / f"conv2{scale}", first
        for i in range(depth):
            y = light(at / i if depth > 1 else at, y)
        branches.append(y if depth == 1 else at.tap(y))
    y = gated(net / "gate", branches[0])
    for branch in branches[1:]:
        y = add(net, y, gated(net / "gate", branch))
    y = conv_bn(net / "conv3", y, out, 1)
    if x.shape[1] != out:
        x = conv_bn(net / "downsample", x, out, 1)
    y = add(net, y, x)
    if instance:
        y = instance_norm(net / "IN", y, affine=True)
    return net.tap(relu(net.functional, y))


@register(
    task="embed",
    reference="torchreid:{name}",
    preprocess=stretched((256, 128)),
    paper="arXiv:1905.00953",
    ignored=("classifier.*",),
    osnet_x0_25=Variant(Config((16, 64, 96, 128)), params=201_864),
    osnet_x0_5=Variant(Config((32, 128, 192, 256)), params=630_034),
    osnet_x0_75=Variant(Config((48, 192, 288, 384)), params=1_285_754),
    osnet_x1_0=Variant(Config(), params=2_169_508),
    osnet_ibn_x1_0=Variant(Config(instance=True), params=2_170_532),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    stem = net / "conv1"
    if cfg.instance:
        x = instance_norm(stem / "bn", conv2d(stem / "conv", x, cfg.widths[0], 7, 2, bias=False), affine=True)
    else:
        x = conv_bn(stem, x, cfg.widths[0], 7, 2)
    x = max_pool(net / "maxpool", stem.tap(relu(stem / "relu", x)), 3, 2, 1)
    for stage, width in enumerate(cfg.widths[1:], 2):
        at = net / f"conv{stage}"
        for i in (0, 1):
            x = block(at / i, x, width, cfg.instance and stage == 2)
        if stage < 4:
            x = (at / 2).tap(avg_pool(at / 2 / 1, conv(at / 2 / 0, x, width), 2))
        x = at.tap(x)
    x = flatten(net, global_avg_pool(net / "global_avgpool", conv(net / "conv5", x, cfg.widths[-1])))
    x = batch_norm1d(net / "fc" / 1, linear(net / "fc" / 0, x, 512))
    return {"embedding": relu(net / "fc" / 2, x)}
