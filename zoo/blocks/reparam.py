"""Blocks that are trained as several branches and run as one convolution (arXiv:2101.03697, 2206.04040), timm's scopes.

The host adds the branches' weights up; weights that were folded before have one convolution there already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

from zoo.blocks.timm_layers import Activation
from zoo.network import Net, Tensor
from zoo.ops import batch_norm_kernel, conv2d, conv2d_of, conv_bn_kernel, mul, relu
from zoo.ops._kernel import Kernel
from zoo.weights import Weights


def rep_block(
    net: Net,
    x: Tensor,
    out: int,
    stride: int,
    branches: Sequence[tuple[str, int]],
    *,
    groups: int = 1,
    identity: bool = True,
    between: Callable[[Tensor], Tensor] = lambda x: x,
    activation: Activation = relu,
    folded: bool = False,
) -> Tensor:
    """The sum of convolutions of x, each normalised, and of x itself, normalised, where it has the shape of the result;
    then what comes `between` (squeeze-and-excite) and the activation.

    `branches` are names and window sizes. `folded`: the weights have the one convolution `reparam_conv` instead.
    """
    if folded:
        x = conv2d(net / "reparam_conv", x, out, max(k for _, k in branches), stride, groups=groups)
    else:
        kernels = [conv_bn_kernel(net / name, x, out, k, groups=groups) for name, k in branches]
        if identity and stride == 1 and x.shape[1] == out:
            kernels.append(batch_norm_kernel(net / "identity", x, groups=groups))
        x = conv2d_of(net, x, reduce(add, kernels), stride, groups=groups)
    return activation(net / "act", between(x))


def layer_scale(net: Net, x: Tensor) -> Tensor:
    """LayerScale2d: each channel of (N, C, H, W) times a learned number."""
    gamma = net.constant(net.weight("gamma", x.shape[1], 1, 1)[None], "gamma")
    return net.tap(mul(net, x, gamma))


def layer_scale_of(net: Net, kernel: Kernel) -> Kernel:
    """`kernel` and the LayerScale2d of this scope after it."""
    net.definition.folded.add(net.scope)
    return kernel.scaled(net.weight("gamma", len(kernel.bias), 1, 1).reshape(-1))


def folding_from(first: str, configure_rest: Callable[[Weights, Any], Any]) -> Callable[[Weights, Any], Any]:
    """A `configure` that also reads whether the weights are folded: then they have a convolution at `first`."""

    def configure(weights: Weights, config: Any) -> Any:
        return replace(configure_rest(weights, config), folded=f"{first}.weight" in weights)

    return configure
