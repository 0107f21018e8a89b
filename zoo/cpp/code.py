"""C++ while it is written: names, numbers, weights, and the table of what writes each kind of layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

from zoo.errors import ZooError
from zoo.onnx.reading import Layer

TYPES = {
    "FLOAT": "kFLOAT", "HALF": "kHALF", "BF16": "kBF16", "INT64": "kINT64", "INT32": "kINT32", "INT8": "kINT8",
    "UINT8": "kUINT8", "BOOL": "kBOOL",
}  # fmt: skip
_STORED = {"FLOAT": np.float32, "HALF": np.float16, "BF16": ml_dtypes.bfloat16}

# Words that a tensor's variable cannot be called by: C++'s own that modules are named by, and the function's.
_TAKEN = """auto bool break case char class concept const continue default delete do double else enum export extern
false float for friend if inline int long mutable namespace network new operator private public register return short
signed static struct switch template this throw true try typedef union unsigned using virtual void volatile weights
while""".split()


@dataclass
class Call:
    """The expression that adds a layer, and what is called on the layer afterwards."""

    expression: str
    settings: list[str] = field(default_factory=list)


Writer = Callable[["Code", Layer], Call]
WRITERS: dict[str, Writer] = {}  # by the name of the LayerType


def writes(*kinds: str) -> Callable[[Writer], Writer]:
    """Registers what writes layers of these kinds."""

    def register(function: Writer) -> Writer:
        WRITERS.update(dict.fromkeys(kinds, function))
        return function

    return register


def refuse(layer: Layer, what: str) -> NoReturn:
    """Raise: this layer cannot be written, because of `what`."""
    raise ZooError(f"{layer} cannot be written in C++: {what}")


class Code:
    """What is known while layers are written. `strong` says that the network is strongly typed; `weights` holds the
    arrays that the program reads, `needs` the earliest TensorRT (major, minor) that has all the layers, and for what.
    """

    def __init__(self, strong: bool) -> None:
        self.strong = strong
        self.weights: dict[str, np.ndarray] = {}
        self.needs: tuple[tuple[int, int], str] = ((8, 6), "")
        self._variables: dict[str, str] = {}  # by the tensor's name
        self._used = set(_TAKEN)

    def require(self, version: tuple[int, int], layer: Layer) -> None:
        self.needs = max(self.needs, (version, str(layer).replace('"', "'")), key=lambda need: need[0])

    def declare(self, name: str) -> str:
        """A new variable for the tensor (or layer) of this name."""
        self._variables[name] = variable = self._free(name)
        return variable

    def _free(self, name: str) -> str:
        word = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "x"
        word = f"x{word}" if word[0].isdigit() else word
        found, count = word, 1
        while found in self._used:
            found, count = f"{word}_{count}", count + 1
        self._used.add(found)
        return found

    def layer_variable(self, layer: Layer) -> str:
        return self._free(f"{layer.name}_layer")

    def tensor(self, tensor: Any) -> str:
        """A tensor as an argument: the reference that its variable points to."""
        return f"*{self._variables[tensor.name]}"

    def input(self, layer: Layer, index: int = 0) -> str:
        tensor = layer.inputs[index] if index < len(layer.inputs) else None
        return refuse(layer, f"input {index} is missing") if tensor is None else self.tensor(tensor)

    def further_inputs(self, layer: Layer, first: int) -> list[str]:
        """`setInput` for each of the layer's inputs from `first` on that is given."""
        given = enumerate(layer.inputs[first:], first)
        return [f"setInput({index}, {self.tensor(tensor)})" for index, tensor in given if tensor is not None]

    def type_of(self, layer: Layer, tensor: Any) -> str:
        """A tensor's type; sizes and indices have the program's own, which is int32 in TensorRT 8."""
        name = tensor.dtype.name
        if name == "INT64" or (name == "INT32" and not self.strong):
            return "kIndex"
        return f"DataType::{TYPES[name]}" if name in TYPES else refuse(layer, f"type {name}")

    def stored(self, layer: Layer, attribute: str, name: str, dtype: str) -> str:
        """The layer's weights under `attribute` as an expression; they go into the file under `name`."""
        array = layer.weights(attribute)
        typed = "" if dtype == "FLOAT" else f", DataType::{TYPES[dtype]}"
        if array is None:
            return f"none({typed[2:]})"
        if dtype not in _STORED:
            refuse(layer, f"weights of type {dtype}")
        self.weights[name] = np.asarray(array).astype(_STORED[dtype], copy=False)
        return f"weights.read({text(name)}, {array.size}{typed})"


def text(value: str) -> str:
    """A C++ string literal."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable():
        raise ZooError(f"the name {value!r} cannot be written in C++: it has characters that do not print")
    return f'"{escaped}"'


def number(value: float) -> str:
    """A float literal that gives back the same float32."""
    value = np.float32(value)
    if np.isnan(value):
        return "std::numeric_limits<float>::quiet_NaN()"
    if np.isinf(value):
        return f"{'-' if value < 0 else ''}std::numeric_limits<float>::infinity()"
    digits = (
        np.format_float_positional(value, unique=True, trim="0") if 1e-4 <= abs(value) < 1e7 else repr(float(value))
    )
    return f"{digits if '.' in digits or 'e' in digits else digits + '.0'}F"


def dims(values: Iterable[int]) -> str:
    return f"dims({{{', '.join(str(int(value)) for value in values)}}})"


def boolean(value: Any) -> str:
    return "true" if value else "false"


def constant(enum: str, value: Any) -> str:
    """A value of one of TensorRT's enumerations by its name, which is "k" and the name in Python."""
    return f"{enum}::k{value.name}"
