"""The machine that is measured: its TensorRT, its versions, and the state of its GPU."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess

from zoo.driver import cuda_version, device_name, driver_problem, pci_bus_id
from zoo.errors import ZooError
from zoo.trt import Api, load

_STATE = {
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "max_sm_mhz": "clocks.max.sm",
    "temperature_c": "temperature.gpu",
    "power_w": "power.draw",
}


def tensorrt_on_gpu() -> Api:
    """Full TensorRT. Raises ZooError when it or a GPU is missing."""
    problem = driver_problem()
    if problem:
        raise ZooError(f"{problem}; this measures on a GPU")
    return load("tensorrt")


def machine() -> dict[str, str]:
    """What results were measured on: GPU, driver, versions, processor, date."""
    return {
        "gpu": device_name() or "none",
        "driver": smi("driver_version") or "unknown",
        "cuda": cuda_version() or "none",
        "tensorrt": _tensorrt_version(),
        "python": platform.python_version(),
        "cpus": str(os.cpu_count()),
        "date": datetime.date.today().isoformat(),
    }


def gpu_state() -> dict[str, str]:
    """Clocks in MHz, temperature in °C and power in W right now, as nvidia-smi says; {} where it says nothing."""
    values = smi(",".join(_STATE.values())).split(", ")
    return dict(zip(_STATE, values)) if len(values) == len(_STATE) else {}


def smi(fields: str) -> str:
    """What nvidia-smi answers for the GPU in use; empty when it is not there or refuses.

    nvidia-smi numbers GPUs in another order than CUDA and knows nothing of CUDA_VISIBLE_DEVICES.
    """
    command = ["nvidia-smi", f"--id={pci_bus_id()}", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _tensorrt_version() -> str:
    api = load()
    return f"{api.version} (RTX)" if api.rtx else api.version
