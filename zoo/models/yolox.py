"""YOLOX (Ge et al. 2021, arXiv:2107.08430; yolox/models of github.com/Megvii-BaseDetection/YOLOX).

What people get wrong: pictures are BGR in 0..255, in the left top corner of the input; a cell's place is its corner and
not its middle; the stem joins the four pixels of a 2x2 square column by column; sizes are exp, in cells. Scopes are
upstream's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from zoo.blocks.yolo import STRIDE, cell_rows, conv
from zoo.blocks.yolo_head import in_a_row
from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    concat,
    conv2d,
    exp,
    max_pool,
    mul,
    open_size,
    reshape,
    sigmoid,
    split,
    transpose,
    upsample,
)
from zoo.ops._sizes import Size
from zoo.preprocess import Resize
from zoo.registry import Variant, register
from zoo.weights import Weights

STEM, STAGE = "backbone.backbone.stem.conv.bn.weight", "backbone.backbone.dark3.1.m"


@dataclass(frozen=True)
class Config:
    depth: float
    width: float
    separable: bool = False  # 3x3 convolutions by channel, and 1x1 ones across them
    num_classes: int = 80

    def channels(self, n: int) -> int:
        return int(n * self.width)

    def repeats(self, n: int) -> int:
        """Of a stage of `n` blocks; three are scaled and then multiplied."""
        return max(round(3 * self.depth), 1) * n // 3


def pictures(size: int) -> Resize:
    """What networks of this size are fed: BGR in 0..255, scaled to fit, at the left top of a grey canvas."""
    return Resize(
        size, "fit", interpolation="cv2:bilinear", divisor=1.0, color="BGR", pad=114, align="corner", rounding="down",
        stride=32,
    )  # fmt: skip


def spatial(net: Net, x: Tensor, cfg: Config, out: int, stride: int = 1) -> Tensor:
    """A 3x3 convolution, in the separable network two."""
    if not cfg.separable:
        return conv(net, x, out, 3, stride)
    return conv(net / "pconv", conv(net / "dconv", x, x.shape[1], 3, stride, groups=x.shape[1]), out)


def csp(net: Net, x: Tensor, cfg: Config, out: int, repeats: int, shortcut: bool = True) -> Tensor:
    y, kept = conv(net / "conv1", x, out // 2), conv(net / "conv2", x, out // 2, merge=False)
    for i in range(repeats):
        at = net / "m" / i
        inner = spatial(at / "conv2", conv(at / "conv1", y, out // 2), cfg, out // 2)
        y = add(at, inner, y) if shortcut else inner
    return conv(net / "conv3", concat(net, [y, kept]), out)


def focus(net: Net, x: Tensor, out: int) -> Tensor:
    """Squares of 2x2 pixels as channels, column by column, and a convolution."""
    channels, (height, width) = x.shape[1], open_size(net, x)
    x = reshape(net, x, (0, channels, height // 2, 2, width // 2, 2))
    x = reshape(net, transpose(net, x, (0, 5, 3, 1, 2, 4)), (0, 4 * channels, height // 2, width // 2))
    return conv(net / "conv", x, out, 3)


def spp(net: Net, x: Tensor, out: int) -> Tensor:
    x = conv(net / "conv1", x, x.shape[1] // 2)
    found = [x, *(max_pool(net / "m" / i, x, k, 1, pad=k // 2) for i, k in enumerate((5, 9, 13)))]
    return conv(net / "conv2", concat(net, found), out)


def trunk(net: Net, x: Tensor, cfg: Config) -> list[Tensor]:
    """CSPDarknet: maps of strides 8, 16 and 32."""
    c, n, levels = cfg.channels, cfg.repeats, []
    x = focus(net / "stem", x, c(64))
    for stage, out, repeats in ((2, 128, 3), (3, 256, 9), (4, 512, 9)):
        at = net / f"dark{stage}"
        x = csp(at / 1, spatial(at / 0, x, cfg, c(out), 2), cfg, c(out), n(repeats))
        levels.append(x)
    at = net / "dark5"
    x = spp(at / 1, spatial(at / 0, x, cfg, c(1024), 2), c(1024))
    return [*levels[1:], csp(at / 2, x, cfg, c(1024), n(3), shortcut=False)]


def pyramid(net: Net, x: Tensor, cfg: Config) -> list[Tensor]:
    """The same maps after the neck."""
    p3, p4, p5 = trunk(net / "backbone", x, cfg)
    c, mix = cfg.channels, partial(csp, cfg=cfg, repeats=round(3 * cfg.depth), shortcut=False)
    p5 = conv(net / "lateral_conv0", p5, c(512))
    p4 = mix(net / "C3_p4", concat(net, [upsample(net / "upsample", p5, 2), p4]), out=c(512))
    p4 = conv(net / "reduce_conv1", p4, c(256))
    p3 = mix(net / "C3_p3", concat(net, [upsample(net / "upsample", p4, 2), p3]), out=c(256))
    p4 = mix(net / "C3_n3", concat(net, [spatial(net / "bu_conv2", p3, cfg, c(256), 2), p4]), out=c(512))
    p5 = mix(net / "C3_n4", concat(net, [spatial(net / "bu_conv1", p4, cfg, c(512), 2), p5]), out=c(1024))
    return [p3, p4, p5]


def branch(net: Net, x: Tensor, cfg: Config) -> Tensor:
    return spatial(net / 1, spatial(net / 0, x, cfg, x.shape[1]), cfg, x.shape[1])


def detect(net: Net, levels: list[Tensor], size: tuple[Size, Size], cfg: Config) -> dict[str, Tensor]:
    """Boxes (N, 4, A) as cx, cy, w, h in pixels and scores (N, classes, A), which are objectness x class."""
    boxes, scores = [], []
    for i, x in enumerate(levels):
        x = conv(net / "stems" / i, x, cfg.channels(256))
        classes = conv2d(net / "cls_preds" / i, branch(net / "cls_convs" / i, x, cfg), cfg.num_classes, 1)
        x = branch(net / "reg_convs" / i, x, cfg)
        boxes.append(conv2d(net / "reg_preds" / i, x, 4, 1))
        objectness = sigmoid(net.functional, conv2d(net / "obj_preds" / i, x, 1, 1))
        scores.append(mul(net, sigmoid(net.functional, classes), objectness))

    at = net.fp32  # beyond 512 pixels half precision counts in halves
    xy, wh = split(at, in_a_row(at, boxes), (2, 2))
    scale = cell_rows(at, size, levels, [STRIDE], "stride")
    xy = add(at, mul(at, xy, scale), cell_rows(at, size, levels, [(1, 0, -0.5, 0), (0, 1, -0.5, 0)], "corner"))
    return {"boxes": concat(at, [xy, mul(at, exp(at, wh), scale)]), "scores": in_a_row(net, scores)}


def configure(weights: Weights, cfg: Config) -> Config:
    """The classes that the weights have; width, depth and kind of convolution must be those of the model's name."""
    if STEM in weights:
        depth = sum(f"{STAGE}.{i}.conv1.bn.weight" in weights for i in range(99))
        found, wanted = (weights.size(STEM), depth), (cfg.channels(64), cfg.repeats(9))
        if found != wanted:
            raise ZooError(
                f"{weights.name} is {found[0]} channels wide in the stem and {found[1]} deep in dark3, "
                f"the definition {wanted[0]} and {wanted[1]}"
            )
    bias = "head.cls_preds.0.bias"
    return replace(cfg, num_classes=weights.size(bias)) if bias in weights else cfg


@register(
    task="detect",
    reference="yolox:{name}",
    preprocess=pictures(640),
    paper="arXiv:2107.08430",
    configure=configure,
    options={"iou": 0.65},
    # parameters: as upstream's package counts its own models; its README has them in millions
    yolox_nano=Variant(Config(0.33, 0.25, separable=True), params=912_159, preprocess=pictures(416)),
    yolox_tiny=Variant(Config(0.33, 0.375), params=5_055_855, preprocess=pictures(416)),
    yolox_s=Variant(Config(0.33, 0.50), params=8_968_255, aliases=("yolox",)),
    yolox_m=Variant(Config(0.67, 0.75), params=25_326_495),
    yolox_l=Variant(Config(1.00, 1.00), params=54_208_895),
    yolox_x=Variant(Config(1.33, 1.25), params=99_071_455),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size = open_size(net, x, 32)
    return detect(net / "head", pyramid(net / "backbone", x, cfg), size, cfg)
