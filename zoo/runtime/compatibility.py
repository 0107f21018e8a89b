"""Whether an engine can run on this machine, told from its description before TensorRT is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.driver import driver_problem
from zoo.engine.flags import flags_of
from zoo.engine.plugins import why_not_loadable as why_no_plugins
from zoo.runtime.cuda import Device, provider

if TYPE_CHECKING:
    from zoo.trt import Api

_MIB = 1 << 20


def device_properties(cuda: str = "cuda-python", device: int = 0) -> Device:
    """The GPU's name, compute capability and memory. Raises ZooError when there is none."""
    gpu = provider(cuda, device)
    with gpu.active():
        return gpu.device()


def why_not_loadable(
    description: Mapping[str, Any], api: Api | None, device: Device | None, rebuild: str = ""
) -> str | None:
    """Why an engine cannot run here and how to rebuild it, in one sentence, or None when nothing speaks against it.

    `description` is what was written down when the engine was built: `flavour` («tensorrt» or «rtx»), `version`,
    `compute_capability` («9.0»; none: any) and `size` (bytes, which the GPU must hold); what is missing is not checked.
    `rebuild` is the command that builds it again. `api` is this machine's TensorRT, `device` its GPU, if any.
    """
    reason = _mismatch(description, api, device)
    if reason is None:
        return None
    return f"the engine cannot run here: {reason}" + (f"; to rebuild it: {rebuild}" if rebuild else "")


def _mismatch(description: Mapping[str, Any], api: Api | None, device: Device | None) -> str | None:
    names = {"tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}
    flavour, version = description.get("flavour"), description.get("version")
    capability, size = description.get("compute_capability"), description.get("size") or 0
    built = f"{names.get(str(flavour), 'TensorRT')} {version or ''}".rstrip()
    if device is None:
        return f"{driver_problem() or 'no GPU was found'}, and it was built by {built} for a GPU"
    if api is None:
        return f"it was built by {built}, which is not installed"
    if flavour and flavour != api.flavour:
        return f"it was built by {built}, this is {api.name}"
    flags = flags_of(description)
    if flags.strip_plan:
        return "its file has no weights: python -m zoo.refit ENGINE WEIGHTS puts them in"
    later = flags.version_compatible and _numbers(api.version) >= _numbers(str(version))
    if version and version != api.version and not later:
        return f"it was built by {built}, this is {api.name}, and engines load only in the version that built them"
    ampere = flags.hardware_compatible and _numbers(device.compute_capability) >= [8, 0]
    if capability and capability != device.compute_capability and not ampere:
        return f"it was built for compute capability {capability}, the {device.name} has {device.compute_capability}"
    if description.get("precision") == "fp8" and _numbers(device.compute_capability) < [8, 9]:
        return f"fp8 needs compute capability 8.9, the {device.name} has {device.compute_capability}"
    problem = why_no_plugins(description)
    if problem:
        return problem
    if size > device.free_memory:
        needed, free = size / _MIB, device.free_memory / _MIB
        return f"not enough memory: it needs more than {needed:.1f} MiB, {free:.1f} MiB are free on the {device.name}"
    return None


def _numbers(version: str) -> list[int]:
    """ "10.3.0" as numbers, which can be compared."""
    return [int(number) for number in re.findall("[0-9]+", version)]
