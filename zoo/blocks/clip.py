"""What the image encoders of CLIP and SigLIP share (arXiv:2103.00020, 2303.15343), with the names of transformers."""

from __future__ import annotations

from zoo.blocks.timm_layers import Activation
from zoo.blocks.transformer import as_tokens, attend_each
from zoo.network import Net, Tensor
from zoo.ops import add, concat, conv2d, expand_batch, fixed_size, layer_norm, linear


def embed(net: Net, x: Tensor, width: int, patch: int, *, classed: bool) -> Tensor:
    """An image (N, 3, H, W) as tokens with positions, one for each square of `patch`, after a class token if `classed`;
    pixels beyond the last whole square are left out. CLIP's patches have no bias, SigLIP's no class token.
    """
    fixed_size(net, x, 1, "the position embeddings are for one size")
    x = as_tokens(net, conv2d(net / "patch_embedding", x, width, patch, patch, pad=0, bias=not classed))
    if classed:
        token = net.constant(net.weight("class_embedding", width).reshape(1, 1, width), "class_embedding")
        x = concat(net, [expand_batch(net, token, like=x), x])
    at = net / "position_embedding"
    at.fold("constant")
    return net.tap(add(net, x, at.constant(at.weight("weight", x.shape[1], width)[None], "weight")))


def mlp(net: Net, x: Tensor, hidden: int, activation: Activation) -> Tensor:
    return linear(net / "fc2", activation(net / "activation_fn", linear(net / "fc1", x, hidden)), x.shape[2])


def layer(net: Net, x: Tensor, heads: int, hidden: int, activation: Activation, eps: float) -> Tensor:
    at, y = net / "self_attn", layer_norm(net / "layer_norm1", x, eps)
    q, k, v = (linear(at / name, y, x.shape[2]) for name in ("q_proj", "k_proj", "v_proj"))
    x = add(net, x, linear(at / "out_proj", attend_each(at, q, k, v, heads), x.shape[2]))
    return net.tap(add(net, x, mlp(net / "mlp", layer_norm(net / "layer_norm2", x, eps), hidden, activation)))
