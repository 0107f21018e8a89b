"""Scaled dot-product attention. Source of the semantics: torch.nn.functional.scaled_dot_product_attention."""

from __future__ import annotations

import numpy as np

from zoo.network import Net, Tensor
from zoo.ops.activation import softmax
from zoo.ops.elementwise import mul


def attention(net: Net, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v: three tensors (N, heads, S, D) -> (N, heads, S, D)."""
    trt, network = net.trt, net.network
    none, transposed = trt.MatrixOperation.NONE, trt.MatrixOperation.TRANSPOSE
    q, k, v = net.enter(q), net.enter(k), net.enter(v)
    # scaling q rather than the scores keeps the product in fp16's range, and is D / S of the work
    q = mul(net, q, net.constant(np.full((1, 1, 1, 1), q.shape[-1] ** -0.5), "scale"))
    scores = net.step(network.add_matrix_multiply(q, none, k, transposed), "scores", q, k)
    weights = softmax(net, scores, axis=3)
    return net.step(network.add_matrix_multiply(weights, none, v, none), "attend", weights, v)
