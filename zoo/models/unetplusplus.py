"""U-Net++ over a ResNet (Zhou et al. 2018, arXiv:1807.10165).

Block `x_d_l` grows the map of `x_d_(l-1)` and joins it with those of the blocks beside it, `x_(d+1)_l` first, then the
encoder's. Scopes and parameter counts are those of segmentation-models-pytorch, whose default is one class.
"""

from __future__ import annotations

from zoo.blocks.encoder_decoder import RESNET50, Config, encode, head, widen
from zoo.network import Net, Tensor
from zoo.ops import open_size
from zoo.preprocess import stretched
from zoo.registry import Variant, classes_from, register

WIDTHS = (256, 128, 64, 32)
LAST = 16


@register(
    task="segment",
    reference="segmentation_models_pytorch:{name}",
    preprocess=stretched(512, stride=32),
    paper="arXiv:1807.10165",
    configure=classes_from("segmentation_head.0.bias"),
    unetplusplus_resnet34=Variant(Config(), params=26_078_609),
    unetplusplus_resnet50=Variant(Config(RESNET50), params=48_985_745),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    open_size(net, x, 32)
    maps, blocks = encode(net, x, cfg)[::-1], net / "decoder" / "blocks"
    beside: list[Tensor] = []  # x_0_l, x_1_l … of the last l, where x_d_l is as large as the encoder's map l + 1
    for level, width in enumerate(WIDTHS):
        coarser, skip = [*beside, maps[level]], maps[level + 1]
        found: list[Tensor] = []
        for depth in range(level, -1, -1):
            out = width if depth == 0 else skip.shape[1]
            found = [widen(blocks / f"x_{depth}_{level}", coarser[depth], [*found, skip], out), *found]
        beside = found
    return head(net, widen(blocks / f"x_0_{len(WIDTHS)}", beside[0], [], LAST), cfg, 3)
