"""`Op`: what a custom op declares, and how one of its implementations is chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from zoo.errors import ZooError
from zoo.network import Net, PluginPolicy, Tensor
from zoo.plugins.core.expressions import Size, Symbol
from zoo.plugins.core.launches import Cuda
from zoo.trt import Api

Shape = tuple[Size, ...]


@dataclass(frozen=True)
class Figure:
    """What the kernel and the native form were measured to take, in microseconds, on one card and case."""

    where: str
    case: str
    kernel: float
    native: float


def attribute(default: Any = dataclasses.MISSING, *, low: float | None = None, high: float | None = None) -> Any:
    """An attribute of an op whose numbers must lie in low … high (both included)."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


class Op:
    """A custom op: a frozen dataclass whose fields are its attributes.

    A subclass names itself (`name`, `version`: raise it when results or attributes change), the published `reference`,
    its `inputs` and `outputs`, and gives `shapes` and `native`; `cuda` and `builtin` where there are such
    implementations. An `island` computes its native form in fp32 whatever the network's precision. `figures` are what
    `auto` decides by.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    reference: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]]
    island: ClassVar[bool] = False
    figures: ClassVar[tuple[Figure, ...]] = ()

    def __init_subclass__(cls) -> None:
        other = _ops.setdefault(cls.name, cls)
        if other is not cls and other.__module__ != cls.__module__:
            raise ValueError(f"two plugins are named '{cls.name}': in {other.__module__} and in {cls.__module__}")
        _ops[cls.name] = cls

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            _check(self, field, getattr(self, field.name))

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs that an op with these attributes takes."""
        raise NotImplementedError

    def shapes(self, *inputs: Symbol) -> tuple[Shape, ...]:
        """The shape of each output, from dimensions of the inputs."""
        raise NotImplementedError

    def native(self, net: Net, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The op as layers of the network: always there, and what the proof on the CPU runs."""
        raise NotImplementedError

    def cuda(self, inputs: tuple[Symbol, ...], outputs: tuple[Symbol, ...]) -> Cuda:
        """The op as kernels of our own."""
        raise NotImplementedError

    def builtin(self, net: Net, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The op by a plugin that comes with TensorRT, to cross-check the others."""
        raise NotImplementedError

    @classmethod
    def implementations(cls) -> tuple[str, ...]:
        """Which of native, cuda and builtin this op has."""
        return tuple(how for how in ("native", "cuda", "builtin") if getattr(cls, how) is not getattr(Op, how))

    def __call__(self, net: Net, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Adds the op to the network, in the implementation that the definition's policy chooses."""
        if len(inputs) != len(self.inputs):
            raise ZooError(
                f"{self.name} {self.version} at '{net.scope}' takes {', '.join(self.inputs)}, got {len(inputs)} inputs"
            )
        definition = net.definition
        how = choose(type(self), definition.api, definition.plugins)
        if how == "native":
            return self.native(net.fp32 if self.island else net, *inputs)
        definition.plugin_ops[self.name] = {"version": self.version, "implementation": how}
        if how == "builtin":
            return self.builtin(net, *inputs)
        from zoo.plugins.core.layer import add_plugin

        return add_plugin(net, self, inputs)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


_ops: dict[str, type[Op]] = {}


def registered() -> dict[str, type[Op]]:
    """The ops by name, of the modules imported so far (`zoo.plugins.all_ops` imports them all)."""
    return _ops


def choose(op: type[Op], api: Api | None, policy: PluginPolicy) -> str:
    """Which implementation `policy` takes; `auto` the kernels where they can run and were measured to be faster.

    Raises ZooError when the policy asks for one that the op has not, or that cannot run here.
    """
    if policy not in get_args(PluginPolicy):
        raise ZooError(f"the policy for plugins is '{policy}'; it must be one of {', '.join(get_args(PluginPolicy))}")
    if policy == "auto":
        faster = any(figure.kernel < figure.native for figure in op.figures)
        return "cuda" if faster and why_not(op, api, "cuda") is None else "native"
    reason = why_not(op, api, policy)
    if reason:
        raise ZooError(f"{op.name} {op.version} has no {policy} implementation here: {reason}; use --plugins native")
    return policy


def why_not(op: type[Op], api: Api | None, how: str) -> str | None:
    """Why an implementation of an op cannot be used with this TensorRT on this machine, or None when it can."""
    if how not in op.implementations():
        return f"it comes with {', '.join(op.implementations())} only"
    if how == "native":
        return None
    if api is None or api.rtx:
        return "TensorRT-RTX has no plugins" if api else "no TensorRT is installed"
    if how == "builtin":
        return None
    from zoo.plugins.core.shell import why_no_kernels

    return why_no_kernels()


def _numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _numbers(item)
    else:
        yield value


def _check(op: Op, field: dataclasses.Field[Any], value: Any) -> None:
    """An attribute of another kind than declared, or out of range, is refused by name."""
    kinds = {"int": int, "bool": bool, "float": (int, float), "str": str}
    kind = kinds.get(str(field.type), tuple)
    tells = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not tells:
        raise ZooError(f"{op}: {field.name} is {value!r}; it must be a value of type {field.type}")
    low, high = field.metadata.get("low"), field.metadata.get("high")
    for number in _numbers(value):
        if (low is not None and not number >= low) or (high is not None and not number <= high):
            limits = " and ".join(
                text for text in (low is not None and f"at least {low}", high is not None and f"at most {high}") if text
            )
            raise ZooError(f"{op}: {field.name} is {value!r}; it must be {limits}")
