"""Layers that timm's networks share (github.com/huggingface/pytorch-image-models), with its scopes."""

from __future__ import annotations

from collections.abc import Callable

from zoo.network import Net, Tensor
from zoo.ops import conv2d, flatten, global_avg_pool, linear, mul, reduce_mean, relu, sigmoid

Activation = Callable[[Net, Tensor], Tensor]
SE_MODULE = ("fc1", "act", "fc2", "gate")


def squeeze_excite(
    net: Net,
    x: Tensor,
    squeezed: int,
    *,
    activation: Activation = relu,
    gate: Activation = sigmoid,
    names: tuple[str, str, str, str] = SE_MODULE,
) -> Tensor:
    """x times a gate per channel, which the channels' means decide through `squeezed` of them; `names` of the modules
    are in the order in which they are called.
    """
    reduce, between, expand, last = (net / name for name in names)
    y = activation(between, conv2d(reduce, reduce_mean(net, x, (2, 3), keepdims=True), squeezed, 1))
    return net.tap(mul(net, x, gate(last, conv2d(expand, y, x.shape[1], 1))))


def pooled(net: Net, x: Tensor) -> Tensor:
    """SelectAdaptivePool2d of the average, flattened: (N, C, H, W) -> (N, C)."""
    return flatten(net, global_avg_pool(net / "pool", x))


def classifier(net: Net, x: Tensor, classes: int) -> Tensor:
    """ClassifierHead: the average over all pixels, and a linear layer."""
    return linear(net / "fc", pooled(net / "global_pool", x), classes)
