"""The few CUDA calls that the runtime needs, over cuda-python (default) or PyCUDA. Nothing here knows TensorRT.

`provider(name)` gives a `Cuda`. Every call must run inside `with cuda.active():`, which makes the device's primary
context, the one that TensorRT and PyTorch use too, current in the calling thread and puts the caller's own back.
"""

from __future__ import annotations

import functools
import threading

from zoo.driver import driver_problem
from zoo.errors import ZooError
from zoo.runtime.cuda.base import LEGACY_STREAM, Buffer, Cuda, Device, Stream
from zoo.runtime.cuda.bindings import CudaPython
from zoo.runtime.cuda.pycuda import PyCuda

__all__ = ["LEGACY_STREAM", "PROVIDERS", "Buffer", "Cuda", "Device", "Stream", "provider"]

PROVIDERS = {"cuda-python": CudaPython, "pycuda": PyCuda}

_providers_lock = threading.Lock()


def provider(name: str = "cuda-python", device: int = 0) -> Cuda:
    """The `Cuda` of the package `name` for one device. Raises ZooError when the package or the driver is missing."""
    with _providers_lock:
        return _provider(name, device)


@functools.cache
def _provider(name: str, device: int) -> Cuda:
    if name not in PROVIDERS:
        raise ZooError(f"unknown CUDA package '{name}'; choose one of {', '.join(PROVIDERS)}")
    problem = driver_problem()
    if problem:
        raise ZooError(f"{problem}; use --device cpu to run without a GPU")
    try:
        return PROVIDERS[name](device)
    except ImportError as error:
        package = ".[gpu]" if name == "cuda-python" else ".[pycuda]"
        raise ZooError(f'{name} cannot be imported ({error}); install it: pip install -e "{package}"') from error
