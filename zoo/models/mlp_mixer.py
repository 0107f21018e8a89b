"""MLP-Mixer (Tolstikhin et al. 2021, arXiv:2105.01601).

One MLP works along the tokens, for all channels alike, and one along the channels; the first has as many inner values
as half the width. gMixer, an experiment of timm's, gates both: the second half of the inner values is the gate. Scopes
are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_vit import EPS, mean_of_tokens, patches
from zoo.blocks.transformer import mlp
from zoo.network import Net, Tensor
from zoo.ops import add, layer_norm, linear, mul, silu, split, transpose
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

PATCH = 16
GOOGLE = imagenet(interpolation="pillow:bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


@dataclass(frozen=True)
class Config:
    """`gated`: gMixer."""

    width: int
    depth: int
    gated: bool = False
    num_classes: int = 1000


def gated_mlp(net: Net, x: Tensor, hidden: int) -> Tensor:
    """Half of the `hidden` values are gates."""
    y, gate = split(net, linear(net / "fc1", x, hidden), [hidden // 2] * 2, 2)
    return linear(net / "fc2", mul(net, y, silu(net / "act", gate)), x.shape[2])


def mixed(net: Net, x: Tensor, hidden: int, gated: bool) -> Tensor:
    return gated_mlp(net, x, hidden) if gated else mlp(net, x, hidden, ("fc1", "act", "fc2"))


def block(net: Net, x: Tensor, cfg: Config) -> Tensor:
    along_tokens = transpose(net, layer_norm(net / "norm1", x, EPS), (0, 2, 1))
    y = mixed(net / "mlp_tokens", along_tokens, cfg.width if cfg.gated else cfg.width // 2, cfg.gated)
    x = add(net, x, transpose(net, y, (0, 2, 1)))
    y = mixed(net / "mlp_channels", layer_norm(net / "norm2", x, EPS), 4 * cfg.width, cfg.gated)
    return net.tap(add(net, x, y))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=GOOGLE,
    paper="arXiv:2105.01601",
    configure=classes_from("head.bias"),
    mixer_b16_224=Variant(Config(768, 12), params=59_880_472),
    mixer_l16_224=Variant(Config(1024, 24), params=208_196_168),
    gmixer_24_224=Variant(
        Config(384, 24, gated=True), params=24_721_096, preprocess=imagenet(interpolation="pillow:bicubic")
    ),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x, _ = patches(net, x, cfg.width, PATCH, "stem")
    for i in range(cfg.depth):
        x = block(net / "blocks" / i, x, cfg)
    return mean_of_tokens(net, layer_norm(net / "norm", x, EPS), cfg.num_classes)
