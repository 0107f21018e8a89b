"""The kernels of an op: the dialect that they are written in, their text for the plugin, and their compilation.

A source is CUDA C++ with these words of its own, so that g++ can compile it too, for a proof without a GPU:

    T                     the element type of the network's precision: float or half_t
    KERNEL(name)(…) {…}   a kernel whose threads have nothing to do with each other
    PHASED(name)(…) {…}   one whose threads (in one dimension) share memory. It is a row of blocks `PHASE { … }`, which
                          all threads pass before any enters the next; what lies between is the same for every thread
    SHARED                shared memory: what phases pass on to each other
    RESTRICT              as __restrict__
    int64, uint64, uint32, uint8, half_t

The source is compiled once for each precision, in a namespace of that name; a kernel's name in the binary is
`NAME_PRECISION`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from zoo.errors import ZooError
from zoo.plugins.core.expressions import Symbol, size_text
from zoo.plugins.core.launches import Cuda, Launch, Offset

if TYPE_CHECKING:
    from zoo.plugins.core.op import Op

ELEMENTS = {"fp32": "float", "fp16": "half_t"}  # what T is

PRELUDE = """
typedef long long int64;
typedef unsigned long long uint64;
typedef unsigned int uint32;
typedef unsigned char uint8;
#define RESTRICT __restrict__
#define DEFINE_KERNEL(name) extern "C" __global__ void name
#define DEFINE_PHASED(name) extern "C" __global__ void name
#define SHARED __shared__
#define PHASE for (bool entered = (__syncthreads(), true); entered; entered = (__syncthreads(), false))

struct half_t { // IEEE half precision without CUDA's headers
    unsigned short bits;
    half_t() = default;
    __device__ half_t(float value) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value)); }
    __device__ operator float() const
    {
        float value;
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
        return value;
    }
};
"""


def declaration(op: Op) -> Cuda:
    """The kernels of `op`, its inputs and outputs named by their places."""
    inputs = tuple(Symbol(f"i{i}") for i in range(len(op.inputs)))
    return op.cuda(inputs, tuple(Symbol(f"o{i}") for i in range(len(op.outputs))))


def source(op: Op, cuda: Cuda, prelude: str = PRELUDE) -> str:
    """One program with the kernels for every precision."""
    parts = [prelude, *(f"#define {name} {value}\n" for name, value in cuda.defines.items())]
    for precision in cuda.types:
        parts.append(f"#define KERNEL(name) DEFINE_KERNEL(name##_{precision})\n")
        parts.append(f"#define PHASED(name) DEFINE_PHASED(name##_{precision})\n")
        parts.append(f'namespace {precision} {{\ntypedef {ELEMENTS[precision]} T;\n#line 1 "{op.name}.cu"\n')
        parts.append(f"{cuda.source}\n}}\n#undef KERNEL\n#undef PHASED\n")
    return "".join(parts)


def image(op: Op, cuda: Cuda, compute_capability: str) -> bytes:
    """The kernels compiled for a GPU, from the cache if they are there. Raises ZooError with the compiler's words."""
    from zoo.nvrtc import compile_source

    try:
        return compile_source(source(op, cuda), f"{op.name}.cu", compute_capability, exact=cuda.exact)
    except ZooError as error:
        raise ZooError(f"the kernels of {op} cannot be compiled: {error}; use --plugins native") from error


def spec(op: Op, cuda: Cuda) -> str:
    """The text that tells the plugin what to do (its grammar is at the top of shell/op.h)."""
    shapes = op.shapes(*(Symbol(f"i{i}") for i in range(len(op.inputs))))
    lines = [f"op {op.name} {op.version}", f"io {len(op.inputs)} {len(op.outputs)}"]
    for precision, types in cuda.types.items():
        names = " ".join(f"{launch.kernel}_{precision}" for launch in cuda.launches)
        lines.append(f"types {types.replace('>', '')} {names}")
    lines += [" ".join(("out", *map(size_text, shape))) for shape in shapes]
    if cuda.scratch != 0:
        lines.append(f"scratch {size_text(cuda.scratch)}")
    for launch in cuda.launches:
        lines += _launch_text(launch)
    return "\n".join(lines) + "\n"


def _launch_text(launch: Launch) -> list[str]:
    sizes = (*(*launch.grid, 1, 1)[:3], *(*launch.block, 1, 1)[:3])
    lines = [" ".join(("run", *map(size_text, sizes)))]
    for argument in launch.args:
        if isinstance(argument, Symbol):
            lines.append(f"arg {argument.place}")
        elif isinstance(argument, Offset):
            lines.append(f"arg w {size_text(argument.bytes)}")
        elif isinstance(argument, float):
            lines.append(f"arg f {struct.unpack('<I', struct.pack('<f', argument))[0]:x}")
        else:
            lines.append(f"arg n {size_text(argument)}")
    return lines
