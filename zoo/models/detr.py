"""DETR over ResNets, trained on COCO (Carion et al. 2020, arXiv:2005.12872).

A hundred learned queries look for objects, and the last class says that there is none: nothing is suppressed. What
people get wrong: positions run to 2 pi over the map, sines and cosines in turn, the row's before the column's; queries
and keys know them in every layer, values never; queries begin as zeros. Scopes are those of transformers 5.24, whose
loader renames the tensors of older files. A picture's short side becomes 800 there and its shape is kept, as the input
800x1066 does with 4:3. Parameters are counted with the scales of the normalisation, which training left as they were.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zoo.blocks.detr import attend_placed, attend_projected, detections, fed_forward, mlp_head, waves
from zoo.blocks.timm_resnet import bottleneck, shortcut, stem
from zoo.blocks.transformer import as_tokens
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    conv2d,
    expand_batch,
    fixed_size,
    layer_norm,
    linear,
    narrow,
    relu,
    sigmoid,
    softmax,
)
from zoo.preprocess import stretched
from zoo.registry import Variant, register
from zoo.weights import Weights

HEADS, LAYERS, WIDTH, HIDDEN = 8, 6, 256, 2048
QUERIES, CLASSES = "model.query_position_embeddings.weight", "class_labels_classifier.bias"


@dataclass(frozen=True)
class Config:
    """`num_classes` are COCO's numbers from 0 to 90, of which it uses 80."""

    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    queries: int = 100
    num_classes: int = 91


def backbone(net: Net, x: Tensor, depths: tuple[int, ...]) -> Tensor:
    """The map of stride 32."""
    x = stem(net, x)
    for stage, depth in enumerate(depths):
        for i in range(depth):
            at, planes, stride = net / f"layer{stage + 1}" / i, 64 << stage, 2 if stage > 0 and i == 0 else 1
            y = bottleneck(at, x, 4 * planes, stride, width=planes, first=planes)
            x = relu(at / "act3", add(at, y, shortcut(at, x, 4 * planes, stride)))
    return x


def encode(net: Net, x: Tensor, places: Tensor) -> Tensor:
    x = layer_norm(net / "self_attn_layer_norm", add(net, x, attend_placed(net / "self_attn", x, places, HEADS)))
    return fed_forward(net, x, HIDDEN)


def decode(net: Net, x: Tensor, queries: Tensor, memory: Tensor, placed: Tensor) -> Tensor:
    """A layer of the decoder: queries attend to each other, then to the map; `placed` is `memory` with its places."""
    x = layer_norm(net / "self_attn_layer_norm", add(net, x, attend_placed(net / "self_attn", x, queries, HEADS)))
    y = attend_projected(net / "encoder_attn", add(net, x, queries), placed, memory, HEADS)
    return fed_forward(net, layer_norm(net / "encoder_attn_layer_norm", add(net, x, y)), HIDDEN)


def configure(weights: Weights, cfg: Config) -> Config:
    if not (QUERIES in weights and CLASSES in weights):
        return cfg
    return replace(cfg, queries=weights.size(QUERIES) // WIDTH, num_classes=weights.size(CLASSES) - 1)


@register(
    task="detect",
    options={"nms": False, "conf": 0.5},
    reference="transformers:{name}",
    preprocess=stretched((800, 1066)),
    paper="arXiv:2005.12872",
    configure=configure,
    detr_r50=Variant(Config(), params=41_577_888),
    detr_r101=Variant(Config((3, 4, 23, 3)), params=60_570_016),
)
def build(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    size, at = fixed_size(net, x, 1, "the position embeddings are computed for one size"), net / "model"
    x = conv2d(at / "input_projection", backbone(at / "backbone" / "model", x, cfg.depths), WIDTH, 1)
    places, x = waves(at / "position_embedding", tuple(x.shape[2:]), WIDTH), as_tokens(at, x)
    for i in range(LAYERS):
        x = encode(at / "encoder" / "layers" / i, x, places)

    memory, placed, at = x, add(at, x, places), at / "decoder"
    learned = net.weight(QUERIES, cfg.queries, WIDTH)[None]
    queries = net.constant(learned, "queries")
    x = expand_batch(at, at.constant(0 * learned, "start"), like=memory)
    for i in range(LAYERS):
        x = decode(at / "layers" / i, x, queries, memory, placed)
    x = layer_norm(at / "layernorm", x)

    boxes = sigmoid(net.fp32.functional, mlp_head(net / "bbox_predictor", x, WIDTH, 4))
    logits = linear(net / "class_labels_classifier", x, cfg.num_classes + 1)
    scores = narrow(net, softmax(net.functional, logits, axis=2), 2, 0, cfg.num_classes)
    return detections(net, boxes, scores, size)
