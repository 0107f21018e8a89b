"""RT-DETR-L and -X over PP-HGNetV2 (Zhao et al. 2023, arXiv:2304.08069; ultralytics/cfg/models/rt-detr).

As `rtdetr`, with another backbone, a box head that sees the chosen places only, and boxes that are final. What people
get wrong: BatchNorm's eps is 1e-3, LayerNorm's 1e-5; the first blocks of a stage have no shortcut; pictures are
stretched to the input, not fitted in. Scopes are ultralytics'; parameters are counted without the score heads of all
layers but the last and without the embedding of noisy classes, which serve training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zoo.blocks.detr import (
    anchored_at,
    attend_deformable,
    attend_packed,
    best,
    detections,
    mlp_head,
    positions,
    refined,
    without_edges,
)
from zoo.blocks.hgnet import stem
from zoo.blocks.transformer import as_map, as_tokens, mlp
from zoo.blocks.yolo import conv, join, linear_conv
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    concat,
    conv2d_of,
    conv_bn,
    conv_bn_kernel,
    fixed_size,
    layer_norm,
    linear,
    relu,
    sigmoid,
    silu,
    take_rows,
    upsample,
)
from zoo.preprocess import Resize
from zoo.registry import Variant, register
from zoo.weights import Weights

HEADS, POINTS, QUERIES, LAYERS = 8, 4, 300, 6
WIDTH = 256  # of the decoder
EPS = 1e-3
Stage = tuple[int, int, int]  # width of the layers, width of the result, blocks


@dataclass(frozen=True)
class Config:
    """`encoder` is the width of its maps, `hidden` that of its MLP."""

    stem: tuple[int, int] = (32, 48)
    stages: tuple[Stage, Stage, Stage, Stage] = ((48, 128, 1), (96, 512, 1), (192, 1024, 3), (384, 2048, 1))
    encoder: int = 256
    hidden: int = 1024
    num_classes: int = 80

    @property
    def neck(self) -> int:
        """The module after the backbone: the stem, three convolutions between the stages, and their blocks."""
        return 4 + sum(blocks for _, _, blocks in self.stages)

    @property
    def head(self) -> int:
        return self.neck + 18


def block(net: Net, x: Tensor, width: int, out: int, light: bool, shortcut: bool) -> Tensor:
    """Joins its input and what each of six layers made; the `light` ones are a 1x1 and a depthwise convolution."""
    made = [x]
    for i in range(6):
        at = net / "m" / i
        if light:
            made.append(conv(at / "conv2", linear_conv(at / "conv1", made[-1], width), width, 5, groups=width))
        else:
            made.append(conv(at, made[-1], width, 3))
    y = conv(net / "ec", conv(net / "sc", concat(net, made), out // 2), out)
    return net.tap(add(net, y, x)) if shortcut else y


def backbone(net: Net, x: Tensor, cfg: Config) -> list[Tensor]:
    """Maps of strides 8, 16 and 32."""
    net = net.having(activation=relu)
    x, maps, index = stem(net / 0, x, *cfg.stem, conv), [], 1
    for stage, (width, out, blocks) in enumerate(cfg.stages):
        if stage > 0:
            x, index = linear_conv(net / index, x, x.shape[1], 3, 2, groups=x.shape[1]), index + 1
        for i in range(blocks):
            x, index = block(net / index, x, width, out, stage > 1, i > 0), index + 1
        maps.append(x)
    return maps[1:]


def interact(net: Net, x: Tensor, hidden: int) -> Tensor:
    """Attention within the coarsest map, normalised after each sum."""
    size, places = tuple(x.shape[2:]), positions(net, tuple(x.shape[2:]), x.shape[1])
    x = as_tokens(net, x)
    x = layer_norm(net / "norm1", add(net, x, attend_packed(net / "ma", x, places, HEADS, batch_first=True)))
    y = mlp(net, x, hidden, ("fc1", "act", "fc2"))
    return net.tap(as_map(net, layer_norm(net / "norm2", add(net, x, y)), size))


def repvgg(net: Net, x: Tensor) -> Tensor:
    """The sum of a 3x3 and a 1x1 convolution."""
    three, one = (conv_bn_kernel(net / f"conv{i}", x, x.shape[1], k, eps=EPS) for i, k in ((1, 3), (2, 1)))
    return silu(net / "act", conv2d_of(net, x, three + one))


def fuse(net: Net, x: Tensor, out: int) -> Tensor:
    """A branch of RepVGG's blocks beside a plain convolution."""
    y = conv(net / "cv1", x, out)
    for i in range(3):
        y = repvgg(net / "m" / i, y)
    return net.tap(add(net, y, conv(net / "cv2", x, out)))


def encode(net: Net, maps: list[Tensor], cfg: Config) -> list[Tensor]:
    """Down from the coarsest map to the finest, and up again."""
    out, n = cfg.encoder, cfg.neck
    p3, p4, p5 = maps
    p5 = conv(net / (n + 2), interact(net / (n + 1), linear_conv(net / n, p5, out), cfg.hidden), out)
    p4 = join(net / (n + 5), upsample(net / (n + 3), p5, 2), linear_conv(net / (n + 4), p4, out))
    p4 = conv(net / (n + 7), fuse(net / (n + 6), p4, out), out)
    p3 = join(net / (n + 10), upsample(net / (n + 8), p4, 2), linear_conv(net / (n + 9), p3, out))
    p3 = fuse(net / (n + 11), p3, out)
    p4 = fuse(net / (n + 14), join(net / (n + 13), conv(net / (n + 12), p3, out, 3, 2), p4), out)
    p5 = fuse(net / (n + 17), join(net / (n + 16), conv(net / (n + 15), p4, out, 3, 2), p5), out)
    return [p3, p4, p5]


def decode(net: Net, x: Tensor, placed: Tensor, boxes: Tensor, memory: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
    """A layer of the decoder: queries attend to each other, then to the maps around their boxes."""
    y = attend_packed(net / "self_attn", x, placed, HEADS, batch_first=False)
    x = layer_norm(net / "norm1", add(net, x, y))
    at = net / "cross_attn"
    y = attend_deformable(at, at, add(net, x, placed), boxes, memory, sizes, HEADS, POINTS)
    x = layer_norm(net / "norm2", add(net, x, at.tap(linear(at / "output_proj", y, WIDTH))))
    y = linear(net / "linear2", relu(net / "act", linear(net / "linear1", x, 1024)), WIDTH)
    return net.tap(layer_norm(net / "norm3", add(net, x, y)))


def configure(weights: Weights, cfg: Config) -> Config:
    bias = f"model.{cfg.head}.enc_score_head.bias"
    return replace(cfg, num_classes=weights.size(bias)) if bias in weights else cfg


@register(
    task="detect",
    options={"nms": False},
    reference="ultralytics:{name}",
    preprocess=Resize(640, interpolation="cv2:bilinear", stride=32),
    paper="arXiv:2304.08069",
    configure=configure,
    ignored=("model.*.denoising_class_embed.weight", "model.*.dec_score_head.*"),
    rtdetr_l=Variant(Config(), params=32_847_196),
    rtdetr_x=Variant(
        Config((32, 64), ((64, 128, 1), (128, 512, 2), (256, 1024, 5), (512, 2048, 2)), 384, 2048),
        params=67_344_572,
    ),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, net = fixed_size(net, x, 32, "anchors and positions are computed for one size"), net / "model"
    maps = encode(net, backbone(net, x, cfg), cfg)
    net = net / cfg.head
    maps = [conv_bn(net / "input_proj" / i, x, WIDTH, 1, eps=EPS, conv=0, bn=1) for i, x in enumerate(maps)]
    sizes, memory = [tuple(x.shape[2:]) for x in maps], concat(net, [as_tokens(net, x) for x in maps])

    found = linear(net / "enc_output" / 0, without_edges(net, memory, sizes), WIDTH)
    found = layer_norm(net / "enc_output" / 1, found)
    chosen = best(net, linear(net.fp32 / "enc_score_head", found, cfg.num_classes), QUERIES)
    x, at = take_rows(net, found, chosen), net / "enc_bbox_head"
    boxes = mlp_head(at, x, WIDTH, 4, act=at / "act")
    boxes = sigmoid(net.fp32.functional, anchored_at(net, boxes, sizes, chosen))
    for i in range(LAYERS):
        head, at = net / "query_pos_head", net / "dec_bbox_head" / i
        placed = mlp_head(head, boxes, 2 * WIDTH, WIDTH, layers=2, act=head / "act")
        x = decode(net / "decoder" / "layers" / i, x, placed, boxes, memory, sizes)
        boxes = refined(net, mlp_head(at, x, WIDTH, 4, act=at / "act"), boxes)
    scores = sigmoid(net.functional, linear(net / "dec_score_head" / (LAYERS - 1), x, cfg.num_classes))
    return detections(net, boxes, scores, size)
