"""One function for all modules that have the same steps: what differs among them becomes its parameters."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from zoo import ops
from zoo.verify.draft.follow import Follower, Step, Steps
from zoo.verify.draft.translate import NOT_SAID, Setting

Shape = tuple[Any, ...]  # steps without the values of their settings


@dataclass
class Function:
    """The steps of one or several modules. `parameters` are named by the setting that they give; the value of each, by
    module, stands in `values`."""

    kind: str  # the class of the modules
    name: str
    modules: list[Steps] = field(default_factory=list)
    parameters: dict[str, tuple[int, str]] = field(default_factory=dict)  # name -> (step, setting)
    aliases: dict[tuple[int, str], str] = field(default_factory=dict)  # (step, setting) -> the parameter it takes


@dataclass
class Shared:
    """All functions, those that others call first; `of` says which one a module is."""

    functions: list[Function]
    of: dict[nn.Module, Function]
    settings: dict[tuple[nn.Module, int], tuple[Setting, ...]]  # of a module's step, with the parameters of a callee


def share(root: nn.Module, follower: Follower) -> Shared:
    """The functions that `root` needs; its own is the last."""
    found, order, of = {}, [], {}

    def visit(m: nn.Module) -> Function:
        if m in of:
            return of[m]
        steps = follower.follow(m)
        _fold_norms(steps)
        _shuffle_channels(steps)
        callees = [visit(step.inner).name if step.inner is not None else "" for step in steps.steps]
        shape = (type(m).__name__, steps.result, bool(steps.trouble), steps.lists, *map(_shape, steps.steps, callees))
        if shape not in found:
            name = _unique(_snake(type(m).__name__), {*vars(ops), *(f.name for f in order)})
            found[shape] = Function(type(m).__name__, name)
            order.append(found[shape])
        found[shape].modules.append(steps)
        of[m] = found[shape]
        return of[m]

    visit(root)
    shared = Shared(order, of, {})
    for function in order:
        _parameterise(function, shared)
    return shared


def _shape(step: Step, callee: str) -> Shape:
    names = tuple(setting.name for setting in step.settings)
    return step.op, step.path, tuple(step.inputs), tuple(step.outputs), names, callee, step.words, step.listed


def _fold_norms(steps: Steps) -> None:
    """A convolution and the normalisation that alone reads it are one `conv_bn`, as the host folds them."""
    uses: dict[int, int] = {steps.result: 1}
    for step in steps.steps:
        for value in step.inputs:
            uses[value] = uses.get(value, 0) + 1
    kept: list[Step] = []
    for step in steps.steps:
        before = kept[-1] if kept else None
        if (
            before is not None
            and before.op == "conv2d"
            and step.op in ("batch_norm", "batch_norm_act")
            and step.inputs == before.outputs
            and uses[before.outputs[0]] == 1
            and before.path[:-1] == step.path[:-1]
        ):
            settings = [Setting(s.name, s.value, False) if s.name == "bias" else s for s in before.settings]
            names = [Setting("conv", before.path[-1], "conv"), Setting("bn", step.path[-1], "bn")]
            kept[-1] = Step("conv_bn", step.path[:-1], before.inputs, step.outputs, (*settings, *step.settings, *names))
        elif step.op == "batch_norm_act":
            kept.append(Step("", step.path, step.inputs, step.outputs, words="BatchNormAct2d without a convolution"))
        else:
            kept.append(step)
    steps.steps[:] = kept


def _shuffle_channels(steps: Steps) -> None:
    """A reshape to groups, their transposition and the way back are one `channel_shuffle`, whatever the size."""
    kept = steps.steps
    for i in reversed(range(len(kept) - 2)):
        if [step.op for step in kept[i : i + 3]] != ["reshape", "transpose", "reshape"]:
            continue
        apart, swap, back = kept[i : i + 3]
        shape, axes, joined = (step.settings[0].value for step in (apart, swap, back))
        if len(shape) == 5 and axes == (0, 2, 1, 3, 4) and joined == (0, shape[1] * shape[2], *shape[3:]):
            groups = Setting("groups", shape[1], positional=True)
            kept[i : i + 3] = [Step("channel_shuffle", (), apart.inputs, back.outputs, (groups,))]


def _parameterise(function: Function, shared: Shared) -> None:
    """Finds what differs among the modules of `function`, whose callees have their parameters already."""
    columns: dict[tuple[int, str], tuple[Any, ...]] = {}
    said: set[tuple[int, str]] = set()  # what is not everywhere the op's default
    for steps in function.modules:
        for i, step in enumerate(steps.steps):
            settings = step.settings
            if step.inner is not None:
                settings = tuple(
                    Setting(name, value, positional=True) for name, value in _arguments(step.inner, shared).items()
                )
            shared.settings[steps.module, i] = settings
            for setting in settings:
                columns[i, setting.name] = (*columns.get((i, setting.name), ()), setting.value)
                if setting.default is NOT_SAID or setting.value != setting.default:
                    said.add((i, setting.name))
    names: dict[tuple[Any, ...], str] = {}
    for (i, setting), values in columns.items():
        if len(set(map(repr, values))) == 1 or (i, setting) not in said:
            continue
        if values not in names:
            names[values] = _unique(setting, names.values())
            function.parameters[names[values]] = (i, setting)
        function.aliases[i, setting] = names[values]


def _arguments(m: nn.Module, shared: Shared) -> dict[str, Any]:
    """The values of the parameters of a module's function, for this module."""
    function = shared.of[m]
    found = {}
    for name, (i, setting) in function.parameters.items():
        found[name] = next(s.value for s in shared.settings[m, i] if s.name == setting)
    return found


def _unique(name: str, taken: Any) -> str:
    number, unique = 2, name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique


def _snake(name: str) -> str:
    """basic_block for BasicBlock."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_")
