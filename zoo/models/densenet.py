"""DenseNet (Huang et al. 2016, arXiv:1608.06993).

Normalisation and ReLU come before each convolution, so most of them cannot be folded: only `norm2`, which follows
`conv1`, can. Every layer sees all maps before it, the oldest first. The last ReLU is no module. Scopes are
torchvision's; preprocessing and parameter counts are those of its IMAGENET1K_V1 weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.network import Net, Tensor
from zoo.ops import avg_pool, batch_norm, concat, conv2d, conv_bn, flatten, global_avg_pool, linear, max_pool, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    depths: tuple[int, int, int, int] = (6, 12, 24, 16)
    growth: int = 32
    num_classes: int = 1000


def dense_layer(net: Net, x: Tensor, growth: int) -> Tensor:
    y = relu(net / "relu1", batch_norm(net / "norm1", x))
    y = relu(net / "relu2", conv_bn(net, y, 4 * growth, 1, conv="conv1", bn="norm2"))
    return conv2d(net / "conv2", y, growth, 3, bias=False)


def transition(net: Net, x: Tensor) -> Tensor:
    x = relu(net / "relu", batch_norm(net / "norm", x))
    return avg_pool(net / "pool", conv2d(net / "conv", x, x.shape[1] // 2, 1, bias=False), 2)


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(),
    paper="arXiv:1608.06993",
    configure=classes_from("classifier.bias"),
    densenet121=Variant(Config(), params=7_978_856),
    densenet161=Variant(Config((6, 12, 36, 24), growth=48), params=28_681_000),
    densenet169=Variant(Config((6, 12, 32, 32)), params=14_149_480),
    densenet201=Variant(Config((6, 12, 48, 32)), params=20_013_928),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    at = net / "features"
    x = relu(at / "relu0", conv_bn(at, x, 2 * cfg.growth, 7, 2, conv="conv0", bn="norm0"))
    x = max_pool(at / "pool0", x, 3, 2, pad=1)
    for i, depth in enumerate(cfg.depths, start=1):
        if i > 1:
            x = transition(at / f"transition{i - 1}", x)
        block = at / f"denseblock{i}"
        for j in range(1, depth + 1):
            x = concat(block, [x, dense_layer(block / f"denselayer{j}", x, cfg.growth)])
        block.tap(x)
    x = relu(net.functional, batch_norm(at / "norm5", x))
    return linear(net / "classifier", flatten(net, global_avg_pool(net.functional, x)), cfg.num_classes)
