"""BEiT and BEiT v2 (Bao et al. 2021, arXiv:2106.08254; Peng et al. 2022, 2208.06366).

There are no positions but the biases of each block's scores, one for each distance down and across, and three more: of
the class token's scores, of scores of it, and of its own. Keys have no bias. Each branch is scaled by channel, and the
mean of the patches is classified, normalised after it is taken. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.blocks.timm_vit import EPS, mean_of_patches, patches, qkv_without_key_bias, scaled_by, token
from zoo.blocks.transformer import attend, mlp
from zoo.blocks.windows import relative_positions
from zoo.network import Net, Tensor
from zoo.ops import add, concat, layer_norm, linear
from zoo.preprocess import Resize, imagenet
from zoo.registry import Variant, classes_from, register

PATCH = 16
SECOND = "arXiv:2208.06366"


@dataclass(frozen=True)
class Config:
    width: int = 768
    depth: int = 12
    num_classes: int = 1000

    @property
    def heads(self) -> int:
        return self.width // 64


LARGE = Config(1024, 24)


def position_bias(net: Net, heads: int, grid: tuple[int, int]) -> Tensor:
    """(1, heads, S, S): what each token's place adds to its scores of the others."""
    rows, columns = grid
    count = (2 * rows - 1) * (2 * columns - 1)
    places = np.pad(relative_positions(rows, columns), ((1, 0), (1, 0)))
    places[0], places[:, 0], places[0, 0] = count, count + 1, count + 2
    table = net.weight("relative_position_bias_table", count + 3, heads)
    return net.constant(table[places].transpose(2, 0, 1)[None], "relative_position_bias")


def block(net: Net, x: Tensor, heads: int, grid: tuple[int, int]) -> Tensor:
    at, width = net / "attn", x.shape[2]
    y = qkv_without_key_bias(at, layer_norm(net / "norm1", x, EPS))
    y = at.tap(linear(at / "proj", attend(at, y, heads, position_bias(at, heads, grid)), width))
    x = add(net, x, scaled_by(net, y, "gamma_1"))
    y = mlp(net / "mlp", layer_norm(net / "norm2", x, EPS), 4 * width, ("fc1", "act", "fc2"))
    return net.tap(add(net, x, scaled_by(net, y, "gamma_2")))


def first(size: int = 224, share: float = 1.0) -> Resize:
    """The pictures of the first version, from -1 to 1."""
    return imagenet(size=size, share=share, interpolation="pillow:bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=first(share=0.9),
    paper="arXiv:2106.08254",
    configure=classes_from("head.bias"),
    beit_base_patch16_224=Variant(Config(), params=86_530_984),
    beit_base_patch16_384=Variant(Config(), params=86_744_104, preprocess=first(384)),
    beit_large_patch16_224=Variant(LARGE, params=304_430_568),
    beit_large_patch16_384=Variant(LARGE, params=304_998_888, preprocess=first(384)),
    beit_large_patch16_512=Variant(LARGE, params=305_674_728, preprocess=first(512)),
    beitv2_base_patch16_224=Variant(
        Config(), params=86_530_984, paper=SECOND, preprocess=imagenet(share=0.9, interpolation="pillow:bicubic")
    ),
    beitv2_large_patch16_224=Variant(
        LARGE, params=304_430_568, paper=SECOND, preprocess=imagenet(share=0.95, interpolation="pillow:bicubic")
    ),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x, grid = patches(net, x, cfg.width, PATCH)
    x = concat(net, [token(net, "cls_token", cfg.width, like=x), x])
    for i in range(cfg.depth):
        x = block(net / "blocks" / i, x, cfg.heads, grid)
    return mean_of_patches(net, x, cfg.num_classes)
