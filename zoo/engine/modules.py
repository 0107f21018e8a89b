"""What the modules of a checkpoint say, held against the definition.

A state_dict says nothing of activations, epsilons, strides or shortcuts: a network that was trained with another one
has the same tensors, and a definition of the published architecture would answer wrongly without a word. A whole
pickled module says it all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from zoo.errors import ZooError
from zoo.network import Definition

# PyTorch's activations, and what they are called here. Their classes have other names in some libraries.
_ACTIVATIONS = {
    "ReLU": "relu", "ReLU6": "relu6", "SiLU": "silu", "Swish": "silu", "MemoryEfficientSwish": "silu",
    "GELU": "gelu", "Hardswish": "hardswish", "HardSwish": "hardswish", "Hardsigmoid": "hardsigmoid",
    "Sigmoid": "sigmoid", "Tanh": "tanh", "LeakyReLU": "leaky_relu", "ELU": "elu", "Mish": "mish", "PReLU": "prelu",
    "Softplus": "softplus", "Hardtanh": "hardtanh", "QuickGELU": "quick_gelu", "Identity": "nothing",
}  # fmt: skip
# Attributes that are told by the definition's facts, if both have them.
_ATTRIBUTES = (
    "eps", "stride", "padding", "dilation", "groups", "num_groups", "kernel_size", "ceil_mode", "count_include_pad",
    "negative_slope",
)  # fmt: skip
_SHORTCUTS = ("add", "use_res_connect")  # of yolov5 and ultralytics, of torchvision


def check_modules(definition: Definition, model: str) -> None:
    """Raises ZooError, naming the module, where a module of the weights is another than the definition has there."""
    for module in definition.weights.modules:
        for found, expected in _differences(definition, module.path, module.kind, module.attributes):
            raise ZooError(
                f"{definition.weights.name} is another network than {model}: its '{module.path}', a {module.kind}, has "
                f"{found}, the definition {expected}; write a definition of it (docs/adding-a-model.md)"
            )


def _differences(
    definition: Definition, path: str, kind: str, attributes: Mapping[Any, Any]
) -> Iterator[tuple[str, str]]:
    op = definition.claims.get(path)
    if op in _ACTIVATIONS.values() or (kind in _ACTIVATIONS and kind != "Identity"):
        expected = op or "no activation"
        found = _activation(kind, attributes)
        if found != expected and (op is not None or path.rpartition(".")[0] in definition.holders):
            yield found, expected
    for name in _ATTRIBUTES:
        if name == "padding" and "Same" in kind:  # it pads by itself, before its convolution
            continue
        expected = definition.facts.get(path, {}).get(name)
        if expected is not None and name in attributes and not _equal(attributes[name], expected, name, attributes):
            yield f"{name} {_text(attributes[name])}", f"{name} {_text(expected)}"
    if attributes.get("padding_mode", "zeros") != "zeros" and path in definition.facts:
        yield f"padding_mode {_text(attributes['padding_mode'])}", "zeros"
    for name in _SHORTCUTS:
        if type(attributes.get(name)) is bool and path in definition.holders:
            found, expected = attributes[name], f"{path}.add" in definition.names
            if found != expected:
                yield ("a shortcut", "none") if found else ("no shortcut", "one")


def _activation(kind: str, attributes: Mapping[Any, Any]) -> str:
    approximate = kind == "GELU" and attributes.get("approximate", "none") == "tanh"
    return "gelu_tanh" if approximate else _ACTIVATIONS.get(kind, f"its own function {kind[:60]}")


def _equal(found: Any, expected: Any, name: str, attributes: Mapping[Any, Any]) -> bool:
    if isinstance(expected, tuple):
        if isinstance(found, str):  # "same" and "valid"
            return found == "valid" and expected == (0, 0) or found == "same" and _keeps_size(attributes, expected)
        if found is None and name == "stride":  # of a pooling: its kernel
            found = attributes.get("kernel_size")
        pair = (found, found) if type(found) is int else found
        return isinstance(pair, (tuple, list)) and tuple(pair) == expected
    if isinstance(expected, float) and type(found) in (int, float):
        return math.isclose(found, expected, rel_tol=1e-6)
    return type(found) is type(expected) and found == expected


def _keeps_size(attributes: Mapping[Any, Any], padding: tuple[int, int]) -> bool:
    sizes, steps = attributes.get("kernel_size"), attributes.get("dilation")
    plain = all(isinstance(v, tuple) and len(v) == 2 and all(type(n) is int for n in v) for v in (sizes, steps))
    return plain and padding == tuple(d * (k - 1) // 2 for k, d in zip(sizes, steps))  # type: ignore[arg-type]


def _text(value: Any) -> str:
    plain = isinstance(value, (int, float, str, bool, tuple, list, type(None)))
    return str(value)[:40] if plain else f"a {type(value).__name__}"
