"""Bugs on purpose: `plant(place, mistake)` makes the definition do something wrong at one place, found by its scope.

    with planted([plant("layer2.0.bn2", changed(eps=1e-3)), zero("fc.bias")], arrays) as wrong:
        definition = define(model, from_arrays(wrong), api, shape)

A place names calls of ops and blocks, wherever their code stands:

- `layer1.0.relu`: what is called at this scope, the outermost function where several nest. A `conv_bn` is at its `bn`.
- `layer1.1.add()`: calls of this one function at the scope, for what has no scope of its own (an addition, a functional
  call, a part of attention) and for a block: `model.12.m.0.bottleneck()`.
- `layer1.0.relu:1`, `layer1.1.add():1`: the second call alone, counted from 0. Without a number all calls are wrong.
- `*` stands for anything: `model.*.add()`.

A mistake is a function `f(real, net, x, …)` called instead of the real one, `real(net, x, …)`: `changed`, `instead`,
`identity`, `keeps` and `exchanged` make the common ones. `zero`, `edit` and `swap` plant in the weights that are read.
A place where nothing is called, or where several functions are and none is named, is an AssertionError: no bug would be
planted, or not the one that was meant.
"""

from __future__ import annotations

import fnmatch
import functools
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np

from zoo.network import Net, Tensor
from zoo.registry import list_models

Arrays = dict[str, np.ndarray]
Function = Callable[..., Any]
Mistake = Callable[..., Any]
Plant = Callable[[Arrays], AbstractContextManager[None]]
PACKAGES = ("zoo.models.", "zoo.blocks.", "zoo.ops.")


@contextmanager
def planted(plants: Iterable[Plant], arrays: Arrays) -> Iterator[Arrays]:
    """The weights with the bugs that lie in them; while entered, definitions make the mistakes that lie in the code."""
    arrays = dict(arrays)
    with ExitStack() as stack:
        for plant_one in plants:
            stack.enter_context(plant_one(arrays))
        yield arrays


def plant(place: str, mistake: Mistake) -> Plant:
    """`mistake` at every call that `place` names."""

    @contextmanager
    def enter(arrays: Arrays) -> Iterator[None]:
        planting = _Planting(place, mistake)
        with ExitStack() as stack:
            for module, name, function in list(_functions()):
                stack.enter_context(mock.patch.object(module, name, planting.wrap(function)))
            yield
        planting.check()

    return enter


class _Planting:
    """One mistake at one place: which calls are meant, and which functions were found there."""

    def __init__(self, place: str, mistake: Mistake) -> None:
        self.place, (self.pattern, _, number) = place, place.partition(":")
        self.number = int(number) if number else None
        self.mistake = mistake
        self.calls: Counter[tuple[str, str]] = Counter()
        self.found: set[str] = set()
        self.under_way: set[str] = set()  # scopes, so that what nests inside is left alone

    def wrap(self, function: Function) -> Function:
        signature, name = inspect.signature(function), function.__name__

        @functools.wraps(function)
        def call(net: Net, *args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(net, *args, **kwargs)
            bound.apply_defaults()
            scope = (net / bound.arguments["bn"]).scope if "bn" in bound.arguments else net.scope
            if scope in self.under_way or not self._means(scope, name):
                return function(net, *args, **kwargs)
            number, self.calls[scope, name] = self.calls[scope, name], self.calls[scope, name] + 1
            self.under_way.add(scope)
            try:
                if self.number not in (None, number):
                    return function(net, *args, **kwargs)
                self.found.add(name)
                return self.mistake(function, net, *args, **kwargs)
            finally:
                self.under_way.remove(scope)

        return call

    def _means(self, scope: str, function: str) -> bool:
        names = (scope, f"{scope}.{function}()".lstrip("."))
        return any(fnmatch.fnmatchcase(name, self.pattern) for name in names)

    def check(self) -> None:
        several = ", ".join(f"{self.place}.{name}()" for name in sorted(self.found))
        assert self.found, f"nothing is called at {self.place!r}"
        assert len(self.found) == 1, f"several functions are called at {self.place!r}, name one: {several}"


def _functions() -> Iterator[tuple[Any, str, Function]]:
    """(module, name, function) of every op and block, in each module of the definitions that knows it."""
    list_models()  # imports them all
    for module in [module for path, module in sys.modules.items() if f"{path}.".startswith(PACKAGES)]:
        for name, value in vars(module).items():
            ours = inspect.isfunction(value) and f"{value.__module__}.".startswith(PACKAGES)
            if ours and next(iter(inspect.signature(value).parameters), "") == "net":
                yield module, name, value


# Mistakes in the code


def changed(**arguments: Any) -> Mistake:
    """The same function with other arguments."""
    return lambda real, *args, **kwargs: _call(real, args, kwargs, arguments)


def exchanged(first: str, second: str) -> Mistake:
    """The same function with two of its arguments exchanged."""

    def mistake(real: Function, *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(real).bind(*args, **kwargs).arguments
        return _call(real, args, kwargs, {first: given[second], second: given[first]})

    return mistake


def instead(function: Function, *arguments: Any, **options: Any) -> Mistake:
    """Another op on the same tensor, with arguments of its own: `instead(ops.avg_pool, 3, 2, pad=1)`."""
    return lambda real, net, x, *args, **kwargs: function(net, x, *arguments, **options)


def keeps(name: str) -> Mistake:
    """Nothing is computed: the argument `name` is returned as it is (an addition that loses one side)."""
    return lambda real, *args, **kwargs: inspect.signature(real).bind(*args, **kwargs).arguments[name]


def identity(real: Function, net: Net, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The module does nothing, and is still there."""
    return net.done(net.network.add_identity(x), "identity", x)


def _call(real: Function, args: tuple, kwargs: dict[str, Any], changes: dict[str, Any]) -> Any:
    bound = inspect.signature(real).bind(*args, **kwargs)
    bound.arguments.update(changes)
    return real(*bound.args, **bound.kwargs)


# Mistakes in the weights that are read


def edit(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """The tensor `name`, changed."""

    @contextmanager
    def enter(arrays: Arrays) -> Iterator[None]:
        arrays[name] = np.ascontiguousarray(change(arrays[name]), np.float32)
        yield

    return enter


def zero(name: str) -> Plant:
    """The tensor `name` is lost."""
    return edit(name, np.zeros_like)


def swap(first: str, second: str) -> Plant:
    """Two tensors of one shape are read in each other's place."""

    @contextmanager
    def enter(arrays: Arrays) -> Iterator[None]:
        arrays[first], arrays[second] = arrays[second], arrays[first]
        yield

    return enter
