"""What PyTorch's modules, functions and methods are called here, and which of their settings an op takes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

NOT_SAID = object()  # the default of a setting that has none: it is always written


@dataclass(frozen=True)
class Setting:
    """One setting of a call: written by position or as `name=`, and left out where it is the op's `default`."""

    name: str
    value: Any
    default: Any = NOT_SAID
    positional: bool = False


@dataclass(frozen=True)
class Op:
    """A call of one of our ops; `tensors` are the places of its inputs among the arguments of PyTorch's call."""

    name: str
    settings: tuple[Setting, ...] = ()
    tensors: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Unknown:
    """What has no translation, in PyTorch's words."""

    words: str


NOTHING = Op("")  # does nothing at inference
ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu", nn.ReLU6: "relu6", nn.SiLU: "silu", nn.Hardswish: "hardswish", nn.Hardsigmoid: "hardsigmoid",
    nn.Sigmoid: "sigmoid", nn.Tanh: "tanh", nn.Mish: "mish", nn.Softplus: "softplus",
}  # fmt: skip
IDLE = ("Identity", "Dropout", "Dropout2d", "DropPath", "StochasticDepth", "DropBlock2d")


def _number(pair: Any) -> Any:
    """3 for (3, 3), what else as it is."""
    return pair[0] if isinstance(pair, tuple) and len(set(pair)) == 1 else pair


def _convolution(m: Any, transposed: bool = False) -> Op | Unknown:
    if m.padding_mode != "zeros" or isinstance(m.padding, str) and m.padding != "valid":
        return Unknown(str(m))
    pad, kept = (
        m.padding if m.padding != "valid" else (0, 0),
        tuple(d * (k - 1) // 2 for d, k in zip(m.dilation, m.kernel_size)),
    )
    settings = [
        Setting("out", m.out_channels, positional=True),
        Setting("k", _number(m.kernel_size), positional=True),
        Setting("stride", _number(m.stride), 1),
        Setting("pad", _number(pad), 0 if transposed else _number(kept)),
        Setting("groups", m.groups, 1),
        Setting("bias", m.bias is not None, True),
    ]
    if transposed:
        settings.append(Setting("output_pad", _number(m.output_padding), 0))
        return Unknown(str(m)) if _number(m.dilation) != 1 else Op("conv_transpose2d", tuple(settings))
    return Op("conv2d", (*settings, Setting("dilation", _number(m.dilation), 1)))


def _pool(name: str, m: Any) -> Op | Unknown:
    if (
        _number(getattr(m, "dilation", 1)) != 1
        or getattr(m, "divisor_override", None)
        or getattr(m, "return_indices", False)
    ):
        return Unknown(str(m))
    k = _number(m.kernel_size)
    settings = [
        Setting("k", k, positional=True),
        Setting("stride", _number(m.stride), k),
        Setting("pad", _number(m.padding), 0),
        Setting("ceil_mode", m.ceil_mode, False),
    ]
    if name == "avg_pool":
        settings.append(Setting("count_include_pad", m.count_include_pad, True))
    return Op(name, tuple(settings))


def _adaptive(out: Any) -> Op:
    out = _number(tuple(out) if isinstance(out, (list, tuple)) else out)
    return Op("global_avg_pool") if out == 1 else Op("adaptive_avg_pool", (Setting("out", out, positional=True),))


def _upsample(size: Any, factor: Any, mode: str, corners: bool | None) -> Op | Unknown:
    if mode not in ("nearest", "bilinear", "bicubic"):
        return Unknown(f"interpolate(mode={mode!r})")
    factor = _number(tuple(factor)) if isinstance(factor, (list, tuple)) else factor
    size = tuple(size) if isinstance(size, (list, tuple)) else size
    return Op(
        "upsample",
        (
            Setting("factor", int(factor) if factor is not None and factor == int(factor) else factor, None),
            Setting("size", (size, size) if isinstance(size, int) else size, None),
            Setting("mode", mode, "nearest"),
            Setting("align_corners", bool(corners), False),
        ),
    )


def _norm(name: str, m: Any, *settings: Setting, affine: bool) -> Op | Unknown:
    return Op(name, (*settings, Setting("eps", m.eps, 1e-5))) if affine else Unknown(str(m))


MODULES: dict[type[nn.Module], Callable[[Any], Op | Unknown]] = {
    nn.Conv2d: _convolution,
    nn.ConvTranspose2d: lambda m: _convolution(m, transposed=True),
    nn.Linear: lambda m: Op("linear", (Setting("out", m.out_features, positional=True),
                                       Setting("bias", "bias" if m.bias is not None else None, "bias"))),
    nn.BatchNorm2d: lambda m: _norm("batch_norm", m, affine=m.affine and m.track_running_stats),
    nn.BatchNorm1d: lambda m: _norm("batch_norm1d", m, affine=m.affine and m.track_running_stats),
    nn.LayerNorm: lambda m: _norm("layer_norm", m, affine=m.elementwise_affine and len(m.normalized_shape) == 1),
    nn.GroupNorm: lambda m: _norm("group_norm", m, Setting("groups", m.num_groups, positional=True), affine=m.affine),
    nn.MaxPool2d: lambda m: _pool("max_pool", m),
    nn.AvgPool2d: lambda m: _pool("avg_pool", m),
    nn.AdaptiveAvgPool2d: lambda m: _adaptive(m.output_size),
    nn.Upsample: lambda m: _upsample(m.size, m.scale_factor, m.mode, m.align_corners),
    nn.Flatten: lambda m: Op("flatten") if (m.start_dim, m.end_dim) == (1, -1) else Unknown(str(m)),
    nn.GELU: lambda m: Op("gelu" if m.approximate == "none" else "gelu_tanh"),
    nn.LeakyReLU: lambda m: Op("leaky_relu", (Setting("slope", m.negative_slope, 0.01),)),
    nn.PReLU: lambda m: Op("prelu", (Setting("slopes", m.num_parameters, 1),)),
    nn.PixelShuffle: lambda m: Op("pixel_shuffle", (Setting("factor", m.upscale_factor, positional=True),)),
    nn.Softmax: lambda m: Op("softmax", (Setting("axis", m.dim, positional=True),)),
    **{kind: (lambda m, name=name: Op(name)) for kind, name in ACTIVATIONS.items()},
}  # fmt: skip


class Name(str):
    """A name of ours as a setting's value."""

    def __repr__(self) -> str:
        return str(self)


def _norm_and_activation(m: Any) -> Op | Unknown:
    """timm's BatchNormAct2d, which `follow` joins with the convolution before it."""
    act = NOTHING if type(m.act).__name__ in IDLE else module(m.act)
    if not isinstance(act, Op) or act.settings:
        return Unknown(str(m))
    activation = Name(act.name) if act.name else None
    return Op("batch_norm_act", (Setting("eps", m.eps, 1e-5), Setting("activation", activation, None)))


def module(m: nn.Module) -> Op | Unknown | None:
    """The op of a module; None where its own code is to be read."""
    if type(m).__name__ == "BatchNormAct2d":
        return _norm_and_activation(m)
    kind = nn.Linear if isinstance(m, nn.Linear) and type(m).__name__ == "Linear" else type(m)  # timm has its own
    if kind in MODULES:
        return MODULES[kind](m)
    return NOTHING if type(m).__name__ in IDLE else None


@dataclass
class Call:
    """A function or method as it was called: `args` and `kwargs` with the values that tensors had, or None for what
    was no tensor's; `shapes` are those of its first input and of its result."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    shape: tuple[int, ...] = ()
    result: Any = None

    def of(self, place: int, name: str, default: Any = None) -> Any:
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)


def _axes(call: Call, *axes: int) -> tuple[int, ...]:
    return tuple(axis % len(call.shape) for axis in axes)


def _mean(call: Call) -> Op:
    axes = call.of(1, "dim")
    axes = _axes(call, *(axes if isinstance(axes, (list, tuple)) else (axes,)))
    keep = bool(call.of(2, "keepdim", False))
    return Op("reduce_mean", (Setting("axes", _number(axes) if len(axes) == 1 else axes, positional=True),
                              Setting("keepdims", keep, False)))  # fmt: skip


def _view(call: Call) -> Op | Unknown:
    shape = tuple(call.result.shape)
    if len(shape) == 2 and shape[1] == torch.Size(call.shape[1:]).numel():
        return Op("flatten")
    kept = next((i for i in range(1, len(shape)) if call.shape[i : i + 1] != shape[i : i + 1]), len(shape))
    rest = shape[kept:] if len(shape) - kept > 1 else (-1,) * (len(shape) - kept)
    return Op("reshape", (Setting("shape", (0,) * kept + rest, positional=True),))


def _permute(call: Call) -> Op:
    axes = call.args[1:] if len(call.args) > 2 else call.of(1, "dims")
    return Op("transpose", (Setting("axes", _axes(call, *axes), positional=True),))


def _swap(call: Call) -> Op:
    a, b = _axes(call, call.of(1, "dim0"), call.of(2, "dim1"))
    axes = list(range(len(call.shape)))
    axes[a], axes[b] = b, a
    return Op("transpose", (Setting("axes", tuple(axes), positional=True),))


def _split(call: Call) -> Op:
    axis = _axes(call, call.of(2, "dim", 0))[0]
    sizes = tuple(part.shape[axis] for part in call.result)
    return Op("split", (Setting("sizes", sizes, positional=True), Setting("axis", axis, 1)))


def _pooled(name: str) -> Callable[[Call], Op]:
    def op(call: Call) -> Op:
        k = _number(call.of(1, "kernel_size"))
        return Op(name, (Setting("k", k, positional=True), Setting("stride", _number(call.of(2, "stride", k)) or k, k),
                         Setting("pad", _number(call.of(3, "padding", 0)), 0)))  # fmt: skip

    return op


def _flatten(call: Call) -> Op | Unknown:
    return Op("flatten") if call.of(1, "start_dim", 0) == 1 and call.of(2, "end_dim", -1) == -1 else _view(call)


def _concat(call: Call) -> Op:
    return Op("concat", (Setting("axis", call.of(1, "dim", 0), 1),))


def _binary(name: str) -> Callable[[Call], Op]:
    return lambda call: Op(name, tensors=(0, 1))


def _plain(name: str) -> Callable[[Call], Op]:
    return lambda call: Op(name)


def _idle(call: Call) -> Op:
    return NOTHING


_BINARY = {
    "add": (torch.add, operator.add, operator.iadd, "add", "add_"),
    "mul": (torch.mul, operator.mul, operator.imul, "mul", "mul_"),
    "sub": (torch.sub, operator.sub, operator.isub, "sub", "sub_"),
    "div": (torch.div, operator.truediv, "div"),
    "matmul": (torch.matmul, operator.matmul, "matmul"),
}
_UNARY = {
    "relu": (F.relu, torch.relu, "relu", "relu_"),
    "relu6": (F.relu6,),
    "silu": (F.silu,),
    "gelu": (F.gelu,),
    "mish": (F.mish,),
    "sigmoid": (F.sigmoid, torch.sigmoid, "sigmoid"),
    "hardsigmoid": (F.hardsigmoid,),
    "hardswish": (F.hardswish,),
    "tanh": (F.tanh, torch.tanh, "tanh"),
}
FUNCTIONS: dict[Any, Callable[[Call], Op | Unknown]] = {
    **{function: _binary(name) for name, functions in _BINARY.items() for function in functions},
    **{function: _plain(name) for name, functions in _UNARY.items() for function in functions},
    **dict.fromkeys((torch.cat, torch.concat), _concat),
    **dict.fromkeys((torch.flatten, "flatten"), _flatten),
    **dict.fromkeys(("view", "reshape", torch.reshape, "squeeze", torch.squeeze, "unsqueeze", torch.unsqueeze), _view),
    **dict.fromkeys(("permute", torch.permute), _permute),
    **dict.fromkeys(("transpose", torch.transpose), _swap),
    **dict.fromkeys(("chunk", torch.chunk, "split", torch.split), _split),
    **dict.fromkeys(("mean", torch.mean), _mean),
    **dict.fromkeys((F.dropout, "contiguous", "detach", "clone"), _idle),
    F.adaptive_avg_pool2d: lambda call: _adaptive(call.of(1, "output_size")),
    F.max_pool2d: _pooled("max_pool"),
    torch.max_pool2d: _pooled("max_pool"),
    F.avg_pool2d: _pooled("avg_pool"),
    F.interpolate: lambda call: _upsample(call.of(1, "size"), call.of(2, "scale_factor"), call.of(3, "mode", "nearest"),
                                          call.of(4, "align_corners")),
    F.softmax: lambda call: Op("softmax", (Setting("axis", _axes(call, call.of(1, "dim"))[0], positional=True),)),
    "softmax": lambda call: Op("softmax", (Setting("axis", _axes(call, call.of(1, "dim"))[0], positional=True),)),
}  # fmt: skip


def function(target: Any, call: Call) -> Op | Unknown | None:
    """The op of a function, or of a method by its name; None for one that is not known."""
    known = FUNCTIONS.get(target)
    return None if known is None else known(call)
