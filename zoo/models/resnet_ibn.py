"""IBN-Net: ResNet-50 with instance normalisation (Pan et al. 2018, arXiv:1807.09441), here to tell people apart.

Form a normalises the first half of the channels after the first convolution of a block by instances, all stages but the
last. Form b does so with all channels after the sum, in the last block of the first two stages, and in the stem. Scopes
are torchreid's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    batch_norm,
    concat,
    conv2d,
    conv_bn,
    flatten,
    global_avg_pool,
    instance_norm,
    max_pool,
    relu,
    split,
)
from zoo.preprocess import stretched
from zoo.registry import Variant, register

DEPTHS = (3, 4, 6, 3)


@dataclass(frozen=True)
class Config:
    halves: bool  # form a


def half_instance(net: Net, x: Tensor) -> Tensor:
    first, second = split(net, x, [x.shape[1] // 2] * 2)
    parts = [instance_norm(net / "IN", first, affine=True), batch_norm(net / "BN", second)]
    return net.tap(concat(net, parts))


def block(net: Net, x: Tensor, planes: int, stride: int, *, halves: bool, after: bool) -> Tensor:
    if halves:
        y = half_instance(net / "bn1", conv2d(net / "conv1", x, planes, 1, bias=False))
    else:
        y = conv_bn(net, x, planes, 1, conv="conv1", bn="bn1")
    y = relu(net / "relu", y)
    y = relu(net / "relu", conv_bn(net, y, planes, 3, stride, conv="conv2", bn="bn2"))
    y = conv_bn(net, y, 4 * planes, 1, conv="conv3", bn="bn3")
    if stride > 1 or x.shape[1] != 4 * planes:
        x = conv_bn(net / "downsample", x, 4 * planes, 1, stride, conv=0, bn=1)
    y = add(net, y, x)
    return net.tap(relu(net / "relu", instance_norm(net / "IN", y, affine=True) if after else y))


@register(
    task="embed",
    reference="torchreid:{name}",
    preprocess=stretched((256, 128)),
    paper="arXiv:1807.09441",
    ignored=("classifier.*",),
    resnet50_ibn_a=Variant(Config(halves=True), params=23_508_032),
    resnet50_ibn_b=Variant(Config(halves=False), params=23_509_568),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    if cfg.halves:
        x = conv_bn(net, x, 64, 7, 2, conv="conv1", bn="bn1")
    else:
        x = instance_norm(net / "bn1", conv2d(net / "conv1", x, 64, 7, 2, bias=False), affine=True)
    x = max_pool(net / "maxpool", relu(net / "relu", x), 3, 2, 1)
    for stage, depth in enumerate(DEPTHS):
        for i in range(depth):
            stride = 2 if stage and not i else 1
            after = not cfg.halves and stage < 2 and i == depth - 1
            at = net / f"layer{stage + 1}" / i
            x = block(at, x, 64 << stage, stride, halves=cfg.halves and stage < 3, after=after)
    return {"embedding": flatten(net, global_avg_pool(net / "avgpool", x))}
