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
    text = device if isinstance(device, str) else ""
    match = re.fullmatch(r"(auto|cpu)|(?:gpu|cuda)|(?:(?:gpu|cuda):)?([0-9]{1,3})", text)
    if match is None:
        raise ZooError(f"the device is {device!r}; it must be cpu, gpu or auto, or a certain GPU: gpu:1")
    return Device(match[1] or "gpu", int(match[2] or 0))  # type: ignore[arg-type]
