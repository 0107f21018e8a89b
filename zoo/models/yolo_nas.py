"""YOLO-NAS (Deci 2023; no paper; super_gradients/training/models/detection_models/customizable_detector.py).

Found by a search for what int8 keeps: its RepVGG blocks normalise only one branch before their sum, and the sum once
more. What people get wrong: a learned number scales the shortcut of each bottleneck; the neck also reads stride 4; a
picture fills 636 of 640 pixels, and the rest is grey. Scopes are super-gradients'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from zoo.blocks.yolo import boxes_around, conv
from zoo.blocks.yolo_head import in_a_row
from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    batch_norm_of,
    concat,
    conv2d,
    conv2d_kernel,
    conv2d_of,
    conv_bn_kernel,
    conv_transpose2d,
    identity_kernel,
    max_pool,
    mul,
    open_size,
    reduce_sum,
    relu,
    reshape,
    sigmoid,
    softmax,
)
from zoo.ops._sizes import Size
from zoo.preprocess import Resize
from zoo.registry import Variant, register
from zoo.weights import Weights

EPS = 1e-3
BINS = 17  # of the distribution that stands for a distance
FIRST = "backbone.stage1.blocks.conv1.bn.weight"

Block = Callable[[Net, Tensor], Tensor]


@dataclass(frozen=True)
class Config:
    hidden: tuple[int, int, int, int]  # channels inside the stages
    joined: tuple[bool, bool, bool, bool]  # what each bottleneck of a stage gives reaches its end
    neck: tuple[tuple[int, int], ...]  # (bottlenecks, channels inside) of its four parts
    head: float  # width
    num_classes: int = 80


def rep_block(net: Net, x: Tensor, out: int, stride: int = 1, identity: bool = True) -> Tensor:
    """QARepVGG: a normalised 3x3 convolution, a 1x1 one and x, normalised once they are added."""
    kernel = conv_bn_kernel(net / "branch_3x3", x, out, 3, eps=EPS) + conv2d_kernel(net / "branch_1x1", x, out, 1)
    if identity:
        kernel += identity_kernel(net, x)
    x = conv2d_of(net, x, batch_norm_of(net / "post_bn", kernel, EPS), stride)
    return net.tap(relu(net / "nonlinearity", x))


def bottleneck(net: Net, x: Tensor, block: Block) -> Tensor:
    """Two blocks beside a shortcut that is scaled."""
    y = block(net / "cv2", block(net / "cv1", x))
    alpha = net.constant(net.weight("alpha", 1).reshape(1, 1, 1, 1), "alpha")
    return net.tap(add(net, mul(net, x, alpha), y))


def csp(net: Net, x: Tensor, out: int, hidden: int, repeats: int, joined: bool = False, rep: bool = True) -> Tensor:
    def block(net: Net, x: Tensor) -> Tensor:
        return rep_block(net, x, hidden) if rep else conv(net, x, hidden, 3)

    found = [conv(net / "conv1", x, hidden)]
    for i in range(repeats):
        found.append(bottleneck(net / "bottlenecks" / i, found[-1], block))
    kept = conv(net / "conv2", x, hidden, merge=False)
    return net.tap(conv(net / "conv3", concat(net, [*(found if joined else found[-1:]), kept]), out))


def spp(net: Net, x: Tensor, out: int) -> Tensor:
    x = conv(net / "cv1", x, x.shape[1] // 2)
    found = [x, *(max_pool(net / "m" / i, x, k, 1, pad=k // 2) for i, k in enumerate((5, 9, 13)))]
    return conv(net / "cv2", concat(net, found), out)


def trunk(net: Net, x: Tensor, cfg: Config) -> list[Tensor]:
    """Maps of strides 4, 8, 16 and 32."""
    x, levels = rep_block(net / "stem" / "conv", x, 48, 2, identity=False), []
    for i, (repeats, hidden, joined) in enumerate(zip((2, 3, 5, 2), cfg.hidden, cfg.joined)):
        at, out = net / f"stage{i + 1}", 96 * 2**i
        x = csp(at / "blocks", rep_block(at / "downsample", x, out, 2, identity=False), out, hidden, repeats, joined)
        levels.append(x)
    return [*levels[:3], spp(net / "context_module", x, 768)]


def up(net: Net, x: Tensor, skip: Tensor, finer: Tensor, out: int, inside: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(x narrowed, the map of the next finer level): joined with `skip` and, halved, with `finer`."""
    skip, finer = conv(net / "reduce_skip1", skip, out), conv(net / "reduce_skip2", finer, out)
    x = conv(net / "conv", x, out)
    joined = [conv_transpose2d(net / "upsample", x, out, 2, 2), skip, conv(net / "downsample", finer, out, 3, 2)]
    repeats, hidden = inside
    return x, csp(net / "blocks", conv(net / "reduce_after_concat", concat(net, joined), out), out, hidden, repeats)


def down(net: Net, x: Tensor, skip: Tensor, out: int, inside: tuple[int, int]) -> Tensor:
    x = concat(net, [conv(net / "conv", x, out // 2, 3, 2), skip])
    return csp(net / "blocks", x, out, inside[1], inside[0], rep=False)


def pyramid(net: Net, levels: list[Tensor], cfg: Config) -> list[Tensor]:
    """Maps of strides 8, 16 and 32."""
    p2, p3, p4, p5 = levels
    coarse, x = up(net / "neck1", p5, p4, p3, 192, cfg.neck[0])
    middle, fine = up(net / "neck2", x, p3, p2, 96, cfg.neck[1])
    p4 = down(net / "neck3", fine, middle, 192, cfg.neck[2])
    return [fine, p4, down(net / "neck4", p4, coarse, 384, cfg.neck[3])]


def detect(net: Net, levels: list[Tensor], size: tuple[Size, Size], cfg: Config) -> dict[str, Tensor]:
    """Boxes (N, 4, A) as cx, cy, w, h in pixels and scores (N, classes, A)."""
    far, scores, at = [], [], net.fp32
    mean = at.constant(np.arange(float(BINS)).reshape(1, 1, BINS, 1), "bins")
    for i, x in enumerate(levels):
        head, width = net / f"head{i + 1}", int(128 * 2**i * cfg.head)
        x = conv(head / "stem" / "seq", x, width)
        classes = conv(head / "cls_convs" / 0 / "seq", x, width, 3)
        classes = conv2d(head / "cls_pred", classes, cfg.num_classes, 1)
        scores.append(sigmoid(net.functional, classes))
        x = conv2d(head / "reg_pred", conv(head / "reg_convs" / 0 / "seq", x, width, 3), 4 * BINS, 1)
        x = softmax(net.functional, reshape(net, x, (0, 4, BINS, -1)), axis=2)
        far.append(reduce_sum(at, mul(at, x, mean), 2))
    return {"boxes": boxes_around(net, concat(at, far, axis=2), size, levels), "scores": in_a_row(net, scores)}


def configure(weights: Weights, cfg: Config) -> Config:
    """The classes that the weights have; their first stage must be as wide inside as that of the model's name."""
    if FIRST in weights and weights.size(FIRST) != cfg.hidden[0]:
        raise ZooError(
            f"{weights.name} is {weights.size(FIRST)} channels wide inside stage1, the definition {cfg.hidden[0]}"
        )
    bias = "heads.head1.cls_pred.bias"
    return replace(cfg, num_classes=weights.size(bias)) if bias in weights else cfg


@register(
    task="detect",
    reference="modern_yolonas:{name}",
    preprocess=Resize(640, "fit", interpolation="cv2:bilinear", pad=114, stride=32, margin=4),
    paper="https://github.com/Deci-AI/super-gradients/blob/master/YOLONAS.md",
    configure=configure,
    ignored=("*.rbr_reparam.*", "*.id_tensor", "heads.proj_conv", "heads.anchor_points", "heads.stride_tensor"),
    # parameters: as the reference counts its own models, without the convolutions that only fusing fills
    yolo_nas_s=Variant(
        Config((32, 64, 96, 192), (False,) * 4, ((2, 64), (2, 48), (2, 64), (2, 64)), 0.5),
        params=12_878_304, aliases=("yolo_nas",),
    ),
    yolo_nas_m=Variant(
        Config((64, 128, 256, 384), (True, True, True, False), ((2, 192), (3, 64), (2, 192), (3, 256)), 0.75),
        params=33_861_346,
    ),
    yolo_nas_l=Variant(
        Config((96, 128, 256, 512), (True,) * 4, ((4, 128), (4, 128), (4, 128), (4, 256)), 1.0), params=44_529_448,
    ),
)  # fmt: skip
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, net = open_size(net, x, 32), net.having(activation=relu)
    levels = pyramid(net / "neck", trunk(net / "backbone", x, cfg), cfg)
    return detect(net / "heads", levels, size, cfg)
