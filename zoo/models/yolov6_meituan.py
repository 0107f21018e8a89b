"""YOLOv6 of Meituan, v3 (Li et al. 2023, arXiv:2301.05586; yolov6/models of github.com/meituan/YOLOv6).

What people get wrong: the head's activations are SiLU, whatever the others are, which are SiLU in l alone; the two
smaller networks give distances themselves and the two larger ones distributions of 17 bins; the neck also reads the
finer level below each. Scopes are upstream's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from zoo.blocks.yolo import boxes_around, conv
from zoo.blocks.yolo_head import in_a_row
from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    batch_norm_kernel,
    concat,
    conv2d,
    conv2d_each,
    conv2d_of,
    conv_bn,
    conv_bn_kernel,
    conv_transpose2d,
    max_pool,
    mul,
    open_size,
    relu,
    reshape,
    sigmoid,
    silu,
    softmax,
)
from zoo.ops._sizes import Size
from zoo.preprocess import letterbox
from zoo.registry import Variant, register
from zoo.weights import Weights

EPS = 1e-3
BINS = 17  # of the distribution that stands for a distance


@dataclass(frozen=True)
class Config:
    depth: float
    width: float
    share: float = 0.0  # of the channels that pass the blocks of a stage; 0: all, without a way past them
    plain: bool = False  # SiLU and single convolutions in the place of RepVGG blocks
    num_classes: int = 80

    def channels(self, n: int) -> int:
        return math.ceil(n * self.width / 8) * 8

    def repeats(self, n: int) -> int:
        return max(round(n * self.depth), 1)


def unit(net: Net, x: Tensor, cfg: Config, out: int, stride: int = 1) -> Tensor:
    """A RepVGG block, or a 3x3 convolution with a bias."""
    if cfg.plain:
        at = net / "block"
        return silu(at / "act", conv_bn(at, x, out, 3, stride, bias=True, eps=EPS))
    kernel = conv_bn_kernel(net / "rbr_dense", x, out, 3, eps=EPS) + conv_bn_kernel(net / "rbr_1x1", x, out, 1, eps=EPS)
    if stride == 1 and x.shape[1] == out:
        kernel += batch_norm_kernel(net / "rbr_identity", x, eps=EPS)
    return relu(net / "nonlinearity", conv2d_of(net, x, kernel, stride))


def pair(net: Net, x: Tensor, cfg: Config) -> Tensor:
    """Two units beside a shortcut that is scaled."""
    y = unit(net / "conv2", unit(net / "conv1", x, cfg, x.shape[1]), cfg, x.shape[1])
    alpha = net.constant(net.weight("alpha", 1).reshape(1, 1, 1, 1), "alpha")
    return net.tap(add(net, y, mul(net, x, alpha)))


def stage(net: Net, x: Tensor, cfg: Config, out: int, repeats: int) -> Tensor:
    """RepBlock, or BepC3: `repeats` units, or half as many pairs of them with a way past."""
    repeats = cfg.repeats(repeats)
    if not cfg.share:
        for at in [net / "conv1", *(net / "block" / i for i in range(repeats - 1))]:
            x = unit(at, x, cfg, out)
        return x
    inside = int(out * cfg.share)
    y, kept = conv(net / "cv1", x, inside), conv(net / "cv2", x, inside, merge=False)
    for at in [net / "m" / "conv1", *(net / "m" / "block" / i for i in range(repeats // 2 - 1))]:
        y = pair(at, y, cfg)
    return conv(net / "cv3", concat(net, [y, kept]), out)


def pooled(net: Net, x: Tensor) -> list[Tensor]:
    found = [x]
    for _ in range(3):
        found.append(max_pool(net / "m", found[-1], 5, 1, pad=2))
    return found


def spatial_pyramid(net: Net, x: Tensor, cfg: Config) -> Tensor:
    """SPPF; in the smaller networks with two convolutions before and after it, and a way past."""
    out, width = x.shape[1], x.shape[1] // 2
    if cfg.share:
        return conv(net / "cv2", concat(net, pooled(net, conv(net / "cv1", x, width))), out)
    y = conv(net / "cv4", conv(net / "cv3", conv(net / "cv1", x, width), width, 3), width)
    y = conv(net / "cv6", conv(net / "cv5", concat(net, pooled(net, y)), width), width, 3)
    return conv(net / "cv7", concat(net, [conv(net / "cv2", x, width, merge=False), y]), out)


def trunk(net: Net, x: Tensor, cfg: Config) -> list[Tensor]:
    """Maps of strides 4, 8, 16 and 32."""
    x, levels = unit(net / "stem", x, cfg, cfg.channels(64), 2), []
    for i, (out, repeats) in enumerate(((128, 6), (256, 12), (512, 18), (1024, 6))):
        at, out = net / f"ERBlock_{i + 2}", cfg.channels(out)
        x = stage(at / 1, unit(at / 0, x, cfg, out, 2), cfg, out, repeats)
        levels.append(x)
    return [*levels[:3], spatial_pyramid(net / "ERBlock_5" / 2, x, cfg)]


def fused(net: Net, x: Tensor, skip: Tensor, finer: Tensor) -> Tensor:
    """BiFusion: x at twice its size, a map of that size, and half of a finer one."""
    width = x.shape[1]
    x = conv_transpose2d(net / "upsample" / "upsample_transpose", x, width, 2, 2)
    finer = conv(net / "downsample", conv(net / "cv2", finer, width), width, 3, 2)
    return conv(net / "cv3", concat(net, [x, conv(net / "cv1", skip, width), finer]), width)


def pyramid(net: Net, levels: list[Tensor], cfg: Config) -> list[Tensor]:
    """Maps of strides 8, 16 and 32."""
    c, rep = cfg.channels, net.having(activation=silu if cfg.plain else relu)
    p2, p3, p4, p5 = levels
    p5 = conv(net / "reduce_layer0", p5, c(256))
    x = stage(rep / "Rep_p4", fused(net / "Bifusion0", p5, p4, p3), cfg, c(256), 12)
    p4 = conv(net / "reduce_layer1", x, c(128))
    p3 = stage(rep / "Rep_p3", fused(net / "Bifusion1", p4, p3, p2), cfg, c(128), 12)
    x = concat(net, [conv(net / "downsample2", p3, c(128), 3, 2), p4])
    p4 = stage(rep / "Rep_n3", x, cfg, c(256), 12)
    x = concat(net, [conv(net / "downsample1", p4, c(256), 3, 2), p5])
    return [p3, p4, stage(rep / "Rep_n4", x, cfg, c(512), 12)]


def mean_distance(net: Net, x: Tensor) -> Tensor:
    """(N, 4 * bins, H, W) -> (N, 4, H * W): the mean of each distribution."""
    height, width = open_size(net, x)
    x = softmax(net.functional, reshape(net, x, (0, 4, BINS, -1)), axis=2)
    at = (net / "proj_conv").fp32
    x = conv2d_each(at, reshape(net, x, (0, 4 * BINS, height, width)), groups=4)
    return reshape(at, at.tap(reshape(at, x, (0, 1, 4, -1))), (0, 4, -1))


def detect(net: Net, levels: list[Tensor], size: tuple[Size, Size], cfg: Config) -> dict[str, Tensor]:
    """Boxes (N, 4, A) as cx, cy, w, h in pixels and scores (N, classes, A)."""
    far, scores = [], []
    for i, x in enumerate(levels):
        width = x.shape[1]
        x = conv(net / "stems" / i, x, width)
        classes = conv2d(net / "cls_preds" / i, conv(net / "cls_convs" / i, x, width, 3), cfg.num_classes, 1)
        scores.append(sigmoid(net.functional, classes))
        x = conv(net / "reg_convs" / i, x, width, 3)
        x = conv2d(net / "reg_preds" / i, x, 4 * BINS if cfg.share else 4, 1)
        far.append(mean_distance(net, x) if cfg.share else reshape(net.fp32, x, (0, 4, -1)))
    return {"boxes": boxes_around(net, concat(net.fp32, far, axis=2), size, levels), "scores": in_a_row(net, scores)}


def configure(weights: Weights, cfg: Config) -> Config:
    """The classes that the weights have; the second stage must be as wide as that of the model's name."""
    for name in ("backbone.ERBlock_3.0.rbr_dense.bn.weight", "backbone.ERBlock_3.0.block.bn.weight"):
        if name in weights and weights.size(name) != cfg.channels(256):
            raise ZooError(
                f"{weights.name} is {weights.size(name)} channels wide in ERBlock_3, the definition {cfg.channels(256)}"
            )
    bias = "detect.cls_preds.0.bias"
    return replace(cfg, num_classes=weights.size(bias)) if bias in weights else cfg


@register(
    task="detect",
    reference="yolov6:{name}",
    preprocess=letterbox(),
    paper="arXiv:2301.05586",
    configure=configure,
    # what serves training: the bins again, and heads with anchors and for distillation
    ignored=("detect.proj", "detect.*_ab.*", "detect.reg_preds_dist.*"),
    options={"iou": 0.45},
    # parameters: as upstream's package counts its own models before it folds them, without what serves training
    yolov6n_meituan=Variant(Config(0.33, 0.25), params=5_058_236, reference="yolov6:yolov6n"),
    yolov6s_meituan=Variant(Config(0.33, 0.50), params=20_147_324, reference="yolov6:yolov6s"),
    yolov6m_meituan=Variant(Config(0.60, 0.75, share=2 / 3), params=37_740_965, reference="yolov6:yolov6m"),
    yolov6l_meituan=Variant(Config(1.00, 1.00, share=0.5, plain=True), params=59_657_210, reference="yolov6:yolov6l"),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    levels = trunk(net.having(activation=silu if cfg.plain else relu) / "backbone", x, cfg)
    levels = pyramid(net.having(activation=relu) / "neck", levels, cfg)
    return detect(net / "detect", levels, size, cfg)
