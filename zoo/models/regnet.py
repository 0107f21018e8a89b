"""RegNetX and RegNetY (Radosavovic et al. 2020, arXiv:2003.13678).

Widths grow along a line, are rounded to powers of `wm` times the first, and then to multiples of the group width.
RegNetY's squeeze-and-excite squeezes to a quarter of the block's input width. Scopes are torchvision's; preprocessing
and parameter counts are those of its IMAGENET1K_V1 weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.blocks.mbconv import conv, make_divisible, squeeze_excite
from zoo.network import Net, Tensor
from zoo.ops import add, flatten, global_avg_pool, linear, relu, sigmoid
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    """The numbers of the paper: depth, initial width, slope, width multiplier, group width."""

    depth: int
    w0: int
    wa: float
    wm: float
    group: int
    squeeze: bool = False
    num_classes: int = 1000

    def stages(self) -> list[tuple[int, int, int]]:
        """Width, blocks and group width of each stage (section 3.3)."""
        line = self.w0 + self.wa * np.arange(self.depth)
        power = np.round(np.log(line / self.w0) / np.log(self.wm))
        widths = [8 * round(width) for width in self.w0 * self.wm**power / 8]
        found = []
        for width in dict.fromkeys(widths):
            group = min(self.group, width)
            found.append((make_divisible(width, group), widths.count(width), group))
        return found


def block(net: Net, x: Tensor, out: int, stride: int, group: int, squeeze: bool) -> Tensor:
    at, narrow = net / "f", round(x.shape[1] / 4)
    y = conv(at / "a", x, out, 1, activation=relu)
    y = conv(at / "b", y, out, 3, stride, groups=out // group, activation=relu)
    if squeeze:
        y = squeeze_excite(at / "se", y, narrow, gate=sigmoid)
    y = conv(at / "c", y, out, 1)
    if stride != 1 or x.shape[1] != out:
        x = conv(net / "proj", x, out, 1, stride)
    return relu(net / "activation", add(net, x, y))


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(),
    paper="arXiv:2003.13678",
    configure=classes_from("fc.bias"),
    regnet_x_400mf=Variant(Config(22, 24, 24.48, 2.54, 16), params=5_495_976),
    regnet_x_800mf=Variant(Config(16, 56, 35.73, 2.28, 16), params=7_259_656),
    regnet_x_1_6gf=Variant(Config(18, 80, 34.01, 2.25, 24), params=9_190_136),
    regnet_x_3_2gf=Variant(Config(25, 88, 26.31, 2.25, 48), params=15_296_552),
    regnet_x_8gf=Variant(Config(23, 80, 49.56, 2.88, 120), params=39_572_648),
    regnet_x_16gf=Variant(Config(22, 216, 55.59, 2.1, 128), params=54_278_536),
    regnet_x_32gf=Variant(Config(23, 320, 69.86, 2.0, 168), params=107_811_560),
    regnet_y_400mf=Variant(Config(16, 48, 27.89, 2.09, 8, squeeze=True), params=4_344_144),
    regnet_y_800mf=Variant(Config(14, 56, 38.84, 2.4, 16, squeeze=True), params=6_432_512),
    regnet_y_1_6gf=Variant(Config(27, 48, 20.71, 2.65, 24, squeeze=True), params=11_202_430),
    regnet_y_3_2gf=Variant(Config(21, 80, 42.63, 2.66, 24, squeeze=True), params=19_436_338),
    regnet_y_8gf=Variant(Config(17, 192, 76.82, 2.19, 56, squeeze=True), params=39_381_472),
    regnet_y_16gf=Variant(Config(18, 200, 106.23, 2.48, 112, squeeze=True), params=83_590_140),
    regnet_y_32gf=Variant(Config(20, 232, 115.89, 2.53, 232, squeeze=True), params=145_046_770),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = conv(net / "stem", x, 32, 3, 2, activation=relu)
    for i, (out, depth, group) in enumerate(cfg.stages(), start=1):
        stage = net / "trunk_output" / f"block{i}"
        for j in range(depth):
            x = block(stage / f"block{i}-{j}", x, out, 2 if j == 0 else 1, group, cfg.squeeze)
    return linear(net / "fc", flatten(net, global_avg_pool(net / "avgpool", x)), cfg.num_classes)
