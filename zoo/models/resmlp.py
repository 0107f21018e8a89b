"""ResMLP (Touvron et al. 2021, arXiv:2105.03404).

Nothing is normalised: a scale and a shift of each channel stand in its place. One linear layer, not an MLP, works along
the tokens, and each branch is scaled by channel. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_vit import mean_of_tokens, patches, scaled_by
from zoo.blocks.transformer import mlp
from zoo.network import Net, Tensor
from zoo.ops import add, linear, mul, transpose
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    depth: int
    width: int = 384
    patch: int = 16
    num_classes: int = 1000


def affine(net: Net, x: Tensor) -> Tensor:
    width = x.shape[2]
    scale, shift = (net.constant(net.weight(name, 1, 1, width), name) for name in ("alpha", "beta"))
    return net.tap(add(net, mul(net, x, scale), shift))


def block(net: Net, x: Tensor) -> Tensor:
    _, tokens, width = x.shape
    y = linear(net / "linear_tokens", transpose(net, affine(net / "norm1", x), (0, 2, 1)), tokens)
    x = add(net, x, scaled_by(net, transpose(net, y, (0, 2, 1)), "ls1"))
    y = mlp(net / "mlp_channels", affine(net / "norm2", x), 4 * width, ("fc1", "act", "fc2"))
    return net.tap(add(net, x, scaled_by(net, y, "ls2")))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(interpolation="pillow:bicubic"),
    paper="arXiv:2105.03404",
    configure=classes_from("head.bias"),
    resmlp_12_224=Variant(Config(12), params=15_350_872),
    resmlp_24_224=Variant(Config(24), params=30_020_680),
    resmlp_36_224=Variant(Config(36), params=44_690_488),
    resmlp_big_24_224=Variant(Config(24, 768, 8), params=129_138_280),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x, _ = patches(net, x, cfg.width, cfg.patch, "stem")
    for i in range(cfg.depth):
        x = block(net / "blocks" / i, x)
    return mean_of_tokens(net, affine(net / "norm", x), cfg.num_classes)
