"""The functions of a draft as Python: one line a step, a loop for equal steps, a comment for what is unknown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.verify.draft.follow import Step, Steps
from zoo.verify.draft.share import Function, Shared
from zoo.verify.draft.translate import NOT_SAID, Setting

WIDTH = 120
VALUES = ("x", "y", "z", "u", "v", "w", "a", "b", "c", "d", "e", "f")
TAPLESS = (  # they claim no module where they stand
    "conv_bn", "add", "mul", "sub", "div", "matmul", "concat", "split", "flatten", "reduce_mean", "reshape",
    "transpose",
)  # fmt: skip
INTO = ("relu", "relu6", "silu", "gelu", "hardswish", "hardsigmoid", "sigmoid", "tanh", "mish", "flatten")  # may nest


def function(function: Function, shared: Shared) -> str:
    """`def block(net, x, out, stride): …`, with the ends that a module of several ops has."""
    writer = _Writer(function, shared)
    lines = writer.body(tapped=True)
    extra = "".join(f", {name}: {_type(value)}" for name, value in writer.parameters.items())
    inputs = "".join(f", {writer.names[v]}: {writer.type_of(v)}" for v in writer.given)
    head = f"def {function.name}(net: Net{inputs}{extra}) -> Tensor:"
    return "\n".join([head, *(f"    {line}" for line in lines)])


def root(function: Function, shared: Shared) -> tuple[list[str], str, int | None]:
    """The lines of `build`, and where its classifier is and how many classes it has, if that was seen."""
    writer = _Writer(function, shared)
    steps = function.modules[0].steps
    path, classes = "", None
    for step in reversed(steps):
        if step.inner is None and step.op in ("linear", "conv2d"):
            out = next(s for s in step.settings if s.name == "out")
            path, classes = ".".join(step.path), out.value
            writer.classes = step
            break
        if step.inner is not None:
            break
    return writer.body(tapped=False), path, classes


def ops_in(lines: str, known: Mapping[str, Any]) -> list[str]:
    """The ops that some code calls or names, sorted."""
    return sorted({*re.findall(r"\b(\w+)\(", lines), *re.findall(r"\bactivation=(\w+)", lines)} & set(known))


def _type(value: Any) -> str:
    if isinstance(value, tuple):
        return "tuple[int, ...]"
    return type(value).__name__ if isinstance(value, (bool, int, float, str)) else "Any"


@dataclass
class _Writer:
    function: Function
    shared: Shared
    classes: Step | None = None  # its number of outputs is the configuration's
    names: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.steps: Steps = self.function.modules[0]
        used = {value for step in self.steps.steps for value in step.inputs} | {self.steps.result}
        made = {value for step in self.steps.steps for value in step.outputs}
        self.given = sorted(used - made) or [0]  # a value that nothing reads is no input
        for value, name in zip(self.given, VALUES):
            self.names[value] = name
        self.parameters = {
            name: next(s.value for s in shared_settings if s.name == setting)
            for name, (i, setting) in self.function.parameters.items()
            for shared_settings in [self.shared.settings[self.steps.module, i]]
        }

    def type_of(self, value: int) -> str:
        return "list[Tensor]" if value in self.steps.lists else "Tensor"

    def body(self, *, tapped: bool) -> list[str]:
        lines = []
        if self.steps.trouble:
            lines += _comment(f"the code of {self.function.kind} could not be followed ({self.steps.trouble}): "
                              "here its modules stand in the order of their names")  # fmt: skip
        steps = self.steps.steps
        last, i = "", 0
        while i < len(steps):
            row = self._row(i)
            if row > 1:
                lines += self._loop(i, row)
                i += row
                continue
            step, call = steps[i], self._call(i)
            if step.words:
                lines += _comment(f"{'.'.join(step.path) or 'a function'}: {step.words}")
                self.names[step.outputs[0]] = self.names[step.inputs[0]]
                i += 1
                continue
            while i + 1 < len(steps) and (outer := self._around(i, call)) is not None:
                self.names[step.outputs[0]] = self.names[step.inputs[0]]
                call, i, step = outer, i + 1, steps[i + 1]
            i += 1
            if step.outputs == [self.steps.result] and i == len(steps):
                last = call
                break
            self._name(step, i)
            lines.append(f"{', '.join(self.names[value] for value in step.outputs)} = {call}")
        result = last or self.names[self.steps.result]
        ends = steps[-1] if steps else None
        plain = ends is None or bool(ends.path) or not last
        lines.append(f"return {result if plain or not tapped else f'net.tap({result})'}")
        return lines

    def _uses(self, value: int, after: int) -> int:
        later = sum(step.inputs.count(value) for step in self.steps.steps[after:])
        return later + (value == self.steps.result)

    def _name(self, step: Step, after: int) -> None:
        """Names what a step gives: as its input, where nothing reads that any more."""
        alive = {self.names[v] for v in list(self.names) if self._uses(v, after)}
        for value in step.outputs:
            inputs = [self.names[v] for v in step.inputs]
            free = [name for name in (*inputs, *VALUES, *(f"x{i}" for i in range(99))) if name not in alive]
            self.names[value] = free[0]
            alive.add(free[0])

    def _where(self, path: tuple[str, ...], op: str) -> str:
        if not path:
            return "net" if op in TAPLESS else "net.functional"
        return "net" + "".join(f" / {part}" if part.isdecimal() else f' / "{part}"' for part in path)

    def _call(self, i: int, index: str | None = None, inputs: list[str] | None = None) -> str:
        """Step `i` as an expression, with `index` for the last part of its path."""
        step = self.steps.steps[i]
        path = step.path if index is None else step.path[:-1]
        where = self._where(path, step.op) + (f" / {index}" if index is not None else "")
        given = inputs or [self.names[value] for value in step.inputs]
        values = f"[{', '.join(given)}]" if step.listed else ", ".join(given)
        name = self.shared.of[step.inner].name if step.inner is not None else step.op
        return f"{name}({', '.join([where, values, *self._settings(i)])})"

    def _settings(self, i: int) -> Iterator[str]:
        step = self.steps.steps[i]
        for setting in self.shared.settings[self.steps.module, i]:
            value = self._value(i, setting)
            if step is self.classes and setting.name == "out":
                value = "cfg.num_classes"
            if value is not None:
                yield value if setting.positional else f"{setting.name}={value}"

    def _value(self, i: int, setting: Setting) -> str | None:
        if (i, setting.name) in self.function.aliases:
            return self.function.aliases[i, setting.name]
        if setting.default is not NOT_SAID and setting.value == setting.default:
            return None
        value = setting.value
        if setting.name in ("conv", "bn"):
            return value if value.isdecimal() else f'"{value}"'
        return f'"{value}"' if type(value) is str else repr(value)

    def _around(self, i: int, call: str) -> str | None:
        """Step i + 1 around the call of step i, where it alone reads that and it fits."""
        step, outer = self.steps.steps[i], self.steps.steps[i + 1]
        simple = outer.op in INTO and outer.inputs == step.outputs and self._uses(step.outputs[0], i + 1) == 1
        if not simple or step.words:
            return None
        whole = self._call(i + 1, inputs=[call])
        return whole if len(whole) < WIDTH - 20 else None

    def _row(self, i: int) -> int:
        """How many steps from `i` on are equal but for a number at the end of their paths, each on the one before."""
        steps, count = self.steps.steps, 1
        if not steps[i].path or not steps[i].path[-1].isdecimal() or steps[i].words or len(steps[i].inputs) != 1:
            return 1
        while i + count < len(steps):
            a, b = steps[i + count - 1], steps[i + count]
            follows = b.path and b.path[:-1] == a.path[:-1] and b.path[-1] == str(int(a.path[-1]) + 1)
            if not follows or b.inputs != a.outputs or self._uses(a.outputs[0], i + count) != 1:
                break
            if self._call(i, "i", ["x"]) != self._call(i + count, "i", ["x"]) or b is self.classes:
                break
            count += 1
        return count if count > 1 else 1

    def _loop(self, i: int, count: int) -> list[str]:
        steps = self.steps.steps
        first, last = steps[i], steps[i + count - 1]
        lines, name = [], self.names[first.inputs[0]]
        if self._uses(first.inputs[0], i + 1):
            self._name(Step("", (), [], last.outputs), i)
            lines.append(f"{self.names[last.outputs[0]]} = {name}")
            name = self.names[last.outputs[0]]
        start = int(first.path[-1])
        span = f"{start}, {start + count}" if start else f"{count}"
        lines.append(f"for i in range({span}):")
        lines.append(f"    {name} = {self._call(i, 'i', [name])}")
        self.names[last.outputs[0]] = name
        return lines


def _comment(text: str) -> list[str]:
    words, lines = text.split(), ["#"]
    for word in words:
        if len(lines[-1]) + len(word) > WIDTH - 8:
            lines.append("#")
        lines[-1] += f" {word}"
    return lines
