"""HRNet for classification (Wang et al. 2019, arXiv:1908.07919).

Each module ends in an exchange: a branch is the sum of all, in their order, the coarser ones normalised and then
enlarged by nearest pixels, the finer ones by strided convolutions of which the last has no ReLU. A new branch begins
from the coarsest. Sides are multiples of 32. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_layers import pooled
from zoo.blocks.timm_resnet import basic, bottleneck, shortcut
from zoo.network import Net, Tensor
from zoo.ops import add, conv_bn, linear, open_size, relu, upsample
from zoo.preprocess import Resize, imagenet
from zoo.registry import Variant, classes_from, register

HEAD = (32, 64, 128, 256)


@dataclass(frozen=True)
class Config:
    """`modules` of stages 2 to 4, `first`: blocks of stage 1 and their width."""

    width: int
    modules: tuple[int, int, int] = (1, 4, 3)
    blocks: int = 4
    first: tuple[int, int] = (4, 64)
    num_classes: int = 1000


def conv(net: Net, x: Tensor, out: int, k: int, stride: int = 1, *, bias: bool = False, last: bool = False) -> Tensor:
    """Convolution, normalisation and, but for the last of a chain, ReLU: the modules 0, 1 and 2."""
    x = conv_bn(net, x, out, k, stride, bias=bias, conv=0, bn=1)
    return x if last else relu(net / 2, x)


def residual(net: Net, x: Tensor, planes: int) -> Tensor:
    return relu(net / "act2", add(net, basic(net, x, planes), x))


def wide_residual(net: Net, x: Tensor, planes: int) -> Tensor:
    y = bottleneck(net, x, 4 * planes, 1, width=planes, first=planes)
    return relu(net / "act3", add(net, y, shortcut(net, x, 4 * planes, 1)))


def brought(net: Net, x: Tensor, source: int, target: int, width: int) -> Tensor:
    """Branch `source` in the size and width of branch `target`."""
    if source > target:
        x = conv(net, x, width << target, 1, last=True)
        return upsample(net / 2, x, 2 ** (source - target))
    for k in range(target - source):
        last = k == target - source - 1
        x = conv(net / k, x, width << (target if last else source), 3, 2, last=last)
    return x


def module(net: Net, branches: list[Tensor], cfg: Config) -> list[Tensor]:
    made, fused = [], []
    for i, x in enumerate(branches):
        for j in range(cfg.blocks):
            x = residual(net / "branches" / i / j, x, cfg.width << i)
        made.append(x)
    for i in range(len(made)):
        at = net / "fuse_layers" / i
        parts = [brought(at / j, x, j, i, cfg.width) for j, x in enumerate(made)]
        y = parts[0]
        for part in parts[1:]:
            y = add(at, y, part)
        fused.append(relu(net / "fuse_act", y))
    return fused


def head(net: Net, branches: list[Tensor]) -> Tensor:
    """The branches from fine to coarse, each added to what came before, halved."""
    y = wide_residual(net / "incre_modules" / 0 / 0, branches[0], HEAD[0])
    for i in range(1, len(branches)):
        x = wide_residual(net / "incre_modules" / i / 0, branches[i], HEAD[i])
        y = add(net, x, conv(net / "downsamp_modules" / (i - 1), y, 4 * HEAD[i], 3, 2, bias=True))
    return conv(net / "final_layer", y, 2048, 1, bias=True)


def bicubic() -> Resize:
    return imagenet(interpolation="pillow:bicubic")


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(),
    paper="arXiv:1908.07919",
    configure=classes_from("classifier.bias"),
    hrnet_w18_small=Variant(Config(16, (1, 1, 1), 2, (1, 32)), params=13_187_464, preprocess=bicubic()),
    hrnet_w18_small_v2=Variant(Config(18, (1, 3, 2), 2, (2, 64)), params=15_597_464, preprocess=bicubic()),
    hrnet_w18=Variant(Config(18), params=21_299_004, preprocess=imagenet(share=0.95)),
    hrnet_w30=Variant(Config(30), params=37_712_220),
    hrnet_w32=Variant(Config(32), params=41_232_680),
    hrnet_w40=Variant(Config(40), params=57_557_160),
    hrnet_w44=Variant(Config(44), params=67_064_984),
    hrnet_w48=Variant(Config(48), params=77_469_864),
    hrnet_w64=Variant(Config(64), params=128_059_944),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    open_size(net, x, 32)
    for i in (1, 2):
        x = relu(net / f"act{i}", conv_bn(net, x, 64, 3, 2, conv=f"conv{i}", bn=f"bn{i}"))
    depth, planes = cfg.first
    for i in range(depth):
        x = wide_residual(net / "layer1" / i, x, planes)
    first = net / "transition1"
    branches = [conv(first / 0, x, cfg.width, 3), conv(first / 1 / 0, x, 2 * cfg.width, 3, 2)]
    for stage, modules in enumerate(cfg.modules, start=2):
        if stage > 2:
            at, out = net / f"transition{stage - 1}" / (stage - 1) / 0, cfg.width << (stage - 1)
            branches = [*branches, conv(at, branches[-1], out, 3, 2)]
        for i in range(modules):
            branches = module(net / f"stage{stage}" / i, branches, cfg)
    return linear(net / "classifier", pooled(net / "global_pool", head(net, branches)), cfg.num_classes)
