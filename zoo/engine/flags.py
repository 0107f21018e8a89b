"""What an engine can do beyond running fast where it was built. Each costs speed, size or freedom, so none is usual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from zoo.driver import has_driver
from zoo.errors import ZooError
from zoo.network import Definition
from zoo.trt import Api


@dataclass(frozen=True)
class Flags:
    """`version_compatible`: later versions of TensorRT load it, by a runtime that it carries. `hardware_compatible`:
    any GPU from Ampere on runs it. `refit`: `zoo.refit` puts other weights in. `strip_plan`: the file has no weights,
    and `zoo.refit` puts them in (the same; any with `refit`). `sparsity`: kernels for weights of which two of four are
    zero. `dla`: the deep learning accelerator of this number runs what it can, the GPU the rest.
    """

    version_compatible: bool = False
    hardware_compatible: bool = False
    refit: bool = False
    strip_plan: bool = False
    sparsity: bool = False
    dla: int | None = None

    def __post_init__(self) -> None:
        if self.dla is not None and (type(self.dla) is not int or self.dla < 0):
            raise ZooError(f"the DLA core is {self.dla!r}; it must be a number, the first is 0")


def configure(definition: Definition, config: Any, flags: Flags) -> None:
    """Sets `flags` on a builder config. Raises ZooError for what this TensorRT or this GPU cannot do."""
    api, trt = definition.api, definition.api.trt
    reason = why_not(api, flags)
    if reason:
        raise ZooError(reason)
    if flags.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if flags.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if flags.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if flags.strip_plan and hasattr(trt.BuilderFlag, "STRIP_PLAN"):
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        if not flags.refit:
            config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
    if flags.sparsity:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if flags.dla is not None:
        _use_dla(definition, config, flags.dla)


def why_not(api: Api, flags: Flags) -> str | None:
    """Why this TensorRT cannot build with `flags`, in one sentence, or None."""
    if flags.strip_plan and not hasattr(api.trt.BuilderFlag, "STRIP_PLAN"):
        return f"{api.name} cannot leave weights out of an engine, TensorRT 10 or later can: leave --strip-plan away"
    if not api.rtx:
        return None
    if flags.version_compatible:
        return f"an engine of {api.name} loads only in that version: leave --version-compatible away"
    if flags.hardware_compatible:
        return f"{api.name} compiles for all GPUs from Ampere on anyway: leave --hardware-compatible away"
    if (flags.refit or flags.strip_plan) and not has_driver():
        name = "--refit" if flags.refit else "--strip-plan"
        return f"{api.name} compiles engines whose weights can be replaced only where a GPU is: leave {name} away"
    return None


def _use_dla(definition: Definition, config: Any, core: int) -> None:
    trt, builder, precision = definition.api.trt, definition.builder, definition.precision.name
    if builder.num_DLA_cores <= core:
        raise ZooError(
            f"there is no DLA core {core} on this machine, which has {builder.num_DLA_cores}; Jetson's and DRIVE's "
            "chips have them: leave --dla away"
        )
    if precision not in ("fp16", "int8"):
        raise ZooError(f"the DLA computes in fp16 and int8, not in {precision}: give --fp16 or --int8")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def flags_of(description: Mapping[str, Any]) -> Flags:
    """The flags of a description."""
    return Flags(**(description.get("flags") or {}))


def describe(flags: Flags) -> dict[str, Any]:
    """What an engine's description says: those that are set."""
    return {name: value for name, value in asdict(flags).items() if value not in (False, None)}


def command_options(flags: Flags) -> str:
    """The options of zoo.build that ask for `flags`."""
    chosen = describe(flags)
    return "".join(f" --{name.replace('_', '-')}" + (f" {v}" if v is not True else "") for name, v in chosen.items())


def check_host_code(description: Mapping[str, Any], host_code: bool) -> None:
    """Raises ZooError for an engine that carries a runtime, unless it may run that."""
    if flags_of(description).version_compatible and not host_code:
        raise ZooError(
            "the engine carries a runtime of TensorRT, which runs when it is loaded; allow it with --host-code"
        )
