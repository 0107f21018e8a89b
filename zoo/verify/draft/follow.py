"""A module's own code as steps, one level at a time: torch.fx follows it, and an example says the shapes in it."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from zoo.errors import ZooError
from zoo.verify.draft.translate import NOTHING, Call, Op, Setting, Unknown, function, module


@dataclass
class Step:
    """One call: of an op, or of a module that has steps of its own (`inner`).

    `inputs` and `outputs` are numbers of values; `path` says which module it is, below the one that is followed, and is
    empty for a function. `words` is what PyTorch calls, where that is not known here: then it passes its input on.
    Where they are `listed`, all inputs are one argument.
    """

    op: str
    path: tuple[str, ...]
    inputs: list[int]
    outputs: list[int]
    settings: tuple[Setting, ...] = ()
    inner: nn.Module | None = None
    words: str = ""
    listed: bool = False


@dataclass
class Steps:
    """What a module does with its inputs, which are the first numbers, and the number of the value that it returns.

    `lists` are the inputs that are lists of tensors. `trouble` says why its code could not be followed: then its
    children stand in the order of the module tree.
    """

    module: nn.Module
    steps: list[Step]
    result: int
    trouble: str = ""
    lists: frozenset[int] = frozenset()


class _OneLevel(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


class Follower:
    """Follows the modules below `root`, which is run on zeros of `size` (C, H, W) once, to see what each is given."""

    def __init__(self, root: nn.Module, size: tuple[int, int, int]) -> None:
        self.given: dict[nn.Module, tuple[Any, ...]] = {}
        hooks = [m.register_forward_pre_hook(self._keep) for m in root.modules()]
        try:
            with torch.no_grad():
                root(torch.zeros(1, *size))
        except Exception as error:
            words = " ".join(str(error).split())
            shape = "x".join(map(str, size))
            raise ZooError(f"the reference cannot run on an input of {shape} ({words}); give another --size") from None
        finally:
            for hook in hooks:
                hook.remove()

    def _keep(self, m: nn.Module, args: tuple[Any, ...]) -> None:
        self.given.setdefault(m, tuple(list(a) if isinstance(a, list) else a for a in args))

    def follow(self, m: nn.Module) -> Steps:
        """The steps of `m`, in which plain sequences of modules are no level of their own."""
        try:
            graph = _OneLevel().trace(m)
            values = _Values(m, graph, self.given[m])
            translation = _Translation(m, values)
            result = translation.of(graph)
            return _without_idle(Steps(m, [*_flat(translation.steps)], result, lists=frozenset(translation.lists)))
        except Exception as error:  # code that runs otherwise, or asks for values, as torch.fx cannot
            words = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return _without_idle(Steps(m, [*_flat(_in_order(m))], len(list(m.children())), words))


def _flat(steps: Sequence[Step], numbers: Iterator[int] | None = None) -> Iterator[Step]:
    """With nn.Sequential replaced by what is in it, whose values get new numbers."""
    numbers = numbers or itertools.count(10_000)
    for step in steps:
        if step.inner is None or type(step.inner).forward is not nn.Sequential.forward:
            yield step
            continue
        value, children = step.inputs[0], list(step.inner.named_children())
        for i, (name, child) in enumerate(children):
            out = step.outputs[0] if i == len(children) - 1 else next(numbers)
            yield from _flat([_call_of(child, (*step.path, name), [value], out)], numbers)
            value = out


def _without_idle(steps: Steps) -> Steps:
    """Without the modules that do nothing: who reads what they return reads what they are given."""
    same: dict[int, int] = {}
    kept = []
    for step in steps.steps:
        step.inputs = [same.get(value, value) for value in step.inputs]
        if step.op == NOTHING.name and step.inner is None and not step.words:
            same[step.outputs[0]] = step.inputs[0]
        else:
            kept.append(step)
    return Steps(steps.module, kept, same.get(steps.result, steps.result), steps.trouble, steps.lists)


def _call_of(child: nn.Module, path: tuple[str, ...], inputs: list[int], output: int) -> Step:
    known = module(child)
    if isinstance(known, Op):
        return Step(known.name, path, inputs, [output], known.settings)
    if isinstance(known, Unknown):
        return Step("", path, inputs, [output], words=known.words)
    return Step("", path, inputs, [output], inner=child)


def _in_order(m: nn.Module) -> list[Step]:
    return [_call_of(child, (name,), [i], i + 1) for i, (name, child) in enumerate(m.named_children())]


class _Values(fx.Interpreter):
    """What every node of a graph gives on what its module was given."""

    def __init__(self, m: nn.Module, graph: fx.Graph, given: tuple[Any, ...]) -> None:
        super().__init__(fx.GraphModule(m, graph))
        self.of: dict[str, Any] = {}
        with torch.no_grad():
            self.run(*given)

    def run_node(self, n: fx.Node) -> Any:
        self.of[n.name] = value = super().run_node(n)
        return value


@dataclass
class _Translation:
    module: nn.Module
    values: _Values
    numbers: dict[fx.Node, int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    lists: set[int] = field(default_factory=set)

    def of(self, graph: fx.Graph) -> int:
        """Translates every node; the number of what is returned."""
        for node in graph.nodes:
            if node.op == "output":
                return self.numbers[self._first(node.args)]
            self._node(node)
        raise AssertionError("a graph ends with its output")

    def _node(self, node: fx.Node) -> None:
        value = self.values.of[node.name]
        if node.op == "placeholder":
            self.numbers[node] = len(self.numbers)
            if isinstance(value, (list, tuple)):
                self.lists.add(self.numbers[node])
        elif node.op == "call_module":
            child = self.module.get_submodule(node.target)
            inputs = [self.numbers[n] for n in node.all_input_nodes if n in self.numbers]
            step = _call_of(child, tuple(node.target.split(".")), inputs, 0)
            step.listed = isinstance(node.args[0], (list, tuple))
            self._add(step, node)
        elif node.target is operator.getitem and node.args[0] in self.numbers and isinstance(value, torch.Tensor):
            if node not in self.numbers:  # else it is a part of what was split
                self._unknown(node)
        elif node.op in ("call_function", "call_method") and _has_tensors(value):
            self._call(node, value)
        elif node.op == "get_attr":
            pass  # a parameter, which whoever uses it says

    def _call(self, node: fx.Node, value: Any) -> None:
        args = [self._constant(a) for a in node.args]
        first = self.values.of[node.args[0].name] if isinstance(node.args[0], fx.Node) else None
        shape = tuple(first.shape) if isinstance(first, torch.Tensor) else ()
        call = Call(args, {k: self._constant(a) for k, a in node.kwargs.items()}, shape, value)
        op = function(node.target, call)
        inputs = node.args[0] if isinstance(node.args[0], (list, tuple)) else [
            node.args[i] for i in (op.tensors if isinstance(op, Op) else (0,))
        ]  # fmt: skip
        if not isinstance(op, Op) or not all(isinstance(n, fx.Node) and n in self.numbers for n in inputs):
            self._unknown(node)
            return
        parts = [*node.users] if isinstance(value, (list, tuple)) else []
        if parts and not all(n.target is operator.getitem and isinstance(n.args[1], int) for n in parts):
            self._unknown(node)
            return
        step = Step(op.name, (), [self.numbers[n] for n in inputs], [0], op.settings)
        step.listed = isinstance(node.args[0], (list, tuple))
        self._add(step, node)
        if parts:  # every part is a value, used or not
            step.outputs = [len(self.numbers) + 1000 + i for i in range(len(value))]
            for part in parts:
                self.numbers[part] = step.outputs[part.args[1]]

    def _add(self, step: Step, node: fx.Node) -> None:
        self.numbers[node] = step.outputs[0] = max(self.numbers.values(), default=0) + 1
        self.steps.append(step)

    def _unknown(self, node: fx.Node) -> None:
        inputs = [self.numbers[n] for n in node.all_input_nodes if n in self.numbers] or [0]
        self._add(Step("", (), inputs, [0], words=_said(node)), node)

    def _constant(self, argument: Any) -> Any:
        """An argument with every node that is no tensor replaced by its value, as sizes are."""
        return fx.map_arg(argument, lambda n: None if _has_tensors(v := self.values.of[n.name]) else v)

    @staticmethod
    def _first(args: Any) -> fx.Node:
        while not isinstance(args, fx.Node):
            args = next(iter(args.values() if isinstance(args, dict) else args))
        return args


def _said(node: fx.Node) -> str:
    """A call as PyTorch's code has it, more or less."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return f"{name}({', '.join(map(str, [*node.args, *(f'{k}={v}' for k, v in node.kwargs.items())]))})"


def _has_tensors(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or isinstance(value, (list, tuple)) and any(map(_has_tensors, value))
