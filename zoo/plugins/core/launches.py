"""What an op says of its kernels: the source, the launches, their arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from zoo.plugins.core.expressions import Size, Symbol


@dataclass(frozen=True)
class Offset:
    """As an argument of a kernel: the address of the op's scratch memory, `bytes` after its start."""

    bytes: Size = 0


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel. An argument is a tensor's address, scratch memory, an int32 or a float32."""

    kernel: str
    grid: tuple[Size, ...]
    block: tuple[int, ...]
    args: tuple[Symbol | Offset | Size | float, ...]


@dataclass(frozen=True)
class Cuda:
    """An op as CUDA C++ (see `zoo.plugins.core.kernels` for its dialect).

    `types` says, for a network's precision, which types the inputs and outputs have: "hhh>h", a letter each (f float32,
    h float16, i int32, u uint8). In the source, T is the precision's type. bf16 networks use the kernels of fp32.
    `defines` are macros, for what is known when the network is defined. `scratch` is the memory it needs, in bytes.
    `exact` keeps products and sums apart (no FMA), for ops that must agree bit by bit.
    """

    source: str
    launches: tuple[Launch, ...]
    types: Mapping[str, str]
    defines: Mapping[str, int | float | str] = dataclasses.field(default_factory=dict)
    scratch: Size = 0
    exact: bool = False


def literal(value: float) -> str:
    """A float32 constant of C++, exactly, for `defines`."""
    return float(np.float32(value)).hex() + "f"
