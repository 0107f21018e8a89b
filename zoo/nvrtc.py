"""CUDA C++ compiled at run time for the GPU at hand, and kept in ~/.cache/zoo."""

from __future__ import annotations

import ctypes
import functools
import glob
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.files import cache_folder, mark_used, replacing

_OPTIONS = ("--std=c++17",)
_EXACT = ("--fmad=false",)  # separate multiply and add, as numpy computes


@functools.cache
def library() -> ctypes.CDLL:
    """NVIDIA's run-time compiler, from $CUDA_HOME, LD_LIBRARY_PATH or a pip package. Raises ZooError without one."""
    for path in _paths():
        try:
            found = ctypes.CDLL(path)
        except OSError:
            continue
        found.nvrtcGetErrorString.restype = ctypes.c_char_p
        return found
    raise ZooError(
        "NVRTC (libnvrtc.so), which compiles the GPU kernels, was not found; install it: pip install nvidia-cuda-nvrtc "
        "(nvidia-cuda-nvrtc-cu12 for CUDA 12), or set CUDA_HOME to a CUDA toolkit"
    )


def _paths() -> list[str]:
    """Where libnvrtc may be, best first; plain names go through LD_LIBRARY_PATH and the system's cache."""
    names = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]
    found: list[str] = []
    for home in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")):
        if home:
            found += [f"{home}/{folder}/{name}" for folder in ("lib64", "lib") for name in names]
    found += names
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        found.append(load_nvidia_dynamic_lib("nvrtc").abs_path)
    except Exception:  # the package is optional, and raises its own error when it finds nothing
        pass
    for folder in sys.path:
        found += sorted(glob.glob(f"{glob.escape(folder)}/nvidia/*/lib/libnvrtc.so.*"), reverse=True)
    found += [f"/usr/local/cuda/lib64/{name}" for name in names]
    return found


def version() -> tuple[int, int]:
    """The compiler's CUDA version, such as (13, 0)."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def compile_source(source: str, name: str, compute_capability: str, *, exact: bool = True) -> bytes:
    """CUDA C++ compiled for one GPU generation («9.0»): machine code, or PTX when the compiler is older than the GPU.

    `exact` keeps products and sums apart; without it they may be fused, which is faster and rounds once less.
    The result is kept under $XDG_CACHE_HOME/zoo, keyed by source, generation and compiler version. Raises ZooError with
    the compiler's log.
    """
    options = (*_OPTIONS, *_EXACT) if exact else _OPTIONS
    key = hashlib.sha256(repr((source, name, compute_capability, version(), options)).encode()).hexdigest()[:32]
    file = f"{Path(name).stem}-{key}.bin"
    image = _kept(file)
    if image is None:
        image = _compile(source, name, int(compute_capability.replace(".", "")), options)
        _keep(file, image)
    return image


def _kept(file: str) -> bytes | None:
    """The machine code that is kept under this name; None where there is none or it is damaged."""
    try:
        path = cache_folder() / file
        image = machine_code(path.read_bytes())
    except (OSError, ZooError):
        return None
    mark_used(path)
    return image


def machine_code(data: bytes) -> bytes | None:
    """What a kept file holds after its hash; None for a damaged one."""
    digest, image = data[:32], data[32:]
    return image if hashlib.sha256(image).digest() == digest else None


def _compile(source: str, name: str, generation: int, extra: tuple[str, ...]) -> bytes:
    nvrtc, program = library(), ctypes.c_void_p()
    count = ctypes.c_int()
    _check(nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    known = (ctypes.c_int * count.value)()
    _check(nvrtc.nvrtcGetSupportedArchs(known))
    native = generation in list(known)
    if not native and generation < max(known):
        raise ZooError(f"NVRTC {'.'.join(map(str, version()))} cannot compile for compute capability {generation / 10}")
    target = f"sm_{generation}" if native else f"compute_{max(known)}"
    options = [option.encode() for option in (f"--gpu-architecture={target}", *extra)]
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None))
    try:
        code = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        if code != 0:
            log = _output(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
            raise ZooError(f"{name} does not compile for {target}: {log.rstrip(bytes(1)).decode(errors='replace')}")
        if native:
            return _output(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
        return _output(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _output(get_size: Any, get: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(get_size(program, ctypes.byref(size)))
    data = ctypes.create_string_buffer(size.value)
    _check(get(program, data))
    return data.raw


def _check(code: int) -> None:
    if code != 0:
        raise ZooError(f"NVRTC failed: {library().nvrtcGetErrorString(code).decode()}")


def _keep(name: str, image: bytes) -> None:
    """Writes a cache file; a folder that cannot be written costs a compilation next time, no more."""
    try:
        with replacing(cache_folder() / name) as file:
            file.write(hashlib.sha256(image).digest() + image)
    except ZooError:
        pass
