"""A reference run in any precision, layer by layer."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from zoo.errors import ZooError
from zoo.verify.compare import Run
from zoo.verify.references import AnyReference, Reference
from zoo.verify.remote import RemoteReference
from zoo.verify.rounding import Calls, tap_of

Keep = Callable[[str, np.ndarray], Any]
MOST_PLAIN = 4  # outputs: of more, some are unlucky in PyTorch too
DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "float16", "bfloat16")}


def run_reference(
    reference: AnyReference,
    images: np.ndarray,
    dtype: str = "float32",
    taps: bool | Collection[str] = False,
    *,
    given: Mapping[str, np.ndarray] = {},
    keep: Keep = lambda name, value: value,
    nudge: int | None = None,
) -> Run:
    """One forward pass of `images` (N, C, H, W) in `dtype`: "float32", "float64", "float16" or "bfloat16".

    Outputs have the zoo's form: "logits" (N, classes), or "boxes" (N, 4, A) and "scores" (N, classes, A).
    The reference itself is left as it was: other precisions run on a copy.

    `taps` asks for what the modules return: all of them, or those of these names; the run holds what `keep(name,
    value)` makes of each, by default the values. `given` are tensors by tap: where a module of that name returns, the
    network goes on with the given one in place of its own, if the shapes are equal. So each module is seen on inputs
    of our choice, and no error reaches it from the modules before it. Arrays of float64 are given in float64, whatever
    the precision of the run.

    `nudge` is a seed: each parameter is off by at most its last bit, at random, so that everything is rounded anew, and
    linear layers of few outputs add their terms one by one.
    """
    if dtype not in DTYPES:
        raise ZooError(f"dtype {dtype!r} of a reference run is unknown, expected one of {', '.join(DTYPES)}")
    if isinstance(reference, RemoteReference):
        return reference.run(images, dtype, taps, given, keep, nudge)
    if dtype != "float32":
        reference = dataclasses.replace(reference, module=_converted(reference.module, DTYPES[dtype]))
    if nudge is not None:
        reference = dataclasses.replace(reference, module=_nudged(reference.module, nudge))
    reference.forget()
    recorder = _Recorder(reference, taps, given, keep)
    sums = contextlib.nullcontext() if nudge is None else _plain_sums()
    with torch.no_grad(), _within_maps(), sums, recorder:
        outputs = reference.outputs(reference.module(torch.from_numpy(images).to(DTYPES[dtype])))
    return Run({name: _array(value) for name, value in outputs.items()}, recorder.taps, recorder.leaves)


@contextlib.contextmanager
def _within_maps() -> Iterator[None]:
    """grid_sample that stays within its map: in 16 bits on a CPU, PyTorch 2.13 reads foreign memory where a map is not
    contiguous, as those of deformable attention are not.
    """
    sample = nn.functional.grid_sample

    def contiguous(x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        return sample(x.contiguous() if x.element_size() == 2 else x, *args, **options)

    with mock.patch.object(nn.functional, "grid_sample", contiguous):
        yield


@contextlib.contextmanager
def _plain_sums() -> Iterator[None]:
    """Linear layers of few outputs that add one term after the other, as a library may. PyTorch adds in lanes, and of
    several hundred terms for a single class loses several times less: luck that no other library needs to have.
    """
    linear = nn.functional.linear

    def plain(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if len(weight) > MOST_PLAIN:
            return linear(x, weight, bias)
        total = torch.zeros_like(x[..., :1] * weight[:, 0])
        for term in range(weight.shape[1]):
            total += x[..., term, None] * weight[:, term]
        return total if bias is None else total + bias

    with mock.patch.object(nn.functional, "linear", plain):
        yield


def _converted(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of `module` in `dtype`, with no copy of its parameters in between."""
    parameters = {id(p): nn.Parameter(p.detach().to(dtype), p.requires_grad) for p in module.parameters()}
    return copy.deepcopy(module, parameters).to(dtype)


def _nudged(module: nn.Module, seed: int) -> nn.Module:
    """A copy of `module` whose parameters are each the next smaller or larger number of their type, or as they were."""
    generator = torch.Generator().manual_seed(seed)
    module = copy.deepcopy(module)
    for parameter in module.parameters():
        step = torch.randint(-1, 2, parameter.shape, generator=generator)
        towards = torch.where(step == 0, parameter.data, step * torch.inf)
        parameter.data = torch.nextafter(parameter.data, towards.to(parameter.dtype))
    return module


def _array(tensor: torch.Tensor) -> np.ndarray:
    """A copy, since an in-place operation may overwrite the tensor later."""
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).detach().cpu().numpy().copy()


class _Recorder:
    """Records what modules return while it is entered, and lets the network go on with what is given instead.

    What they read is rounded where the reference is an int8 network, and is recorded and exchanged in the same way.

    YOLO shares one activation module among all its blocks, so a module may have many paths: the one that lies under
    the module that is running now is the one that was called.
    """

    def __init__(
        self, reference: Reference, names: bool | Collection[str], given: Mapping[str, np.ndarray], keep: Keep
    ) -> None:
        self.taps: dict[str, Any] = {}
        self.leaves: dict[str, str] = {}
        self._module, self._names, self._given, self._keep = reference.module, names, given, keep
        self._rounding, self._functions = reference.rounding, Calls(self._add, self._linear)
        self._added: set[str] = set()
        modules = reference.module.named_modules() if reference.rounding else ()
        self._owners = {id(getattr(module, "weight", None)): path for path, module in modules}
        self._running: list[tuple[str, list[str]]] = []  # path of each module under way, the children that it called
        self._calls: Counter[str] = Counter()
        self._handles: list[Any] = []

    def __enter__(self) -> _Recorder:
        paths: dict[nn.Module, list[str]] = {}
        for path, module in self._module.named_modules(remove_duplicate=False):
            paths.setdefault(module, []).append(path)
        for module, names in paths.items() if self._names or self._given or self._rounding else ():
            begin = functools.partial(self._begin, names)
            self._handles.append(module.register_forward_pre_hook(begin))
            self._handles.append(module.register_forward_hook(lambda m, _, result: self._end(m, result)))
        if self._rounding is not None:
            self._functions.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._rounding is not None:
            self._functions.__exit__(*error)
        for handle in self._handles:
            handle.remove()

    def _begin(self, names: list[str], module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Notes that a module runs; what it returns, if anything, are its arguments."""
        parent = f"{self._running[-1][0]}." if self._running and self._running[-1][0] else ""
        path = next((name for name in names if name.startswith(parent)), names[0])
        if self._running:
            self._running[-1][1].append(path)
        self._running.append((path, []))
        calls = self._calls[path]
        site = f"{path}:{calls}" if calls else path
        if self._rounding is None or site not in self._rounding.steps:
            return None
        return (self._read(site, args[0]), *args[1:])

    def _add(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The operands of an addition in the module that is running."""
        path = self._running[-1][0] if self._running else ""
        found = self._rounding.addition(path, (a, b), self._added)
        if found is None:
            return a, b
        site, second = found
        self._added.add(site)
        return (a, self._read(site, b)) if second else (self._read(site, a), b)

    def _linear(self, x: torch.Tensor, weight: Any) -> torch.Tensor:
        """What a linear layer reads; where that is a module, its own call has seen to it."""
        path = self._owners.get(id(weight), "")
        running = self._running[-1][0] if self._running else ""
        if self._rounding is None or path not in self._rounding.steps or path == running:
            return x
        return self._read(path, x)

    def _read(self, site: str, x: torch.Tensor) -> torch.Tensor:
        """`x` as the layer of `site` reads it."""
        name, value = tap_of(site), self._rounding.at(site, x)
        ours = self._rounding.as_ours(site, value)
        if self._names is True or (self._names and name in self._names):
            shape = value.shape if ours is None else self._rounding.ours[name].shape
            self.taps[name] = self._keep(name, _array(value.reshape(shape)))
        return value if ours is None or name not in self._given else ours.to(value.dtype, copy=True)

    def _end(self, module: nn.Module, result: Any) -> Any:
        """Records the result; what it returns, if anything, takes the result's place."""
        path, children = self._running.pop()
        value = _first(result)
        if not path or not isinstance(value, torch.Tensor):
            return None  # the whole model; a head that returns a list
        calls, self._calls[path] = self._calls[path], self._calls[path] + 1
        name = f"{path}:{calls}" if calls else path
        if not children:
            self.leaves[name] = type(module).__name__
        if self._names is True or (self._names and name in self._names):
            self.taps[name] = self._keep(name, _array(value))
        ours = self._given.get(name)
        if ours is None or ours.shape != value.shape:
            return None
        if getattr(module, "inplace", False):  # its input, which others may hold too, is its result
            value.copy_(torch.from_numpy(ours))
            return None
        dtype = torch.float64 if ours.dtype == np.float64 else value.dtype
        value = torch.tensor(ours, dtype=dtype)  # a copy, since later modules may work in place
        return _with_first(result, value)


def _first(result: Any) -> Any:
    """What a module returns where it returns several: the first of a tuple, a dictionary or a dataclass."""
    if isinstance(result, tuple):
        return result[0] if result else None
    if isinstance(result, dict):
        return next(iter(result.values()), None)
    if dataclasses.is_dataclass(result):
        return getattr(result, dataclasses.fields(result)[0].name)
    return result


def _with_first(result: Any, value: torch.Tensor) -> Any:
    """The same with another first."""
    if isinstance(result, tuple):
        return (value, *result[1:])
    if isinstance(result, dict):
        changed = copy.copy(result)
        changed[next(iter(result))] = value
        return changed
    if dataclasses.is_dataclass(result):
        return dataclasses.replace(result, **{dataclasses.fields(result)[0].name: value})
    return value
