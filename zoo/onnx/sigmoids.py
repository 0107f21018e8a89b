"""Sigmoids that keep the digits of small values in onnxruntime."""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import TensorProto, helper


def write_sigmoids_out(graph: onnx.GraphProto, small: Collection[str] = ()) -> None:
    """Writes each Sigmoid as 1 / (1 + exp(-x)), in place, but for those that gate their own input (SiLU), unless the
    result is among `small`.

    onnxruntime's Sigmoid has an absolute error of 6e-8: scores lose digits from 1e-4 downwards and are 0 below 2e-8.
    Written out they are as exact as PyTorch's. x * sigmoid(x) loses nothing that matters beside its larger values, and
    would take a third more of a YOLO's time; but a tensor of a few values, as in squeeze-and-excitation, may have no
    larger ones, and costs nothing.
    """
    users: dict[str, list[onnx.NodeProto | None]] = {output.name: [None] for output in graph.output}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)

    def gates_its_input(node: onnx.NodeProto) -> bool:
        return all(
            user is not None and user.op_type == "Mul" and node.input[0] in user.input
            for user in users.get(node.output[0], ())
        )

    nodes = []
    for node in graph.node:
        if node.op_type != "Sigmoid" or (gates_its_input(node) and node.output[0] not in small):
            nodes.append(node)
            continue
        x, y = node.input[0], node.output[0]
        one = helper.make_tensor("", TensorProto.FLOAT, (), [1.0])
        nodes += [
            helper.make_node("Constant", [], [f"{y}/one"], value=one),
            helper.make_node("Neg", [x], [f"{y}/negated"]),
            helper.make_node("Exp", [f"{y}/negated"], [f"{y}/exp"]),
            helper.make_node("Add", [f"{y}/exp", f"{y}/one"], [f"{y}/sum"]),
            helper.make_node("Reciprocal", [f"{y}/sum"], [y], name=node.name),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
