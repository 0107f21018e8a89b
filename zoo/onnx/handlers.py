"""The table of handlers: one function per TensorRT layer type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# By the NAME of the LayerType: its numbers move from version to version and newer names are missing in older ones.
HANDLERS: dict[str, Callable[..., Any]] = {}

# Layers that only move numbers: what was rounded to 16 bits before them still is.
MOVES: set[str] = set()


def handles(*kinds: str, moves: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a handler `f(graph, layer, *inputs) -> outputs`; `moves` says that the layer computes nothing.

    Inputs and outputs are names of ONNX values, in TensorRT's order; an optional input that is not given is None. One
    output is returned as it is, several as a tuple, none as (). A handler that has nothing to do returns its input.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        HANDLERS.update(dict.fromkeys(kinds, function))
        MOVES.update(kinds if moves else ())
        return function

    return register
