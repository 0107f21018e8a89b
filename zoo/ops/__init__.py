"""One function per PyTorch operation: `f(net, x, …) -> tensor`, thin over `INetworkDefinition.add_*`.

An op knows the shapes of its weights and PyTorch's conventions (padding, eps, layout); it knows nothing of models.
"""

from zoo.ops.activation import gelu, hardsigmoid, hardswish, relu, relu6, sigmoid, silu, softmax, tanh
from zoo.ops.attention import attention
from zoo.ops.conv import conv2d, conv2d_each, conv_bn
from zoo.ops.elementwise import add, div, exp, mul, sub
from zoo.ops.linear import linear
from zoo.ops.norm import batch_norm, layer_norm
from zoo.ops.pool import adaptive_avg_pool, avg_pool, global_avg_pool, max_pool
from zoo.ops.reduce import reduce_sum
from zoo.ops.resize import upsample_nearest
from zoo.ops.shape import concat, expand_batch, fixed_size, flatten, narrow, reshape, split, transpose

__all__ = [
    "adaptive_avg_pool", "add", "attention", "avg_pool", "batch_norm", "concat", "conv2d", "conv2d_each", "conv_bn",
    "div", "exp", "expand_batch", "fixed_size", "flatten", "gelu", "global_avg_pool", "hardsigmoid", "hardswish",
    "layer_norm", "linear", "max_pool", "mul", "narrow", "reduce_sum", "relu", "relu6", "reshape", "sigmoid", "silu",
    "softmax", "split", "sub", "tanh", "transpose", "upsample_nearest",
]  # fmt: skip
