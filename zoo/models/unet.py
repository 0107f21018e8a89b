"""U-Net over a ResNet (Ronneberger et al. 2015, arXiv:1505.04597).

The decoder grows by repeating pixels, and its own map comes before the encoder's; the last of its five blocks joins
none. Scopes and parameter counts are those of segmentation-models-pytorch, whose default is one class.
"""

from __future__ import annotations

from zoo.blocks.encoder_decoder import RESNET50, Config, encode, head, widen
from zoo.network import Net, Tensor
from zoo.ops import open_size
from zoo.preprocess import stretched
from zoo.registry import Variant, classes_from, register

WIDTHS = (256, 128, 64, 32, 16)


@register(
    task="segment",
    reference="segmentation_models_pytorch:{name}",
    preprocess=stretched(512, stride=32),
    paper="arXiv:1505.04597",
    configure=classes_from("segmentation_head.0.bias"),
    unet_resnet34=Variant(Config(), params=24_436_369),
    unet_resnet50=Variant(Config(RESNET50), params=32_521_105),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    open_size(net, x, 32)
    *skips, x = encode(net, x, cfg)
    for i, width in enumerate(WIDTHS):
        x = widen(net / "decoder" / "blocks" / i, x, [skips.pop()] if skips else [], width)
    return head(net, x, cfg, 3)
