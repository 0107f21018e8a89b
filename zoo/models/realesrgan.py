"""Real-ESRGAN (Wang et al. 2021, arXiv:2107.10833): the network of ESRGAN (arXiv:1809.00219), trained on real damage.

What a block adds is scaled by 0.2, and what three of them add together is so once more. Twice the size is four times
that of half the picture, whose pixels are moved into channels first. Scopes are BasicSR's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, leaky_relu, mul, open_size, pixel_unshuffle, upsample
from zoo.preprocess import Resize
from zoo.registry import Variant, register
from zoo.weights import Weights

WIDTH, GROWTH, SHARE, SLOPE = 64, 32, 0.2, 0.2


@dataclass(frozen=True)
class Config:
    blocks: int = 23
    scale: int = 4  # 1, 2 or 4


def dense(net: Net, x: Tensor) -> Tensor:
    """Four convolutions that each see all before them, and a fifth that sees these."""
    seen = [x]
    for i in range(1, 5):
        seen.append(leaky_relu(net / "lrelu", conv2d(net / f"conv{i}", concat(net, seen), GROWTH, 3), SLOPE))
    return net.tap(add(net, mul(net, conv2d(net / "conv5", concat(net, seen), WIDTH, 3), SHARE), x))


def residual(net: Net, x: Tensor) -> Tensor:
    """RRDB: three dense blocks around which the picture goes, too."""
    y = x
    for i in (1, 2, 3):
        y = dense(net / f"rdb{i}", y)
    return net.tap(add(net, mul(net, y, SHARE), x))


def configure(weights: Weights, cfg: Config) -> Config:
    """As many blocks as the weights have, and the scale that the channels of the first convolution tell."""
    blocks = {name.split(".")[1] for name in weights.names() if name.startswith("body.")}
    seen = (weights.shape("conv_first.weight") or (0, 0))[1]
    return replace(cfg, blocks=len(blocks) or cfg.blocks, scale={3: 4, 12: 2, 48: 1}.get(seen, cfg.scale))


@register(
    task="upscale",
    reference="basicsr:{name}",
    preprocess=Resize(256),
    paper="arXiv:2107.10833",
    configure=configure,
    realesrgan_x4plus=Variant(Config(), params=16_697_987),
    realesrgan_x4plus_anime_6b=Variant(Config(blocks=6), params=4_467_779),
    realesrgan_x2plus=Variant(Config(scale=2), params=16_703_171, preprocess=Resize(256, stride=2)),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    factor = 4 // cfg.scale
    open_size(net, x, factor)
    if factor > 1:
        x = pixel_unshuffle(net.functional, x, factor)
    first = x = conv2d(net / "conv_first", x, WIDTH, 3)
    for i in range(cfg.blocks):
        x = residual(net / "body" / i, x)
    x = add(net, first, conv2d(net / "conv_body", (net / "body").tap(x), WIDTH, 3))
    for i in (1, 2):
        x = leaky_relu(net / "lrelu", conv2d(net / f"conv_up{i}", upsample(net, x, 2), WIDTH, 3), SLOPE)
    x = leaky_relu(net / "lrelu", conv2d(net / "conv_hr", x, WIDTH, 3), SLOPE)
    return {"picture": conv2d(net / "conv_last", x, 3, 3)}
