"""The CUDA driver, asked through ctypes: whether it is there and what GPU it sees. Never raises, never crashes.

TensorRT and CUDA packages may crash or hang on a machine without a driver, so this is asked before any of them is used.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import NamedTuple

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


def library_name(system: str) -> str:
    """The driver's library, by `os.name`."""
    return "nvcuda.dll" if system == "nt" else "libcuda.so.1"


LIBRARY = library_name(os.name)


class _Facts(NamedTuple):
    name: str
    compute_capability: str
    pci_bus_id: str


@functools.cache
def driver_problem() -> str | None:
    """Why no GPU can be used on this machine, in a few words, or None. Never raises, never crashes."""
    try:
        driver = ctypes.CDLL(LIBRARY)
    except OSError:
        return f"no NVIDIA driver was found ({LIBRARY})"
    code, count = driver.cuInit(0), ctypes.c_int(0)
    if code == _NO_DEVICE:
        return _sees_none()
    if code == 0:
        code = driver.cuDeviceGetCount(ctypes.byref(count))
    if code != 0:
        name = ctypes.c_char_p()
        driver.cuGetErrorName(code, ctypes.byref(name))
        return f"the NVIDIA driver does not start ({(name.value or b'').decode() or code})"
    return None if count.value else _sees_none()


def _sees_none() -> str:
    """The driver works and there is no GPU, or none that CUDA_VISIBLE_DEVICES leaves."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "the NVIDIA driver sees no GPU" + ("" if visible is None else f" (CUDA_VISIBLE_DEVICES is '{visible}')")


def has_driver() -> bool:
    """True when the CUDA driver works and sees a GPU."""
    return driver_problem() is None


@functools.cache
def device_count() -> int:
    """How many GPUs the driver sees; 0 without a driver."""
    if not has_driver():
        return 0
    count = ctypes.c_int()
    ctypes.CDLL(LIBRARY).cuDeviceGetCount(ctypes.byref(count))
    return count.value


def cuda_version() -> str | None:
    """The newest CUDA that the driver knows, such as "12.4"; None without a driver."""
    if not has_driver():
        return None
    version = ctypes.c_int()
    ctypes.CDLL(LIBRARY).cuDriverGetVersion(ctypes.byref(version))
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


@functools.cache
def _device(index: int) -> _Facts | None:
    """What the driver says of a GPU, counted as CUDA_VISIBLE_DEVICES leaves them; None without it."""
    if index >= device_count():
        return None
    cuda = ctypes.CDLL(LIBRARY)
    name, major, minor = ctypes.create_string_buffer(256), ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGetName(name, len(name), index)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, index)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, index)  # … _MINOR
    bus = ctypes.create_string_buffer(32)
    cuda.cuDeviceGetPCIBusId(bus, len(bus), index)
    return _Facts(name.value.decode(), f"{major.value}.{minor.value}", bus.value.decode())


def device_name(index: int = 0) -> str | None:
    """The GPU's name, such as "NVIDIA H200"; None without a driver."""
    device = _device(index)
    return device.name if device else None


def compute_capability(index: int = 0) -> str | None:
    """The GPU's compute capability, such as "9.0"; None without a driver."""
    device = _device(index)
    return device.compute_capability if device else None


def pci_bus_id(index: int = 0) -> str | None:
    """The GPU's address on the PCI bus, such as "0000:1B:00.0", by which nvidia-smi knows it; None without a driver."""
    device = _device(index)
    return device.pci_bus_id if device else None
