"""LinkNet over a ResNet (Chaurasia and Culurciello 2017, arXiv:1707.03718).

The encoder's maps are added, not joined, and the transposed convolutions are 4x4. Scopes and parameter counts are those
of segmentation-models-pytorch, whose default is one class.
"""

from __future__ import annotations

from zoo.blocks.encoder_decoder import RESNET50, Config, conv_relu, encode, head
from zoo.network import Net, Tensor
from zoo.ops import add, batch_norm, conv_transpose2d, open_size, relu
from zoo.preprocess import stretched
from zoo.registry import Variant, classes_from, register

LAST = 32


def grow(net: Net, x: Tensor, out: int) -> Tensor:
    at, narrowed = net / "block", x.shape[1] // 4
    x, up = conv_relu(at / 0, x, narrowed, 1), at / 1
    x = conv_transpose2d(up / 0, x, narrowed, 4, 2, 1)
    return conv_relu(at / 2, relu(up / 2, batch_norm(up / 1, x)), out, 1)


@register(
    task="segment",
    reference="segmentation_models_pytorch:{name}",
    preprocess=stretched(512, stride=32),
    paper="arXiv:1707.03718",
    configure=classes_from("segmentation_head.0.bias"),
    linknet_resnet34=Variant(Config(), params=21_771_937),
    linknet_resnet50=Variant(Config(RESNET50), params=31_177_777),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    open_size(net, x, 32)
    *skips, x = encode(net, x, cfg)
    blocks = net / "decoder" / "blocks"
    for i, skip in enumerate(skips[::-1]):
        x = (blocks / i).tap(add(blocks / i, grow(blocks / i, x, skip.shape[1]), skip))
    at = blocks / len(skips)
    return head(net, at.tap(grow(at, x, LAST)), cfg, 1)
