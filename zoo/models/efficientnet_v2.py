"""EfficientNetV2 S, M and L (Tan and Le 2021, arXiv:2104.00298).

The first stages are fused: one full convolution expands, and there is neither a depthwise one nor squeeze-and-excite;
where nothing is expanded, that convolution is the whole block. The epsilon of the normalisations is 1e-3. Scopes are
torchvision's; preprocessing and parameter counts are those of its IMAGENET1K_V1 weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.mbconv import conv, inverted_residual, squeeze_excite
from zoo.network import Net, Tensor
from zoo.ops import add, flatten, global_avg_pool, linear, sigmoid, silu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

EPS = 1e-3
Stage = tuple[bool, int, int, int, int]  # fused, expansion, stride of the first, channels, blocks


@dataclass(frozen=True)
class Config:
    stem: int
    stages: tuple[Stage, ...]
    num_classes: int = 1000


S = (
    (True, 1, 1, 24, 2), (True, 4, 2, 48, 4), (True, 4, 2, 64, 4),
    (False, 4, 2, 128, 6), (False, 6, 1, 160, 9), (False, 6, 2, 256, 15),
)  # fmt: skip
M = (
    (True, 1, 1, 24, 3), (True, 4, 2, 48, 5), (True, 4, 2, 80, 5),
    (False, 4, 2, 160, 7), (False, 6, 1, 176, 14), (False, 6, 2, 304, 18), (False, 6, 1, 512, 5),
)  # fmt: skip
L = (
    (True, 1, 1, 32, 4), (True, 4, 2, 64, 7), (True, 4, 2, 96, 7),
    (False, 4, 2, 192, 10), (False, 6, 1, 224, 19), (False, 6, 2, 384, 25), (False, 6, 1, 640, 7),
)  # fmt: skip


def fused(net: Net, x: Tensor, expansion: int, out: int, stride: int) -> Tensor:
    at = net / "block"
    if expansion == 1:
        y = conv(at / 0, x, out, 3, stride, activation=silu, eps=EPS)
    else:
        y = conv(at / 1, conv(at / 0, x, x.shape[1] * expansion, 3, stride, activation=silu, eps=EPS), out, 1, eps=EPS)
    return net.tap(add(net, y, x)) if stride == 1 and x.shape[1] == out else y


def block(net: Net, x: Tensor, expansion: int, out: int, stride: int) -> Tensor:
    width = x.shape[1]

    def squeeze(net: Net, x: Tensor) -> Tensor:
        return squeeze_excite(net, x, width // 4, gate=sigmoid, activation=silu)

    return inverted_residual(net, x, width * expansion, out, 3, stride, silu, squeeze, EPS)


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(384, 384),
    paper="arXiv:2104.00298",
    configure=classes_from("classifier.1.bias"),
    efficientnet_v2_s=Variant(Config(24, S), params=21_458_488),
    efficientnet_v2_m=Variant(Config(24, M), params=54_139_356, preprocess=imagenet(480, 480)),
    efficientnet_v2_l=Variant(
        Config(32, L),
        params=118_515_272,
        preprocess=imagenet(480, 480, interpolation="pillow:bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
    ),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    at = net / "features"
    x = conv(at / 0, x, cfg.stem, 3, 2, activation=silu, eps=EPS)
    for stage, (is_fused, expansion, stride, out, depth) in enumerate(cfg.stages, start=1):
        for i in range(depth):
            x = (fused if is_fused else block)(at / stage / i, x, expansion, out, stride if i == 0 else 1)
    x = conv(at / (len(cfg.stages) + 1), x, 1280, 1, activation=silu, eps=EPS)
    return linear(net / "classifier" / 1, flatten(net, global_avg_pool(net / "avgpool", x)), cfg.num_classes)
