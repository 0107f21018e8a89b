"""DBNet (Liao et al. 2019, arXiv:1911.08947), which finds text, in docTR's form without deformable convolutions.

Maps are enlarged corner to corner, and joined at a quarter of the picture; two transposed convolutions bring it back to
its size. Thresholds are learnt for training only. Text is shrunk in the map, and grown again by the task. Scopes are
docTR's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoo.blocks import mobilenet_v3, resnet
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    batch_norm,
    concat,
    conv_bn,
    conv_transpose2d,
    open_size,
    relu,
    reshape,
    sigmoid,
    upsample,
)
from zoo.preprocess import Resize
from zoo.registry import Variant, register

WIDTH = 256


@dataclass(frozen=True)
class Config:
    stages: resnet.Stages | None = None  # else MobileNetV3


def enlarged(net: Net, x: Tensor, factor: int) -> Tensor:
    return upsample(net, x, factor, mode="bilinear", align_corners=True)


def pyramid(net: Net, maps: Sequence[Tensor]) -> Tensor:
    """All maps, each with what coarser ones add, at the size of the finest."""
    branches = [
        relu(net / "in_branches" / i / 2, conv_bn(net / "in_branches" / i, x, WIDTH, 1, conv=0, bn=1))
        for i, x in enumerate(maps)
    ]
    found = [branches[-1]]
    for x in branches[-2::-1]:
        found.insert(0, add(net, enlarged(net / "upsample", found[0], 2), x))
    for i, x in enumerate(found):
        at = net / "out_branches" / i
        x = relu(at / 2, conv_bn(at, x, WIDTH // len(maps), 3, conv=0, bn=1))
        found[i] = enlarged(at / 3, x, 1 << i)
    return net.tap(concat(net, found))


@register(
    task="text",
    reference="doctr:{name}",
    preprocess=Resize(
        1024, "fit", mean=(0.798, 0.785, 0.772), std=(0.264, 0.2749, 0.287), rounding="down", stride=32
    ),
    paper="arXiv:1911.08947",
    ignored=("thresh_head.*",),
    db_resnet34=Variant(Config(resnet.Stages(bottleneck=False)), params=22_287_169),
    db_resnet50=Variant(Config(resnet.Stages()), params=25_247_809),
    db_mobilenet_v3_large=Variant(Config(), params=4_019_505),
)  # fmt: skip
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    """`text` (N, H, W): how likely each pixel is in the middle of text."""
    height, width = open_size(net, x, 32)
    at = net / "feat_extractor"
    if cfg.stages is None:
        found = mobilenet_v3.features(at, x, mobilenet_v3.LARGE)
        maps = [found[i] for i in (3, 6, 12, 16)]
    else:
        stages = resnet.features(at, x, cfg.stages)
        maps = [stages[f"layer{i}"] for i in (1, 2, 3, 4)]
    x, head = pyramid(net / "fpn", maps), net / "prob_head"
    x = relu(head / 2, conv_bn(head, x, WIDTH // 4, 3, conv=0, bn=1))
    x = batch_norm(head / 4, conv_transpose2d(head / 3, x, WIDTH // 4, 2, 2, bias=False))
    x = conv_transpose2d(head / 6, relu(head / 5, x), 1, 2, 2)
    return {"text": reshape(net, sigmoid(net, x), (0, height, width), "map")}
