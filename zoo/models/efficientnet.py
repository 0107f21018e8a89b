"""EfficientNet B0 to B7 (Tan and Le 2019, arXiv:1905.11946).

Squeeze-and-excite squeezes to a quarter of the block's own input, not of its expanded width. The epsilon of the
normalisations is PyTorch's 1e-5 up to B4 and 1e-3 from B5 on. Scopes are torchvision's; preprocessing and parameter
counts are those of its IMAGENET1K_V1 weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from zoo.blocks.mbconv import EFFICIENTNET, conv, inverted_residual, make_divisible, squeeze_excite
from zoo.network import Net, Tensor
from zoo.ops import flatten, global_avg_pool, linear, sigmoid, silu
from zoo.preprocess import Resize, imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    width: float = 1.0
    depth: float = 1.0
    eps: float = 1e-5
    num_classes: int = 1000


def bicubic(resize: int, size: int) -> Resize:
    return imagenet(resize, size, interpolation="pillow:bicubic")


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=bicubic(256, 224),
    paper="arXiv:1905.11946",
    configure=classes_from("classifier.1.bias"),
    efficientnet_b0=Variant(Config(), params=5_288_548),
    efficientnet_b1=Variant(Config(1.0, 1.1), params=7_794_184, preprocess=bicubic(256, 240)),
    efficientnet_b2=Variant(Config(1.1, 1.2), params=9_109_994, preprocess=bicubic(288, 288)),
    efficientnet_b3=Variant(Config(1.2, 1.4), params=12_233_232, preprocess=bicubic(320, 300)),
    efficientnet_b4=Variant(Config(1.4, 1.8), params=19_341_616, preprocess=bicubic(384, 380)),
    efficientnet_b5=Variant(Config(1.6, 2.2, 1e-3), params=30_389_784, preprocess=bicubic(456, 456)),
    efficientnet_b6=Variant(Config(1.8, 2.6, 1e-3), params=43_040_704, preprocess=bicubic(528, 528)),
    efficientnet_b7=Variant(Config(2.0, 3.1, 1e-3), params=66_347_960, preprocess=bicubic(600, 600)),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    at = net / "features"
    x = conv(at / 0, x, make_divisible(32 * cfg.width), 3, 2, activation=silu, eps=cfg.eps)
    for stage, (expansion, k, stride, channels, depth) in enumerate(EFFICIENTNET, start=1):
        for i in range(math.ceil(depth * cfg.depth)):
            squeezed = x.shape[1] // 4

            def squeeze(net: Net, x: Tensor, squeezed: int = squeezed) -> Tensor:
                return squeeze_excite(net, x, squeezed, gate=sigmoid, activation=silu)

            hidden, out = make_divisible(x.shape[1] * expansion), make_divisible(channels * cfg.width)
            step = stride if i == 0 else 1
            x = inverted_residual(at / stage / i, x, hidden, out, k, step, silu, squeeze, cfg.eps)
    x = conv(at / (len(EFFICIENTNET) + 1), x, 4 * x.shape[1], 1, activation=silu, eps=cfg.eps)
    return linear(net / "classifier" / 1, flatten(net, global_avg_pool(net / "avgpool", x)), cfg.num_classes)
