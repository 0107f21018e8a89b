"""The reference as an int8 or fp8 network: PyTorch's fake quantisation where our definition rounds, with the same
scales; of fp8 its own conversion to float8_e4m3fn and back.

A value may lie so near the middle between two steps that float32 noise decides where it goes. Such a tie follows ours
wherever the reference itself is within `TIE` of the middle, in all of its runs; everything else must go where the
reference's goes. So no tie goes on, and what is left is judged as fp32 is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from zoo.errors import ZooError
from zoo.network import Definition, Tensor
from zoo.quantization import LARGEST, LEVELS, TRAINED, Stored
from zoo.verify.compare import Report
from zoo.verify.references import AnyReference, Reference
from zoo.verify.remote import RemoteReference
from zoo.weights.ranges import kernel_range

TIE = 0.001  # of the step between two numbers; docs/int8.md has what was measured
ALIKE = 0.5  # relative distance of what is rounded from what was not, at most


@dataclass(frozen=True)
class Rounding:
    """How what the modules of a reference read is rounded.

    `steps` are by the module of a convolution or a linear layer ("layer1.0.conv1", "path:k" for its k-th further call),
    or by the module that adds ("layer1.0.add", "layer1.0.add:1"). `ours` holds what our layers read there, by the name
    of the tap.
    """

    steps: Mapping[str, float]
    ours: Mapping[str, np.ndarray] = field(default_factory=dict)
    stored: Stored = "int8"

    def at(self, site: str, x: torch.Tensor) -> torch.Tensor:
        """`x` rounded to the steps of `site`; a tie as ours."""
        step = self.steps[site]
        value = _as_fp8(x, step) if self.stored == "fp8" else _as_int8(x, step)
        ours = self.as_ours(site, value)
        if ours is None:
            return value
        if self.stored == "fp8":  # whose steps grow: only from the next number on is the middle that near
            near = (x - (value + ours) / 2).abs() < TIE * (ours - value).abs()
            return torch.where(near, ours.to(value.dtype), value)
        other = value + step * torch.sign(ours - value)
        differs = (ours - value).abs() > step / 2
        near = (x - (value + other) / 2).abs() < TIE * step
        return torch.where(differs & near, other, value)

    def as_ours(self, site: str, value: torch.Tensor) -> torch.Tensor | None:
        """What our layer reads at `site`, in the shape of `value`: a linear layer may read windows one by one, or all
        windows of an image as one. None where there are not as many values.
        """
        ours = self.ours.get(tap_of(site))
        return None if ours is None or ours.size != value.numel() else torch.from_numpy(ours).reshape(value.shape)

    def addition(self, path: str, operands: Sequence[torch.Tensor], seen: Collection[str]) -> tuple[str, int] | None:
        """The site of an addition in the module at `path`, if it is one, and which of its two operands is rounded.

        It is the first one of that module that was not `seen`, else the nearest of the modules below it, in whose name
        the definition may add. The operand is the one whose values are nearer to what our addition reads.
        """
        left = [site for site in self.steps if site not in seen and self._adds(site, operands[0])]
        own = [site for site in left if _adder(site) == path][:1]
        below = [site for site in left if not path or _adder(site).startswith(f"{path}.")]
        far = [(self._distance(site, x), site, i) for site in own or below for i, x in enumerate(operands)]
        distance, site, i = min(far, default=(float("inf"), "", 0))
        return (site, i) if own or distance < ALIKE else None

    def _adds(self, site: str, like: torch.Tensor) -> bool:
        ours = self.ours.get(tap_of(site))
        return _adder(site) is not None and ours is not None and ours.shape == like.shape

    def _distance(self, site: str, x: torch.Tensor) -> float:
        """Relative, of `x` from what our layer reads at `site`."""
        ours = torch.from_numpy(self.ours[tap_of(site)])
        return float((x - ours).norm() / ours.norm().clamp(min=1e-30))


def tap_of(site: str) -> str:
    """The name of what the layer of `site` reads, in a report."""
    return f"{site}.input"


def with_rounded_taps(definition: Definition) -> Definition:
    """`definition` with a tap more for each tensor that is rounded, in the order of definition."""
    if not definition.rounded:
        return definition
    taps = {**definition.taps, **{tap_of(site): tensor for site, tensor in _rounded(definition).items()}}
    order = sorted(taps, key=lambda name: definition.made.get(taps[name].name, -1))
    return replace(definition, taps={name: taps[name] for name in order})


def rounded(reference: AnyReference, definition: Definition) -> Reference:
    """`reference` with fake quantisation wherever `definition` has some: the weights at once, per output channel.

    Raises ZooError where it has no convolution, as where its branches are one convolution of ours.
    """
    if isinstance(reference, RemoteReference):
        raise ZooError(f"{reference.source} runs in an environment of its own, where int8 cannot be proven yet")
    scales = definition.precision.scales
    assert scales is not None
    stored = definition.precision.stored
    steps = {_place(site): float(np.float32(scales.of(site, stored))) for site in definition.rounded}
    module = copy.deepcopy(reference.module)
    layers = dict(module.named_modules(remove_duplicate=False))
    for path in dict.fromkeys(site.partition(":")[0] for site in steps if _adder(site) is None):
        weight = getattr(layers.get(path), "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.ndim not in (2, 4):
            raise _nothing_at([path])
        trained = kernel_range(definition.weights, path, len(weight)) if scales.method == TRAINED else None
        weight.data = _rounded_kernel(weight.data, stored, trained)
    return replace(reference, module=module, rounding=Rounding(steps, stored=stored))


def following(reference: AnyReference, ours: Mapping[str, np.ndarray]) -> AnyReference:
    """`reference` with its ties rounded as in our run; one of no int8 network as it is."""
    if isinstance(reference, RemoteReference) or reference.rounding is None:
        return reference
    taps = {tap_of(site) for site in reference.rounding.steps}
    found = {name: ours[name] for name in taps & ours.keys()}
    return replace(reference, rounding=replace(reference.rounding, ours=found))


def nothing_lost(report: Report) -> Report:
    """`report`. Raises ZooError where our network rounds what nothing in the reference reads."""
    lost = [name.removesuffix(tap_of("")) for name in report.extra if name.endswith(tap_of(""))]
    if lost:
        raise _nothing_at(lost)
    return report


def _nothing_at(sites: Sequence[str]) -> ZooError:
    return ZooError(
        f"int8 and fp8 cannot be proven here: the reference has no convolution, linear layer or addition at "
        f"'{sites[0]}' whose numbers are rounded (branches that our definition folds into one convolution are several "
        "there)"
    )


def _rounded(definition: Definition) -> dict[str, Tensor]:
    return {_place(site): tensor for site, tensor in definition.rounded.items()}


def _place(site: str) -> str:
    """The module of the reference that reads the tensor of a site."""
    return site.replace(".conv2d()", "").replace(".linear()", "")


def _adder(site: str) -> str | None:
    """The module that adds at a site; None where the site is a convolution."""
    path, _, last = f".{site}".rpartition(".")
    return path[1:] if last.partition(":")[0] == "add" else None


def _as_int8(x: torch.Tensor, step: float) -> torch.Tensor:
    return torch.fake_quantize_per_tensor_affine(x, step, 0, -LEVELS - 1, LEVELS)


def _as_fp8(x: torch.Tensor, step: float | torch.Tensor) -> torch.Tensor:
    most = LARGEST["fp8"]
    return (x / step).clamp(-most, most).to(torch.float8_e4m3fn).to(x.dtype) * step


def _rounded_kernel(kernel: torch.Tensor, stored: Stored, trained: np.ndarray | None) -> torch.Tensor:
    """PyTorch's fake quantisation of (out, …), per output channel, over the ranges of training or what each holds."""
    lowest = -LEVELS if trained is None else -LEVELS - 1
    largest = kernel.abs().amax(tuple(range(1, kernel.ndim))) if trained is None else torch.tensor(trained)
    step = torch.where(largest > 0, largest / LARGEST[stored], 1)
    if stored == "fp8":
        return _as_fp8(kernel, step.reshape(-1, *(1,) * (kernel.ndim - 1)))
    return torch.fake_quantize_per_channel_affine(kernel, step, torch.zeros_like(step).int(), 0, lowest, LEVELS)


class Calls(TorchFunctionMode):
    """While entered, `add(a, b)` gives the operands of every addition of two maps of one shape, and `read(x, weight)`
    what every linear layer reads, also where it is a function and no module.
    """

    def __init__(
        self, add: Callable[..., tuple[torch.Tensor, torch.Tensor]], read: Callable[..., torch.Tensor]
    ) -> None:
        super().__init__()
        self._add, self._read = add, read

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, operands = function.__name__, args[:2]
        if name == "linear" and len(operands) == 2:
            args = (self._read(*operands), *args[1:])
        elif name in ("add", "add_") and _are_maps(operands):
            a, b = self._add(*operands)
            if name == "add_" and a is not operands[0]:
                operands[0].copy_(a)  # the sum takes its place
                a = operands[0]
            args = (a, b, *args[2:])
        return function(*args, **(kwargs or {}))


def _are_maps(operands: Sequence[Any]) -> bool:
    """Whether these are two maps of one shape."""
    maps = [operand for operand in operands if isinstance(operand, torch.Tensor) and operand.ndim == 4]
    return len(maps) == 2 and maps[0].shape == maps[1].shape
