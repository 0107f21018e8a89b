"""gMLP (Liu et al. 2021, arXiv:2105.08050).

Tokens meet only in the gate of each MLP: half of its inner values, normalised with an epsilon of 1e-5 where the block
has 1e-6, pass a linear layer along the tokens and multiply the other half. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_vit import EPS, mean_of_tokens, patches
from zoo.network import Net, Tensor
from zoo.ops import add, gelu, layer_norm, linear, mul, split, transpose
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

PATCH = 16


@dataclass(frozen=True)
class Config:
    width: int = 256
    depth: int = 30
    num_classes: int = 1000


def spatial_gate(net: Net, x: Tensor) -> Tensor:
    _, tokens, width = x.shape
    x, gate = split(net, x, [width // 2] * 2, 2)
    gate = transpose(net, layer_norm(net / "norm", gate), (0, 2, 1))
    gate = transpose(net, linear(net / "proj", gate, tokens), (0, 2, 1))
    return net.tap(mul(net, x, gate))


def block(net: Net, x: Tensor) -> Tensor:
    at, width = net / "mlp_channels", x.shape[2]
    y = gelu(at / "act", linear(at / "fc1", layer_norm(net / "norm", x, EPS), 6 * width))
    return net.tap(add(net, x, linear(at / "fc2", spatial_gate(at / "gate", y), width)))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
    paper="arXiv:2105.08050",
    configure=classes_from("head.bias"),
    gmlp_s16_224=Variant(Config(), params=19_422_656),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x, _ = patches(net, x, cfg.width, PATCH, "stem")
    for i in range(cfg.depth):
        x = block(net / "blocks" / i, x)
    return mean_of_tokens(net, layer_norm(net / "norm", x, EPS), cfg.num_classes)
