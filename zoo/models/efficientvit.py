"""EfficientViT of MIT (Cai et al. 2022, arXiv:2205.14756).

Attention without softmax: ReLU of queries and keys, whose products are divided by their sum, so that its cost grows
with the pixels and not with their square. The sums leave fp16's range. Queries, keys and values of a second scale are
convolutions of the first one's. What has attention has biases in the place of all normalisations but the last. Scopes
are timm's.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.blocks.timm_layers import Activation, pooled
from zoo.network import Net, Tensor
from zoo.ops import (
    add,
    concat,
    conv2d,
    conv_bn,
    div,
    hardswish,
    layer_norm,
    linear,
    matmul,
    mul,
    open_size,
    reduce_sum,
    relu,
    reshape,
    split,
    transpose,
)
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    """`depths`: blocks after the one that halves the map; `head`: the widths before the classes."""

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int, int, int]
    head_width: int
    head: tuple[int, int]
    num_classes: int = 1000


def conv_act(
    net: Net,
    x: Tensor,
    out: int,
    k: int = 1,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: Activation | None = hardswish,
    normalised: bool = True,
) -> Tensor:
    """Convolution, then normalisation or a bias, then the activation if any."""
    if normalised:
        x = conv_bn(net, x, out, k, stride, groups=groups, bn="norm")
    else:
        x = conv2d(net / "conv", x, out, k, stride, groups=groups)
    return activation(net / "act", x) if activation else x


def inverted_residual(net: Net, x: Tensor, out: int, stride: int = 1, *, normalised: bool = True) -> Tensor:
    hidden = 4 * x.shape[1]
    x = conv_act(net / "inverted_conv", x, hidden, normalised=normalised)
    x = conv_act(net / "depth_conv", x, hidden, 3, stride, groups=hidden, normalised=normalised)
    return conv_act(net / "point_conv", x, out, activation=None)


def separable(net: Net, x: Tensor) -> Tensor:
    y = conv_act(net / "depth_conv", x, x.shape[1], 3, groups=x.shape[1])
    return conv_act(net / "point_conv", y, x.shape[1], activation=None)


def linear_attention(net: Net, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (k^T v) / (q (k^T 1)) of tensors (N, heads, S, D), in fp32."""
    net = net.fp32
    weighed = matmul(net, q, matmul(net, transpose(net, k, (0, 1, 3, 2)), v))
    total = reduce_sum(net, mul(net, q, reduce_sum(net, k, 2, keepdims=True)), 3, keepdims=True)
    return div(net, weighed, add(net, total, 1e-5))


def multi_scale_attention(net: Net, x: Tensor, depth: int) -> Tensor:
    """Heads of `depth` channels over each of two scales."""
    width, (height, columns) = x.shape[1], open_size(net, x)
    qkv = conv2d(net / "qkv" / "conv", x, 3 * width, 1, bias=False)
    at, heads = net / "aggreg" / 0, width // depth
    coarse = conv2d(at / 0, qkv, 3 * width, 5, groups=3 * width, bias=False)
    coarse = conv2d(at / 1, coarse, 3 * width, 1, groups=3 * heads, bias=False)
    both = reshape(net, concat(net, [qkv, coarse]), (0, 2 * heads, 3 * depth, -1))
    q, k, v = split(net, transpose(net, both, (0, 1, 3, 2)), [depth] * 3, 3)
    x = linear_attention(net, relu(net / "kernel_func", q), relu(net / "kernel_func", k), v)
    x = reshape(net, transpose(net, x, (0, 1, 3, 2)), (0, 2 * width, height, columns))
    return net.tap(conv_act(net / "proj", x, width, activation=None))


def block(net: Net, x: Tensor, depth: int) -> Tensor:
    at = net / "context_module"
    x = at.tap(add(at, multi_scale_attention(at / "main", x, depth), x))
    at = net / "local_module"
    return at.tap(add(at, inverted_residual(at / "main", x, x.shape[1], normalised=False), x))


@register(
    task="classify",
    reference="timm:{name}",
    preprocess=imagenet(share=0.95, interpolation="pillow:bicubic"),
    paper="arXiv:2205.14756",
    configure=classes_from("head.classifier.4.bias"),
    efficientvit_b0=Variant(Config((8, 16, 32, 64, 128), (1, 1, 1, 2, 2), 16, (1024, 1280)), params=3_410_008),
    efficientvit_b1=Variant(Config((16, 32, 64, 128, 256), (1, 1, 2, 3, 4), 16, (1536, 1600)), params=9_102_024),
    efficientvit_b2=Variant(Config((24, 48, 96, 192, 384), (1, 2, 3, 4, 6), 32, (2304, 2560)), params=24_330_712),
    efficientvit_b3=Variant(Config((32, 64, 128, 256, 512), (1, 3, 5, 6, 9), 32, (2304, 2560)), params=48_646_056),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    x = conv_act(net / "stem" / "in_conv", x, cfg.widths[0], 3, 2)
    for i in range(cfg.depths[0]):
        at = net / "stem" / f"res{i}"
        x = at.tap(add(at, separable(at / "main", x), x))
    for stage, (width, depth) in enumerate(zip(cfg.widths[1:], cfg.depths[1:])):
        blocks = net / "stages" / stage / "blocks"
        x = inverted_residual(blocks / 0 / "main", x, width, 2, normalised=stage < 2)
        for at in (blocks / i for i in range(1, depth + 1)):
            if stage < 2:
                x = at.tap(add(at, inverted_residual(at / "main", x, width), x))
            else:
                x = block(at, x, cfg.head_width)
    head, last = net / "head", net / "head" / "classifier"
    x = linear(
        last / 0, pooled(head / "global_pool", conv_act(head / "in_conv", x, cfg.head[0])), cfg.head[1], bias=None
    )
    return linear(last / 4, hardswish(last / 2, layer_norm(last / 1, x)), cfg.num_classes)
