"""Every op against PyTorch: one line a case, run on the CPU through the network's ONNX, and compiled by TensorRT-RTX.

A case is a PyTorch module or function, and the same in ops, under the scope "m". Each is defined with a fixed and with
a dynamic batch. The reference runs in float64, so that the error is ours alone. BOUNDS are relative L2 errors:

fp32  one rounding costs 3e-8; the longest sum here (720 terms) shows 3e-7, and another CPU may add in another order.
      The smallest mistake worth finding, an eps of 1e-5 for 1e-6 in a normalisation, shows as 4e-6.
fp16  input, weights and every layer round to 11 bits, 2e-4 each; the longest chains show 6e-4.
bf16  the same with 8 bits, so eight times as much.
"""

from __future__ import annotations

import importlib
import re
import zlib
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Build
from torch import nn

from zoo import ops
from zoo.engine.build import compile_network
from zoo.engine.shapes import Shapes
from zoo.errors import ZooError
from zoo.network import Definition, Net, Tensor
from zoo.ops._sizes import size_of
from zoo.runtime.cpu import CpuSession
from zoo.trt import Api
from zoo.verify.torchvision_shim import import_torchvision

BOUNDS = {"fp32": 1e-6, "fp16": 1e-3, "bf16": 8e-3}


@dataclass(frozen=True)
class Case:
    name: str
    reference: Callable[[torch.Tensor], torch.Tensor]
    build: Build
    shape: tuple[int, int, int] = (8, 9, 10)  # C, H, W

    def module(self) -> nn.Module | None:
        """The reference with weights of its own: a norm's are not the 0 and 1 that PyTorch starts with."""
        if not isinstance(self.reference, nn.Module):
            return None
        random = torch.Generator().manual_seed(self.seed)
        module = deepcopy(self.reference).eval()
        for name, values in module.state_dict().items():
            if values.is_floating_point():
                low, high = (0.5, 1.5) if name.endswith("running_var") else (-0.5, 0.5)
                values.copy_(torch.rand(values.shape, generator=random) * (high - low) + low)
        return module

    def weights(self) -> dict[str, np.ndarray]:
        module = self.module()
        return {f"m.{name}": values.numpy() for name, values in module.state_dict().items()} if module else {}

    def images(self, batch: int) -> np.ndarray:
        return np.random.default_rng(self.seed).standard_normal((batch, *self.shape), np.float32)

    def expected(self, images: np.ndarray) -> np.ndarray:
        module = self.module()
        with torch.no_grad():
            return (module.double() if module else self.reference)(torch.from_numpy(images).double()).numpy()

    @property
    def seed(self) -> int:
        return zlib.crc32(self.name.encode())


def timm_layer(name: str, *args: Any, of: str = "timm.layers", **options: Any) -> nn.Module:
    import_torchvision()  # which timm imports
    return getattr(importlib.import_module(of), name)(*args, **options)


def fold(net: Net, x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H * W)."""
    return ops.reshape(net, x, (0, x.shape[1], -1))


def times(net: Net, x: Tensor, factor: float) -> Tensor:
    """x * factor, for values where an activation bends."""
    return ops.mul(net, x, net.constant(np.full((1,) * len(x.shape), factor), "factor"))


def scaled_by_ratios(net: Net, x: Tensor, y: Tensor) -> Tensor:
    """y times the ratio of the heights, plus that of the widths."""
    high, wide = (ops.ratio(net, size_of(x, axis), y, axis) for axis in (2, 3))
    return ops.add(net, ops.mul(net, y, high), wide)


def ramp(net: Net, *shape: int) -> Tensor:
    """1, 2, 3 … in this shape."""
    return net.constant(np.arange(1.0, 1 + np.prod(shape)).reshape(shape), "ramp")


def torch_ramp(*shape: int) -> torch.Tensor:
    return torch.arange(1.0, 1 + np.prod(shape)).reshape(shape).double()


class Sorted(nn.Module):
    """Channels of what comes before, in another order."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, self.order]


class OnEach(nn.Module):
    """One module on each of four groups of channels."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.one = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.one(group) for group in x.chunk(4, 1)], 1)


class Same(nn.Module):
    """A convolution after the padding that TensorFlow gives it, as timm works it out."""

    def __init__(self, one: nn.Conv2d) -> None:
        super().__init__()
        self.one = one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sides = []
        for size, k, stride, dilation in zip(x.shape[2:], self.one.kernel_size, self.one.stride, self.one.dilation):
            total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
            sides = [total // 2, total - total // 2, *sides]
        return self.one(F.pad(x, sides))


class ChannelsLast(nn.Module):
    """A module that works on the last axis, for the channels of (N, C, H, W)."""

    def __init__(self, one: nn.Module) -> None:
        super().__init__()
        self.one = one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x.movedim(1, -1)).movedim(-1, 1)


class NormAct(nn.BatchNorm2d):
    """timm's BatchNormAct2d: the activation is a part of the normalisation."""

    def __init__(self, channels: int, act: nn.Module) -> None:
        super().__init__(channels)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(super().forward(x))


class Branches(nn.Module):
    """The sum of what the branches make of one tensor, normalised once more."""

    def __init__(self, *branches: nn.Module, after: nn.Module = nn.Identity()) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.after = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(sum(branch(x) for branch in self.branches))


def normalised(*convolution: int, **options: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(*convolution, bias=False, **options), bn=nn.BatchNorm2d(convolution[1]))
    )


def three_branches(net: Net, x: Tensor) -> Tensor:
    at, options = net / "branches", {"groups": 2}
    kernel = ops.conv_bn_kernel(at / 0, x, 8, 3, **options) + ops.conv_bn_kernel(at / 1, x, 8, 1, **options)
    return ops.conv2d_of(net, x, kernel + ops.batch_norm_kernel(at / 2, x, **options), 1, **options)


def normalised_sum(net: Net, x: Tensor) -> Tensor:
    at = net / "branches"
    kernel = ops.conv2d_kernel(at / 0, x, 8, 5, groups=8) + ops.conv2d_kernel(at / 1, x, 8, 1, groups=8, bias=False)
    kernel += ops.identity_kernel(net, x, groups=8)
    return ops.conv2d_of(net, x, ops.batch_norm_of(net / "after", kernel, 1e-3), 2, groups=8)


def grid_of(net: Net, x: Tensor) -> Tensor:
    """Places (N, H, W, 2) that the last two channels of x say, partly outside of the picture."""
    last = ops.transpose(net, ops.narrow(net, x, 1, 6, 2), (0, 2, 3, 1))
    return times(net.fp32, ops.tanh(net.fp32, last), 1.5)


ORDER = [3, 0, 5, 1, 4, 2]


class Recurrent(nn.Module):
    """An LSTM that reads the channels one after the other."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(9, 6, layers, batch_first=True, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x.flatten(2))[0]


def mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3), keepdim=True)


CASES = [
    # conv.py
    Case("conv 3x3", nn.Conv2d(8, 12, 3, padding=1), lambda net, x: ops.conv2d(net, x, 12, 3)),
    Case("conv 1x1", nn.Conv2d(8, 12, 1), lambda net, x: ops.conv2d(net, x, 12, 1)),
    Case("conv stride", nn.Conv2d(8, 12, 3, 2, padding=1), lambda net, x: ops.conv2d(net, x, 12, 3, 2)),
    Case("conv even kernel", nn.Conv2d(8, 12, 4, 3, padding=2), lambda net, x: ops.conv2d(net, x, 12, 4, 3)),
    Case("conv no pad", nn.Conv2d(8, 12, 5), lambda net, x: ops.conv2d(net, x, 12, 5, pad=0)),
    Case("conv wide pad", nn.Conv2d(8, 12, 3, padding=4), lambda net, x: ops.conv2d(net, x, 12, 3, pad=4)),
    Case("conv patches", nn.Conv2d(8, 12, 3, 3), lambda net, x: ops.conv2d(net, x, 12, 3, 3, 0)),
    Case("conv groups", nn.Conv2d(8, 12, 3, padding=1, groups=4), lambda net, x: ops.conv2d(net, x, 12, 3, groups=4)),
    Case("conv depthwise", nn.Conv2d(8, 8, 5, padding=2, groups=8), lambda net, x: ops.conv2d(net, x, 8, 5, groups=8)),
    Case(
        "conv rectangular",
        nn.Conv2d(8, 12, (1, 5), (2, 1), (0, 2)),
        lambda net, x: ops.conv2d(net, x, 12, (1, 5), (2, 1)),
    ),
    Case(
        "conv pad of two sides",
        nn.Conv2d(8, 12, (3, 2), padding=(2, 1)),
        lambda net, x: ops.conv2d(net, x, 12, (3, 2), pad=(2, 1)),
    ),
    Case(
        "conv pad of four sides",
        nn.Sequential(nn.ZeroPad2d((0, 1, 2, 3)), nn.Conv2d(8, 12, 3, 2)),
        lambda net, x: ops.conv2d(net / 1, x, 12, 3, 2, (0, 1, 2, 3)),
    ),
    Case("conv same", Same(nn.Conv2d(8, 12, 3, 2)), lambda net, x: ops.conv2d(net / "one", x, 12, 3, 2, "same")),
    Case(
        "conv same rectangular",
        Same(nn.Conv2d(8, 12, (2, 5), (2, 3), dilation=(3, 1))),
        lambda net, x: ops.conv2d(net / "one", x, 12, (2, 5), (2, 3), "same", dilation=(3, 1)),
    ),
    Case(
        "conv dilated",
        nn.Conv2d(8, 12, 3, padding=2, dilation=2),
        lambda net, x: ops.conv2d(net, x, 12, 3, dilation=2),
    ),
    Case(
        "conv dilated rectangular",
        nn.Conv2d(8, 12, 3, 2, padding=(1, 3), dilation=(1, 3), groups=2),
        lambda net, x: ops.conv2d(net, x, 12, 3, 2, dilation=(1, 3), groups=2),
    ),
    Case("conv no bias", nn.Conv2d(8, 12, 3, bias=False), lambda net, x: ops.conv2d(net, x, 12, 3, pad=0, bias=False)),
    Case(
        "conv standardised",
        timm_layer("StdConv2d", 8, 12, 3, 2, bias=True, eps=1e-3),
        lambda net, x: ops.standardised_conv2d(net, x, 12, 3, 2, bias=True, eps=1e-3),
    ),
    Case(
        "conv standardised and scaled",
        timm_layer("ScaledStdConv2d", 8, 12, 3, groups=2, gamma=1.7),
        lambda net, x: ops.standardised_conv2d(net, x, 12, 3, groups=2, bias=True, gain=1.7),
    ),
    Case(
        "conv order",
        nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), Sorted(ORDER)),
        lambda net, x: ops.conv2d(net / 0, x, 6, 3, order=ORDER),
    ),
    Case(
        "conv order no bias",
        nn.Sequential(nn.Conv2d(8, 6, 1, bias=False), Sorted(ORDER)),
        lambda net, x: ops.conv2d(net / 0, x, 6, 1, bias=False, order=ORDER),
    ),
    Case(
        "conv2d_each",
        OnEach(nn.Conv2d(2, 1, 1, bias=False)),
        lambda net, x: ops.conv2d_each(net / "one", x, 4),
    ),
    Case(
        "conv_bn 1x1 not merged",
        nn.Sequential(nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12)),
        lambda net, x: ops.conv_bn(net, x, 12, 1, conv=0, bn=1, merge=False),
    ),
    Case(
        "conv_bn",
        nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)),
        lambda net, x: ops.conv_bn(net, x, 12, 3, conv=0, bn=1),
    ),
    Case(
        "conv_bn eps",
        nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12, 1e-3)),
        lambda net, x: ops.conv_bn(net, x, 12, 3, eps=1e-3, conv=0, bn=1),
    ),
    Case(
        "conv_bn bias, stride, groups",
        nn.Sequential(nn.Conv2d(8, 12, 3, 2, groups=2), nn.BatchNorm2d(12)),
        lambda net, x: ops.conv_bn(net, x, 12, 3, 2, 0, groups=2, bias=True, conv=0, bn=1),
    ),
    Case(
        "conv_bn rectangular, dilated",
        nn.Sequential(nn.Conv2d(8, 12, (3, 1), padding=(2, 0), dilation=2, bias=False), nn.BatchNorm2d(12)),
        lambda net, x: ops.conv_bn(net, x, 12, (3, 1), dilation=2, conv=0, bn=1),
    ),
    Case(
        "conv_bn same",
        nn.Sequential(Same(nn.Conv2d(8, 12, 3, 2, bias=False)), nn.BatchNorm2d(12)),
        lambda net, x: ops.conv_bn(net, x, 12, 3, 2, "same", conv="0.one", bn=1),
    ),
    Case(
        "conv_bn with its activation",
        nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, bias=False), NormAct(12, nn.ReLU())),
        lambda net, x: ops.conv_bn(net, x, 12, 3, conv=0, bn=1, activation=ops.relu),
    ),
    Case("conv_transpose 2x2", nn.ConvTranspose2d(8, 6, 2, 2), lambda net, x: ops.conv_transpose2d(net, x, 6, 2, 2)),
    Case(
        "conv_transpose 4x4",
        nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False),
        lambda net, x: ops.conv_transpose2d(net, x, 6, 4, 2, 1, bias=False),
    ),
    Case(
        "conv_transpose with output_pad",
        nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1, groups=2),
        lambda net, x: ops.conv_transpose2d(net, x, 6, 3, 2, 1, output_pad=1, groups=2),
    ),
    Case(
        "conv_transpose rectangular",
        nn.ConvTranspose2d(8, 6, (1, 3), (1, 2), (0, 1), output_padding=(0, 1)),
        lambda net, x: ops.conv_transpose2d(net, x, 6, (1, 3), (1, 2), (0, 1), output_pad=(0, 1)),
    ),
    # reparam.py
    Case(
        "three branches as one convolution",
        Branches(normalised(8, 8, 3, padding=1, groups=2), normalised(8, 8, 1, groups=2), nn.BatchNorm2d(8)),
        three_branches,
    ),
    Case(
        "a normalised sum as one convolution",
        Branches(
            nn.Conv2d(8, 8, 5, 2, padding=2, groups=8),
            nn.Conv2d(8, 8, 1, 2, groups=8, bias=False),
            nn.MaxPool2d(1, 2),
            after=nn.BatchNorm2d(8, 1e-3),
        ),
        normalised_sum,
    ),
    # norm.py
    Case(
        "batch_norm1d",
        nn.Sequential(nn.Flatten(), nn.BatchNorm1d(720)),
        lambda net, x: ops.batch_norm1d(net / 1, ops.flatten(net, x)),
    ),
    Case(
        "layer_norm channels",
        ChannelsLast(nn.LayerNorm(8, 1e-6)),
        lambda net, x: ops.layer_norm(net / "one", x, 1e-6, axis=1),
    ),
    Case("lstm of two layers", Recurrent(2), lambda net, x: ops.lstm(net / "lstm", fold(net, x), 6, 2), (5, 3, 3)),
    Case("group_norm", nn.GroupNorm(4, 8), lambda net, x: ops.group_norm(net, x, 4)),
    Case("group_norm of one", nn.GroupNorm(1, 8, 1e-6), lambda net, x: ops.group_norm(net, x, 1, 1e-6)),
    Case("instance_norm", nn.InstanceNorm2d(8), lambda net, x: ops.instance_norm(net, x)),
    Case(
        "instance_norm affine",
        nn.InstanceNorm2d(8, 1e-3, affine=True),
        lambda net, x: ops.instance_norm(net, x, 1e-3, affine=True),
    ),
    Case("rms_norm", nn.RMSNorm(10, 1e-6), lambda net, x: ops.rms_norm(net, x)),
    Case(
        "rms_norm eps",
        nn.Sequential(nn.Flatten(2), nn.RMSNorm(90, 0.1)),
        lambda net, x: ops.rms_norm(net / 1, fold(net, x), 0.1),
    ),
    Case("l2_normalize", F.normalize, lambda net, x: ops.l2_normalize(net, x)),
    Case(
        "l2_normalize rows",
        lambda x: F.normalize(1e3 * x.flatten(2), dim=2),
        lambda net, x: ops.l2_normalize(net, times(net, fold(net, x), 1e3), 2),
    ),
    Case("batch_norm", nn.BatchNorm2d(8), lambda net, x: ops.batch_norm(net, x)),
    Case("batch_norm eps", nn.BatchNorm2d(8, 1e-3), lambda net, x: ops.batch_norm(net, x, 1e-3)),
    Case(
        "layer_norm rank 2",
        nn.Sequential(nn.Flatten(), nn.LayerNorm(720)),
        lambda net, x: ops.layer_norm(net / 1, ops.flatten(net, x)),
    ),
    Case(
        "layer_norm rank 3",
        nn.Sequential(nn.Flatten(2), nn.LayerNorm(90)),
        lambda net, x: ops.layer_norm(net / 1, fold(net, x)),
    ),
    Case("layer_norm rank 4", nn.LayerNorm(10), lambda net, x: ops.layer_norm(net, x)),
    Case("layer_norm eps", nn.LayerNorm(10, 1e-6), lambda net, x: ops.layer_norm(net, x, 1e-6)),
    # activation.py
    Case("relu", F.relu, lambda net, x: ops.relu(net, x)),
    Case("relu6", lambda x: F.relu6(5 * x), lambda net, x: ops.relu6(net, times(net, x, 5))),
    Case("hardtanh", lambda x: F.hardtanh(x, -0.5, 2), lambda net, x: ops.hardtanh(net, x, -0.5, 2.0)),
    Case("leaky_relu", nn.LeakyReLU(0.2), lambda net, x: ops.leaky_relu(net, x, 0.2)),
    Case("prelu", nn.PReLU(), lambda net, x: ops.prelu(net, x)),
    Case("prelu channels", nn.PReLU(8), lambda net, x: ops.prelu(net, x, 8)),
    Case(
        "prelu rank 2",
        nn.Sequential(nn.Flatten(), nn.PReLU(720)),
        lambda net, x: ops.prelu(net / 1, ops.flatten(net, x), 720),
    ),
    Case("elu", nn.ELU(0.5), lambda net, x: ops.elu(net, x, 0.5)),
    Case("softplus", lambda x: F.softplus(9 * x), lambda net, x: ops.softplus(net, times(net, x, 9))),
    Case("mish", F.mish, lambda net, x: ops.mish(net, x)),
    Case("sigmoid", F.sigmoid, lambda net, x: ops.sigmoid(net, x)),
    Case("tanh", F.tanh, lambda net, x: ops.tanh(net, x)),
    Case("hardsigmoid", lambda x: F.hardsigmoid(3 * x), lambda net, x: ops.hardsigmoid(net, times(net, x, 3))),
    Case("hardswish", lambda x: F.hardswish(3 * x), lambda net, x: ops.hardswish(net, times(net, x, 3))),
    Case("silu", F.silu, lambda net, x: ops.silu(net, x)),
    Case("gelu", F.gelu, lambda net, x: ops.gelu(net, x)),
    Case("gelu rank 3", lambda x: F.gelu(x.flatten(2)), lambda net, x: ops.gelu(net, fold(net, x))),
    Case("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), lambda net, x: ops.gelu_tanh(net, x)),
    Case("quick_gelu", lambda x: x * (1.702 * x).sigmoid(), lambda net, x: ops.quick_gelu(net, x)),
    Case("softmax channels", lambda x: x.softmax(1), lambda net, x: ops.softmax(net, x, 1)),
    Case("softmax rows", lambda x: x.softmax(2), lambda net, x: ops.softmax(net, x, 2)),
    Case("softmax columns", lambda x: x.softmax(3), lambda net, x: ops.softmax(net, x, 3)),
    Case("softmax rank 2", lambda x: x.flatten(1).softmax(1), lambda net, x: ops.softmax(net, ops.flatten(net, x), 1)),
    # linear.py
    Case(
        "linear rank 2",
        nn.Sequential(nn.Flatten(), nn.Linear(720, 5)),
        lambda net, x: ops.linear(net / 1, ops.flatten(net, x), 5),
    ),
    Case(
        "linear rank 2 no bias",
        nn.Sequential(nn.Flatten(), nn.Linear(720, 5, bias=False)),
        lambda net, x: ops.linear(net / 1, ops.flatten(net, x), 5, bias=None),
    ),
    Case(
        "linear rank 3",
        nn.Sequential(nn.Flatten(2), nn.Linear(90, 5)),
        lambda net, x: ops.linear(net / 1, fold(net, x), 5),
    ),
    Case(
        "linear rank 3 no bias",
        nn.Sequential(nn.Flatten(2), nn.Linear(90, 5, bias=False)),
        lambda net, x: ops.linear(net / 1, fold(net, x), 5, bias=None),
    ),
    Case(
        "linear_bn",
        nn.Sequential(nn.Flatten(2), timm_layer("LinearNorm", 90, 12, of="timm.models.levit")),
        lambda net, x: ops.linear_bn(net / 1, fold(net, x), 12),
    ),
    Case("linear rank 4", nn.Linear(10, 5), lambda net, x: ops.linear(net, x, 5)),
    Case("linear rank 4 no bias", nn.Linear(10, 5, bias=False), lambda net, x: ops.linear(net, x, 5, bias=None)),
    # pool.py
    Case("max_pool", lambda x: F.max_pool2d(x, 2), lambda net, x: ops.max_pool(net, x, 2)),
    Case("max_pool pad", lambda x: F.max_pool2d(x, 3, 2, 1), lambda net, x: ops.max_pool(net, x, 3, 2, 1)),
    Case("max_pool same", lambda x: F.max_pool2d(x, 5, 1, 2), lambda net, x: ops.max_pool(net, x, 5, 1, 2)),
    Case(
        "max_pool of zeros",
        lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 1),
        lambda net, x: ops.max_pool(net, ops.pad(net.functional, x, (0, 1, 0, 1)), 2, 1),
    ),
    Case(
        "max_pool ceil",
        lambda x: F.max_pool2d(x, 2, ceil_mode=True),
        lambda net, x: ops.max_pool(net, x, 2, ceil_mode=True),
    ),
    Case(
        "max_pool ceil pad",
        lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
        lambda net, x: ops.max_pool(net, x, 3, 2, 1, ceil_mode=True),
    ),
    Case("avg_pool", lambda x: F.avg_pool2d(x, 2), lambda net, x: ops.avg_pool(net, x, 2)),
    Case("avg_pool pad", lambda x: F.avg_pool2d(x, 3, 2, 1), lambda net, x: ops.avg_pool(net, x, 3, 2, 1)),
    Case(
        "avg_pool ceil",
        lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
        lambda net, x: ops.avg_pool(net, x, 2, ceil_mode=True),
    ),
    Case(
        "avg_pool ceil pad",
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
        lambda net, x: ops.avg_pool(net, x, 3, 2, 1, ceil_mode=True),
    ),
    Case(
        "max_pool rectangular",
        lambda x: F.max_pool2d(x, (2, 1), (2, 1), (1, 0)),
        lambda net, x: ops.max_pool(net, x, (2, 1), pad=(1, 0)),
    ),
    Case(
        "max_pool of four sides",
        lambda x: F.max_pool2d(F.pad(x, (0, 1, 1, 0), value=-torch.inf), 2, 1),
        lambda net, x: ops.max_pool(net, x, 2, 1, (0, 1, 1, 0)),
    ),
    Case(
        "max_pool as TensorFlow",
        lambda x: F.max_pool2d(F.pad(x, (0, 1, 1, 1), value=-torch.inf), 3, 2),
        lambda net, x: ops.max_pool(net, x, 3, 2, "same"),
    ),
    Case(
        "avg_pool rectangular",
        lambda x: F.avg_pool2d(x, (3, 2), (2, 1), (1, 0)),
        lambda net, x: ops.avg_pool(net, x, (3, 2), (2, 1), (1, 0)),
    ),
    Case(
        "avg_pool without its padding",
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        lambda net, x: ops.avg_pool(net, x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    ),
    Case(
        "adaptive rectangular",
        lambda x: F.adaptive_avg_pool2d(x, (4, 7)),
        lambda net, x: ops.adaptive_avg_pool(net, x, (4, 7)),
    ),
    Case("global_avg_pool", lambda x: F.adaptive_avg_pool2d(x, 1), lambda net, x: ops.global_avg_pool(net, x)),
    Case("adaptive 9x10 to 1", lambda x: F.adaptive_avg_pool2d(x, 1), lambda net, x: ops.adaptive_avg_pool(net, x, 1)),
    Case("adaptive 9x10 to 4", lambda x: F.adaptive_avg_pool2d(x, 4), lambda net, x: ops.adaptive_avg_pool(net, x, 4)),
    Case("adaptive 9x10 to 9", lambda x: F.adaptive_avg_pool2d(x, 9), lambda net, x: ops.adaptive_avg_pool(net, x, 9)),
    Case(
        "adaptive equal",
        lambda x: F.adaptive_avg_pool2d(x, 6),
        lambda net, x: ops.adaptive_avg_pool(net, x, 6),
        (8, 6, 6),
    ),
    Case(
        "adaptive divisible",
        lambda x: F.adaptive_avg_pool2d(x, 3),
        lambda net, x: ops.adaptive_avg_pool(net, x, 3),
        (8, 6, 9),
    ),
    Case(
        "adaptive larger",
        lambda x: F.adaptive_avg_pool2d(x, 7),
        lambda net, x: ops.adaptive_avg_pool(net, x, 7),
        (8, 3, 5),
    ),
    Case(
        "adaptive larger and smaller",
        lambda x: F.adaptive_avg_pool2d(x, 7),
        lambda net, x: ops.adaptive_avg_pool(net, x, 7),
        (8, 3, 20),
    ),
    # resize.py, reduce.py
    Case("upsample 2", lambda x: F.interpolate(x, scale_factor=2), lambda net, x: ops.upsample(net, x, 2)),
    Case("upsample 3", lambda x: F.interpolate(x, scale_factor=3), lambda net, x: ops.upsample(net, x, 3)),
    Case(
        "upsample to a size",
        lambda x: F.interpolate(x, (20, 13)),
        lambda net, x: ops.upsample(net, x, size=(20, 13)),
    ),
    *(
        Case(
            f"upsample {mode} {how}{' aligned' if aligned else ''}",
            lambda x, sized=sized, mode=mode, aligned=aligned: F.interpolate(
                x, **sized, mode=mode, align_corners=aligned
            ),
            lambda net, x, how=how, mode=mode, aligned=aligned: ops.upsample(
                net,
                x,
                2 if how == "by 2" else None,
                size=None if how == "by 2" else (7, 23),
                mode=mode,
                align_corners=aligned,
            ),
        )
        for mode in ("bilinear", "bicubic")
        for how, sized in (("by 2", {"scale_factor": 2}), ("to a size", {"size": (7, 23)}))
        for aligned in (False, True)
    ),  # fmt: skip
    *(
        Case(
            f"grid_sample {border}{' aligned' if aligned else ''}",
            lambda x, border=border, aligned=aligned: F.grid_sample(
                x[:, :6], 1.5 * x[:, 6:].movedim(1, -1).tanh(), padding_mode=border, align_corners=aligned
            ),
            lambda net, x, border=border, aligned=aligned: ops.grid_sample(
                net, ops.narrow(net, x, 1, 0, 6), grid_of(net, x), border=border, align_corners=aligned
            ),
        )
        for border, aligned in (("zeros", False), ("border", False), ("reflection", False), ("zeros", True))
    ),
    Case("reduce_mean", lambda x: x.mean(1), lambda net, x: ops.reduce_mean(net, x, 1)),
    Case(
        "reduce_mean of two",
        lambda x: x.mean((2, 3), keepdim=True),
        lambda net, x: ops.reduce_mean(net, x, (2, 3), keepdims=True),
    ),
    Case("reduce_max", lambda x: x.amax((1, 3)), lambda net, x: ops.reduce_max(net, x, (1, 3))),
    Case("reduce_sum channels", lambda x: x.sum(1), lambda net, x: ops.reduce_sum(net, x, 1)),
    Case("reduce_sum columns", lambda x: x.sum(3), lambda net, x: ops.reduce_sum(net, x, 3)),
    # shape.py
    Case("reshape", lambda x: x.reshape(-1, 4, 18, 10), lambda net, x: ops.reshape(net, x, (0, 4, -1, 10))),
    Case("reshape rank 5", lambda x: x.reshape(-1, 2, 4, 9, 10), lambda net, x: ops.reshape(net, x, (0, 2, 4, 9, 10))),
    Case("transpose", lambda x: x.permute(0, 3, 1, 2), lambda net, x: ops.transpose(net, x, (0, 3, 1, 2))),
    Case("flatten", lambda x: x.flatten(1), lambda net, x: ops.flatten(net, x)),
    Case("concat", lambda x: torch.cat([x, 2 * x, x], 1), lambda net, x: ops.concat(net, [x, times(net, x, 2), x])),
    Case("concat rows", lambda x: torch.cat([x, 2 * x], 2), lambda net, x: ops.concat(net, [x, times(net, x, 2)], 2)),
    Case("narrow channels", lambda x: x[:, 2:5], lambda net, x: ops.narrow(net, x, 1, 2, 3)),
    Case("narrow columns", lambda x: x[..., 9:], lambda net, x: ops.narrow(net, x, 3, 9, 1)),
    Case("narrow every second", lambda x: x[:, :, 1::2], lambda net, x: ops.narrow(net, x, 2, 1, 4, 2)),
    Case("pad", lambda x: F.pad(x, (1, 2, 3, 0)), lambda net, x: ops.pad(net, x, (1, 2, 3, 0))),
    Case(
        "pad value",
        lambda x: F.pad(x, (0, 1, 0, 2), value=-3),
        lambda net, x: ops.pad(net, x, (0, 1, 0, 2), value=-3.0),
    ),
    Case("pad crops", lambda x: F.pad(x, (-1, 2, 0, -3)), lambda net, x: ops.pad(net, x, (-1, 2, 0, -3))),
    Case(
        "pad reflect",
        lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"),
        lambda net, x: ops.pad(net, x, (1, 2, 3, 0), mode="reflect"),
    ),
    Case(
        "pad replicate",
        lambda x: F.pad(x, (1, 2, 3, 0), mode="replicate"),
        lambda net, x: ops.pad(net, x, (1, 2, 3, 0), mode="replicate"),
    ),
    Case("roll", lambda x: x.roll(3, 2), lambda net, x: ops.roll(net, x, 3, 2)),
    Case(
        "roll back", lambda x: x.roll((-2, -13), (2, 3)), lambda net, x: ops.roll(net, ops.roll(net, x, -2, 2), -13, 3)
    ),
    Case("pixel_shuffle", nn.PixelShuffle(2), lambda net, x: ops.pixel_shuffle(net, x, 2)),
    Case("pixel_unshuffle", nn.PixelUnshuffle(2), lambda net, x: ops.pixel_unshuffle(net, x, 2), (8, 6, 10)),
    Case("channel_shuffle", nn.ChannelShuffle(4), lambda net, x: ops.channel_shuffle(net, x, 4)),
    Case("index_select", lambda x: x[:, [5, 0, 5]], lambda net, x: ops.index_select(net, x, 1, [5, 0, 5])),
    Case(
        "take_rows of topk",
        lambda x: x.flatten(2).gather(1, x.sum((2, 3)).topk(3, 1).indices[..., None].expand(-1, -1, 90)),
        lambda net, x: ops.take_rows(net, fold(net, x), ops.topk(net, ops.reduce_sum(net.fp32, x, (2, 3)), 3, 1)[1]),
    ),
    Case("topk", lambda x: x.topk(3, 2).values, lambda net, x: ops.topk(net, x, 3, 2)[0]),
    Case(
        "gather at topk's indices",
        lambda x: (2 * x).gather(1, x.topk(3, 1).indices),
        lambda net, x: ops.gather(net, times(net, x, 2), 1, ops.topk(net, x, 3, 1)[1]),
    ),
    Case("split channels", lambda x: x.split([1, 5, 2], 1)[1], lambda net, x: ops.split(net, x, [1, 5, 2])[1]),
    Case("split rows", lambda x: x.split([4, 5], 2)[1], lambda net, x: ops.split(net, x, [4, 5], 2)[1]),
    Case(
        "expand_batch",
        lambda x: torch.cat([torch_ramp(1, 3, 10).expand(len(x), -1, -1), x.sum(1)], 1),
        lambda net, x: ops.concat(net, [ops.expand_batch(net, ramp(net, 1, 3, 10), x), ops.reduce_sum(net, x, 1)]),
    ),
    # elementwise.py
    Case("add", lambda x: x + x.relu(), lambda net, x: ops.add(net, x, ops.relu(net, x))),
    Case("sub", lambda x: x.relu() - 2 * x, lambda net, x: ops.sub(net, ops.relu(net, x), times(net, x, 2))),
    Case("mul", lambda x: x * x.tanh(), lambda net, x: ops.mul(net, x, ops.tanh(net, x))),
    Case("minimum", lambda x: torch.minimum(x, x.tanh()), lambda net, x: ops.minimum(net, x, ops.tanh(net, x))),
    Case("maximum", lambda x: x.clamp(min=0.5), lambda net, x: ops.maximum(net, x, 0.5)),
    Case("div", lambda x: 2 * x / x.tanh(), lambda net, x: ops.div(net, times(net, x, 2), ops.tanh(net, x))),
    Case("add a number", lambda x: 2 + x, lambda net, x: ops.add(net, 2, x)),
    Case("sub from a number", lambda x: 1 - x.flatten(1), lambda net, x: ops.sub(net, 1.0, ops.flatten(net, x))),
    Case("pow", lambda x: x.sigmoid() ** 2.5, lambda net, x: ops.pow(net, ops.sigmoid(net, x), 2.5)),
    Case("log", lambda x: x.sigmoid().log(), lambda net, x: ops.log(net, ops.sigmoid(net, x))),
    Case("sqrt", lambda x: x.sigmoid().sqrt(), lambda net, x: ops.sqrt(net, ops.sigmoid(net, x))),
    Case("sin", lambda x: (2 * x).sin(), lambda net, x: ops.sin(net, times(net, x, 2))),
    Case("cos", lambda x: (2 * x).cos(), lambda net, x: ops.cos(net, times(net, x, 2))),
    Case("exp", torch.exp, lambda net, x: ops.exp(net, x)),
    Case("add broadcast", lambda x: x + mean(x), lambda net, x: ops.add(net, x, ops.global_avg_pool(net, x))),
    Case("sub broadcast", lambda x: mean(x) - x, lambda net, x: ops.sub(net, ops.global_avg_pool(net, x), x)),
    Case("mul broadcast", lambda x: x * torch_ramp(9, 1), lambda net, x: ops.mul(net, x, ramp(net, 1, 1, 9, 1))),
    Case("div broadcast", lambda x: x / torch_ramp(9, 1), lambda net, x: ops.div(net, x, ramp(net, 1, 1, 9, 1))),
    # attention.py
    Case(
        "matmul",
        lambda x: x.transpose(2, 3) @ x,
        lambda net, x: ops.matmul(net, ops.transpose(net, x, (0, 1, 3, 2)), x),
    ),
    Case("matmul transposed", lambda x: x @ x.transpose(2, 3), lambda net, x: ops.matmul(net, x, x, transpose=True)),
    Case(
        "attention with a bias and a scale",
        lambda x: F.scaled_dot_product_attention(*x.chunk(3, 1), attn_mask=torch_ramp(1, 2, 11, 11) / 200, scale=0.3),
        lambda net, x: ops.attention(
            net, *ops.split(net, x, [2, 2, 2]), times(net, ramp(net, 1, 2, 11, 11), 0.005), scale=0.3
        ),
        (6, 11, 16),
    ),
    Case(
        "attention",
        lambda x: F.scaled_dot_product_attention(*x.chunk(3, 1)),
        lambda net, x: ops.attention(net, *ops.split(net, x, [2, 2, 2])),
        (6, 11, 16),
    ),
    Case(
        "attention of 11 queries to 5 keys",
        lambda x: F.scaled_dot_product_attention(x[:, :2], x[:, 2:4, :5], x[:, 4:, :5]),
        lambda net, x: ops.attention(
            net,
            ops.narrow(net, x, 1, 0, 2),
            *ops.split(net, ops.narrow(net, ops.narrow(net, x, 1, 2, 4), 2, 0, 5), [2, 2]),
        ),
        (6, 11, 16),
    ),
    Case(
        "cell_grid",
        lambda x: x * (torch.arange(10) + 0.5) - (torch.arange(9) + 0.5)[:, None],
        lambda net, x: (lambda at: ops.sub(net, ops.mul(net, x, at[0]), at[1]))(ops.cell_grid(net, x, 0.5)),
    ),
    Case(
        "ratio of a map to its input",
        lambda x: F.max_pool2d(x, (2, 5)) * 2 + 5,
        lambda net, x: scaled_by_ratios(net, x, ops.max_pool(net.functional, x, (2, 5))),
        (8, 8, 10),
    ),
]

# What depends on height and width is asked with both of them open too.
OPEN = [
    case
    for case in CASES
    if case.name
    in (
        "adaptive rectangular", "adaptive 9x10 to 1", "adaptive larger", "pixel_shuffle", "pixel_unshuffle",
        "channel_shuffle", "upsample to a size", "cell_grid", "ratio of a map to its input",
    )
    or re.match("pad |conv same$", case.name)
]  # fmt: skip

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
each_batch = pytest.mark.parametrize("batch", [2, -1], ids=["static", "dynamic"])


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative L2 error; the shapes must be equal too."""
    assert found.shape == expected.shape
    return float(np.linalg.norm(found.astype(np.float64) - expected) / np.linalg.norm(expected))


def error(case: Case, definition: Definition) -> float:
    """The error of a definition run on the CPU, whose output must have the shape that TensorRT worked out."""
    promised = tuple(definition.network.get_output(0).shape)
    images = case.images(3 if promised[0] == -1 else promised[0])
    output = CpuSession(definition, threads=1)(images)["logits"]
    assert promised[1:] == output.shape[1:]
    return relative_error(output, case.expected(images))


@pytest.fixture
def define_case(define_net: Callable[..., Definition]) -> Callable[..., Definition]:
    def define_case(case: Case, batch: int, precision: str = "fp32", **options: Api) -> Definition:
        build = lambda net, x: case.build(net / "m", x)  # noqa: E731
        return define_net(build, case.weights(), (batch, *case.shape), precision, **options)

    return define_case


@each_batch
@each_case
def test_equals_torch(case: Case, batch: int, define_case: Callable[..., Definition]) -> None:
    assert error(case, define_case(case, batch)) <= BOUNDS["fp32"]


@each_batch
@each_case
def test_equals_torch_when_written_for_tensorrt_8(
    case: Case, batch: int, define_case: Callable[..., Definition], tensorrt8: Api
) -> None:
    assert error(case, define_case(case, batch, api=tensorrt8)) <= BOUNDS["fp32"]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@each_case
def test_half_precision_is_close(case: Case, precision: str, define_case: Callable[..., Definition]) -> None:
    assert error(case, define_case(case, -1, precision)) <= BOUNDS[precision]


@pytest.mark.parametrize(("batch", "precision"), [(2, "fp32"), (-1, "fp32"), (-1, "fp16"), (-1, "bf16")])
@each_case
def test_compiles(case: Case, batch: int, precision: str, define_case: Callable[..., Definition]) -> None:
    low, high = (1, 4) if batch == -1 else (batch, batch)
    shapes = Shapes(*((n, *case.shape) for n in (low, 2, high)))
    assert compile_network(define_case(case, batch, precision), shapes)


@pytest.mark.parametrize("case", OPEN, ids=lambda case: case.name.replace(" ", "-"))
def test_height_and_width_may_be_open(case: Case, define_net: Callable[..., Definition]) -> None:
    build = lambda net, x: case.build(net / "m", x)  # noqa: E731
    definition = define_net(build, case.weights(), (-1, case.shape[0], -1, -1))
    images = case.images(2)
    found = CpuSession(definition, threads=1)(images)["logits"]
    assert relative_error(found, case.expected(images)) <= BOUNDS["fp32"]
    shapes = (case.shape, case.shape, [case.shape[0], *(3 * side for side in case.shape[1:])])
    assert compile_network(definition, Shapes(*((n, *shape) for n, shape in zip((1, 2, 4), shapes))))  # type: ignore[arg-type]


def test_every_op_has_a_case() -> None:
    used = {name for case in CASES for name in names(case.build.__code__)} | names(scaled_by_ratios.__code__)
    assert set(ops.__all__) - {"fixed_size", "open_size"} <= used


def test_every_file_of_ops_is_exported() -> None:
    files = {path.stem for path in Path(ops.__file__).parent.glob("[a-z]*.py")}
    assert files == {getattr(ops, name).__module__.rpartition(".")[2] for name in ops.__all__}


def names(code: CodeType) -> set[str]:
    """The attributes and globals that a function and those written in it use."""
    return set(code.co_names).union(*(names(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


@pytest.mark.parametrize(
    ("shape", "advice"), [((1, 8, 65, 32), "use 64x32 or 96x32"), ((1, 8, 5, 33), "use 32x32 or 32x64")]
)
def test_a_size_that_does_not_fit_names_those_that_do(
    shape: tuple[int, ...], advice: str, define_net: Callable[..., Definition]
) -> None:
    with pytest.raises(ZooError, match=advice):
        define_net(lambda net, x: ops.relu(net, x) if ops.fixed_size(net, x, 32) else None, shape=shape)


@pytest.mark.parametrize(("api", "kernel", "dilation"), [("tensorrt8", 1, 2), ("tensorrt8", 3, 1), ("rtx", 1, 1)])
def test_only_tensorrt_8_is_kept_from_merging(
    api: str, kernel: int, dilation: int, define_net: Callable[..., Definition], request: pytest.FixtureRequest
) -> None:
    """Its 1x1 convolutions get a dilation, which changes nothing for them; that of a larger kernel would."""
    module = nn.Sequential(nn.Conv2d(8, 12, kernel, bias=False), nn.BatchNorm2d(12))
    weights = {f"m.{name}": values.numpy() for name, values in module.state_dict().items()}
    build = lambda net, x: ops.conv_bn(net / "m", x, 12, kernel, conv=0, bn=1, merge=False)  # noqa: E731
    definition = define_net(build, weights, (1, 8, 9, 10), api=request.getfixturevalue(api))
    layer = definition.network.get_layer(0)
    layer.__class__ = definition.api.trt.IConvolutionLayer
    assert tuple(layer.dilation_nd) == (dilation, dilation)


def test_fixed_size(define_net: Callable[..., Definition]) -> None:
    found = []
    define_net(lambda net, x: found.append(ops.fixed_size(net, x, 32)) or ops.relu(net, x), shape=(-1, 8, 64, 96))
    assert found == [(64, 96)]


def test_a_slice_must_lie_inside(define_net: Callable[..., Definition]) -> None:
    with pytest.raises(ZooError, match="'m' takes 6 to 9 of axis 1, which has 8"):
        define_net(lambda net, x: ops.narrow(net / "m", x, 1, 6, 3))


def test_a_split_must_cover_the_axis(define_net: Callable[..., Definition]) -> None:
    with pytest.raises(ValueError, match="do not add up to 8"):
        define_net(lambda net, x: ops.concat(net, ops.split(net, x, [3, 4])))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_small_scores_keep_their_digits(define_net: Callable[..., Definition], precision: str) -> None:
    """onnxruntime's own Sigmoid is off by 6e-8, which is all that a score of 1e-8 is."""
    definition = define_net(lambda net, x: ops.sigmoid(net, x), shape=(1, 1, 1, 8), precision=precision)
    x = np.array([-80, -30, -18, -12, -8, -1, 5, 90], np.float32).reshape(1, 1, 1, 8)
    found, exact = CpuSession(definition, threads=1)(x)["logits"], 1 / (1 + np.exp(-x.astype(np.float64)))
    if precision == "fp32":
        np.testing.assert_allclose(found, exact, rtol=3e-7)
    else:
        np.testing.assert_array_equal(found, exact.astype(np.float16).astype(np.float32))


def test_only_sigmoids_that_gate_their_own_input_are_left(define_net: Callable[..., Definition]) -> None:
    from zoo.onnx import to_onnx
    from zoo.onnx.sigmoids import write_sigmoids_out

    definition = define_net(lambda net, x: ops.mul(net, ops.sigmoid(net / "a", ops.silu(net / "b", x)), x))
    graph = to_onnx(definition.network, definition.api.trt).graph
    write_sigmoids_out(graph)
    assert [node.name for node in graph.node if node.op_type == "Sigmoid"] == ["b.gate"]


@pytest.mark.parametrize("keepdims", [True, False])
def test_means_of_large_maps_lose_no_more_than_pytorchs(define_net: Callable[..., Definition], keepdims: bool) -> None:
    """Of 190x190 places, as in squeeze-and-excitation. All in a row, onnxruntime loses 4e-7."""
    definition = define_net(lambda net, x: ops.reduce_mean(net, x, (2, 3), keepdims=keepdims), shape=(1, 24, 190, 190))
    x = np.maximum(np.random.default_rng(0).standard_normal((1, 24, 190, 190), np.float32) + 0.5, 0)
    found, exact = CpuSession(definition, threads=1)(x)["logits"], x.mean((2, 3), np.float64, keepdims=keepdims)
    assert found.shape == exact.shape
    assert np.linalg.norm(found - exact) / np.linalg.norm(exact) < 1.5e-7
