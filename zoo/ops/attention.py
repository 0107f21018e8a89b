"""Products of matrices. Source of the semantics: torch.matmul and torch.nn.functional.scaled_dot_product_attention."""

from __future__ import annotations

from zoo.network import Net, Tensor
from zoo.ops.activation import softmax
from zoo.ops.elementwise import add, mul


def matmul(net: Net, x: Tensor, y: Tensor, *, transpose: bool = False, name: str = "matmul") -> Tensor:
    """x @ y, or x @ y^T with `transpose`: tensors of equal rank (…, I, K) and (…, K, J) -> (…, I, J)."""
    x, y = net.enter(x), net.enter(y)
    none, transposed = net.trt.MatrixOperation.NONE, net.trt.MatrixOperation.TRANSPOSE
    return net.step(net.network.add_matrix_multiply(x, none, y, transposed if transpose else none), name, x, y)


def attention(
    net: Net, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, *, scale: Tensor | float | None = None
) -> Tensor:
    """softmax(q k^T * scale + bias) v: three tensors (N, heads, S, D) -> (N, heads, S, D).

    `scale` defaults to 1 / sqrt(D); a tensor of it broadcasts to q. `bias` broadcasts to (N, heads, queries, keys);
    what must not be seen has a large negative number there.
    """
    # scaling q rather than the scores keeps the product in fp16's range, and is D / S of the work
    q = mul(net, q, q.shape[-1] ** -0.5 if scale is None else scale)
    scores = matmul(net, q, k, transpose=True, name="scores")
    if bias is not None:
        scores = add(net, scores, bias)
    return matmul(net, softmax(net.functional, scores, axis=len(scores.shape) - 1), v, name="attend")
