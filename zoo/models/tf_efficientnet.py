"""EfficientNet as its authors trained it in TensorFlow (Tan and Le 2019, arXiv:1905.11946), and its Lite forms.

Padding is TensorFlow's: where a map is halved, an odd pixel is added at its right and its bottom only, so that padding
depends on the size of the picture. Epsilons are 1e-3 throughout. Lite has no squeeze-and-excite, ReLU6, and a stem,
a head and outer stages of fixed width and depth. Scopes are timm's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from zoo.blocks.mbconv import EFFICIENTNET, make_divisible
from zoo.blocks.timm_layers import pooled, squeeze_excite
from zoo.network import Net, Tensor
from zoo.ops import add, conv_bn, linear, relu6, silu
from zoo.preprocess import Resize, imagenet
from zoo.registry import Variant, classes_from, register

EPS = 1e-3
SQUEEZE = ("conv_reduce", "act1", "conv_expand", "gate")


@dataclass(frozen=True)
class Config:
    width: float = 1.0
    depth: float = 1.0
    lite: bool = False
    num_classes: int = 1000

    def channels(self, channels: int) -> int:
        return make_divisible(channels * self.width)

    def blocks(self, stage: int) -> int:
        fixed = self.lite and stage in (0, len(EFFICIENTNET) - 1)
        return EFFICIENTNET[stage][4] if fixed else math.ceil(EFFICIENTNET[stage][4] * self.depth)


def block(net: Net, x: Tensor, expansion: int, k: int, stride: int, out: int, lite: bool) -> Tensor:
    activation = relu6 if lite else silu
    y, hidden, n = x, expansion * x.shape[1], 1
    if expansion > 1:
        y, n = conv_bn(net, y, hidden, 1, eps=EPS, conv="conv_pw", bn="bn1", activation=activation), 2
    y = conv_bn(
        net, y, hidden, k, stride, "same", groups=hidden, eps=EPS, conv="conv_dw", bn=f"bn{n}", activation=activation
    )
    if not lite:
        y = squeeze_excite(net / "se", y, x.shape[1] // 4, activation=silu, names=SQUEEZE)
    y = conv_bn(net, y, out, 1, eps=EPS, conv="conv_pwl" if expansion > 1 else "conv_pw", bn=f"bn{n + 1}")
    return net.tap(add(net, y, x)) if stride == 1 and x.shape[1] == out else y


def tensorflow(size: int, share: float, interpolation: str = "bicubic") -> Resize:
    return imagenet(size=size, share=share, interpolation=f"pillow:{interpolation}")


def halves(size: int, share: float, interpolation: str = "bicubic") -> Resize:
    return imagenet(size=size, share=share, interpolation=f"pillow:{interpolation}", mean=(0.5,) * 3, std=(0.5,) * 3)


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=tensorflow(224, 0.875),
    paper="arXiv:1905.11946",
    configure=classes_from("classifier.bias"),
    tf_efficientnet_b0=Variant(Config(), params=5_288_548),
    tf_efficientnet_b1=Variant(Config(1.0, 1.1), params=7_794_184, preprocess=tensorflow(240, 0.882)),
    tf_efficientnet_b2=Variant(Config(1.1, 1.2), params=9_109_994, preprocess=tensorflow(260, 0.89)),
    tf_efficientnet_b3=Variant(Config(1.2, 1.4), params=12_233_232, preprocess=tensorflow(300, 0.904)),
    tf_efficientnet_b4=Variant(Config(1.4, 1.8), params=19_341_616, preprocess=tensorflow(380, 0.922)),
    tf_efficientnet_b5=Variant(Config(1.6, 2.2), params=30_389_784, preprocess=tensorflow(456, 0.934)),
    tf_efficientnet_b6=Variant(Config(1.8, 2.6), params=43_040_704, preprocess=tensorflow(528, 0.942)),
    tf_efficientnet_b7=Variant(Config(2.0, 3.1), params=66_347_960, preprocess=tensorflow(600, 0.949)),
    tf_efficientnet_b8=Variant(Config(2.2, 3.6), params=87_413_142, preprocess=halves(672, 0.954)),
    tf_efficientnet_lite0=Variant(Config(lite=True), params=4_652_008, preprocess=halves(224, 0.875)),
    tf_efficientnet_lite1=Variant(Config(1.0, 1.1, lite=True), params=5_416_680, preprocess=halves(240, 0.882)),
    tf_efficientnet_lite2=Variant(Config(1.1, 1.2, lite=True), params=6_092_072, preprocess=halves(260, 0.89)),
    tf_efficientnet_lite3=Variant(
        Config(1.2, 1.4, lite=True), params=8_197_096, preprocess=halves(300, 0.904, "bilinear")
    ),
    tf_efficientnet_lite4=Variant(
        Config(1.4, 1.8, lite=True), params=13_006_568, preprocess=halves(380, 0.92, "bilinear")
    ),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    activation = relu6 if cfg.lite else silu
    stem, head = (32, 1280) if cfg.lite else (cfg.channels(32), cfg.channels(1280))
    x = conv_bn(net, x, stem, 3, 2, "same", eps=EPS, conv="conv_stem", bn="bn1", activation=activation)
    for stage, (expansion, k, stride, channels, _) in enumerate(EFFICIENTNET):
        for i in range(cfg.blocks(stage)):
            at, step = net / "blocks" / stage / i, stride if i == 0 else 1
            x = block(at, x, expansion, k, step, cfg.channels(channels), cfg.lite)
    x = conv_bn(net, x, head, 1, eps=EPS, conv="conv_head", bn="bn2", activation=activation)
    return linear(net / "classifier", pooled(net / "global_pool", x), cfg.num_classes)
