"""Reading an `INetworkDefinition` back: layers in order, their true classes, shapes and weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np

from zoo.errors import ZooError

# Class names that are not "I" + title case + "Layer".
_CLASSES = {
    "ELEMENTWISE": "IElementWiseLayer",
    "LRN": "ILRNLayer",
    "NMS": "INMSLayer",
    "PARAMETRIC_RELU": "IParametricReLULayer",
    "SOFTMAX": "ISoftMaxLayer",
    "TOPK": "ITopKLayer",
}

Arrays = Mapping[tuple[str, str], np.ndarray]


class Layer:
    """One TensorRT layer. `raw` has its own class; `inputs` holds None where an optional input is not given."""

    def __init__(self, raw: Any, trt: Any, arrays: Arrays) -> None:
        self.raw = raw
        # IActivationLayer and IPoolingLayer hide the layer's type behind a type of their own.
        self.kind: str = trt.ILayer.type.__get__(raw).name
        self.name: str = raw.name
        self.inputs = [raw.get_input(i) for i in range(raw.num_inputs)]
        self.outputs = [raw.get_output(i) for i in range(raw.num_outputs)]
        self._arrays = arrays

    def __str__(self) -> str:
        return f"layer {self.name!r} ({self.kind})"

    def downcast(self, trt: Any) -> None:
        """Give the layer its own class, whose attributes can then be read. Any other class would be memory-unsafe."""
        default = "I" + self.kind.title().replace("_", "") + "Layer"
        self.raw.__class__ = getattr(trt, _CLASSES.get(self.kind, default))

    def refuse(self, what: str) -> NoReturn:
        """Raise: this layer cannot be translated, because of `what`."""
        raise ZooError(f"{self} cannot be translated to ONNX: {what}")

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """Shape of an input, -1 for what is only known at run time."""
        shape = shape_of(self.inputs[index])
        return self.refuse(f"the rank of input {index} is unknown") if shape is None else shape

    def out_shape(self, index: int = 0) -> tuple[int, ...]:
        """Shape of an output, -1 for what is only known at run time."""
        shape = shape_of(self.outputs[index])
        return self.refuse(f"the rank of output {index} is unknown") if shape is None else shape

    def axis(self) -> int:
        """The one axis in the layer's bit mask."""
        axes = bits(self.raw.axes)
        return axes[0] if len(axes) == 1 else self.refuse(f"{len(axes)} axes where one is expected")

    def weights(self, attribute: str) -> np.ndarray | None:
        """The flat weights under an attribute, without a copy; None where they are not set."""
        given = self._arrays.get((self.name, attribute))
        if given is not None:
            return np.asarray(given).reshape(-1)
        found = getattr(self.raw, attribute)
        if isinstance(found, np.ndarray):
            return undo_zero_stride(found) if found.size else None
        if not found.size:
            return None
        raise ZooError(
            f"{self}: TensorRT does not give back weights of type {found.dtype.name}; "
            f"pass them to to_onnx as arrays[{(self.name, attribute)!r}]"
        )


def topological(layers: Iterable[Layer]) -> list[Layer]:
    """The layers in the order of their creation, but each after the layers that make its inputs."""
    layers = list(layers)
    producers: dict[str, Layer] = {}
    for layer in layers:
        for tensor in layer.outputs:
            if producers.setdefault(tensor.name, layer) is not layer:
                raise ZooError(f"{producers[tensor.name]} and {layer} both make a tensor named {tensor.name!r}")
    order: dict[Layer, None] = {}
    waiting: dict[Layer, None] = {}
    for layer in layers:
        stack = [layer]
        while stack:
            top = stack[-1]
            sources = (producers.get(tensor.name) for tensor in top.inputs if tensor is not None)
            missing = next((source for source in sources if source is not None and source not in order), None)
            if top in order or missing is None:
                order[stack.pop()] = None
                waiting.pop(top, None)
            elif missing in waiting:
                raise ZooError(f"{missing} waits for its own output: loops cannot be written as ONNX here")
            else:
                waiting[top] = None
                stack.append(missing)
    return list(order)


def needed(layers: Iterable[Layer], names: Iterable[str]) -> list[Layer]:
    """Those of `layers`, in topological order, that tensors of these names are made with."""
    wanted, found = set(names), []
    for layer in reversed(list(layers)):
        if any(tensor.name in wanted for tensor in layer.outputs):
            wanted.update(tensor.name for tensor in layer.inputs if tensor is not None)
            found.append(layer)
    return found[::-1]


def dims(value: Any) -> tuple[int, ...] | None:
    """Dims as a tuple; None where TensorRT means "not set": None in newer versions, -1 dimensions in older ones."""
    try:
        return None if value is None else tuple(value)
    except ValueError:  # len() of -1 dimensions
        return None


def shape_of(tensor: Any) -> tuple[int, ...] | None:
    """The shape as far as TensorRT knows it (-1 for a dynamic dimension), None where it is not even of known rank."""
    try:
        return dims(tensor.shape)
    except RuntimeError:
        return None


def bits(mask: int) -> list[int]:
    """The axes in a bit mask."""
    return [axis for axis in range(mask.bit_length()) if mask >> axis & 1]


def undo_zero_stride(array: np.ndarray) -> np.ndarray:
    """Bindings before 10.16 return views of stride 0 under numpy 2: the first number repeated. The memory is right."""
    if array.size > 1 and array.strides == (0,):
        return np.lib.stride_tricks.as_strided(array, strides=(array.itemsize,))
    return array
