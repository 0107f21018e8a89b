"""Where a network ends that is wanted up to certain modules (`zoo.registry.Model.features`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from zoo.errors import ZooError, closest
from zoo.network import Definition, Tensor
from zoo.registry import Model


def ends_of(definition: Definition, model: Model, built: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """What the modules at the `ends` of `model` return, by path; `built` is what the whole network returns.

    Raises ZooError for a path at which there is no module, and for a module that returns no tensor of its own.
    """
    last = list(built.values()) if isinstance(built, dict) else [built]
    return {path: _end(definition, model.name, path, last) for path in model.ends}


def _end(definition: Definition, model: str, path: str, last: list[Tensor]) -> Tensor:
    if path in definition.taps:
        return definition.taps[path]
    network = definition.network
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    if path in definition.folded or any(_below(path, layer.name) and not _inside(path, layer) for layer in layers):
        raise ZooError(f"'{path}' of {model} returns nothing: it is folded into the module after it; name that one")
    known = [*definition.taps, *definition.holders]
    if path not in known:
        raise ZooError(f"{model} has no module '{path}' to end at{closest(path, known)}")
    leaving = {tensor.name: tensor for tensor in _leaving(definition, layers, path, last)}
    if len(leaving) != 1:
        listed = f": {', '.join(list(leaving)[:4])}" if leaving else ""
        raise ZooError(f"'{path}' of {model} returns {len(leaving)} tensors{listed}; name a module that returns one")
    if any(name.startswith(f"{module}.") for name in leaving for module in definition.folded):
        raise ZooError(f"'{path}' of {model} returns its channels in another order here; name a module before it")
    return next(iter(leaving.values()))


def _leaving(definition: Definition, layers: list[Any], path: str, last: Iterable[Tensor]) -> Iterator[Tensor]:
    """The tensors that the layers of a module make and others use. What a module returns that is made of others, and
    has no tap, is what is used outside of it."""
    kinds = definition.api.trt.LayerType
    made = {
        layer.get_output(i).name
        for layer in layers
        if _inside(path, layer) and layer.type != kinds.CONSTANT
        for i in range(layer.num_outputs)
    }
    users = (layer for layer in layers if not _inside(path, layer) and layer.type != kinds.SHAPE)
    used = (layer.get_input(i) for layer in users for i in range(layer.num_inputs))
    return (tensor for tensor in (*used, *last) if tensor is not None and tensor.name in made)


def _inside(path: str, layer: Any) -> bool:
    """By the name of its tensor: a layer that two modules became returns what the second of them does."""
    return _below(path, layer.get_output(0).name)


def _below(path: str, name: str) -> bool:
    return name.startswith((f"{path}.", f"{path}:"))
