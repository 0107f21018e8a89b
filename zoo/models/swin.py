"""Swin Transformer (Liu et al. 2021, arXiv:2103.14030).

Maps are filled up with zeros to whole windows, and every second block shifts its windows by half, but not where one
window covers the map. Merging joins the four neighbours column by column. Scopes are torchvision's; preprocessing and
parameter counts are those of its IMAGENET1K_V1 weights.
"""

from __future__ import annotations

from zoo.blocks.swin import Config, fourfold, swin, window_attention
from zoo.blocks.transformer import mlp
from zoo.blocks.windows import relative_positions
from zoo.network import Net, Tensor
from zoo.ops import add, layer_norm, linear
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register

WINDOW = 7


def shifted_window_attention(net: Net, x: Tensor, heads: int, shifted: bool) -> Tensor:
    table = net.weight("relative_position_bias_table", (2 * WINDOW - 1) ** 2, heads)
    bias = table[relative_positions(WINDOW, WINDOW)].transpose(2, 0, 1)
    qkv = lambda x: linear((net / "qkv").functional, x, 3 * x.shape[-1])  # noqa: E731
    return window_attention(net, x, qkv, heads, WINDOW, bias, shifted=shifted)


def block(net: Net, x: Tensor, heads: int, shifted: bool) -> Tensor:
    x = add(net, x, shifted_window_attention(net / "attn", layer_norm(net / "norm1", x), heads, shifted))
    return net.tap(add(net, x, mlp(net / "mlp", layer_norm(net / "norm2", x), 4 * x.shape[-1])))


def merge(net: Net, x: Tensor) -> Tensor:
    out = 2 * x.shape[-1]
    return linear(net / "reduction", layer_norm(net / "norm", fourfold(net, x)), out, bias=None)


@register(
    task="classify",
    reference="torchvision:{name}",
    preprocess=imagenet(232, interpolation="pillow:bicubic"),
    paper="arXiv:2103.14030",
    configure=classes_from("head.bias"),
    ignored=("*.relative_position_index",),
    swin_t=Variant(Config((2, 2, 6, 2)), params=28_288_354),
    swin_s=Variant(Config(), params=49_606_258, preprocess=imagenet(246, interpolation="pillow:bicubic")),
    swin_b=Variant(
        Config(width=128, heads=(4, 8, 16, 32)),
        params=87_768_224,
        preprocess=imagenet(238, interpolation="pillow:bicubic"),
    ),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    return swin(net, x, cfg, block, merge)
