"""The shell: the library with the one TensorRT plugin, compiled at first use and kept in the cache."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import secrets
import shutil
import subprocess
from pathlib import Path

from zoo.driver import compute_capability, driver_problem
from zoo.errors import ZooError
from zoo.files import cache_folder, mark_used
from zoo.trt import Api

FORMAT = "zooop-1"  # of what the shell serialises: engines hold it
SOURCES = Path(__file__).with_name("shell")
_EXPORTS = SOURCES / "exports.map"
_OPTIONS = ("-O2", "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-s")
# With its own C++ runtime inside, and hidden: the process may have another, Python's or TensorRT's. Where there is only
# the shared one, that one.
_RUNTIMES = (("-static-libstdc++", "-static-libgcc"), ())
_COMPILERS = ("c++", "g++", "clang++")
_WAY_OUT = "use --plugins native"


def compiler() -> str | None:
    """The C++ compiler: $CXX, or the first of c++, g++ and clang++ that is there."""
    return next((path for name in (os.environ.get("CXX"), *_COMPILERS) if name and (path := shutil.which(name))), None)


def why_no_kernels() -> str | None:
    """Why kernels of our own cannot be used on this machine, or None when they can."""
    problem = driver_problem()
    if problem:
        return problem
    if compiler() is None and not library_path().exists():
        return "there is no C++ compiler (c++, g++ or clang++, or CXX), which compiles the shell once"
    try:
        from zoo.nvrtc import library

        library()
    except ZooError as error:
        return str(error)
    return None


def library_path() -> Path:
    """Where the compiled shell is, or will be: one file for each state of its sources, and of how they are compiled."""
    sources = b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir())) + repr((_OPTIONS, _RUNTIMES)).encode()
    return cache_folder() / f"libzoo_plugins-{hashlib.sha256(sources).hexdigest()[:16]}.so"


def build() -> Path:
    """The compiled shell, which takes two seconds at first use. Raises ZooError with the compiler's words.

    The file appears whole or not at all; of two processes that compile it at once, the last one's stays.
    """
    path = library_path()
    if path.exists():
        mark_used(path)
        return path
    tool = compiler()
    if tool is None:
        raise ZooError(f"no C++ compiler was found (c++, g++ or clang++, or CXX) for the plugins' shell; {_WAY_OUT}")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for runtime in _RUNTIMES:
            options = (*_OPTIONS, f"-Wl,--version-script={_EXPORTS}", *runtime)
            command = [tool, *options, "-o", str(temporary), str(SOURCES / "shell.cpp"), "-ldl"]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode == 0:
                break
        else:
            words = (result.stderr or result.stdout).strip().splitlines() or ["no reason given"]
            raise ZooError(f"{tool} cannot compile the plugins' shell: {words[0]}; {_WAY_OUT}")
        os.replace(temporary, path)
    except OSError as error:
        raise ZooError(f"the plugins' shell cannot be written to {path}: {error.strerror}; {_WAY_OUT}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


@functools.cache
def load(path: Path | None = None) -> ctypes.CDLL:
    """The shell in this process, compiled if need be. Raises ZooError when it is another format than this zoo's."""
    path = path or build()
    try:
        library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        library.zoo_format.restype = ctypes.c_char_p
        library.zoo_register.restype = ctypes.c_bool
        found = library.zoo_format().decode().strip()
    except (OSError, AttributeError) as error:
        raise ZooError(
            f"the plugins' shell {path} cannot be loaded ({error}); delete it, it is compiled anew"
        ) from None
    if found != FORMAT:
        raise ZooError(f"the plugins' shell {path} has the format {found}, this zoo needs {FORMAT}; delete that file")
    return library


def register(api: Api) -> None:
    """Makes TensorRT know the shell's plugin. Raises ZooError when it does not take it."""
    if not load().zoo_register():
        raise ZooError(
            f"{api.name} did not take the plugin of {library_path()}: {api.log.drain() or 'no reason given'}"
        )


def gpu_generation() -> str:
    """The compute capability that kernels are compiled for. Raises ZooError without a GPU."""
    capability = compute_capability()
    if capability is None:
        raise ZooError(f"kernels are compiled for the GPU at hand: {driver_problem()}; {_WAY_OUT}")
    return capability
