"""A TensorRT network as ONNX: what runs it on a CPU, and what Netron draws.

    model = to_onnx(network, trt)          # INetworkDefinition -> onnx.ModelProto
    save(model, "resnet18.onnx")

`reading.py` reads an `INetworkDefinition` back, `graph.py` writes ONNX, `walker.py` goes from the one to the other, and
each `layers_*.py` holds one short function per TensorRT layer type.
"""

from __future__ import annotations

from zoo.onnx.files import save
from zoo.onnx.walker import to_onnx

__all__ = ["save", "to_onnx"]
