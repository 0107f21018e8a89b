"""Where a network runs, as users say it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from zoo.errors import ZooError


@dataclass(frozen=True)
class Device:
    """The CPU, or the GPU with this index (as CUDA counts those that CUDA_VISIBLE_DEVICES leaves); "auto" is the first
    GPU where one can be used, else the CPU."""

    kind: Literal["auto", "cpu", "gpu"]
    index: int = 0


def parse_device(device: str | int) -> Device:
    """«auto», «cpu», «gpu» or «cuda», with an index «gpu:1», «cuda:1» or just 1. Raises ZooError for anything else."""
    if isinstance(device, int) and not isinstance(device, bool):
        device = str(device)
    if isinstance(device, (list, tuple)) or (isinstance(device, str) and "," in device):
        raise ZooError(
            f"the device is {device!r}; a session is on one GPU: load one for each, or let zoo.run or zoo.batch share "
            "pictures out with --device 0,1"
        )
    text = device if isinstance(device, str) else ""
    match = re.fullmatch(r"(auto|cpu)|(?:gpu|cuda)|(?:(?:gpu|cuda):)?([0-9]{1,3})", text)
    if match is None:
        raise ZooError(f"the device is {device!r}; it must be cpu, gpu or auto, or a certain GPU: gpu:1")
    return Device(match[1] or "gpu", int(match[2] or 0))  # type: ignore[arg-type]


def named_gpus(device: str) -> tuple[int, ...]:
    """The GPUs that «1», «gpu:1», «0,1», «cuda:0,1» or «gpu:0,gpu:1» name, in this order; none for auto, cpu and gpu.

    Raises ZooError for anything else, and for a GPU that is named twice.
    """
    if "," not in device:
        where = parse_device(device)
        return (where.index,) if re.search("[0-9]", device) else ()
    parts = device.split(",")
    if not all(re.fullmatch("(?:(?:gpu|cuda):)?[0-9]{1,3}", part) for part in parts):
        raise ZooError(f"the device is {device!r}; several GPUs are named by their numbers: 0,1")
    numbers = tuple(parse_device(part).index for part in parts)
    for number in numbers:
        if numbers.count(number) > 1:
            raise ZooError(f"the device is {device!r}, which names gpu:{number} twice; name each GPU once")
    return numbers
