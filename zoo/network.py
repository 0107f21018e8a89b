"""`Net`: the scope cursor that a definition is written with.

`net / "layer1" / 0` descends like a path in the PyTorch module tree; an op reads its weights under that path, and what
it adds to the `INetworkDefinition` is named by it. This is the only module that knows both weights and the network.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NoReturn, get_args

import numpy as np

from zoo.errors import Refused, ZooError, one_of
from zoo.quantization import TRAINED, Scales, Stored
from zoo.trt import Api
from zoo.weights import Weights, check_finite
from zoo.weights.ranges import kernel_range

Tensor = Any  # trt.ITensor or tensorrt_rtx.ITensor
Layer = Any
PrecisionName = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
PluginPolicy = Literal["auto", "native", "cuda", "builtin"]


def configured(layer: Layer, **attributes: Any) -> Layer:
    """`layer` with these attributes. One that TensorRT refused to add (None) stays None, for `Net.done` to report."""
    if layer is not None:
        for name, value in attributes.items():
            setattr(layer, name, value)
    return layer


@dataclass(frozen=True)
class Precision:
    """What to compute in. Scopes that match a pattern of `islands` stay in fp32, and so does what an op declares so.

    What layers read is rounded to int8 or fp8, as `stored` says, by `scales`. Everything else is computed in fp16 where
    the name is one of these, and as the name says otherwise: both are proven in fp32, so that nothing else is rounded.
    """

    name: PrecisionName = "fp32"
    islands: tuple[str, ...] = ()
    scales: Scales | None = None
    stored: Stored = "int8"

    def __post_init__(self) -> None:
        one_of("precision", self.name, get_args(PrecisionName))
        if self.name not in get_args(Stored):
            return
        object.__setattr__(self, "stored", self.name)
        if self.scales is None:
            raise ZooError(
                f"{self.name} needs the ranges of tensors: python -m zoo.calibrate MODEL --data DIR writes them"
            )


@dataclass
class Definition:
    """A network under construction, and what is known of it by name.

    `taps`: tensors by module path, in the order of definition. `folded`: modules that have no tensor of their own,
    because the host folded them into the next or sorted their channels. `claims`: what each module path is (an op, or
    a module of several ops that `Net.tap` ends), and `holders` the paths that have modules below them. `parameters` and
    `buffers`: every weight read, with the shape that the definition stated. `arrays`: weights that the network holds
    but cannot give back (bf16), by (layer name, attribute). `names`: how often each layer's name was used. `ops`: the
    kinds of op that the network is made of.
    `facts`: what a module has beside its weights (eps, stride …), under PyTorch's names, by module path.
    `plugins`: which implementation custom ops take; `plugin_ops`: those that are no layers, with what is known of them.
    """

    api: Api
    builder: Any
    network: Any
    weights: Weights
    precision: Precision = Precision()
    plugins: PluginPolicy = "native"
    taps: dict[str, Tensor] = field(default_factory=dict)
    folded: set[str] = field(default_factory=set)
    claims: dict[str, str] = field(default_factory=dict)
    holders: dict[str, str] = field(default_factory=dict)  # path -> the first module below it
    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict)
    buffers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    arrays: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    names: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)  # of each module, as the reference counts them
    ops: set[str] = field(default_factory=set)
    plugin_ops: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    sites: dict[str, Tensor] = field(default_factory=dict)  # what int8 rounds, by the layer that reads it
    rounded: dict[str, Tensor] = field(default_factory=dict)  # what became of those that were rounded
    made: dict[str, int] = field(default_factory=dict)  # tensor -> its place in the order of definition
    islands: set[str] = field(default_factory=set)  # tensors that are computed in fp32 whatever the precision
    has_islands: bool = False
    multiple: int = 1  # what the height and the width of the input must be a multiple of
    keep: list[Any] = field(default_factory=list)  # TensorRT points into these until the build is done


class Net:
    """A place in the network: a scope, and through it the weights, the network and the precision there."""

    __slots__ = ("definition", "scope", "_fp32", "_functional", "_settings")

    def __init__(
        self,
        definition: Definition,
        scope: str = "",
        fp32: bool = False,
        functional: bool = False,
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.definition = definition
        self.scope = scope
        self._fp32 = fp32
        self._functional = functional
        self._settings = settings

    def __truediv__(self, name: str | int) -> Net:
        """The scope below: `net / "layer1" / 0` is `layer1.0`."""
        return Net(self.definition, self._below(str(name)), self._fp32, settings=self._settings)

    @property
    def fp32(self) -> Net:
        """The same scope, computed in fp32 whatever the policy says (for values that half precision cannot hold)."""
        return Net(self.definition, self.scope, True, self._functional, self._settings)

    @property
    def functional(self) -> Net:
        """The same scope for a function that the reference calls there, which is no module: `F.relu(x)` in the forward
        of a block is `relu(net.functional, x)`. Its layer is named `block.relu()`, and it is no tap.
        """
        return Net(self.definition, self.scope, self._fp32, True, self._settings)

    def having(self, **settings: Any) -> Net:
        """The same scope, where all blocks from here on down have `settings` in place of their family's own: what a
        model says once of all its layers, such as another epsilon. A block asks with `setting`.
        """
        return Net(self.definition, self.scope, self._fp32, self._functional, {**self._settings, **settings})

    def setting(self, name: str, usual: Any) -> Any:
        """What `having` says of `name` at this place, else `usual`."""
        return self._settings.get(name, usual)

    # What ops build with

    @property
    def trt(self) -> Any:
        """The TensorRT module in use."""
        return self.definition.api.trt

    @property
    def network(self) -> Any:
        """The INetworkDefinition."""
        return self.definition.network

    @property
    def island(self) -> bool:
        """True where the policy's reduced precision does not apply."""
        return self._fp32 or any(fnmatch.fnmatchcase(self.scope, p) for p in self.definition.precision.islands)

    @property
    def dtype(self) -> Any:
        """The type that tensors and weights have here. A weakly typed network is defined in fp32 throughout."""
        name = self.definition.precision.name
        if name == "fp32" or not self.definition.api.strong or self.island:
            return self.trt.float32
        return self.trt.bfloat16 if name == "bf16" else self.trt.float16

    def step_of(self, site: str) -> float | None:
        """The step that the tensor of a `site` is rounded to; None where it is not quantised."""
        policy = self.definition.precision
        return None if policy.scales is None or self.island else policy.scales.of(site, policy.stored)

    def kernel_range(self, channels: int) -> np.ndarray | None:
        """The ranges (channels,) of this module's kernel that it was trained for; None: those of its values."""
        scales = self.definition.precision.scales
        trained = scales is not None and scales.method == TRAINED
        return kernel_range(self.definition.weights, self.scope, channels) if trained else None

    # Weights

    def weight(self, name: str, *shape: int) -> np.ndarray:
        """The parameter `name` under this scope, float32, which must have `shape`."""
        path = self._below(name)
        self.definition.parameters[path] = shape
        return self._read(path, shape)

    def buffer(self, name: str, *shape: int) -> np.ndarray:
        """Like `weight`, for what PyTorch keeps as a buffer (running statistics): it does not count as a parameter."""
        path = self._below(name)
        self.definition.buffers[path] = shape
        return self._read(path, shape)

    def _read(self, path: str, shape: tuple[int, ...]) -> np.ndarray:
        weights = self.definition.weights
        array = weights.read(path, shape)
        if not weights.generated:
            check_finite(array, path, weights)
        return array

    def pack(self, array: np.ndarray, layer: str = "", attribute: str = "") -> Any:
        """`array` as TensorRT weights of this scope's type, kept alive.

        bf16 cannot be read back from a network: give the layer's name and the attribute it will be known by.
        """
        trt = self.trt
        if self.dtype == trt.float32:
            packed = np.require(array, np.float32, "C")
        elif self.dtype == trt.float16:
            packed = self._to_half(array)
        else:
            import ml_dtypes

            packed = np.require(array, ml_dtypes.bfloat16, "C")
            self.definition.arrays[layer, attribute] = packed
        self.definition.keep.append(packed)
        if packed.dtype in (np.float32, np.float16):
            return packed
        return trt.Weights(self.dtype, packed.ctypes.data, packed.size)

    def _to_half(self, array: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # told below, by name
            half = np.require(array, np.float16, "C")
        if not np.isfinite(half).all() and np.isfinite(array).all():
            raise ZooError(
                f"a weight of '{self.scope}' is {np.abs(array).max():.3g}, more than fp16 can hold (65504); "
                "build with --bf16 or in fp32"
            )
        return half

    def empty(self) -> Any:
        """The absent weights (no bias, no power) in this scope's type."""
        return self.trt.Weights(self.dtype)

    def constant(self, array: np.ndarray, name: str) -> Tensor:
        """A constant tensor of this scope's type, named below the scope."""
        full = self.unique(self._below(name))
        layer = self.network.add_constant(array.shape, self.pack(array, full, "weights"))
        return self._checked(layer, full, "constant", ())

    def index(self, values: Any, name: str) -> Tensor:
        """An integer constant for shape arithmetic and gathering: int64, or int32 on TensorRT 8, which has no int64."""
        array = np.require(values, np.int64 if self.definition.api.strong else np.int32, "C")
        self.definition.keep.append(array)
        full = self.unique(self._below(name))
        return self._checked(self.network.add_constant(array.shape, array), full, "constant", ())

    # Tensors

    def enter(self, x: Tensor) -> Tensor:
        """`x` in this scope's type: a cast at the border of two precisions, nothing elsewhere."""
        if not self.definition.api.strong or x.dtype == self.dtype:
            return x
        layer = self.network.add_cast(x, self.dtype)
        return self._checked(layer, self.unique(self._below("cast")), "cast", (x,))

    def done(self, layer: Layer, op: str, *inputs: Tensor, folded: Net | None = None) -> Tensor:
        """Finishes a module's own op: named by the scope, recorded as the scope's tap, validated by TensorRT now.

        Of a functional call (and at the top, which is the whole model) it is the last step instead, and no tap.
        `folded` is the module before it, when the host folded the two into one layer (a convolution into its
        BatchNorm): the layer bears the name of that one, its tensor and tap the name of this one.
        """
        if not self._is_module:
            return self._checked(layer, self.unique(self._below(f"{op}()")), op, inputs)
        if folded is not None:
            folded.fold(op)
        call = self._claim(op)
        tensor = (folded or self)._checked(layer, self.unique(self.scope), op, inputs)
        self.definition.taps[call] = tensor
        if folded is not None:
            name, layer.name = tensor.name, folded.unique(folded.scope)
            tensor.name = name  # naming a layer renames its output
        return tensor

    def step(self, layer: Layer, op: str, *inputs: Tensor) -> Tensor:
        """Finishes an op that is never a module of its own (an addition, a reshape): named below the scope, no tap."""
        return self._checked(layer, self.unique(self._below(op)), op, inputs)

    def state(self, **facts: Any) -> None:
        """Records what the module of this scope has beside its weights, to be held against a checkpoint's module."""
        self.definition.facts.setdefault(self.scope, {}).update(facts)

    def fold(self, op: str) -> None:
        """Records that this call of the module of `op` has no tensor of its own."""
        self.definition.folded.add(self._claim(op))

    def tap(self, x: Tensor) -> Tensor:
        """Records `x` as what the module of this scope returns (for modules made of several ops)."""
        self.definition.taps[self._claim("net.tap")] = x
        return x

    @property
    def _is_module(self) -> bool:
        return bool(self.scope) and not self._functional

    def _claim(self, kind: str) -> str:
        """The tap of this call of the module: `scope`, then `scope:1` … A scope is one op, or a module of several."""
        definition, scope = self.definition, self.scope
        held = definition.claims.setdefault(scope, kind)
        if held != kind:
            raise ZooError(
                f"'{scope}' is already {_described(held)} and cannot be {_described(kind)} too: a module has one tap; "
                "what the reference calls as a function there is written as op(net.functional, …)"
            )
        if kind != "net.tap" and scope in definition.holders:
            self._refuse_below(kind, scope, definition.holders[scope])
        parent = scope.rpartition(".")[0]
        while parent and parent not in definition.holders:
            if definition.claims.get(parent, "net.tap") != "net.tap":
                self._refuse_below(definition.claims[parent], parent, scope)
            definition.holders[parent] = scope
            parent = parent.rpartition(".")[0]
        calls = definition.calls[scope]
        definition.calls[scope] += 1
        return f"{scope}:{calls}" if calls else scope

    @staticmethod
    def _refuse_below(op: str, scope: str, below: str) -> NoReturn:
        raise ZooError(
            f"{op} claims '{scope}' as its module, which holds '{below}': a function that the reference calls there is "
            f"{op}(net.functional, …), a module of its own {op}(net / NAME, …)"
        )

    def peek(self, op: str) -> str:
        """The name that the layer of the next `done` of `op` will get here: `pack` needs it before there is a layer."""
        name = self.scope if self._is_module else self._below(f"{op}()")
        return self._next(name)

    def peek_step(self, op: str) -> str:
        """The name that the layer of the next `step` of `op` will get here."""
        return self._next(self._below(op))

    def _next(self, name: str) -> str:
        count = self.definition.names[name]
        return f"{name}:{count}" if count else name

    def _below(self, name: str) -> str:
        return f"{self.scope}.{name}" if self.scope else name

    def unique(self, name: str) -> str:
        """`name`, or `name:1`, `name:2` … for the second and later use."""
        count = self.definition.names[name]
        self.definition.names[name] += 1
        return f"{name}:{count}" if count else name

    def _checked(self, layer: Layer, name: str, op: str, inputs: tuple[Tensor, ...]) -> Tensor:
        """Names the layer and makes TensorRT validate it now; a refusal becomes one exception with TensorRT's words."""
        log = self.definition.api.log
        self.definition.ops.add(op)
        if layer is None:
            raise self._refused(op, inputs, log.drain())
        layer.name = name
        tensor = layer.get_output(0)
        tensor.name = name
        self.definition.made[name] = len(self.definition.made)
        self._constrain(layer)
        try:
            shape = tuple(tensor.shape)  # forces the validation; TensorRT 8 gives a Dims of -1, whose tuple() fails
        except (RuntimeError, ValueError):
            raise self._refused(op, inputs, log.drain()) from None
        errors = log.drain()
        if errors or any(n < -1 for n in shape):
            raise self._refused(op, inputs, errors)
        if 0 in shape:  # TensorRT takes it and fails far from here, if at all
            raise self._refused(op, inputs, f"the result would be empty, {shape}")
        return tensor

    def _constrain(self, layer: Layer) -> None:
        """Weakly typed networks keep an island by a constraint on its layers (strongly typed ones by their types)."""
        definition, trt = self.definition, self.trt
        if not self.island or layer.type in (trt.LayerType.CONSTANT, trt.LayerType.SHAPE):
            return
        if layer.get_output(0).dtype != trt.float32:
            return
        definition.islands.add(layer.get_output(0).name)
        if definition.precision.name == "fp32" or definition.api.strong:
            return
        definition.has_islands = True
        layer.precision = trt.float32
        layer.set_output_type(0, trt.float32)

    def _refused(self, op: str, inputs: tuple[Tensor, ...], words: str) -> Refused:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs) or "none"
        where = f"{op} at '{self.scope or '(top)'}' (input shapes: {shapes})"
        return Refused(f"{self.definition.api.name} refused {where}: {words or 'no reason given'}")


def _described(kind: str) -> str:
    return "what net.tap records" if kind == "net.tap" else f"the module of {kind}"
