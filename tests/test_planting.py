"""The tool that plants bugs, and a block whose reference calls functions of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from planting import Plant, changed, edit, instead, keeps, plant, planted, zero
from torch import nn

from zoo import ops
from zoo.network import Definition, Net, Tensor
from zoo.runtime.cpu import CpuSession
from zoo.verify.compare import compare_runs
from zoo.verify.references import Library, Reference
from zoo.verify.running import run_reference


class Block(nn.Module):
    """Calls two ReLUs and an average pooling in its forward, none of them a module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv1(x))
        return F.avg_pool2d(x + F.relu(self.conv2(x)), 2)


def block(net: Net, x: Tensor) -> Tensor:
    x = ops.relu(net.functional, ops.conv2d(net / "conv1", x, 8, 3))
    y = ops.relu(net.functional, ops.conv2d(net / "conv2", x, 8, 3))
    return net.tap(ops.avg_pool(net.functional, ops.add(net, x, y), 2))


@pytest.mark.parametrize(
    ("bug", "starts"),
    [
        (None, None),
        (edit("0.conv2.weight", lambda w: w.transpose(0, 1, 3, 2)), "0.conv2"),
        (zero("1.conv1.bias"), "1.conv1"),
        (plant("1.avg_pool()", instead(ops.max_pool, 2)), "1"),
        (plant("0.relu():1", keeps("x")), "0"),
    ],
    ids=["nothing", "a wrong convolution", "a lost bias", "another pooling", "a lost ReLU"],
)
def test_a_block_of_functional_calls(
    bug: Plant | None, starts: str | None, define_net: Callable[..., Definition]
) -> None:
    """What is wrong is named: the convolution and not its block, or the block where a function of its own is wrong."""
    torch.manual_seed(0)
    module = nn.Sequential(Block(), Block()).eval()
    reference = Reference("blocks", module, Library())
    arrays = {name: values.numpy() for name, values in module.state_dict().items()}
    images = np.random.default_rng(0).standard_normal((2, 8, 12, 12), np.float32)
    ref32, ref64 = (run_reference(reference, images, dtype, taps=True) for dtype in ("float32", "float64"))
    with planted([bug] if bug else [], arrays) as wrong:
        definition = define_net(lambda net, x: block(net / 1, block(net / 0, x)), wrong, images.shape)
    taps = list(definition.taps)
    assert taps == ["0.conv1", "0.conv2", "0", "1.conv1", "1.conv2", "1"]
    report = compare_runs(CpuSession(definition, taps, threads=1)(images), ref32, ref64, taps, definition.folded)
    assert report.missing == [] and report.extra == []
    assert (report.first_divergence and report.first_divergence.name) == starts


def two(net: Net, x: Tensor) -> Tensor:
    return ops.mish(net / "act", ops.mish(net / "act", ops.add(net, x, x)))


def define_two(define_net: Callable[..., Definition], *plants: Plant) -> set[str]:
    """The kinds of op in a definition that `two` writes under the scope "m"."""
    with planted(plants, {}):
        return define_net(lambda net, x: two(net / "m", x)).ops


def test_a_number_means_one_call_and_no_number_all(define_net: Callable[..., Definition]) -> None:
    plain = define_two(define_net)
    with pytest.raises(Exception, match="'m.act' is already the module of mish and cannot be the module of relu too"):
        define_two(define_net, plant("m.act:1", instead(ops.relu)))
    assert define_two(define_net, plant("m.act", instead(ops.relu))) == (plain - {"mish", "softplus", "tanh"}) | {
        "relu"
    }


def test_a_place_is_the_outermost_function_or_the_one_that_is_named(define_net: Callable[..., Definition]) -> None:
    assert "tanh" not in define_two(define_net, plant("m.act.tanh()", keeps("x")))
    assert "mish" not in define_two(define_net, plant("*.act", keeps("x")))
    assert "add" not in define_two(define_net, plant("m.add()", keeps("y")))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("m.activation", "nothing is called at 'm.activation'"),
        ("m.act:2", "nothing is called at 'm.act:2'"),
        ("m.act.add()", "nothing is called at"),
        ("m*", r"several functions are called at 'm\*', name one: m\*.add\(\), m\*.mish\(\)"),
    ],
)
def test_a_place_that_plants_nothing_or_too_much_fails(
    place: str, words: str, define_net: Callable[..., Definition]
) -> None:
    with pytest.raises(AssertionError, match=words):
        define_two(define_net, plant(place, changed()))


def test_nothing_stays_planted(define_net: Callable[..., Definition]) -> None:
    real = ops.mish
    assert "relu" in define_two(define_net, plant("m.act", instead(ops.relu)))
    assert ops.mish is real and "relu" not in define_two(define_net)
