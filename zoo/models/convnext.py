"""ConvNeXt (Liu et al. 2022, arXiv:2201.03545).

One LayerNorm a block, with an epsilon of 1e-6, over the channels of each pixel; a learned scale (C, 1, 1) before the
sum; and a LayerNorm before each convolution that halves the size. Scopes are torchvision's; preprocessing and parameter
counts are those of its IMAGENET1K_V1 weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.network import Net, Tensor
from zoo.ops import add, conv2d, flatten, gelu, global_avg_pool, layer_norm, linear, mul, transpose
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

EPS = 1e-6


@dataclass(frozen=True)
class Config:
    depths: tuple[int, int, int, int] = (3, 3, 27, 3)
    widths: tuple[int, int, int, int] = (96, 192, 384, 768)
    num_classes: int = 1000


def block(net: Net, x: Tensor) -> Tensor:
    at, width = net / "block", x.shape[1]
    y = transpose(net, conv2d(at / 0, x, width, 7, groups=width), (0, 2, 3, 1))
    y = linear(at / 3, layer_norm(at / 2, y, EPS), 4 * width)
    y = transpose(net, linear(at / 5, gelu(at / 4, y), width), (0, 3, 1, 2))
    scale = net.constant(net.weight("layer_scale", width, 1, 1)[None], "layer_scale")
    return net.tap(add(net, mul(net, y, scale), x))


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(resize=232),
    paper="arXiv:2201.03545",
    configure=classes_from("classifier.2.bias"),
    convnext_tiny=Variant(Config((3, 3, 9, 3)), params=28_589_128, preprocess=imagenet(resize=236)),
    convnext_small=Variant(Config(), params=50_223_688, preprocess=imagenet(resize=230)),
    convnext_base=Variant(Config(widths=(128, 256, 512, 1024)), params=88_591_464),
    convnext_large=Variant(Config(widths=(192, 384, 768, 1536)), params=197_767_336),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    at = net / "features"
    x = layer_norm(at / 0 / 1, conv2d(at / 0 / 0, x, cfg.widths[0], 4, 4, pad=0), EPS, axis=1)
    for i, (depth, width) in enumerate(zip(cfg.depths, cfg.widths)):
        if i > 0:
            x = conv2d(at / (2 * i) / 1, layer_norm(at / (2 * i) / 0, x, EPS, axis=1), width, 2, 2, pad=0)
        for j in range(depth):
            x = block(at / (2 * i + 1) / j, x)
    x = layer_norm(net / "classifier" / 0, global_avg_pool(net / "avgpool", x), EPS, axis=1)
    return linear(net / "classifier" / 2, flatten(net, x), cfg.num_classes)
