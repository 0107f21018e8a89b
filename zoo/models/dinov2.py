"""DINOv2, which makes embeddings (Oquab et al. 2023, arXiv:2304.07193; with registers Darcet et al. 2023,
arXiv:2309.16588).

The embedding is the class token after the last normalisation. Registers stand between it and the patches and have no
positions; where there are some, the class token has none either. Positions were trained on a square of 37x37 patches,
and are resized, bicubic and with antialiasing, for any other size in multiples of 14. Scopes are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.blocks.timm_vit import EPS, block, patches, token
from zoo.network import Net, Tensor
from zoo.ops import add, concat, layer_norm, narrow, reshape
from zoo.preprocess import imagenet
from zoo.registry import Variant, register

PATCH, TRAINED = 14, 37
REGISTERS = "arXiv:2309.16588"


@dataclass(frozen=True)
class Config:
    width: int
    heads: int
    depth: int = 12
    registers: int = 0


def resizing(size: int, out: int) -> np.ndarray:
    """(out, size): the cubic filter by which PyTorch and Pillow resize, a = -0.5, stretched where it makes smaller."""
    stretch = max(size / out, 1.0)
    centres = (np.arange(out) + 0.5) * size / out
    x = np.abs(np.arange(size)[None] + 0.5 - centres[:, None]) / stretch
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


def positions(net: Net, width: int, prefix: int, grid: tuple[int, int]) -> Tensor:
    """(1, prefix + patches, width): what is trained for `prefix` tokens and the patches of the `grid`."""
    trained = net.weight("pos_embed", 1, prefix + TRAINED**2, width)
    if grid != (TRAINED, TRAINED):
        square = trained[0, prefix:].reshape(TRAINED, TRAINED, width)
        rows, columns = (resizing(TRAINED, side) for side in grid)
        resized = np.einsum("ir,jc,rcd->ijd", rows, columns, square, optimize=True).reshape(1, -1, width)
        trained = np.concatenate([trained[:, :prefix], resized], axis=1)
    return net.constant(trained, "pos_embed")


@register(
    task="embed",
    reference="timm:{name}",
    preprocess=imagenet(size=518, share=1.0, interpolation="pillow:bicubic"),
    paper="arXiv:2304.07193",
    vit_small_patch14_dinov2=Variant(Config(384, 6), params=22_056_192, aliases=("dinov2_vits14",)),
    vit_base_patch14_dinov2=Variant(Config(768, 12), params=86_579_712, aliases=("dinov2_vitb14",)),
    vit_large_patch14_dinov2=Variant(Config(1024, 16, 24), params=304_367_616, aliases=("dinov2_vitl14",)),
    vit_small_patch14_reg4_dinov2=Variant(
        Config(384, 6, registers=4), params=22_057_344, paper=REGISTERS, aliases=("dinov2_vits14_reg",)
    ),
    vit_base_patch14_reg4_dinov2=Variant(
        Config(768, 12, registers=4), params=86_582_016, paper=REGISTERS, aliases=("dinov2_vitb14_reg",)
    ),
    vit_large_patch14_reg4_dinov2=Variant(
        Config(1024, 16, 24, registers=4), params=304_370_688, paper=REGISTERS, aliases=("dinov2_vitl14_reg",)
    ),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x, grid = patches(net, x, cfg.width, PATCH)
    first = token(net, "cls_token", cfg.width, like=x)
    if cfg.registers:
        registers = token(net, "reg_token", cfg.width, like=x, count=cfg.registers)
        x = concat(net, [first, registers, add(net, x, positions(net, cfg.width, 0, grid))])
    else:
        x = add(net, concat(net, [first, x]), positions(net, cfg.width, 1, grid))
    for i in range(cfg.depth):
        x = block(net / "blocks" / i, x, cfg.heads, scaled=True)
    return reshape(net, narrow(net, layer_norm(net / "norm", x, EPS), 1, 0, 1), (0, cfg.width))
