"""Plugins without a GPU: an op's own kernels, compiled by g++, run through the shell as TensorRT would run them.

`PluginHost.run(op, arrays)` gives the outputs. The library of `plugin_driver.cpp` plays CUDA's driver and calls the
plugin's functions. Threads run one after another: a phase ends when the last thread has passed it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoo.plugins.core import shell
from zoo.plugins.core.kernels import declaration, source, spec
from zoo.plugins.core.op import Op

MAJORS = (8, 10, 11)
TYPES = {"float32": 0, "float16": 1, "int32": 3, "uint8": 5}
DTYPES = {"f": np.float32, "h": np.float16, "i": np.int32, "u": np.uint8}

PRELUDE = """
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
typedef long long int64;
typedef unsigned long long uint64;
typedef unsigned int uint32;
typedef unsigned char uint8;
#define __device__
#define RESTRICT __restrict
#define SHARED static
struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;
#define PHASE for (threadIdx.x = 0; threadIdx.x < blockDim.x; threadIdx.x++)
struct half_t {
    _Float16 v;
    half_t() = default;
    half_t(float f) : v((_Float16)f) {}
    operator float() const { return (float)v; }
};
template <class I> static I atomicAdd(I *at, I value) { I old = *at; *at += value; return old; }
template <class I> static I atomicOr(I *at, I value) { I old = *at; *at |= value; return old; }
template <class I> static I atomicAnd(I *at, I value) { I old = *at; *at &= value; return old; }
template <class I> static I atomicMax(I *at, I value) { I old = *at; *at = old < value ? value : old; return old; }
static int __ffsll(long long bits) { return __builtin_ffsll(bits); }
static uint32 __float_as_uint(float f) { uint32 u; memcpy(&u, &f, 4); return u; }
static float __uint_as_float(uint32 u) { float f; memcpy(&f, &u, 4); return f; }
template <class A, class B> static auto min(A a, B b) { return a < b ? a : b; }
template <class A, class B> static auto max(A a, B b) { return a < b ? b : a; }
template <class... A, size_t... I>
static void call(void (*f)(A...), void **args, std::index_sequence<I...>)
{
    f(*(std::remove_reference_t<A> *)args[I]...);
}
template <class... A> static void launch(void (*f)(A...), bool phased, void **args, unsigned const *g)
{
    gridDim = {g[0], g[1], g[2]}, blockDim = {g[3], g[4], g[5]};
    for (blockIdx.z = 0; blockIdx.z < g[2]; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < g[1]; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < g[0]; blockIdx.x++) {
                threadIdx = {0, 0, 0};
                if (phased) {
                    call(f, args, std::index_sequence_for<A...>());
                    continue;
                }
                for (threadIdx.z = 0; threadIdx.z < g[5]; threadIdx.z++)
                    for (threadIdx.y = 0; threadIdx.y < g[4]; threadIdx.y++)
                        for (threadIdx.x = 0; threadIdx.x < g[3]; threadIdx.x++)
                            call(f, args, std::index_sequence_for<A...>());
            }
}
#define DEFINE_KERNEL(name) static constexpr bool name##_phased = false; static void name
#define DEFINE_PHASED(name) static constexpr bool name##_phased = true; static void name
"""


class Tensor(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("d", ctypes.c_int64 * 8),
        ("data", ctypes.c_void_p),
    ]


def tensor(array: np.ndarray) -> Tensor:
    return Tensor(TYPES[array.dtype.name], array.ndim, (ctypes.c_int64 * 8)(*array.shape), array.ctypes.data)


def compile_library(text: str, folder: Path, name: str, *options: str) -> Path:
    """A C++ source as a shared library in `folder`, compiled once."""
    path = folder / f"{name}-{hashlib.sha256((text + repr(options)).encode()).hexdigest()[:12]}.so"
    if not path.exists():
        code = path.with_suffix(".cpp")
        code.write_text(text)
        command = [
            "g++",
            "-O2",
            "-std=c++17",
            "-shared",
            "-fPIC",
            "-ffp-contract=off",
            *options,
            "-o",
            str(path),
            str(code),
        ]
        result = subprocess.run([*command, "-ldl"], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    return path


def compile_driver(folder: Path) -> Path:
    """plugin_driver.cpp as a shared library in `folder`."""
    text = Path(__file__).with_name("plugin_driver.cpp").read_text()
    return compile_library(text, folder, "driver", f"-I{shell.SOURCES}")


class PluginHost:
    """The shell and the driver for the CPU, in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = compile_driver(folder)
        os.environ["ZOO_LIBCUDA"] = str(path)
        self.calls = ctypes.CDLL(str(path))
        self.shell = shell.load()
        self.shell.zoo_creator.restype = ctypes.c_void_p
        for function in ("create", "deserialize", "clone"):
            getattr(self.calls, f"plugin_{function}").restype = ctypes.c_void_p
        self.calls.plugin_serialize.restype = ctypes.c_size_t

    def image(self, op: Op) -> bytes:
        """The op's kernels for the CPU: the path of their library, as the driver takes it."""
        cuda = declaration(op)
        text = source(op, cuda, PRELUDE)
        for name in (f"{launch.kernel}_{precision}" for precision in cuda.types for launch in cuda.launches):
            at = f"{name.rpartition('_')[2]}::{name}"
            text += (
                f'extern "C" void {name}(void **args, unsigned const *g) {{ launch({at}, {at}_phased, args, g); }}\n'
            )
        return bytes(compile_library(text, self.folder, op.name)) + b"\0"

    def create(self, op: Op, major: int = 10) -> int:
        """A plugin object of TensorRT's generation `major`."""
        text, image = spec(op, declaration(op)).encode(), self.image(op)
        plugin = self.calls.plugin_create(major, self.creator(major), text, len(text), image, len(image))
        assert plugin
        return plugin

    def creator(self, major: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.shell.zoo_creator(major))

    def shapes(self, plugin: int, op: Op, arrays: Sequence[np.ndarray], major: int = 10) -> list[tuple[int, ...]]:
        """The shapes that the plugin gives for its outputs."""
        inputs = (Tensor * len(arrays))(*map(tensor, arrays))
        found = []
        for index in range(len(op.outputs)):
            result = (ctypes.c_int64 * 8)()
            rank = self.calls.plugin_shape(major, ctypes.c_void_p(plugin), index, inputs, len(arrays), result)
            found.append(tuple(result[:rank]))
        return found

    def run(self, op: Op, arrays: Sequence[np.ndarray], precision: str = "fp32", major: int = 10) -> list[np.ndarray]:
        """The outputs of the op's kernels for these inputs, which are cast to what the precision takes."""
        takes, gives = declaration(op).types[precision].split(">")
        arrays = [np.ascontiguousarray(array, DTYPES[letter]) for array, letter in zip(arrays, takes)]
        plugin = self.create(op, major)
        try:
            shapes = self.shapes(plugin, op, arrays, major)
            outputs = [_poisoned(shape, DTYPES[letter]) for shape, letter in zip(shapes, gives)]
            tensors = (Tensor * (len(arrays) + len(outputs)))(*map(tensor, (*arrays, *outputs)))
            status = self.calls.plugin_run(major, ctypes.c_void_p(plugin), tensors, len(arrays), len(outputs))
            assert status == 0, f"the plugin answered {status}"
        finally:
            self.calls.plugin_destroy(major, ctypes.c_void_p(plugin))
        return outputs


def _poisoned(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Memory in which nobody has written shows: NaN, or bytes of 170."""
    array = np.empty(shape, dtype)
    array.view(np.uint8)[...] = 0xFF if np.issubdtype(dtype, np.floating) else 0xAA
    return array
