"""Recurrent layers, unrolled: a network here has no loops. Source of the semantics: torch.nn.LSTM."""

from __future__ import annotations

import numpy as np

from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops.activation import sigmoid, tanh
from zoo.ops.elementwise import add, mul
from zoo.ops.shape import concat, index_select, narrow, reshape, transpose


def lstm(net: Net, x: Tensor, hidden: int, layers: int = 1) -> Tensor:
    """LSTM(C, hidden, layers, batch_first=True, bidirectional=True): (N, T, C) -> (N, T, 2 * hidden), forwards first.

    A layer takes T times what a step takes, so T must be known when the network is defined.
    """
    if x.shape[1] == -1:
        raise ZooError(f"the LSTM of '{net.scope}' is unrolled, and takes a number of steps that is fixed, by --size")
    for layer in range(layers):
        x = _layer(net.functional, x, hidden, layer)
    return net.tap(x)


def _layer(net: Net, x: Tensor, hidden: int, layer: int) -> Tensor:
    """Both directions step by step together: (D, N, …) where D = 2, the second of which counts steps from the end."""
    steps = x.shape[1]
    seen, carried = (_both(net, name, layer, 4 * hidden, size) for name, size in (("ih", x.shape[2]), ("hh", hidden)))
    bias = sum(
        np.stack([net.weight(f"bias_{name}_l{layer}{way}", 4 * hidden) for way in ("", "_reverse")])
        for name in ("ih", "hh")
    )
    forwards = reshape(net, transpose(net, x, (1, 0, 2)), (steps, 1, -1, x.shape[2]))  # (T, 1, N, C)
    backwards = index_select(net, forwards, 0, range(steps)[::-1])
    given = add(
        net, _product(net, concat(net, [forwards, backwards], 1), seen), net.constant(bias[None, :, None], "bias")
    )
    states: list[Tensor] = []
    cell = None
    for step in range(steps):
        gates = narrow(net, given, 0, step, 1)  # (1, 2, N, 4 * hidden): input, forget, cell, output
        if states:
            gates = add(net, gates, _product(net, states[-1], carried))
        enter, forget, candidate, leave = (narrow(net, gates, 3, i * hidden, hidden) for i in range(4))
        entering = mul(net, sigmoid(net, enter), tanh(net, candidate))
        cell = entering if cell is None else add(net, mul(net, sigmoid(net, forget), cell), entering)
        states.append(mul(net, sigmoid(net, leave), tanh(net, cell)))
    found = concat(net, states, 0)
    ways = [narrow(net, found, 1, 0, 1), index_select(net, narrow(net, found, 1, 1, 1), 0, range(steps)[::-1])]
    joined = reshape(net, concat(net, ways, 3), (steps, -1, 2 * hidden))
    return transpose(net, joined, (1, 0, 2))


def _both(net: Net, name: str, layer: int, out: int, size: int) -> Tensor:
    """The matrices of both directions, (1, 2, size, out)."""
    arrays = [net.weight(f"weight_{name}_l{layer}{way}", out, size).T for way in ("", "_reverse")]
    return net.constant(np.stack(arrays)[None], f"weight_{name}_l{layer}")


def _product(net: Net, x: Tensor, matrix: Tensor) -> Tensor:
    none = net.trt.MatrixOperation.NONE
    return net.step(net.network.add_matrix_multiply(x, none, matrix, none), "matmul", x, matrix)
