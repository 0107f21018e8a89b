"""A feature pyramid for segmentation over a ResNet (Kirillov et al. 2019, arXiv:1901.02446; FPN: 1612.03144).

The pyramid grows by repeating pixels; the branches that bring its maps to a quarter of the input's size, and the
logits, are resized corner to corner. Scopes and parameter counts are those of segmentation-models-pytorch, whose
default is one class.
"""

from __future__ import annotations

from zoo.blocks.encoder_decoder import RESNET50, Config, encode, head
from zoo.network import Net, Tensor
from zoo.ops import add, conv2d, group_norm, open_size, relu, upsample
from zoo.preprocess import stretched
from zoo.registry import Variant, classes_from, register

PYRAMID, WIDTH, GROUPS = 256, 128, 32


def lateral(net: Net, x: Tensor, skip: Tensor) -> Tensor:
    return net.tap(add(net, upsample(net.functional, x, 2), conv2d(net / "skip_conv", skip, PYRAMID, 1)))


def smooth(net: Net, x: Tensor, grows: bool) -> Tensor:
    at = net / "block"
    x = relu(at / 2, group_norm(at / 1, conv2d(at / 0, x, WIDTH, 3, bias=False), GROUPS))
    return net.tap(upsample(net.functional, x, 2, mode="bilinear", align_corners=True) if grows else x)


@register(
    task="segment",
    reference="segmentation_models_pytorch:{name}",
    preprocess=stretched(512, stride=32),
    paper="arXiv:1901.02446",
    configure=classes_from("segmentation_head.0.bias"),
    fpn_resnet34=Variant(Config(), params=23_155_393),
    fpn_resnet50=Variant(Config(RESNET50), params=26_116_033),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    open_size(net, x, 32)
    *skips, x = encode(net, x, cfg)[1:]
    decoder, total = net / "decoder", None
    pyramid = [conv2d(decoder / "p5", x, PYRAMID, 1)]
    for name, skip in zip(("p4", "p3", "p2"), skips[::-1]):
        pyramid.append(lateral(decoder / name, pyramid[-1], skip))
    for i, x in enumerate(pyramid):
        block, times = decoder / "seg_blocks" / i / "block", 3 - i
        for j in range(max(times, 1)):
            x = smooth(block / j, x, grows=times > 0)
        total = x if total is None else add(decoder, total, x)
    return head(net, (decoder / "merge").tap(total), cfg, 1, factor=4)
