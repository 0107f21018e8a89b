"""An op as a plugin layer of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import Refused, ZooError
from zoo.network import Net, Tensor
from zoo.plugins.core import shell
from zoo.plugins.core.kernels import declaration, image, spec

if TYPE_CHECKING:
    from zoo.plugins.core.op import Op

NONE_IN_RTX = "TensorRT-RTX has no plugins; use --plugins native, whose layers it compiles"


def add_plugin(net: Net, op: Op, inputs: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """`op` by its kernels, through the shell's plugin."""
    api, cuda = net.definition.api, declaration(op)
    if net.definition.api.rtx:
        raise ZooError(NONE_IN_RTX)
    shell.register(api)
    binary = image(op, cuda, shell.gpu_generation())
    text = np.frombuffer(spec(op, cuda).encode(), np.int8)
    plugin = _create(net, "ZooOp", "1", {"spec": text, "image": np.frombuffer(binary, np.int8)})
    half = "fp16" in cuda.types and net.definition.precision.name == "fp16" and not net.island
    takes, gives = cuda.types["fp16" if half else "fp32"].split(">")
    if api.strong:
        inputs = [_as(net, x, letter) for x, letter in zip(inputs, takes)]
    layer = net.network.add_plugin_v2(list(inputs), plugin)
    if layer is not None and half:
        _constrain(net, layer, takes, gives)
    first = net.step(layer, op.name, *inputs)
    if len(op.outputs) == 1:
        return first
    rest = tuple(layer.get_output(i) for i in range(1, layer.num_outputs))
    for name, tensor in zip(op.outputs[1:], rest):
        tensor.name = f"{layer.name}.{name}"
    return (first, *rest)


def add_builtin(net: Net, name: str, inputs: Sequence[Tensor], version: str = "1", **fields: Any) -> tuple[Tensor, ...]:
    """A plugin of NVIDIA's own library; `fields` are int, float or lists of them."""
    trt = net.trt
    if net.definition.api.rtx:
        raise ZooError(NONE_IN_RTX)
    trt.init_libnvinfer_plugins(net.definition.api.log.logger, "")
    arrays = {
        key: np.array(value, np.float32 if isinstance(value, float) else np.int32) for key, value in fields.items()
    }
    layer = net.network.add_plugin_v2(list(inputs), _create(net, name, version, arrays))
    first = net.step(layer, name, *inputs)
    return first, *(layer.get_output(i) for i in range(1, layer.num_outputs))


def _create(net: Net, name: str, version: str, fields: Mapping[str, np.ndarray]) -> Any:
    """A plugin object by its creator's name."""
    api, trt = net.definition.api, net.trt
    if net.definition.api.rtx:
        raise ZooError(NONE_IN_RTX)
    registry = trt.get_plugin_registry()
    if hasattr(registry, "get_creator"):
        creator = registry.get_creator(name, version, "")
    else:
        creator = registry.get_plugin_creator(name, version, "")
    if creator is None:
        raise ZooError(f"{api.name} has no plugin {name} {version}, which '{net.scope}' needs; use --plugins native")
    kinds = {
        "int8": trt.PluginFieldType.CHAR,
        "int32": trt.PluginFieldType.INT32,
        "float32": trt.PluginFieldType.FLOAT32,
    }
    net.definition.keep.append(fields)
    given = [trt.PluginField(key, np.atleast_1d(data), kinds[data.dtype.name]) for key, data in fields.items()]
    plugin = creator.create_plugin(net.scope or name, trt.PluginFieldCollection(given))
    if plugin is None:
        raise Refused(f"{api.name} refused to create {name} at '{net.scope}': {api.log.drain() or 'no reason given'}")
    return plugin


def _as(net: Net, x: Tensor, letter: str) -> Tensor:
    """`x` in the element type of a letter (strongly typed networks: the others let TensorRT convert)."""
    dtype = _dtype(net, letter)
    return x if x.dtype == dtype else net.step(net.network.add_cast(x, dtype), "cast", x)


def _constrain(net: Net, layer: Any, takes: str, gives: str) -> None:
    """Asks a weakly typed network for the half-precision kernel, which it would otherwise take or leave.

    A layer's precision is that of all its inputs: where the kernel takes some in single precision, as coordinates, only
    the types of its outputs can be asked for.
    """
    if net.definition.api.strong:
        return
    net.definition.has_islands = True
    if "f" not in takes:
        layer.precision = net.trt.float16
    for i, letter in enumerate(gives):
        layer.set_output_type(i, _dtype(net, letter))


def _dtype(net: Net, letter: str) -> Any:
    """The element type of a letter. TensorRT 8.6 has no bytes to compute with before 8.6.1."""
    trt = net.trt
    return {"f": trt.float32, "h": trt.float16, "i": trt.int32, "u": getattr(trt, "uint8", None)}[letter]
