"""Files that older versions of a library wrote are read: their tensors have other names there.

The libraries themselves say what those are: torchvision loads the old names into its new modules, transformers saves
under them. Names and shapes are all that is needed, so no module has values.
"""

from __future__ import annotations

import re
from unittest import mock

import pytest
import torch

from zoo.registry import get_model
from zoo.verify.references import load_reference
from zoo.weights.base import is_counter
from zoo.weights.older import current_names


def reference(name: str) -> torch.nn.Module:
    """The published module without values."""
    with torch.device("meta"):
        return load_reference(get_model(name).reference).module


def torchvision_before_0_13(name: str) -> str:
    """The name that a tensor of torchvision's detectors had."""
    name = re.sub(r"((?:inner|layer)_blocks\.\d)\.0\.", r"\1.", name)
    name = re.sub(r"(head\.\w+_head\.conv)\.(\d)\.0\.", lambda m: f"{m[1]}.{2 * int(m[2])}.", name)
    name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
    return re.sub(r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}.", name)


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "fcos_resnet50_fpn", "maskrcnn_resnet50_fpn"])
def test_detectors_of_torchvision(name: str) -> None:
    module = reference(name)
    heads = name.startswith("fcos")  # whose heads never changed
    old = {(key if heads and key.startswith("head.") else torchvision_before_0_13(key)): value
           for key, value in module.state_dict().items()}  # fmt: skip
    module.load_state_dict(old, assign=True)  # torchvision knows them
    check(list(old), list(module.state_dict()))


def test_densenet_of_torchvision() -> None:
    from torchvision.models import densenet

    module = reference("densenet121")
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value
           for key, value in module.state_dict().items()}  # fmt: skip
    loading = mock.Mock()
    densenet._load_state_dict(loading, mock.Mock(get_state_dict=lambda **given: dict(old)), progress=False)
    (loaded,) = loading.load_state_dict.call_args.args
    check(list(old), list(loaded))


@pytest.mark.parametrize("name", ["detr_r50", "rtdetr_r18"])
def test_detection_transformers_of_transformers(name: str) -> None:
    from transformers.core_model_loading import revert_weight_conversion

    module = reference(name)
    new = module.state_dict()
    check(list(revert_weight_conversion(module, new)), list(new))


def check(old: list[str], new: list[str]) -> None:
    """The old names become all of the new; with one rule less they are left alone."""
    old, new = ([name for name in names if not is_counter(name)] for names in (old, new))
    found = current_names(old, new)
    assert len(found) == len(set(old) - set(new)) > 3
    assert sorted(found.get(name, name) for name in old) == sorted(new)
    assert current_names(new, new) == {}
    assert current_names(old[:-1], [*new, "another"]) == {}
