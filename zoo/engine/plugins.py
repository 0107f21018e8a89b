"""Custom ops in an engine: how it is built with them, what its description says of them, what it needs to load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from zoo.errors import ZooError, one_of
from zoo.network import Definition, PluginPolicy
from zoo.plugins import find_op
from zoo.plugins.core import shell
from zoo.trt import Api


@dataclass(frozen=True)
class Plugins:
    """Which implementation custom ops take. `self_contained` puts the library of the kernels inside the engine, which
    then loads where the zoo is not installed (TensorRT 8.6 or later)."""

    policy: PluginPolicy = "auto"
    self_contained: bool = False

    def __post_init__(self) -> None:
        one_of("policy for plugins", self.policy, get_args(PluginPolicy))


def configure(definition: Definition, config: Any, plugins: Plugins) -> None:
    """Sets what a network with plugins needs on its builder config."""
    api, trt = definition.api, definition.api.trt
    if definition.plugin_ops and api.major == 8:
        # TensorRT 8 would load cuBLAS and cuDNN to hand them to plugins, and fail where they are missing
        sources = (trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS)
        config.set_tactic_sources(sum(1 << int(source) for source in sources))
    if not plugins.self_contained:
        return
    if not uses_shell(definition.plugin_ops):
        raise ZooError("--self-contained: no kernel of the zoo is in this engine, so it needs no library to load")
    if not hasattr(config, "plugins_to_serialize"):
        raise ZooError(f"{api.name} cannot keep a library inside an engine, TensorRT 8.6 or later can")
    config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
    config.plugins_to_serialize = [str(shell.build())]


def describe(definition: Definition, plugins: Plugins) -> dict[str, Any]:
    """What the engine's description says: the policy, the ops that are no layers, the shell's format."""
    ops = definition.plugin_ops
    about: dict[str, Any] = {"policy": plugins.policy, "ops": ops, "self_contained": plugins.self_contained}
    return about | ({"shell": shell.FORMAT} if uses_shell(ops) else {})


def plugins_of(description: Mapping[str, Any]) -> Plugins:
    """How the engine of a description was built."""
    about = description.get("plugins") or {}
    return Plugins(about.get("policy", "auto"), about.get("self_contained", False))


def command_options(plugins: Plugins) -> str:
    """The options of zoo.build that ask for `plugins`."""
    policy = "" if plugins.policy == "auto" else f" --plugins {plugins.policy}"
    return policy + (" --self-contained" if plugins.self_contained else "")


def uses_shell(ops: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether any op runs kernels of the zoo."""
    return any(op["implementation"] == "cuda" for op in ops.values())


def why_not_loadable(description: Mapping[str, Any]) -> str | None:
    """What an engine's custom ops lack here, or None."""
    about = description.get("plugins") or {}
    ops = about.get("ops", {})
    for name, op in ops.items():
        known = find_op(name)
        if known is None:
            return f"it was built with the plugin {name} {op['version']}, which this zoo does not have"
        if known.version != op["version"]:
            return f"it was built with the plugin {name} {op['version']}, this zoo has {name} {known.version}"
    if not uses_shell(ops):
        return None
    named = ", ".join(f"{name} {op['version']}" for name, op in ops.items() if op["implementation"] == "cuda")
    found = about.get("shell", shell.FORMAT)
    if found != shell.FORMAT:
        return f"it holds the plugins {named} as '{found}', this zoo's shell reads '{shell.FORMAT}'"
    if not about.get("self_contained") and shell.compiler() is None and not shell.library_path().exists():
        return (
            f"it needs the library {shell.library_path()} for {named}, and there is no C++ compiler (c++, g++, clang++ "
            "or CXX) to make it"
        )
    return None


def bring(description: Mapping[str, Any], api: Api, host_code: bool = False) -> None:
    """Loads what must be in the process before TensorRT reads the engine.

    Raises ZooError when the engine carries a library of its own and nobody allowed it to run.
    """
    about = description.get("plugins") or {}
    if about.get("self_contained") and not host_code:
        raise ZooError(
            "the engine carries the plugins' library, which runs when it is loaded; allow it with --host-code"
        )
    ops = about.get("ops", {})
    if any(op["implementation"] == "builtin" for op in ops.values()):
        api.trt.init_libnvinfer_plugins(api.log.logger, "")
    if uses_shell(ops) and not about.get("self_contained"):
        shell.register(api)
