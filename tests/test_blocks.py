"""Blocks beyond what the models of this project prove of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from zoo.blocks.mbconv import make_divisible
from zoo.blocks.resnet import Stages, features
from zoo.network import Definition, Net, Tensor
from zoo.runtime.cpu import CpuSession


@pytest.mark.parametrize(
    ("name", "cfg", "replaced"),
    [
        ("resnet18", Stages((2, 2, 2, 2), bottleneck=False), None),
        ("resnet50", Stages(dilated=1), (False, False, True)),
        ("resnet50", Stages(dilated=2), (False, True, True)),
    ],
)
def test_stages_are_those_of_torchvision(
    name: str, cfg: Stages, replaced: tuple[bool, ...] | None, define_net: Callable[..., Definition]
) -> None:
    """Each stage by its name, with strides and with dilations in place of the last ones."""
    from zoo.verify.torchvision_shim import import_torchvision

    models = import_torchvision().models
    import torch

    torch.manual_seed(0)
    module = models.get_model(name, weights=None, replace_stride_with_dilation=replaced).eval()
    arrays = {key: values.numpy() for key, values in module.state_dict().items() if not key.startswith("fc.")}
    images = np.random.default_rng(0).standard_normal((1, 3, 70, 97), np.float32)
    wanted: dict[str, np.ndarray] = {}
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        hook = lambda _, __, result, layer=layer: wanted.update({layer: result.numpy()})  # noqa: E731
        module.get_submodule(layer).register_forward_hook(hook)
    with torch.no_grad():
        module(torch.from_numpy(images))

    for layer, expected in wanted.items():

        def build(net: Net, x: Tensor, layer: str = layer) -> Tensor:
            found = features(net, x, cfg)
            assert list(found) == ["relu", *wanted]
            return found[layer]

        ours = CpuSession(define_net(build, arrays, images.shape), threads=1)(images)["logits"]
        assert ours.shape == expected.shape
        assert np.linalg.norm(ours - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize(("channels", "rounded"), [(4, 8), (18, 24), (22, 24), (27, 32), (36.9, 40), (64, 64)])
def test_channels_are_rounded_as_upstream_rounds(channels: float, rounded: int) -> None:
    """By hand: to the nearest multiple of 8, and up where that would lose more than a tenth."""
    assert make_divisible(channels) == rounded
