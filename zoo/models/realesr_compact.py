"""The compact networks of Real-ESRGAN (Wang et al. 2021, arXiv:2107.10833): plain convolutions at the small size.

All that they compute is added to the picture, enlarged without smoothing: weights that add nothing still enlarge.
`body` numbers convolutions and their PReLUs alike. Scopes are BasicSR's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zoo.network import Net, Tensor
from zoo.ops import add, conv2d, pixel_shuffle, prelu, upsample
from zoo.preprocess import Resize
from zoo.registry import Variant, register
from zoo.weights import Weights

WIDTH = 64


@dataclass(frozen=True)
class Config:
    layers: int  # between the first convolution and the last
    scale: int = 4


def configure(weights: Weights, cfg: Config) -> Config:
    """The depth and the scale that the weights have."""
    last = max((int(name.split(".")[1]) for name in weights.names() if name.startswith("body.")), default=0)
    bias = f"body.{last}.bias"
    if bias not in weights:
        return cfg
    return replace(cfg, layers=last // 2 - 1, scale=round((weights.size(bias) / 3) ** 0.5))


@register(
    task="upscale",
    reference="basicsr:{name}",
    configure=configure,
    preprocess=Resize(256),
    paper="arXiv:2107.10833",
    realesr_animevideov3=Variant(Config(16), params=621_424),
    realesr_general_x4v3=Variant(Config(32), params=1_213_296),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    body, y = net / "body", x
    for i in range(cfg.layers + 1):
        y = prelu(body / (2 * i + 1), conv2d(body / (2 * i), y, WIDTH, 3), WIDTH)
    y = conv2d(body / (2 * cfg.layers + 2), y, 3 * cfg.scale**2, 3)
    y = pixel_shuffle(net / "upsampler", y, cfg.scale)
    return {"picture": add(net, y, upsample(net.functional, x, cfg.scale))}
