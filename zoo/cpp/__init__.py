"""A TensorRT network as C++ that builds it: one statement a layer, by TensorRT's own C++ API, grouped by module.

    text, weights = to_cpp(network, trt, strong=True)

`writer.py` goes from layer to layer, each `layers_*.py` holds one short function per TensorRT layer type, and
`sources/` the files that stand beside what is generated.
"""

from __future__ import annotations

from zoo.cpp.writer import to_cpp

__all__ = ["to_cpp"]
