"""The few CUDA calls that the runtime needs, over cuda-python (default) or PyCUDA. Nothing here knows TensorRT.

`provider(name)` gives a `Cuda`. Every call must run inside `with cuda.active():`, which makes the device's primary
context, the one that TensorRT and PyTorch use too, current in the calling thread and puts the caller's own back.
"""

from __future__ import annotations

import os
import threading

from zoo.driver import driver_problem
from zoo.errors import ZooError
from zoo.runtime.cuda.base import FORKED, LEGACY_STREAM, Buffer, Cuda, Device, Event, Graph, Stream
from zoo.runtime.cuda.bindings import CudaPython
from zoo.runtime.cuda.pycuda import PyCuda

__all__ = ["FORKED", "LEGACY_STREAM", "PROVIDERS", "Buffer", "Cuda", "Device", "Event", "Graph", "Stream", "provider"]

PROVIDERS = {"cuda-python": CudaPython, "pycuda": PyCuda}

_providers: list[tuple[str, object, Cuda]] = []  # no dict: PyCUDA's contexts can be compared, which is all they promise
_lock = threading.Lock()


def provider(name: str = "cuda-python", device: int = 0) -> Cuda:
    """The `Cuda` of the package `name` for one device. Raises ZooError when the package or the driver is missing.

    With PyCUDA, whose context may change, it is that of the context that is current now.
    """
    if name not in PROVIDERS:
        raise ZooError(f"unknown CUDA package '{name}'; choose one of {', '.join(PROVIDERS)}")
    problem = driver_problem()
    if problem:
        raise ZooError(f"{problem}; use --device cpu to run without a GPU")
    with _lock:
        try:
            context = PROVIDERS[name].context(device)
            for known, its_context, cuda in _providers:
                if known == name and its_context == context:
                    return cuda
            cuda = PROVIDERS[name](context)
            _providers.append((name, context, cuda))
            return cuda
        except ImportError as error:
            extra = "gpu" if name == "cuda-python" else "pycuda"
            raise ZooError(
                f'{name} cannot be imported ({error}); install it: pip install "tensorrt-zoo[{extra}]"'
            ) from error


def _forget() -> None:
    """In a forked process: nothing of the parent's CUDA works there, and its lock may have been taken."""
    global _lock
    _lock = threading.Lock()
    _providers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
