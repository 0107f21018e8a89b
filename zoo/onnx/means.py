"""Means over large maps that lose no more than PyTorch's."""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper


def write_means_out(graph: onnx.GraphProto) -> None:
    """Writes each ReduceMean over several axes as one after the other, from the last on, in place.

    onnxruntime adds up all values of a mean in a row: over 190x190 places its error is 4e-7, four times that of rows
    first and then their means (9e-8), and seven times PyTorch's, which adds in pairs.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    nodes = []
    for node in graph.node:
        axes = constants.get(node.input[1]) if node.op_type == "ReduceMean" and len(node.input) == 2 else None
        if axes is None:
            nodes.append(node)
            continue
        x, y = node.input[0], node.output[0]
        keepdims = next((attribute.i for attribute in node.attribute if attribute.name == "keepdims"), 1)
        for axis in sorted(numpy_helper.to_array(axes).tolist(), reverse=True):
            index = helper.make_tensor("", onnx.TensorProto.INT64, (1,), [axis])
            nodes.append(helper.make_node("Constant", [], [f"{y}/axis{axis}"], value=index))
            nodes.append(helper.make_node("ReduceMean", [x, f"{y}/axis{axis}"], [f"{y}/mean{axis}"], keepdims=keepdims))
            x = f"{y}/mean{axis}"
        nodes[-1].output[0], nodes[-1].name = y, node.name
    del graph.node[:]
    graph.node.extend(nodes)
