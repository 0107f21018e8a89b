"""RT-DETR over ResNets, trained on COCO (Zhao et al. 2023, arXiv:2304.08069).

The 300 places whose best class scores most become the queries, whose boxes are final: nothing is suppressed. What
people get wrong: a level is halved by an average before its shortcut is projected, but for the first stage; the light
backbones have encoders of half the width inside; queries and keys know their positions, values do not. Scopes are
those of transformers 5.24, whose loader renames the tensors of older files; parameters are counted without the heads
of all layers but the last and without the embedding of noisy classes, which serve training.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.detr import (
    anchored,
    attend_deformable,
    attend_placed,
    best,
    detections,
    fed_forward,
    mlp_head,
    positions,
    refined,
    without_edges,
)
from zoo.blocks.transformer import as_map, as_tokens, mlp
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    avg_pool,
    concat,
    conv2d_of,
    conv_bn,
    conv_bn_kernel,
    fixed_size,
    layer_norm,
    linear,
    max_pool,
    relu,
    sigmoid,
    silu,
    take_rows,
    upsample,
)
from zoo.preprocess import Resize
from zoo.registry import Variant, classes_from, register

HEADS, POINTS, QUERIES = 8, 4, 300
WIDTH = 256  # of the decoder
LIGHT = (64, 128, 256, 512)


@dataclass(frozen=True)
class Config:
    """`encoder` is the width of its maps, `share` that of its inner layers in it, `hidden` that of its MLP."""

    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    widths: tuple[int, int, int, int] = (256, 512, 1024, 2048)
    bottleneck: bool = True
    encoder: int = 256
    share: float = 1.0
    hidden: int = 1024
    layers: int = 6
    num_classes: int = 80


def unit(net: Net, x: Tensor, out: int, k: int, stride: int = 1, *, last: bool = False) -> Tensor:
    """A convolution of the backbone; nothing follows the `last` one of a block."""
    x = conv_bn(net, x, out, k, stride, conv="convolution", bn="normalization")
    return x if last else relu(net / "activation", x)


def residual(net: Net, x: Tensor, out: int, stride: int, first: bool, bottleneck: bool) -> Tensor:
    at, skip = net / "layer", net / "shortcut"
    if bottleneck:
        y = unit(at / 1, unit(at / 0, x, out // 4, 1), out // 4, 3, stride)
        y = unit(at / 2, y, out, 1, last=True)
    else:
        y = unit(at / 1, unit(at / 0, x, out, 3, stride), out, 3, last=True)
    if stride == 2:
        x = unit(skip / 1, avg_pool(skip / 0, x, 2, 2, ceil_mode=True), out, 1, last=True)
    elif first:
        x = unit(skip, x, out, 1, last=True)
    return relu(net / "activation", add(net, y, x))


def backbone(net: Net, x: Tensor, cfg: Config) -> list[Tensor]:
    """Maps of strides 8, 16 and 32."""
    at, maps = net / "embedder", []
    for i, (out, stride) in enumerate(((32, 2), (32, 1), (64, 1))):
        x = unit(at / "embedder" / i, x, out, 3, stride)
    x = max_pool(at / "pooler", x, 3, 2, pad=1)
    for stage, (depth, out) in enumerate(zip(cfg.depths, cfg.widths)):
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 else 1
            at = net / "encoder" / "stages" / stage / "layers" / i
            x = residual(at, x, out, stride, i == 0, cfg.bottleneck)
        maps.append(x)
    return maps[1:]


def conv(net: Net, x: Tensor, out: int, k: int = 1, stride: int = 1) -> Tensor:
    return silu(net / "activation", conv_bn(net, x, out, k, stride, conv="conv", bn="norm"))


def repvgg(net: Net, x: Tensor) -> Tensor:
    """The sum of a 3x3 and a 1x1 convolution."""
    three, one = (conv_bn_kernel(net / f"conv{i}", x, x.shape[1], k, bn="norm") for i, k in ((1, 3), (2, 1)))
    return silu(net / "activation", conv2d_of(net, x, three + one))


def fuse(net: Net, maps: list[Tensor], out: int, share: float) -> Tensor:
    """Two maps of one size as one: a branch of RepVGG's blocks beside a plain one."""
    x, inner = concat(net, maps), int(out * share)
    y = conv(net / "conv1", x, inner)
    for i in range(3):
        y = repvgg(net / "bottlenecks" / i, y)
    y = add(net, y, conv(net / "conv2", x, inner))
    return y if inner == out else conv(net / "conv3", y, out)


def interact(net: Net, x: Tensor, hidden: int) -> Tensor:
    """Attention within the coarsest map, normalised after each sum."""
    size = tuple(x.shape[2:])
    at, places = net / "layers" / 0, (net / "position_embedding").tap(positions(net, size, x.shape[1]))
    x = as_tokens(net, x)
    x = add(at, x, attend_placed(at / "self_attn", x, places, HEADS))
    x = layer_norm(at / "self_attn_layer_norm", x)
    y = (at / "mlp").tap(mlp(at / "mlp", x, hidden, ("fc1", "activation_fn", "fc2")))
    return net.tap(as_map(net, at.tap(layer_norm(at / "final_layer_norm", add(at, x, y))), size))


def encode(net: Net, maps: list[Tensor], cfg: Config) -> list[Tensor]:
    """Down from the coarsest map to the finest, and up again."""
    out, share = cfg.encoder, cfg.share
    p3, p4, p5 = (*maps[:2], interact(net / "aifi" / 0, maps[2], cfg.hidden))
    lateral, down, up = net / "lateral_convs", net / "fpn_blocks", net / "pan_blocks"
    p5 = conv(lateral / 0, p5, out)
    p4 = conv(lateral / 1, fuse(down / 0, [upsample(net.functional, p5, 2), p4], out, share), out)
    p3 = fuse(down / 1, [upsample(net.functional, p4, 2), p3], out, share)
    p4 = fuse(up / 0, [conv(net / "downsample_convs" / 0, p3, out, 3, 2), p4], out, share)
    p5 = fuse(up / 1, [conv(net / "downsample_convs" / 1, p4, out, 3, 2), p5], out, share)
    return [p3, p4, p5]


def decode(net: Net, x: Tensor, placed: Tensor, boxes: Tensor, memory: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
    """A layer of the decoder: queries attend to each other, then to the maps around their boxes."""
    x = layer_norm(net / "self_attn_layer_norm", add(net, x, attend_placed(net / "self_attn", x, placed, HEADS)))
    at = net / "encoder_attn"
    y = attend_deformable(at, at / "attn", add(net, x, placed), boxes, memory, sizes, HEADS, POINTS)
    y = at.tap(linear(at / "output_proj", (at / "attn").tap(y), WIDTH))
    return fed_forward(net, layer_norm(net / "encoder_attn_layer_norm", add(net, x, y)), 1024)


def queries(net: Net, memory: Tensor, sizes: list[tuple[int, int]], classes: int) -> tuple[Tensor, Tensor]:
    """The best places of `memory` (N, S, WIDTH): what is there (N, QUERIES, WIDTH), and boxes (N, QUERIES, 4)."""
    at, memory = net.fp32, without_edges(net, memory, sizes)
    found = layer_norm(net / "enc_output" / 1, linear(net / "enc_output" / 0, memory, WIDTH))
    boxes = anchored(net, mlp_head(net / "enc_bbox_head", found, WIDTH, 4), sizes)
    chosen = best(net, linear(at / "enc_score_head", found, classes), QUERIES)
    return take_rows(net, found, chosen), sigmoid(at.functional, take_rows(at, boxes, chosen))


@register(
    task="detect",
    options={"nms": False, "conf": 0.5},
    reference="transformers:{name}",
    preprocess=Resize(640, stride=32),
    paper="arXiv:2304.08069",
    configure=classes_from("model.enc_score_head.bias"),
    ignored=("model.denoising_class_embed.weight", "model.decoder.class_embed.*"),
    rtdetr_r18=Variant(Config((2, 2, 2, 2), LIGHT, False, share=0.5, layers=3), params=20_122_608),
    rtdetr_r34=Variant(Config((3, 4, 6, 3), LIGHT, False, share=0.5, layers=4), params=31_359_252),
    rtdetr_r50=Variant(Config(), params=42_821_084),
    rtdetr_r101=Variant(Config((3, 4, 23, 3), encoder=384, hidden=2048), params=76_538_204),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, net = fixed_size(net, x, 32, "anchors and positions are computed for one size"), net / "model"
    maps = backbone(net / "backbone" / "model", x, cfg)
    maps = [conv_bn(net / "encoder_input_proj" / i, x, cfg.encoder, 1, conv=0, bn=1) for i, x in enumerate(maps)]
    maps = encode(net / "encoder", maps, cfg)
    maps = [conv_bn(net / "decoder_input_proj" / i, x, WIDTH, 1, conv=0, bn=1) for i, x in enumerate(maps)]
    sizes, memory = [tuple(x.shape[2:]) for x in maps], concat(net, [as_tokens(net, x) for x in maps])

    x, boxes = queries(net, memory, sizes, cfg.num_classes)
    net = net / "decoder"
    for i in range(cfg.layers):
        placed = mlp_head(net / "query_pos_head", boxes, 2 * WIDTH, WIDTH, layers=2)
        x = decode(net / "layers" / i, x, placed, boxes, memory, sizes)
        boxes = refined(net, mlp_head(net / "bbox_embed" / i, x, WIDTH, 4), boxes)
    scores = sigmoid(net.functional, linear(net / "class_embed" / (cfg.layers - 1), x, cfg.num_classes))
    return detections(net, boxes, scores, size)
